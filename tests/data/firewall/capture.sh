#!/bin/sh
# Makes the listings beside this file, in a network namespace of its own: root, nftables, iptables.
set -eu
cd "$(dirname "$0")"
name=tunproof-firewall-$$
ip netns add "$name"
trap 'ip netns del "$name"' EXIT
in_ns() { ip netns exec "$name" "$@"; }
in_ns nft -f - <<END
table inet filter {
    set bad { type ipv4_addr; elements = { 10.0.0.1, 10.0.0.2 }; }
    chain service {
        ip saddr 198.51.100.0/24 counter packets 7 bytes 420 drop
    }
    chain input {
        type filter hook input priority 0; policy drop;
        ct state invalid drop
        ct state vmap { established : accept, related : accept, invalid : drop }
        meta l4proto ipencap counter packets 5 bytes 300 reject
        ip protocol 4 accept
        iifname "tun*" tcp dport { 81, 443-500 } drop
        tcp dport 80 jump service
        ip saddr @bad drop
        ip saddr { 10.0.0.0/8, 192.168.0.1-192.168.0.9, 10.1.0.0-10.1.0.9, 172.16.0.0/12, 169.254.0.0/16, 100.64.0.0/10, 198.18.0.0/15 } drop
        ip daddr != 192.0.2.10 log prefix "other" drop comment "only the VIP"
        meta nfproto ipv6 drop
        tcp flags & (syn|ack) == syn limit rate 3/second accept
        udp dport 33434-65535 reject
        iifname "eth0" drop
        iifname "tunl0" accept
    }
    chain output {
        type filter hook output priority 0; policy accept;
        oifname "eth0" ip saddr 192.0.2.10 ip protocol { tcp, udp } drop
    }
}
table netdev early {
    chain in {
        type filter hook ingress device "lo" priority -500;
        ip protocol 4 ip saddr 192.0.2.2 counter packets 3 bytes 200 drop
    }
}
table arp a {
    chain in {
        type filter hook input priority 0;
        arp operation request drop
    }
}
END
for kind in nft legacy; do
    in_ns iptables-$kind -N service
    in_ns iptables-$kind -A service -s 198.51.100.0/24 -j DROP -m comment --comment "not these"
    in_ns iptables-$kind -A INPUT -m conntrack --ctstate INVALID -j DROP
    in_ns iptables-$kind -A INPUT -p 4 -s 192.0.2.2 -j ACCEPT
    in_ns iptables-$kind -A INPUT -i tunl0 -p tcp -m multiport --dports 80,443 -j service
    in_ns iptables-$kind -A INPUT ! -d 192.0.2.10/32 -i tun+ -j REJECT --reject-with icmp-admin-prohibited
    in_ns iptables-$kind -A INPUT -c 12 720 -p udp -m udp --dport 33434:65535 -j DROP
    in_ns iptables-$kind -P INPUT DROP
    in_ns iptables-$kind -t raw -A OUTPUT -p 4 -d 203.0.113.5 -j DROP
done
in_ns nft -j -t -p list ruleset | python3 -m json.tool >nft.json
in_ns nft -a -t -p list ruleset >nft.txt
in_ns iptables-nft-save -c >iptables-nft.txt
in_ns iptables-legacy-save -c >iptables-legacy.txt
