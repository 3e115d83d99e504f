# The kernel's own packets, for tests/data: its ipip output, and its answers. Run by `ONLY=goldens`.
build

capture() { # HOST FILTER FILE [DIRECTION]
    $1 tcpdump -Q "${4:-in}" -U -n -s 0 -i eth0 -w "/results/$3" "$2" 2>/dev/null &
}
craft() { # HOST PYTHON
    "$1" /usr/bin/python3 -c "
from scapy.all import IP, TCP, UDP, Raw, send, conf
import time
conf.verb = 0
vip, dip, cip, rip = '$VIP', '$DIP', '$CIP', '$RIP'
$2"
}

# No checksum left to a device: what is captured is what would be on a wire.
for host in c d s; do
    $host /usr/bin/python3 -c "
import array, fcntl, socket, struct
off = array.array('I', [0x17, 0])  # ETHTOOL_STXCSUM
fcntl.ioctl(socket.socket(), 0x8946, struct.pack('16sP', b'eth0', off.buffer_info()[0]))"
done

# Encapsulated by the kernel, at the director's egress: an ipip device with its defaults, one that does not
# set DF, one with a time to live and a type of service of its own, then IPVS.
capture d 'ip proto 4' kernel-ipip.pcap out
sleep 3
ip -n d -batch - <<END
link add t1 type ipip local $DIP remote $RIP
link set t1 up
route add 192.0.2.20/32 dev t1
link add t2 type ipip local $DIP remote 203.0.113.6 nopmtudisc
link set t2 up
route add 192.0.2.21/32 dev t2
link add t3 type ipip local $DIP remote 203.0.113.7 ttl 33 tos 0x10
link set t3 up
route add 192.0.2.22/32 dev t3
END
for to in 192.0.2.20 192.0.2.21 192.0.2.22; do
    d busybox timeout 1 bash -c "exec 3<>/dev/tcp/$to/80"
    d bash -c "echo through an ipip device >/dev/udp/$to/53"
done
ip -n d -batch - <<END
link del t1
link del t2
link del t3
END
fetch 5
d ipvsadm -A -u $VIP:53 -s rr
d ipvsadm -a -u $VIP:53 -r $RIP -i -w 1
c bash -c "echo through IPVS >/dev/udp/$VIP/53"
sleep 2
pkill tcpdump
wait

# Answers, as each host receives them (the probes too, where they arrive at the real server).
for host in c d s; do capture $host ip answers-$host.pcap; done
sleep 3
craft d "
def tunnel(inner, **outer):
    send(IP(src=dip, dst=rip, **outer) / inner)
    time.sleep(0.3)
tunnel(IP(src=cip, dst=vip, id=0x1001) / TCP(sport=40001, dport=80, seq=0x11223344, flags='S'), id=0x2001)
tunnel(IP(src=cip, dst=vip, id=0x1002) / TCP(sport=40001, dport=80, seq=0x11223345, flags='R'), id=0x2002)
tunnel(IP(src=cip, dst=vip, id=0x1003) / TCP(sport=40002, dport=81, seq=0x55667788, flags='S'), id=0x2003)
tunnel(IP(src=cip, dst=vip, id=0x1004) / UDP(sport=40003, dport=33434) / Raw(b'closed port'), id=0x2004)
tunnel(IP(src=dip, dst=vip, id=0x1005) / UDP(sport=40004, dport=33434) / Raw(b'reflected'), id=0x2005)
for ttl in 1, 2, 3, 4:
    tunnel(IP(src=cip, dst=vip, id=0x1010 + ttl) / UDP(sport=40005, dport=33434) / Raw(bytes(600)), id=0x2010 + ttl, ttl=ttl)
"
craft s "
def spoof(packet):
    send(packet)
    time.sleep(0.3)
for ttl in 1, 2, 3, 4, 64:
    spoof(IP(src=vip, dst=cip, id=0x3000 + ttl, ttl=ttl) / UDP(sport=40006, dport=33434) / Raw(b'spoofed trace'))
spoof(IP(src=vip, dst=cip, id=0x3100) / TCP(sport=80, dport=40007, seq=0x01020304, ack=0xa1b2c3d4, flags='SA'))
"
ip -n s link set tunl0 down
craft d "send(IP(src=dip, dst=rip, id=0x2101) / IP(src=cip, dst=vip, id=0x1101) / UDP(sport=40008, dport=33434) / Raw(b'tunl0 is down'))"
modprobe -r ipip
craft d "send(IP(src=dip, dst=rip, id=0x2102) / IP(src=cip, dst=vip, id=0x1102) / UDP(sport=40009, dport=33434) / Raw(b'no ipip'))"
sleep 2
pkill tcpdump
wait
mergecap -F pcap -w /results/guest-answers.pcap /results/answers-c.pcap /results/answers-d.pcap /results/answers-s.pcap
uname -rv >/results/kernel
