# The guest's driver: runs every case of cases.txt and writes what came of it to /results. A run is mostly waiting,
# so two lanes share the cases, each with a path of its own: same names and addresses, own namespaces of processes,
# mounts (/run/netns) and networks. Verdicts are not judged here: main.rs does that.
#
# TUNPROOF is the binary, ONLY a pattern of case names, LANE the lane; without LANE this is the guest's process 1.
set -u
. "$GUEST/topology.sh"
. "$GUEST/topologies.sh"

if [ -z "${LANE:-}" ]; then
    trap 'sync; busybox poweroff -f; sleep 60' EXIT
    modules
    for LANE in 0 1; do
        export LANE
        unshare --mount --pid --fork --mount-proc sh "$0" &
    done
    wait
    cat /results/done.0 /results/done.1 && echo "GUEST: done"
    exit
fi
mount -t tmpfs run /run

# What cases.txt is written in.
conf() { "$1" sysctl -qw "net.ipv4.conf.$2"; }
rule() {
    "$1" nft -f - <<END
table $2 fault {
    chain fault {
        type $3 hook $4 priority 0
        $5
    }
}
END
}
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
# The director's route prefers an address that it no longer has; it must be its own while the route is made.
stale_source() {
    ip -n d -batch - <<END
route add local $1 dev lo
route add $RIP via 192.0.2.1 src $1
route del local $1 dev lo
END
}
# A listener that accepts nothing, its queue full. No child of this shell, which waits for all of its own.
serve_nobody() {
    cat >/run/nobody.py <<END
import os, socket, time
open("/run/nobody.pid", "w").write(str(os.getpid()))
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("0.0.0.0", 80))
listener.listen(0)
waiting = socket.create_connection(("$RIP", 80))
time.sleep(900)
END
    (busybox nsenter --net=/run/netns/s python3 /run/nobody.py </dev/null >/dev/null 2>&1 &)
    for _ in $(busybox seq 100); do
        if s ss -Htln 'sport = :80' | busybox awk '$2 > 0 { full = 1 } END { exit !full }'; then break; fi
        sleep 0.2
    done
}
stop_nobody() {
    kill -9 "$(cat /run/nobody.pid)"
    nobody_listens s
}
arp_quiet() {
    conf s all.arp_ignore=1
    conf s all.arp_announce=2
}
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
# A link behind core that takes 1400 octets, for what goes to the real server, and nobody says so.
narrow_in_silence() {
    ip -n core route add $RIP via 10.0.3.2 mtu lock 1400
    rule core ip filter output 'icmp type destination-unreachable icmp code 4 drop'
}
wide() {
    ip -n core route del $RIP
    mend core ip
}
# By their paths, for busybox has a `tc` of its own.
netem() {
    core "$(command -v tc)" qdisc add dev eth2 root netem "$@"
    if [ "$1" != delay ]; then isp "$(command -v tc)" qdisc add dev eth0 root netem "$@"; fi
}
no_netem() {
    core "$(command -v tc)" qdisc del dev eth2 root
    isp "$(command -v tc)" qdisc del dev eth0 root 2>/dev/null
}

