#!/usr/bin/python3
"""Writes scapy-probes.hex and scapy-layers.hex: what scapy makes of the fields that tests/golden.rs gives; and
scapy-suite.hex: what it makes of the lines in scapy-suite.toml.

Each line is a name and a packet in hex. Made with scapy 2.5.0. Run it only to change the goldens; the tests
need no scapy.
"""

import os
import tomllib

from scapy.all import ARP, ICMP, IP, TCP, UDP, Ether, Raw
from scapy.layers.inet import (
    IPOption, IPOption_LSRR, IPOption_NOP, IPOption_RR, IPOption_Router_Alert, IPOption_SSRR, in4_chksum)

HERE = os.path.dirname(os.path.abspath(__file__))
CIP, VIP, DIP, RIP = "198.51.100.7", "192.0.2.10", "192.0.2.2", "203.0.113.5"
GW = "203.0.113.1"
OWN = "02:00:00:00:00:01"

# The identities of the session with the key 00112233445566778899aabbccddeeff.
IDENTITY = {
    "tunnel-udp.3": dict(number=0x0803, tag=0xd699032bdb93fbac, id=0xbe3f, outer=0xf87a, checksum=0x28e8, cookie=0xdfd4d776, client_port=61472, closed_port=33498),
    "tunnel-syn.3": dict(number=0x1003, tag=0xb16c0e79d3caf2b5, id=0xe19e, outer=0xa6d0, checksum=0x692a, cookie=0xaa6a8f26, client_port=56635, closed_port=33521),
    "ipvs-loop.3": dict(number=0x1803, tag=0xf7653c49e6319425, id=0x5033, outer=0xdf5c, checksum=0x62b2, cookie=0x0f96b9f8, client_port=56870, closed_port=33472),
    "reflect.3": dict(number=0x2003, tag=0xa8fb282e67d67abd, id=0xea7c, outer=0x788e, checksum=0x5d6d, cookie=0xe09a882f, client_port=60375, closed_port=33461),
    "return-control.3": dict(number=0x2803, tag=0x38355aaec3df128c, id=0x7abb, outer=0xb456, checksum=0x695f, cookie=0xd5bd969a, client_port=57841, closed_port=33457),
    "spoof-trace.3": dict(number=0x3003, tag=0x64589ac2fa9630f1, id=0x549a, outer=0xd7db, checksum=0x79a3, cookie=0x17792023, client_port=53658, closed_port=33483),
    "control-trace.3": dict(number=0x3803, tag=0x4bb9e35beb7f51af, id=0x7794, outer=0x1a88, checksum=0xac72, cookie=0x44f80ac9, client_port=53658, closed_port=33483),
    "spoof-synack.3": dict(number=0x4003, tag=0x33f8d427c4d7a88b, id=0xef4a, outer=0xee6e, checksum=0xf990, cookie=0x5a9957ee, client_port=57296, closed_port=33474),
    "service.3": dict(number=0x4803, tag=0xe8c73821ca7f886f, id=0x02f0, outer=0x0157, checksum=0xc2ea, cookie=0xa5a31157, client_port=60123, closed_port=33490),
    "control-synack.3": dict(number=0x5003, tag=0xa145431de923aa74, id=0xb93d, outer=0x402d, checksum=0xb8e2, cookie=0xbc227302, client_port=55939, closed_port=33458),
    "tunnel-trace.3": dict(number=0x5803, tag=0x79872c99ceb35026, id=0xcda3, outer=0x13f5, checksum=0x833b, cookie=0x78b1e074, client_port=53658, closed_port=33483),
    "tunnel-control.3": dict(number=0x6003, tag=0xab4ab03ae5c61544, id=0xe541, outer=0x7060, checksum=0x633a, cookie=0x8dc7b32e, client_port=53658, closed_port=33483),
    "mtu.3": dict(number=0x6803, tag=0x74c499f92de21ed0, id=0xcac1, outer=0xc49a, checksum=0x9179, cookie=0x7300682c, client_port=61562, closed_port=33517),
    "open-tunnel.3": dict(number=0x7003, tag=0xc5551db527caf435, id=0x39c5, outer=0x9d7f, checksum=0xe4a8, cookie=0x07560167, client_port=51561, closed_port=33496),
    "reflect-syn.3": dict(number=0x7803, tag=0xbbda68272f55ce30, id=0x7ead, outer=0xd9bb, checksum=0x5b0e, cookie=0x49caf658, client_port=64289, closed_port=33511),
    "spoof-trace-to-director.3": dict(number=0x9003, tag=0x16699c283f0cf299, id=0xf278, outer=0xd015, checksum=0xab75, cookie=0x1fd9bcf3, client_port=53658, closed_port=33483),
    "control-trace-to-director.3": dict(number=0x9803, tag=0xa6e752fb09453864, id=0xaab5, outer=0xeb83, checksum=0xccc5, cookie=0x80aa5f89, client_port=53658, closed_port=33483),
    "spoof-synack-to-director.3": dict(number=0xa003, tag=0x964af56ec2570ef6, id=0x2dcb, outer=0xcd53, checksum=0xa9db, cookie=0x9dac67da, client_port=63869, closed_port=33504),
    "control-synack-to-director.3": dict(number=0xa803, tag=0x9a6f7eb1d0315785, id=0xa982, outer=0x142d, checksum=0xfd88, cookie=0x9d57f88e, client_port=56348, closed_port=33520),
}


