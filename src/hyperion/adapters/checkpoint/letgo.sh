# The dead-man of the fast path: lets groups go on whose hold has ended while no fast path lives.
# usage: sh letgo.sh DIRECTORY
#   DIRECTORY/lock   held by the fast path while it lives
#   DIRECTORY/held   the boot's id, then `until version members` a line; until in ms since boot (0: it
#                    runs), members the path of a group, or pids where the version is 0
# One of these watches a directory (letgo.lock); it ends when nothing stands still and no fast path
# has come back for a while, or when the fast path has ended in order, which removes `held`.
# Ordinary priority; flock and chrt are of util-linux.
directory=$1
exec 9>"$directory/letgo.lock"
flock -n 9 || exit 0
idle=0
while [ "$idle" -lt 10 ] && [ -d "$directory" ]; do
    sleep 0.5
    if ! flock -n "$directory/lock" true; then
        idle=0 # the fast path lives
        continue
    fi
    idle=$((idle + 1))
    [ -f "$directory/held" ] || exit 0 # it ended when nothing stood still
    read -r seconds _ </proc/uptime
    now=$((${seconds%.*} * 1000))
    {
        read -r boot || boot= # trailing blanks are not read
        read -r here </proc/sys/kernel/random/boot_id
        [ "$boot" = "$here" ] || continue
        while read -r until version members; do
            [ "$until" -gt 0 ] || continue
            if [ "$until" -gt "$now" ]; then
                idle=0 # still held
                continue
            fi
            [ "$version" != 2 ] || echo 0 >"$members/cgroup.freeze"
            [ "$version" = 0 ] || members=$(find "$members" -name cgroup.procs -exec cat {} +)
            while [ -n "$members" ]; do # those processes, and then their children
                kill -CONT $members
                files=
                for pid in $members; do
                    for tid in "/proc/$pid/task"/*; do
                        case $(chrt -p "${tid##*/}") in
                        *SCHED_FIFO?SCHED_RESET_ON_FORK*) chrt -o -p 0 "${tid##*/}" ;; # ours
                        esac
                        files="$files $tid/children"
                    done
                done
                members=$([ "$version" != 0 ] || cat $files)
            done
        done
    } <"$directory/held" 2>/dev/null
done