# The clock is set forward by an hour and back again, more often than a second, until it is let be. No child of this
# shell, which waits for all of its own.
step_clock() {
    touch /run/stepping
    cat >/run/step.sh <<'END'
set_by() { busybox date -s "@$(($(busybox date +%s) + $1))" >/dev/null; }
while [ -e /run/stepping ]; do
    set_by "$1"
    sleep 0.3
    set_by "$((-$1))"
    sleep 0.3
done
rm /run/step.sh
END
    (sh /run/step.sh "$1" </dev/null >/dev/null 2>&1 &)
}
let_clock_be() {
    rm /run/stepping
    for _ in $(busybox seq 100); do
        [ -e /run/step.sh ] || return 0
        sleep 0.2
    done
    return 1
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
neighbours() { for host in d s c; do $host busybox awk -v host=$host '$3 == "0x2" { print host, $1 }' /proc/net/arp; done; }
# Lines for what is still there; nothing when all is clean.
leftovers() {
    for process in $(busybox pidof tunproof); do
        echo "process $process $(busybox tr '\0' ' ' <"/proc/$process/cmdline")"
    done
    s busybox awk '$4 == "03" { print "syn-recv", $2, $3 }' /proc/net/tcp
    neighbours >/run/neighbours.now
    grep -vxFf /run/neighbours.now /run/neighbours.before | busybox sed 's/^/neighbour missing: /'
    d busybox awk '$8 ~ /ESTABLISHED|NONE/ { print "ipvs", $0 }' /proc/net/ip_vs_conn
}
# The state before; every host knows its neighbours. A SYN-RECV of the oracle's own is not tunproof's.
remember() {
    drop_half_open
    neighbours >/run/neighbours.before
    if ! grep -q "^s $GW$" /run/neighbours.before; then
        ip -n s neigh replace $GW lladdr "$gw_mac" nud reachable dev $uplink
        echo "s $GW" >>/run/neighbours.before
    fi
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

# launch NAME COMMAND…: a bounded run; its report, messages, exit status and time.
launch() {
    local name=$1 begin status elapsed
    shift
    begin=$(centiseconds)
    command timeout 90 "$@" >/results/$name.json 2>/results/$name.stderr </dev/null
    status=$?
    elapsed=$((($(centiseconds) - begin) * 10))
    facts "$name" $status $elapsed
}
facts() {
    printf 'exit %s\nelapsed_ms %s\n' "$2" "$3" >/results/$1.facts
    echo "GUEST: $1: exit $2 in $3 ms"
}
# run NAME COMMAND…: the same, and what it left.
run() {
    remember
    launch "$@"
    settle "/results/$1.left"
}

# verify NAME PATH.toml OPTION…: a run of the whole proof, which keeps its case: main.rs judges it again.
verify() {
    local name=$1
    shift
    run "$name" "$TUNPROOF" verify "$@" --format json --save "/results/$name.case.json"
}

wanted() { echo "$1" | grep -Eq "${ONLY:-.}"; }

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
    grep -v -e '^#' -e '^$' "$GUEST/cases.txt" | {
        turn=0
        set_up=:
        take_down=:
        undo=:
        while IFS='|' read -r name break mend vantage connection _; do
            # A topology is set up for the first of its cases that is wanted.
            if [ "${name%% *}" = topology ]; then
                set_up=$break
                take_down=$mend
                continue
            fi
            name=${name%% *}
            vantage=$(echo $vantage)
            connection=$(echo $connection)
            wanted "$name" || continue
            turn=$((turn + 1))
            [ $((turn % 2)) = "$LANE" ] || continue
            if [ -n "$set_up" ]; then
                eval "$undo; $set_up" </dev/null
                undo=$take_down
                set_up=
            fi >>/results/topologies.$LANE 2>&1
            eval "$break" >/results/$name.break 2>&1 </dev/null
            case $vantage in both) which="with without" ;; *) which=$vantage ;; esac
            for vantage in $which; do
                verify "$name.$vantage" "/run/$paths$vantage.toml"
            done
            case $connection in
                -) ;;
                works) connection "2 3 5" >/results/$name.connection </dev/null ;;
                *) connection 1 >/results/$name.connection </dev/null ;;
            esac
            eval "$mend" >>/results/$name.break 2>&1 </dev/null
        done
        eval "$undo" >>/results/topologies.$LANE 2>&1 </dev/null
    }
}

