#!/bin/sh
# Writes kernel-answers.pcap: what Linux answers to the packets of scapy-probes.hex, seen by tcpdump on the
# real server's link. Needs root, iproute2, tcpdump, python3. Made on Linux 6.18 without ipip, whose real
# server therefore answers IPIP with protocol unreachable.
#
#   wire-c (client 198.51.100.7, director 192.0.2.2) -- wire-r (router) -- wire-s (RIP 203.0.113.5, VIP 192.0.2.10)
set -eu
here=$(cd "$(dirname "$0")" && pwd)
capture=$(mktemp)
cleanup() {
    for pid in ${tap:-} ${service:-}; do kill "$pid" 2>/dev/null || true; done
    for ns in wire-c wire-r wire-s; do ip netns del $ns 2>/dev/null || true; done
    rm -f "$capture"
}
trap cleanup EXIT
for ns in wire-c wire-r wire-s; do
    ip netns add $ns
    ip -n $ns link set lo up
    ip netns exec $ns sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0
done
ip -n wire-r link add c type veth peer name eth0 netns wire-c
ip -n wire-r link add s type veth peer name eth0 netns wire-s
ip -n wire-c addr add 198.51.100.7/24 dev eth0
ip -n wire-c addr add 192.0.2.2/32 dev lo
ip -n wire-r addr add 198.51.100.1/24 dev c
ip -n wire-r addr add 203.0.113.1/24 dev s
ip -n wire-s addr add 203.0.113.5/24 dev eth0
ip -n wire-s addr add 192.0.2.10/32 dev lo
for end in wire-c:eth0 wire-r:c wire-r:s wire-s:eth0; do ip -n "${end%:*}" link set "${end#*:}" up; done
ip -n wire-c route add default via 198.51.100.1
ip -n wire-s route add default via 203.0.113.1
ip -n wire-r route add 192.0.2.2/32 via 198.51.100.7
ip -n wire-r route add 192.0.2.10/32 via 203.0.113.5
ip netns exec wire-r sysctl -qw net.ipv4.ip_forward=1
# Offload would leave checksums of the kernel's own segments unfinished in the capture.
for end in wire-c:eth0 wire-r:c wire-r:s wire-s:eth0; do
    ip netns exec "${end%:*}" ethtool -K "${end#*:}" tx off >/dev/null 2>&1 || true
done
ip netns exec wire-s tcpdump -i eth0 -U -w "$capture" ip 2>/dev/null &
tap=$!
sleep 2
# send HOST NAME [SKIP [TTL]]: a packet of scapy-probes.hex without its first SKIP octets.
send() {
    ip netns exec "$1" python3 - "$here/scapy-probes.hex" "$2" "${3:-0}" "${4:-64}" <<'END'
import socket, sys
file, name, skip, ttl = sys.argv[1:]
packet = bytearray.fromhex(dict(line.split() for line in open(file))[name])[int(skip):]
packet[8] = int(ttl)
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
raw.sendto(packet, (socket.inet_ntoa(packet[16:20]), 0))
END
    sleep 0.2
}
send wire-c service.3            # nobody listens yet
ip netns exec wire-s timeout 20 python3 -c '
import socket, time
listener = socket.create_server(("192.0.2.10", 80))
time.sleep(20)' &
service=$!
sleep 1
send wire-c tunnel-udp.3         # no ipip: protocol unreachable
send wire-c tunnel-udp.3 20      # decapsulated: port unreachable
send wire-c tunnel-syn.3 20      # SYN-ACK, RST
send wire-c cleanup-of-tunnel-syn.3 20
send wire-s spoof-trace.3        # port unreachable to the VIP
send wire-s spoof-trace.3-ttl-1 0 1
send wire-s spoof-synack.3       # RST to the VIP
send wire-s control-synack.3
send wire-s control-trace.3
sleep 1
kill $tap; wait $tap 2>/dev/null || true; tap=
cp "$capture" "$here/kernel-answers.pcap"
chmod 644 "$here/kernel-answers.pcap"
