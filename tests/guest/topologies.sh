# What cases.txt's topologies are set up and taken down by. Each alters the path of topology.sh and puts it back as it
# was. `uplink` is the real server's device to its gateway, `paths` the path files' prefix.

uplink=eth0 paths=

# Director and real server on tagged devices, each with its router.
vlan_up() {
    local end
    for end in "rd eth1 192.0.2.1/29" "d eth0 $DIP/29" "gw eth1 $GW/29" "s eth0 $RIP/29"; do
        set -- $end
        ip -n "$1" -batch - <<END
address del $3 dev $2
link add link $2 name $2.5 type vlan id 5
link set $2.5 up
address add $3 dev $2.5
END
    done
    uplink=eth0.5
    gateways
}
vlan_down() {
    local end
    for end in "rd eth1 192.0.2.1/29" "d eth0 $DIP/29" "gw eth1 $GW/29" "s eth0 $RIP/29"; do
        set -- $end
        ip -n "$1" -batch - <<END
link del $2.5
address add $3 dev $2
END
    done
    uplink=eth0
    gateways
}
# The routes that go with an address.
gateways() {
    ip -n rd route replace $VIP/32 via $DIP
    ip -n d route replace default via 192.0.2.1
    ip -n s route replace default via $GW
}

# A second real server, behind the same gateway.
RIP2=203.0.113.13
s2() { busybox nsenter --net=/run/netns/s2 "$@"; }
two_up() {
    local vantage
    ip -batch - <<END
netns add s2
link add eth2 netns gw type veth peer name eth0 netns s2
END
    host gw "203.0.113.9/29 dev eth2" </dev/null
    host s2 "$RIP2/29 dev eth0" "$VIP/32 dev tunl0" <<END
link set tunl0 up
route add default via 203.0.113.9
END
    protect s2
    ip -n isp route add 203.0.113.8/29 via 10.0.4.2
    ip -n core route add 203.0.113.8/29 via 10.0.3.2
    serve_second
    d ipvsadm -a -t $VIP:80 -r $RIP2 -i -w 1
    paths=two-
    for vantage in with without; do
        {
            cat /run/$vantage.toml
            printf '[[realserver]]\nname = "rs2"\nip = "%s"\nvia = "ip netns exec s2"\n' $RIP2
        } >/run/two-$vantage.toml
    done
}
two_down() {
    d ipvsadm -d -t $VIP:80 -r $RIP2
    ip netns pids s2 | xargs -r kill
    ip netns del s2
    ip -n isp route del 203.0.113.8/29
    ip -n core route del 203.0.113.8/29
    paths=
}
serve_second() { s2 busybox httpd -p 0.0.0.0:80 -h /run/www; }
stop_second() {
    ip netns pids s2 | xargs -r kill
    nobody_listens s2
}

# A second VIP with another port, and the first VIP on that port, too.
VIP2=192.0.2.11
services_up() {
    local vantage
    ip -n core route add $VIP2/32 via 10.0.2.2
    ip -n rd route add $VIP2/32 via $DIP
    ip -n d address add $VIP2/32 dev lo
    ip -n s address add $VIP2/32 dev tunl0
    s busybox httpd -p 0.0.0.0:8080 -h /run/www
    d ipvsadm -R <<END
-A -t $VIP2:8080 -s wlc
-a -t $VIP2:8080 -r $RIP:8080 -i -w 1
-A -t $VIP:8080 -s sh
-a -t $VIP:8080 -r $RIP:8080 -i -w 1
END
    paths=second-
    for vantage in with without; do
        busybox sed "s/^vip = .*/vip = \"$VIP2\"/; s/^port = .*/port = 8080/" /run/$vantage.toml >/run/second-$vantage.toml
    done
}
services_down() {
    d ipvsadm -D -t $VIP2:8080
    d ipvsadm -D -t $VIP:8080
    stop_serving
    serve
    ip -n d address del $VIP2/32 dev lo
    ip -n s address del $VIP2/32 dev tunl0
    ip -n rd route del $VIP2/32
    ip -n core route del $VIP2/32
    paths=
}

# Two more routers between isp and core, and a third beside the first of them:
# s - gw (1) - isp (2) - t1 or t1b (3) - t2 (4) - core (5) - r1 (6) - c (7).
t1() { busybox nsenter --net=/run/netns/t1 "$@"; }
t1b() { busybox nsenter --net=/run/netns/t1b "$@"; }
t2() { busybox nsenter --net=/run/netns/t2 "$@"; }
long_up() {
    local router
    ip -n isp link del eth0
    ip -batch - <<END
netns add t1
netns add t1b
netns add t2
link add eth2 netns core type veth peer name eth0 netns t2
link add eth1 netns t2 type veth peer name eth0 netns t1
link add eth2 netns t2 type veth peer name eth0 netns t1b
link add eth1 netns t1 type veth peer name eth0 netns isp
link add eth1 netns t1b type veth peer name eth2 netns isp
END
    host core "10.0.3.1/30 dev eth2" <<END
route add 203.0.113.0/29 via 10.0.3.2
route add 10.0.4.0/22 via 10.0.3.2
route add 10.0.8.0/22 via 10.0.3.2
END
    host t2 "10.0.3.2/30 dev eth0" "10.0.6.1/30 dev eth1" "10.0.8.1/30 dev eth2" <<END
route add default via 10.0.3.1
route add 203.0.113.0/29 via 10.0.6.2
route add 10.0.4.0/23 via 10.0.6.2
END
    host t1 "10.0.6.2/30 dev eth0" "10.0.5.1/30 dev eth1" <<END
route add default via 10.0.6.1
route add 203.0.113.0/29 via 10.0.5.2
route add 10.0.4.0/30 via 10.0.5.2
END
    host t1b "10.0.8.2/30 dev eth0" "10.0.9.1/30 dev eth1" <<END
route add default via 10.0.8.1
route add 203.0.113.0/29 via 10.0.9.2
route add 10.0.4.0/30 via 10.0.9.2
END
    host isp "10.0.5.2/30 dev eth0" "10.0.9.2/30 dev eth2" <<END
route add default via 10.0.5.1
END
    for router in t1 t1b t2; do $router sysctl -qw net.ipv4.ip_forward=1; done
    isp sysctl -qw net.ipv4.fib_multipath_hash_policy=1
}
long_down() {
    ip netns del t1
    ip netns del t1b
    ip netns del t2
    ip -n core link del eth2 2>/dev/null
    ip -n isp link del eth0 2>/dev/null
    ip -n isp link del eth2 2>/dev/null
    ip link add eth2 netns core type veth peer name eth0 netns isp
    host core "10.0.3.1/30 dev eth2" <<END
route add 203.0.113.0/29 via 10.0.3.2
END
    host isp "10.0.3.2/30 dev eth0" <<END
route add default via 10.0.3.1
END
}
equal_paths() { ip -n isp route replace default nexthop via 10.0.5.1 nexthop via 10.0.9.1; }
one_path() { ip -n isp route replace default via 10.0.5.1; }