# What stopped the packets on a host: the lines of causes.txt whose names begin so, in the lanes named.
causes() {
    local begin=$1 lanes=$2
    turn=0
    grep "^$begin-" "$GUEST/causes.txt" | while IFS='|' read -r name break mend _; do
        name=${name%% *}
        wanted "$name" || continue
        turn=$((turn + 1))
        [ "$lanes" = 1 ] || [ $((turn % 2)) = "$LANE" ] || continue
        eval "$break" >/results/$name.break 2>&1 </dev/null
        verify "$name" /run/with.toml -v --timeout 60s
        eval "$mend" >>/results/$name.break 2>&1 </dev/null
    done
}

# The suites of suites.txt, by `tunproof run`.
suites() {
    turn=0
    grep '^suite-' "$GUEST/suites.txt" | while IFS='|' read -r name break mend suite _; do
        name=${name%% *}
        wanted "$name" || continue
        turn=$((turn + 1))
        [ $((turn % 2)) = "$LANE" ] || continue
        eval "$break" >/results/$name.break 2>&1 </dev/null
        run "$name" "$TUNPROOF" run $suite --path /run/with.toml --format json --save "/results/$name.case.json"
        eval "$mend" >>/results/$name.break 2>&1 </dev/null
    done
}
s_tc() { s "$(command -v tc)" "$@"; }

# `tunproof spoofcheck` on a longer path: the lines of spoof.txt.
spoofing() {
    turn=0
    set_up=long_up
    grep -v -e '^#' -e '^$' "$GUEST/spoof.txt" | {
        while IFS='|' read -r name break mend _; do
            name=${name%% *}
            wanted "$name" || continue
            turn=$((turn + 1))
            [ $((turn % 2)) = "$LANE" ] || continue
            $set_up >>/results/topologies.$LANE 2>&1 </dev/null
            set_up=:
            eval "$break" >/results/$name.break 2>&1 </dev/null
            witnesses=/run/ asked=client
            case $name in toward-director-*) witnesses=/run/director- asked=director ;; esac
            for vantage in with without; do
                run "$name.$vantage" "$TUNPROOF" spoofcheck "$witnesses$vantage.toml" --toward $asked --passes 2 --format json
            done
            eval "$mend" >>/results/$name.break 2>&1 </dev/null
        done
        [ $set_up = long_up ] || long_down >>/results/topologies.$LANE 2>&1 </dev/null
    }
}

# kill -9 of the real server's agent while the drop monitor is on: the unit test behind it finds it off.
killed_while_watching() {
    wanted drop-killed || wanted unit || return
    conf s tunl0.rp_filter=1
    "$TUNPROOF" verify /run/with.toml --format json --timeout 40s >/results/drop-killed.json 2>/results/drop-killed.stderr </dev/null &
    controller=$!
    sleep 8
    for process in $(busybox pidof tunproof); do
        if [ "$(readlink "/proc/$process/ns/net")" = "$(readlink /proc/1/ns/net)" ] &&
            grep -qa agent "/proc/$process/cmdline" && ! grep -qa janitor "/proc/$process/cmdline"; then
            kill -9 "$process"
        fi
    done
    wait $controller
    facts drop-killed $? 0
    conf s tunl0.rp_filter=0
    settle /results/drop-killed.left
}

# The real server moves to the initial network namespace; the other hosts stay.
drop_reasons() {
    wanted drop-healthy || wanted drop-killed || wanted unit || wanted drop-rp-filter || wanted drop-nft || wanted drop-tc || return
    modprobe drop_monitor
    ip netns pids s | xargs -r kill
    ip netns del s
    ip -n gw link del eth1 2>/dev/null
    ip netns attach s 1
    ip link add eth1 netns gw type veth peer name eth0 netns s
    host gw "$GW/29 dev eth1" </dev/null
    host s "$RIP/29 dev eth0" "$VIP/32 dev tunl0" <<END
link set tunl0 up
route add default via $GW
END
    arp_quiet
    serve
    gw_mac=$(ip -n gw -br link show eth1 | awk '{ print $3 }')
    killed_while_watching
    if [ -n "$UNIT" ]; then
        "$UNIT" --ignored live::drops >/results/unit-drops 2>&1 </dev/null
    fi
    verify drop-healthy /run/with.toml
    causes drop 1
    stop_serving
}

