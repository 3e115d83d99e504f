#!/bin/sh
# Writes captures/*.pcap and *.pcapng: what tcpdump and dumpcap's kin write on Linux, of each link type, of
# three probes of scapy-probes.hex each (spoof-trace.3, spoof-synack.3, tunnel-udp.3; key
# 00112233445566778899aabbccddeeff). Needs root, iproute2, tcpdump 4.99, python3, wireshark-common (editcap,
# mergecap). Sends inside two namespaces of its own only.
#
#   cap-a 198.51.100.1 -- eth0 (VLAN 7 in 802.1ad 8 on it, as a veth passes them) -- cap-b 198.51.100.7
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=$here/captures
cleanup() {
    for pid in ${taps:-}; do kill "$pid" 2>/dev/null || true; done
    for ns in cap-a cap-b; do ip netns del $ns 2>/dev/null || true; done
    rm -rf "$work"
}
work=$(mktemp -d)
taps=
trap cleanup EXIT
for ns in cap-a cap-b; do
    ip netns add $ns
    ip -n $ns link set lo up
done
ip -n cap-a link add eth0 address 02:00:00:00:00:0a type veth peer name eth0 address 02:00:00:00:00:0b netns cap-b
for ns in cap-a cap-b; do
    ip netns exec $ns sysctl -qw net.ipv6.conf.all.disable_ipv6=1
    ip -n $ns link set eth0 up
done
# send NS DEVICE TAGS NAME: a packet of scapy-probes.hex as a frame, with VLAN tags such as `88a8:8,8100:7`.
send() {
    ip netns exec "$1" python3 - "$here/scapy-probes.hex" "$2" "$3" "$4" <<'END'
import socket, sys
file, device, tags, name = sys.argv[1:]
packet = bytes.fromhex(dict(line.split() for line in open(file))[name])
header = bytes.fromhex("02000000000b02000000000a")
for tag in filter(None, tags.split(",")):
    kind, number = tag.split(":")
    header += bytes.fromhex(kind) + int(number).to_bytes(2, "big")
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
raw.bind((device, 0))
raw.send((header + b"\x08\x00" if device != "tun9" else b"") + packet)
END
}
probes="spoof-trace.3 spoof-synack.3 tunnel-udp.3"
# capture FILE NS DEVICE TAGS SENDER OPTIONS…: three probes sent by SENDER while tcpdump runs.
capture() {
    file=$1 ns=$2 device=$3 tags=$4 sender=$5
    shift 5
    ip netns exec "$ns" tcpdump -U --immediate-mode -i "$device" -w "$work/$file" "$@" 2>/dev/null &
    taps=$!
    sleep 1
    for name in $probes; do send "$sender" eth0 "$tags" "$name"; done
    sleep 1
    kill $taps
    wait $taps 2>/dev/null || true
    taps=
    cp "$work/$file" "$out/$file"
}
mkdir -p "$out"
rm -f "$out"/*.pcap "$out"/*.pcapng
capture ethernet.pcap cap-b eth0 "" cap-a
capture ethernet-ns.pcap cap-b eth0 "" cap-a --time-stamp-precision=nano
capture ethernet-vlan.pcap cap-b eth0 "8100:7" cap-a
capture ethernet-qinq.pcap cap-b eth0 "88a8:8,8100:7" cap-a
capture ethernet-snap-60.pcap cap-b eth0 "" cap-a -s 60
capture sll2.pcap cap-b any "" cap-a
capture sll2-out.pcap cap-a any "" cap-a
capture sll.pcap cap-b any "" cap-a -y LINUX_SLL
# A device without a link header: tcpdump writes RAW.
ip -n cap-a tuntap add tun9 mode tun
ip -n cap-a addr add 198.51.100.1/24 dev tun9
ip netns exec cap-a python3 - <<'END' &
import fcntl, struct, time
tun = open("/dev/net/tun", "r+b", buffering=0)
fcntl.ioctl(tun, 0x400454CA, struct.pack("16sH", b"tun9", 0x1001))
time.sleep(15)
END
holder=$!
ip -n cap-a link set tun9 up
sleep 1
ip netns exec cap-a tcpdump -U --immediate-mode -i tun9 -w "$work/raw.pcap" 2>/dev/null &
taps="$! $holder"
tap=${taps% *}
sleep 1
for name in $probes; do send cap-a tun9 "" "$name"; done
sleep 1
kill $taps
wait $tap 2>/dev/null || true
taps=
cp "$work/raw.pcap" "$out/raw.pcap"
# What others write, from these: pcapng, two interfaces in one, the other RAW numbers, BSD loopback.
cd "$out"
editcap -F pcapng ethernet.pcap ethernet.pcapng
mergecap -F pcapng -I none -w two-interfaces.pcapng ethernet-ns.pcap sll2.pcap
cat ethernet.pcapng two-interfaces.pcapng > two-sections.pcapng
python3 - <<'END'
import struct
data = open("raw.pcap", "rb").read()
def rewritten(name, link_type, prefix=b"", order="<", magic=0xa1b2c3d4, first=b""):
    out = first + struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 262144, link_type)
    at = 24
    while at < len(data):
        s, u, captured, length = struct.unpack_from("<IIII", data, at)
        packet = prefix + data[at + 16 : at + 16 + captured]
        out += struct.pack(order + "IIII", s, u, len(packet), length + len(prefix)) + packet
        at += 16 + captured
    open(name, "wb").write(out)
rewritten("raw-12.pcap", 12)
rewritten("raw-14.pcap", 14)
rewritten("ipv4.pcap", 228)
rewritten("raw-big-endian.pcap", 101, order=">")
rewritten("raw-big-endian-ns.pcap", 101, order=">", magic=0xa1b23c4d)
rewritten("null.pcap", 0, prefix=struct.pack("<I", 2))
rewritten("null-big-endian.pcap", 0, prefix=struct.pack(">I", 2), order=">")
rewritten("loop.pcap", 108, prefix=struct.pack(">I", 2))
rewritten("pppoe.pcap", 1, prefix=bytes.fromhex("02000000000b02000000000a8864110000420000" + "0021"))
rewritten("radiotap.pcap", 127, prefix=bytes(40))
END
chmod 644 ./*
ls -l
