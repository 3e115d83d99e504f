# The guest's driver: builds the path once, then runs every case of cases.txt and writes what came of it to /results.
# TUNPROOF is the binary, ONLY a pattern of case names. Verdicts are not judged here: tests/guest.rs does that.
set -u
trap 'sync; busybox poweroff -f; sleep 60' EXIT
. "$GUEST/topology.sh"

# What cases.txt is written in.
conf() { "$1" sysctl -qw "net.ipv4.conf.$2"; }
rule() { "$1" nft "table $2 fault { chain fault { type $3 hook $4 priority 0; $5; } }"; }
mend() { "$1" nft delete table "$2" fault; }
destination() {
    how=$1
    shift
    d ipvsadm "$how" -t $VIP:80 -r $RIP "$@"
}
schedule() {
    d ipvsadm -A -t $VIP:80 -s rr
    destination -a -i -w 1
}
arp_quiet() {
    conf s all.arp_ignore=1
    conf s all.arp_announce=2
}
forget() { ip -n s neigh flush dev eth0; }
vip_on() {
    for device in lo tunl0; do ip -n s address del $VIP/32 dev $device 2>/dev/null; done
    ip -n s address add $VIP/32 dev "$1"
}
# A named tunnel device instead of tunl0, for outer packets from the address given.
named() {
    ip -n s -batch - <<END
link add tun1 type ipip local $RIP remote $1
link set tun1 up
address del $VIP/32 dev tunl0
link set tunl0 down
address add $VIP/32 dev tun1
END
}
unnamed() {
    ip -n s -batch - <<END
link del tun1
link set tunl0 up
address add $VIP/32 dev tunl0
END
}
netem() {
    core tc qdisc add dev eth2 root netem "$@"
    case $1 in loss) isp tc qdisc add dev eth0 root netem "$@" ;; esac
}
no_netem() {
    core tc qdisc del dev eth2 root
    isp tc qdisc del dev eth0 root 2>/dev/null
}

centiseconds() {
    read -r up _ </proc/uptime
    echo "${up%.*}${up#*.}"
}

# What must not change, whatever tunproof did and however it ended.
state() {
    for host in d s c; do
        ip -n $host -br address
        ip -n $host route
        ip -n $host rule
        $host nft list ruleset
    done
}
neighbours() { for host in d s c; do ip -n $host neigh | awk -v host=$host '/lladdr/ { print host, $1 }'; done; }
# Lines for what is still there; nothing when all is clean.
leftovers() {
    pgrep -a -x tunproof | sed 's/^/process /'
    s ss -Hnt state syn-recv | sed 's/^/syn-recv /'
    neighbours | sort >/run/neighbours.now
    comm -23 /run/neighbours.before /run/neighbours.now | sed 's/^/neighbour missing /'
    d ipvsadm -Lnc | awk 'NR > 2 && $3 ~ /ESTABLISHED|NONE/ { print "ipvs", $0 }'
}
# The state before; every host knows its neighbours. A SYN-RECV of the oracle's own is not tunproof's.
remember() {
    s ss -K state syn-recv >/dev/null 2>&1
    ip -n s neigh replace $GW lladdr "$gw_mac" nud reachable dev eth0
    neighbours | sort >/run/neighbours.before
}
# At most three seconds for what was left to go.
settle() {
    for _ in 1 2 3 4 5 6; do
        leftovers >"$1"
        [ -s "$1" ] || return 0
        sleep 0.5
    done
    leftovers >"$1"
}

# run NAME COMMAND…: a bounded run of tunproof; its report, messages, exit status, time and leftovers.
run() {
    local name=$1 begin end status
    shift
    remember
    begin=$(centiseconds)
    timeout -k 1 60 "$@" >/results/$name.json 2>/results/$name.stderr
    status=$?
    end=$(centiseconds)
    settle /results/$name.left
    echo "exit $status" >/results/$name.facts
    echo "elapsed_ms $(((end - begin) * 10))" >>/results/$name.facts
    echo "GUEST: $name exit $status in $(((end - begin) * 10)) ms"
}

path_file() {
    cat <<END
[path]
vip = "$VIP"
port = 80

[director]
ip = "$DIP"
via = "ip netns exec d"

[[realserver]]
name = "rs1"
ip = "$RIP"
via = "ip netns exec s"

[client]
ip = "$CIP"
END
}

cases() {
    grep -v -e '^#' -e '^$' "$GUEST/cases.txt" | while IFS='|' read -r name break mend vantage connection _; do
        name=${name%% *}
        vantage=$(echo $vantage)
        connection=$(echo $connection)
        echo "$name" | grep -Eq "${ONLY:-.}" || continue
        eval "$break" >/results/$name.break 2>&1
        case $vantage in both) which="with without" ;; *) which=$vantage ;; esac
        for vantage in $which; do
            run "$name.$vantage" "$TUNPROOF" verify "/run/$vantage.toml" --format json </dev/null
        done
        case $connection in
            -) ;;
            works) connection "2 3 5" >/results/$name.connection </dev/null ;;
            *) connection 1 >/results/$name.connection </dev/null ;;
        esac
        eval "$mend" >>/results/$name.break 2>&1 </dev/null
    done
}

begin=$(centiseconds)
build >/results/build 2>&1
[ "$(connection "5 5")" = works ] || echo "the healthy path does not work" >>/results/build
for host in d c gw; do $host ping -q -c 1 -W 2 $CIP >/dev/null; done
gw_mac=$(ip -n gw -br link show eth1 | awk '{ print $3 }')
path_file >/run/without.toml
{ path_file && echo 'via = "ip netns exec c"'; } >/run/with.toml
state >/run/state.before
echo "GUEST: built in $((($(centiseconds) - begin) * 10)) ms"
cases
state >/run/state.after
diff /run/state.before /run/state.after >/results/state
echo "GUEST: done"