def outer(i, src=DIP, ttl=64, flags=0):
    return IP(src=src, dst=RIP, id=i["outer"], ttl=ttl, flags=flags)


def udp(i, src, dst, dport, ttl=64, outermost=None, filled=0, flags=0):
    ip = IP(src=src, dst=dst, id=i["id"], ttl=ttl, flags=flags)
    header = UDP(sport=i["client_port"], dport=dport)
    start = i["tag"].to_bytes(8, "big") + i["number"].to_bytes(2, "big") + bytes([outermost or ttl, 0, 0, 0])
    for tuning in range(0x10000):
        load = start + tuning.to_bytes(2, "big") + bytes(filled)
        header.chksum, header.len = 0, 24 + filled
        if in4_chksum(17, IP(src=src, dst=dst), bytes(header) + load) == i["checksum"]:
            return ip / UDP(sport=i["client_port"], dport=dport) / Raw(load)
    raise SystemExit("no tuning gives the checksum")


def syn(i, src, dst):
    return IP(src=src, dst=dst, id=i["id"]) / TCP(
        sport=i["client_port"], dport=80, flags="S", seq=i["cookie"], window=64240, options=[("MSS", 1460)])


def syn_ack(i, src, dst):
    return IP(src=src, dst=dst, id=i["id"]) / TCP(
        sport=80, dport=i["client_port"], flags="SA", seq=i["tag"] & 0xffffffff, ack=i["cookie"], window=64240,
        options=[("MSS", 1460)])


def cleanup(i, src=CIP):
    return IP(src=src, dst=VIP, id=i["id"]) / TCP(
        sport=i["client_port"], dport=80, flags="R", seq=(i["cookie"] + 1) & 0xffffffff, window=0)


def probes():
    i = IDENTITY["tunnel-udp.3"]
    yield "tunnel-udp.3", outer(i) / udp(i, CIP, VIP, i["closed_port"])
    i = IDENTITY["tunnel-syn.3"]
    yield "tunnel-syn.3", outer(i) / syn(i, CIP, VIP)
    yield "cleanup-of-tunnel-syn.3", outer(i) / cleanup(i)
    i = IDENTITY["ipvs-loop.3"]
    yield "ipvs-loop.3", syn(i, CIP, VIP)
    yield "cleanup-of-ipvs-loop.3", cleanup(i)
    i = IDENTITY["reflect.3"]
    yield "reflect.3", outer(i) / udp(i, DIP, VIP, i["closed_port"])
    i = IDENTITY["return-control.3"]
    yield "return-control.3", syn_ack(i, VIP, CIP)
    i = IDENTITY["spoof-trace.3"]
    yield "spoof-trace.3", udp(i, VIP, CIP, i["closed_port"])
    yield "spoof-trace.3-ttl-1", udp(i, VIP, CIP, i["closed_port"], ttl=1)
    i = IDENTITY["control-trace.3"]
    yield "control-trace.3", udp(i, RIP, CIP, i["closed_port"])
    i = IDENTITY["spoof-synack.3"]
    yield "spoof-synack.3", syn_ack(i, VIP, CIP)
    i = IDENTITY["service.3"]
    yield "service.3", syn(i, CIP, VIP)
    yield "service.3-udp", udp(i, CIP, VIP, 80)
    i = IDENTITY["control-synack.3"]
    yield "control-synack.3", syn_ack(i, RIP, CIP)
    i = IDENTITY["tunnel-trace.3"]
    yield "tunnel-trace.3-ttl-2", outer(i, ttl=2) / udp(i, CIP, VIP, i["closed_port"], outermost=2)
    i = IDENTITY["tunnel-control.3"]
    yield "tunnel-control.3", udp(i, DIP, RIP, i["closed_port"])
    i = IDENTITY["mtu.3"]
    yield "mtu.3-of-1001", outer(i, flags="DF") / udp(i, DIP, VIP, i["closed_port"], filled=1001 - 64, flags="DF")
    i = IDENTITY["open-tunnel.3"]
    yield "open-tunnel.3", outer(i, src=CIP) / udp(i, CIP, VIP, i["closed_port"])
    i = IDENTITY["reflect-syn.3"]
    yield "reflect-syn.3", outer(i) / syn(i, DIP, VIP)
    yield "cleanup-of-reflect-syn.3", outer(i) / cleanup(i, DIP)
    i = IDENTITY["spoof-trace-to-director.3"]
    yield "spoof-trace-to-director.3-ttl-1", udp(i, VIP, DIP, i["closed_port"], ttl=1)
    i = IDENTITY["control-trace-to-director.3"]
    yield "control-trace-to-director.3", udp(i, RIP, DIP, i["closed_port"])
    i = IDENTITY["spoof-synack-to-director.3"]
    yield "spoof-synack-to-director.3", syn_ack(i, VIP, DIP)
    i = IDENTITY["control-synack-to-director.3"]
    yield "control-synack-to-director.3", syn_ack(i, RIP, DIP)


