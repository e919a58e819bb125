# What runs on the device: POSIX sh. mpsearch sends this text, then commands, one a line; every
# command is answered by JSON lines, the last of which is a "done". Words of the user (compiler,
# flags, launch prefix) come as files with one word a line: no shell ever reads them as its own.
set -uf
umask 077
LC_ALL=C
PATH=$PATH:/usr/sbin:/sbin:/opt/vc/bin
export LC_ALL PATH
work='' child='' watcher=''

clean() { tr '"\\' "'/" | tr -cd '\012\040-\176' | cut -c1-300; }
texts() { clean | tail -n 200 | sed 's/.*/{"event": "text", "line": "&"}/'; }
fact() { clean | head -n 1 | sed 's/.*/{"event": "fact", "name": "'"$1"'", "value": "&"}/'; }
reply() { printf '{"event": "done", "exit": %d}\n' "$1"; }

# A signal may come while the shell leaves already: then all of this happens in its handler.
finish() {
    trap '' HUP INT PIPE TERM
    trap - EXIT
    # shellcheck disable=SC2086
    kill $child $watcher 2> /dev/null
    # shellcheck disable=SC2086
    [ -z "$child" ] || wait $child
    cd / && rm -rf "$work"
}
trap finish EXIT
trap 'finish; exit 1' HUP INT PIPE TERM

give_up() {
    printf '%s\n' "$1" | texts
    reply 1
    exit 1
}

unpack() {
    cd "$work" && rm -rf run && mkdir run && cd run || give_up "cannot write to $work"
    # What tar leaves must be read as well: it would be taken for commands.
    text=$(head -c "$1" <&4 | { tar -x -m -o -f - 2>&1; status=$?; cat > /dev/null; exit $status; })
    status=$?
    printf '%s\n' "$text" | texts
    reply $status
}

# A PC's maker says nothing of its speed: only its processor tells whether it is emulated.
board() {
    case $(uname -m) in x86* | i?86) return ;; esac
    if [ -r /proc/device-tree/model ]; then
        cat /proc/device-tree/model
    else
        cat /sys/class/dmi/id/sys_vendor /sys/class/dmi/id/product_name 2> /dev/null
    fi | tr '\000\012' '  '
}

describe() {
    uname -sr | fact system
    uname -m | fact architecture
    sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo 2> /dev/null | fact cpu_name
    sed -n 's/^CPU part[[:space:]]*: //p' /proc/cpuinfo 2> /dev/null | fact cpu_part
    board | fact board
    grep -c '^processor' /proc/cpuinfo 2> /dev/null | fact cores
    sed -n 's/^MemTotal:[[:space:]]*\([0-9]*\) kB/\1/p' /proc/meminfo 2> /dev/null | fact memory_kb
    reply 0
}

compile() {
    set --
    while IFS= read -r word; do set -- "$@" "$word"; done < compiler
    if ! command -v "$1" > /dev/null 2>&1; then
        reply 127
        return
    fi
    "$@" --version 2> /dev/null | fact compiler
    set +f
    text=$("$@" -std=c99 -O1 -o launcher tool/*.c 2>&1)
    status=$?
    while IFS= read -r word; do set -- "$@" "$word"; done < flags
    [ $status -ne 0 ] || { text=$("$@" -std=c99 -s -o network source/*.c -lm 2>&1); status=$?; }
    set -f
    printf '%s\n' "$text" | texts
    reply $status
}

# Bytes and first bytes of the program, and whether this processor can start it.
program() {
    wc -c < network | fact program_bytes
    head -c 20 network | od -An -v -tu1 | tr '\012' ' ' | fact header
    machine=$(uname -m) runs=0
    while IFS= read -r word; do [ "$word" != "$machine" ] || runs=1; done < architectures
    [ ! -s prefix ] && [ -s architectures ] || runs=1
    while IFS= read -r word; do
        [ ! -e "/proc/sys/fs/binfmt_misc/qemu-$word" ] || runs=1
    done < architectures
    reply $((1 - runs))
}

# run OUTPUT SECONDS COUNT ARGUMENT...: the program is started through the prefix, and so is the
# launcher, which may be for the same other processor. Both wait in the background, because a shell
# acts on a signal only between commands or in `wait`.
run() {
    output=$1 seconds=$2 count=$3
    shift 3
    arguments=$*
    set --
    while IFS= read -r word; do set -- "$@" "$word"; done < prefix
    set -- "$@" ./launcher "$output" "$seconds" "$count"
    while IFS= read -r word; do set -- "$@" "$word"; done < prefix
    # shellcheck disable=SC2086
    "$@" ./network $arguments 3<&- 4<&- 2> launcher.errors &
    child=$!
    wait $child
    status=$?
    child=''
    texts < launcher.errors
    reply $status
}

results() {
    tr -cd '0-9 \012-' < output | sed 's/.*/{"event": "output", "line": "&"}/'
    reply 0
}

# Ticks of all cores since the start: busy ones, and all; nothing where the kernel does not count.
ticks() {
    { read -r _ user nice system idle waiting irq soft steal _ < "$root/proc/stat"; } 2> /dev/null ||
        return
    busy=$((user + nice + system + ${irq:-0} + ${soft:-0} + ${steal:-0}))
    echo "$busy $((busy + idle + ${waiting:-0}))" | fact "$1"
}

# A moment of work first: otherwise the frequency would be that of an idle processor.
state() {
    ticks ticks_before
    getconf CLK_TCK 2> /dev/null | fact ticks_per_second
    i=0
    while [ $i -lt 100000 ]; do i=$((i + 1)); done
    most=''
    set +f
    for file in "$root"/sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq; do
        read -r khz 2> /dev/null < "$file" || continue
        case $khz in '' | *[!0-9]*) continue ;; esac
        [ "${most:-0}" -ge "$khz" ] || most=$khz
    done
    set -f
    echo "$most" | fact frequency_khz
    cat "$root/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor" 2> /dev/null | fact governor
    cat "$root/sys/class/thermal/thermal_zone0/temp" 2> /dev/null | fact temperature_mc
    vcgencmd get_throttled 2> /dev/null | fact throttled
    ticks ticks_after
    reply 0
}

IFS= read -r folder || folder='' # where to work; empty: what this shell's start-up says
work=$(mktemp -d "${folder:-${TMPDIR:-/tmp}}/mpsearch.XXXXXX" 2>&1) || {
    text=$work work=''
    give_up "$text"
}
TMPDIR=$work # the compiler's own files
export TMPDIR
text=$(mkfifo "$work/commands" 2>&1) || give_up "$text"
# The end of the input is the end of the connection, also in the middle of a command.
exec 3<&0
{ cat <&3 > "$work/commands"; kill $$; } > /dev/null 2>&1 &
watcher=$!
exec 4< "$work/commands"
root=''
reply 0
while read -r verb rest <&4; do
    case $verb in
        unpack | run)
            # shellcheck disable=SC2086
            "$verb" $rest
            ;;
        compile | describe | program | results | state) "$verb" ;;
        root) root=$rest && reply 0 ;;
        end) break ;;
        *) give_up "unknown command" ;;
    esac
done
