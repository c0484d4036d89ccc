# Kills this machine's replicas when their lease has ended, even if the agent is dead by then.
# usage: sh deadman.sh RUNTIME-DIRECTORY RUNTIME-ID BOOT
# Descriptor 9 carries the lock that keeps it single; children must not inherit it.
# Ends when the directory is gone, or when the agent is gone and no replica is left.
directory=$1 runtime=$2 boot=$3
tick_s=1
late_ms=0
reason='the lease ended while the agent was away'
trap '' HUP INT TERM
cd / || exit 1

now_ms() {
    read -r uptime _ </proc/uptime
    whole=${uptime%.*} part=${uptime#*.}
    now=$((whole * 1000 + ${part#0} * 10))
}

start_of() { # the start time of process $1 in `started`; empty where there is none
    started=
    { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 0
    # shellcheck disable=SC2086 # the fields are to be split
    set -- ${stat##*) }
    started=${20}
}

agent_lives() {
    { read -r agent_pid agent_start <"$directory/agent"; } 2>/dev/null || return 1
    start_of "$agent_pid"
    [ "$started" = "$agent_start" ]
}

# What of the lease: `none`, `runs` or `ended`.
look_at_lease() {
    lease=none
    { read -r until lease_boot <"$directory/lease"; } 2>/dev/null || return 0
    [ "$lease_boot" = "$boot" ] || return 0
    now_ms
    lease=runs
    [ "$now" -le $((until + late_ms)) ] || lease=ended
}

end_replica() { # $1: its directory
    { read -r pid claim_boot group <"$1/claim"; } 2>/dev/null || return 0
    [ "$claim_boot" = "$boot" ] && [ "$pid" -gt 0 ] || return 0
    [ -e "$1/exit" ] || [ -e "$1/stop" ] || echo "$reason" >"$1/stop"
    if [ -n "$group" ] && [ -e "$group/cgroup.kill" ]; then
        echo 1 >"$group/cgroup.kill"
    elif [ -n "$group" ] && [ -e "$group/cgroup.procs" ]; then
        while read -r member; do kill -KILL "$member"; done <"$group/cgroup.procs"
    fi
    if grep -q "HYPERION_RUNTIME=$runtime" "/proc/$pid/environ"; then
        kill -KILL "-$pid"
    fi
}

end_all() {
    for replica in "$directory"/replicas/*/; do end_replica "${replica%/}" 2>/dev/null; done
    # Those that left their process group, where there are no control groups to hold them.
    for found in $(grep -ls "HYPERION_RUNTIME=$runtime" /proc/[0-9]*/environ); do
        found=${found#/proc/}
        kill -KILL "${found%/environ}" 2>/dev/null
    done
}

replica_left() {
    for replica in "$directory"/replicas/*/; do
        [ ! -e "${replica}claim" ] || [ -e "${replica}exit" ] || {
            { read -r pid _ <"${replica}claim"; } 2>/dev/null
            [ ! -e "/proc/${pid:-0}" ] || return 0
        }
    done
    return 1
}

# Until the next look: one tick, or to just after the lease's end where that is sooner.
choose_pause() {
    pause=$tick_s
    [ "$lease" = runs ] || return 0
    left=$((until + late_ms - now + 20))
    [ "$left" -ge $((1000 * tick_s)) ] || pause=$(printf '%d.%03d' $((left / 1000)) $((left % 1000)))
}

while [ -d "$directory" ]; do
    look_at_lease
    [ "$lease" != ended ] || end_all
    [ "$lease" = runs ] || agent_lives || replica_left || exit 0
    choose_pause
    sleep "$pause" 9>&-
done