def layers():
    a, b = "192.0.2.1", "198.51.100.2"
    ip = IP(src=a, dst=b, id=0x1234, ttl=33, tos=0xb9)
    quoted = IP(src=b, dst=a, id=0x4321, ttl=1) / UDP(sport=50000, dport=33434) / Raw(b"sixteen octets!!")
    yield "ip-options", IP(src=a, dst=b, id=1, options=[IPOption_Router_Alert()]) / UDP(sport=1, dport=2) / Raw(b"odd")
    yield "udp-no-checksum", ip / UDP(sport=53, dport=5353, chksum=0) / Raw(b"abc")
    yield "udp-zero-becomes-ffff", IP(src=a, dst=b, id=1) / UDP(sport=0x1111, dport=0x2222) / Raw(zero_sum(a, b))
    yield "tcp-options", ip / TCP(
        sport=4000, dport=80, flags="SEC", seq=0xfffffffe, window=64240, urgptr=7,
        options=[("MSS", 1460), ("SAckOK", b""), ("Timestamp", (1, 2)), ("NOP", None), ("WScale", 7)]) / Raw(b"odd")
    yield "icmp-echo", ip / ICMP(type=8, id=0x77, seq=5) / Raw(b"ping!")
    yield "icmp-error", IP(src=a, dst=b, id=2, flags="DF") / ICMP(type=3, code=3) / Raw(bytes(quoted))
    yield "icmp-minimal-quote", IP(src=a, dst=b, id=3) / ICMP(type=11, code=0) / Raw(bytes(quoted)[:28])
    yield "ipip-of-ipip", IP(src=a, dst=b, id=4) / IP(src=b, dst=a, id=5, frag=0, flags="MF") / ip / UDP(sport=1, dport=2)
    yield "forced", IP(src=a, dst=b, id=6, version=7, ihl=15, len=9, proto=99, chksum=0xdead) / UDP(
        sport=1, dport=2, len=3, chksum=0xbeef) / Raw(b"x")
    yield "arp", Ether(src="02:00:00:00:00:01", dst="ff:ff:ff:ff:ff:ff") / ARP(
        op=1, hwsrc="02:00:00:00:00:01", psrc=a, hwdst="ff:ff:ff:ff:ff:ff", pdst=b)
    yield "arp-announces-nobody", Ether(src="02:00:00:00:00:01", dst="ff:ff:ff:ff:ff:ff") / ARP(
        op=1, hwsrc="02:00:00:00:00:01", psrc="0.0.0.0", hwdst="ff:ff:ff:ff:ff:ff", pdst=b)
    yield "ethernet-ip", Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / ip / ICMP(type=8)


def zero_sum(a, b):
    for tuning in range(0x10000):
        load = tuning.to_bytes(2, "big")
        header = UDP(sport=0x1111, dport=0x2222, len=10, chksum=0)
        # scapy's in4_chksum gives the plain sum; a computed zero is what the packet must not carry.
        if in4_chksum(17, IP(src=a, dst=b), bytes(header) + load) in (0, 0xffff):
            return load
    raise SystemExit("no payload sums to zero")


def suite():
    with open(os.path.join(HERE, "scapy-suite.toml"), "rb") as file:
        for step in tomllib.load(file)["step"]:
            yield step["id"], eval(step["about"])


for name, packets in (
    ("scapy-probes.hex", probes()), ("scapy-layers.hex", layers()), ("scapy-suite.hex", suite()),
):
    with open(os.path.join(HERE, name), "w") as file:
        for label, packet in packets:
            file.write(f"{label} {bytes(packet).hex()}\n")
