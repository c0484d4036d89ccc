# Runs one replica exactly once, and writes down that it began and how it ended.
# usage: sh shim.sh DIRECTORY BOOT CWD SETUP GROUPS [GROUP]... ARGUMENT...
#   DIRECTORY  the replica's; holds `claim` (pid, boot, first group) and `exit` (code, phase)
#   BOOT       the id of this boot of the machine, so that a pid cannot outlive its meaning
#   CWD        where the command runs          SETUP   a script run before it, or empty
#   GROUPS     how many control groups follow; the first of them is the one used to kill
# Environment: the replica's own. Standard streams: null, log, log.
trap 'stopped=1' TERM
trap : HUP INT QUIT ALRM USR1 USR2
unset stopped
directory=$1 boot=$2 cwd=$3 setup=$4 groups=$5
shift 5
group=
[ "$groups" -eq 0 ] || group=$1

finish() {
    echo "$1 $2" >|"$directory/exit"
    exit 0
}

# O_EXCL decides who runs: a second shim, or one that was killed before it began, ends here.
set -C
{ echo "$$ $boot $group" >"$directory/claim"; } 2>/dev/null || exit 75
set +C

while [ "$groups" -gt 0 ]; do
    echo 0 >"$1/cgroup.procs" || finish 125 group
    groups=$((groups - 1))
    shift
done
cd -- "$cwd" || finish 126 cwd
if [ -n "$setup" ]; then
    (exec sh "$setup")
    code=$?
    [ "$code" -eq 0 ] || finish "$code" setup
fi
[ -z "$stopped" ] || finish 143 run
(exec "$@")
finish $? run