# The single-host commands, with no connection between the two hosts.
single_hosts() {
    wanted single-host || return
    run director ip netns exec d "$TUNPROOF" director --vip $VIP --port 80 --rip $RIP --cip $CIP --format json
    remember
    session=00112233445566778899aabbccddeeff
    launch listen ip netns exec d "$TUNPROOF" listen --session $session --vip $VIP --cip $CIP --for 10s --format json &
    sleep 1
    launch realserver ip netns exec s "$TUNPROOF" realserver --vip $VIP --port 80 --cip $CIP --session $session --format json
    wait
    settle /results/realserver.left
}

# tunproof's own lab, which takes the kernel's ipip and IPVS where they are.
own_lab() {
    wanted own-lab || return
    run own-lab "$TUNPROOF" lab demo
}

# The unit tests that need this kernel.
units() {
    wanted unit && [ -n "$UNIT" ] || return
    "$UNIT" --ignored --test-threads=1 --skip live::drops live:: >/results/unit 2>&1 </dev/null
    facts unit $? 0
}

# kill -9 at a few moments of a healthy run: nobody gets to tidy up.
killings() {
    wanted kill || return
    remember
    launch kill.none "$TUNPROOF" verify /run/with.toml --format json
    whole=$(awk '/elapsed_ms/ { print $2 }' /results/kill.none.facts)
    for share in 10 30 55; do
        for victim in controller d s; do
            name=kill.$victim.$share
            remember
            begin=$(centiseconds)
            "$TUNPROOF" verify /run/with.toml --format json >/results/$name.json 2>/results/$name.stderr </dev/null &
            controller=$!
            sleep "$(awk "BEGIN { print $whole * $share / 100000 }")"
            case $victim in
                controller) target=$controller ;;
                *) target=$(ip netns pids $victim | sort -n | while read -r process; do
                    if grep -q tunproof "/proc/$process/comm"; then echo "$process"; break; fi
                done) ;;
            esac
            kill -9 $target 2>/results/$name.kill || echo "nothing to kill" >>/results/$name.kill
            settle /results/$name.left
            timeout 60 sh -c "while [ -e /proc/$controller/exe ]; do sleep 0.1; done"
            wait $controller
            facts $name $? $((($(centiseconds) - begin) * 10))
        done
    done
}

if [ "${ONLY:-}" = goldens ]; then
    [ "$LANE" = 1 ] || . "$GUEST/goldens.sh"
    : >/results/state.$LANE
    : >/results/build.$LANE
    : >/results/topologies.$LANE
    : >/results/done.$LANE
    exit
fi

begin=$(centiseconds)
build >/results/build.$LANE 2>&1
: >/results/topologies.$LANE
[ "$(connection "5 5")" = works ] || echo "the healthy path does not work" >>/results/build.$LANE
for host in d c gw; do $host ping -q -c 1 -W 2 $CIP >/dev/null; done
gw_mac=$(ip -n gw -br link show eth1 | awk '{ print $3 }')
path_file >/run/without.toml
{ path_file && echo 'via = "ip netns exec c"'; } >/run/with.toml
grep -v 'via = "ip netns exec s"' /run/without.toml >/run/alone.toml
cp /run/without.toml /run/director-with.toml
grep -v 'via = "ip netns exec d"' /run/without.toml >/run/director-without.toml
state >/run/state.before
echo "GUEST: lane $LANE built in $((($(centiseconds) - begin) * 10)) ms"
cases
suites
causes cause 2
spoofing
case $LANE in
    0) killings ;;
    1)
        single_hosts
        own_lab
        units
        ;;
esac
state >/run/state.after
diff /run/state.before /run/state.after >/results/state.$LANE
[ "$LANE" = 1 ] || drop_reasons
: >/results/done.$LANE
