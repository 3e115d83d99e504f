# The path, by plain iproute2, ipvsadm, nft and sysctl. Sourced by run.sh; the oracle, so nothing of tunproof's.
#
#   c ── r1 ── core ── rd ── d          c client, d director, s real server; the others are routers.
#               └── isp ── gw ── s

VIP=192.0.2.10 DIP=192.0.2.2 CIP=198.51.100.7 RIP=203.0.113.5 GW=203.0.113.1

for host in c r1 core rd d isp gw s; do
    eval "$host() { busybox nsenter --net=/run/netns/$host \"\$@\"; }"
done
# Under emulation a static busybox starts in 5 ms, a dynamic tool in 30 to 60.
for tool in awk cat grep sleep sort sync; do
    eval "$tool() { busybox $tool \"\$@\"; }"
done

modules() {
    modprobe -a veth ipip ip_vs ip_vs_rr nf_tables nft_ct nft_masq nft_reject_ipv4 sch_netem tcp_diag 8021q dummy ip_vs_wlc ip_vs_sh
    sysctl -qw net.ipv4.conf.default.rp_filter=0 net.ipv4.conf.all.rp_filter=0
}

build() {
    ip -batch - <<END
netns add c
netns add r1
netns add core
netns add rd
netns add d
netns add isp
netns add gw
netns add s
link add eth0 netns c type veth peer name eth0 netns r1
link add eth1 netns r1 type veth peer name eth0 netns core
link add eth1 netns core type veth peer name eth0 netns rd
link add eth1 netns rd type veth peer name eth0 netns d
link add eth2 netns core type veth peer name eth0 netns isp
link add eth1 netns isp type veth peer name eth0 netns gw
link add eth1 netns gw type veth peer name eth0 netns s
END
    host c "$CIP/24 dev eth0" <<END
route add default via 198.51.100.1
END
    host r1 "198.51.100.1/24 dev eth0" "10.0.1.1/30 dev eth1" <<END
route add default via 10.0.1.2
END
    host core "10.0.1.2/30 dev eth0" "10.0.2.1/30 dev eth1" "10.0.3.1/30 dev eth2" <<END
route add 198.51.100.0/24 via 10.0.1.1
route add 192.0.2.0/29 via 10.0.2.2
route add $VIP/32 via 10.0.2.2
route add 203.0.113.0/29 via 10.0.3.2
END
    host rd "10.0.2.2/30 dev eth0" "192.0.2.1/29 dev eth1" <<END
route add default via 10.0.2.1
route add $VIP/32 via $DIP
END
    host d "$DIP/29 dev eth0" "$VIP/32 dev lo" <<END
route add default via 192.0.2.1
END
    host isp "10.0.3.2/30 dev eth0" "10.0.4.1/30 dev eth1" <<END
route add default via 10.0.3.1
route add 203.0.113.0/29 via 10.0.4.2
END
    host gw "10.0.4.2/30 dev eth0" "$GW/29 dev eth1" <<END
route add default via 10.0.4.1
END
    # The real server as the HOWTO sets it up.
    host s "$RIP/29 dev eth0" "$VIP/32 dev tunl0" <<END
link set tunl0 up
route add default via $GW
END
    s sysctl -qw net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2
    protect s
    for host in r1 core rd isp gw; do "$host" sysctl -qw net.ipv4.ip_forward=1; done
    d ipvsadm -R <<END
-A -t $VIP:80 -s rr
-a -t $VIP:80 -r $RIP:80 -i -w 1
END
    mkdir -p /run/www
    echo hello >/run/www/index.html
    serve
    watch
}

# host NAME ADDRESS…: loopback and devices up, addresses, then the batch on stdin.
host() {
    local name=$1 address
    shift
    {
        echo "link set lo up"
        for address; do
            echo "link set ${address##* } up"
            echo "address add $address"
        done
        cat
    } | ip -n "$name" -batch -
}

# rp_filter is 0: the tunnel is for the director alone (HOWTO Q2).
protect() {
    "$1" nft -f - <<END
table ip protection {
    chain input {
        type filter hook input priority 0
        ip protocol 4 ip saddr != $DIP drop
    }
}
END
}
unprotect() { "$1" nft delete table ip protection; }

# The service on the real server, on the address named (any by default).
serve() { s busybox httpd -p "${1:-0.0.0.0}:80" -h /run/www; }
stop_serving() {
    pkill -f '^busybox httpd'
    nobody_listens s
}
# Waits until the port is free: who was killed holds it a moment longer.
nobody_listens() {
    for _ in $(busybox seq 100); do
        if [ -z "$("$1" ss -Htln 'sport = :80')" ]; then return; fi
        sleep 0.05
    done
    echo "$1: somebody still listens on port 80" >&2
}

# Counters on the routers alone: how far the kernel's own connection gets, without touching c, d and s.
watch() {
    for router in r1 core rd isp gw; do
        "$router" nft -f - <<END
table ip watch {
    counter request { }
    counter tunnel { }
    counter answer { }
    chain seen {
        type filter hook prerouting priority raw - 10
        ip saddr $CIP ip daddr $VIP tcp dport 80 counter name request
        ip protocol 4 ip daddr $RIP counter name tunnel
        ip saddr $VIP ip daddr $CIP tcp sport 80 counter name answer
    }
}
END
    done
}

# A plain HTTP request from the client, in at most so many seconds.
fetch() {
    c busybox timeout "$1" bash -c 'exec 3<>"/dev/tcp/$0/80" && printf "GET / HTTP/1.0\r\n\r\n" >&3 && grep -q hello <&3' $VIP 2>/dev/null
}

# One TCP connection from the client, tried for so many seconds each: `works`, or the last place that saw it.
connection() {
    local seconds last
    in_routers reset >/dev/null
    drop_half_open
    forget
    for seconds in $1; do
        if fetch "$seconds"; then
            echo works
            return
        fi
    done
    last=$(how_far)
    # On a busy machine the client may not have got as far as sending.
    if [ "$last" = c ]; then
        fetch 5
        last=$(how_far)
    fi
    echo "$last"
}

how_far() {
    in_routers list | awk '
        { seen[$1] = 1 }
        END {
            last = "c"
            split("r1:request core:request rd:request rd:tunnel core:tunnel isp:tunnel gw:tunnel " \
                "gw:answer isp:answer core:answer r1:answer", places, " ")
            for (i = 1; i in places; i++) if (places[i] in seen) last = places[i]
            print last
        }'
}

# `router:counter` for every counter that is not zero.
in_routers() {
    local router
    for router in r1 core rd isp gw; do
        "$router" nft "$1" counters table ip watch | busybox awk -v router=$router '
            $1 == "counter" { name = $2 }
            $1 == "packets" && $2 > 0 { print router ":" name }' &
    done
    wait
}

# The real server's neighbours, so that ARP is exercised.
forget() { ip -n s neigh flush dev $uplink; }

# The gateway knows the real server for good: a request of its own would tell the real server the gateway's address,
# whatever becomes of the answers.
known() {
    local mac
    mac=$(ip -n s -o link show $uplink)
    mac=${mac##*link/ether }
    ip -n gw neigh replace $RIP lladdr "${mac%% *}" dev eth1${uplink#eth0} nud permanent
}
unknown() { ip -n gw neigh del $RIP dev eth1${uplink#eth0}; }

# Connections of the oracle's own that wait on the real server for a client.
drop_half_open() {
    if s busybox grep -q '^ *[0-9]*: [^ ]* [^ ]* 03 ' /proc/net/tcp; then s ss -K state syn-recv >/dev/null; fi
}
