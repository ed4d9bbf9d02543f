#!/usr/bin/env bash
# Ray nodes on this machine, to try what a cluster does:
#
#   cluster/ray-local.sh [start] [--nodes 2] [--cpus N] [--port 6379] [--dashboard-port 8265]
#   cluster/ray-local.sh stop
#
# They listen on 127.0.0.1 alone and want a token: Ray's own (~/.ray/auth_token, made if it is
# missing), the file that RAY_AUTH_TOKEN_PATH names, or the value of RAY_AUTH_TOKEN.
# `stop` ends what `start` started, and nothing else; give it the same state folder
# (.orchestrator in the current folder, or ORCHESTRATOR_HOME).
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-$here/../.venv/bin/python}
state=${ORCHESTRATOR_HOME:-.orchestrator}/ray-local
start_limit_s=90
stop_limit_s=15

fail() {
    echo "$1" >&2
    exit 2
}

# When a process began: tells it from a later one with the same number.
started_at() {
    cut -d ' ' -f 22 "/proc/$1/stat" 2> /dev/null
}

# Succeeds if what was started runs; sets pid and folder.
read_started() {
    [ -r "$state/started" ] && read -r pid since folder < "$state/started" \
        && [ "$(started_at "$pid")" = "$since" ]
}

# Everything in the session of process $pid, which setsid made for it alone.
processes() {
    ps -o pid= --sid "$pid" || true
}

listens() {
    (: < "/dev/tcp/127.0.0.1/$1") 2> /dev/null
}

end_processes() {
    kill -TERM "$pid" 2> /dev/null || true
    for ((i = 0; i < stop_limit_s * 5; i++)); do
        [ -z "$(processes)" ] && return
        sleep 0.2
    done
    # shellcheck disable=SC2046  # one word a process
    kill -KILL $(processes) 2> /dev/null || true
}

forget() {
    [[ ${folder:-} == /tmp/ray-local.* ]] && rm -rf "$folder"
    rm -f "$state/started"
}

make_token() {
    export RAY_AUTH_MODE=token
    token_path=${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}
    [ -n "${RAY_AUTH_TOKEN:-}" ] && return
    mkdir -p "$(dirname "$token_path")"
    [ -s "$token_path" ] || "$python" -c 'import secrets; print(secrets.token_hex(32), end="")' > "$token_path"
    # Ray itself writes this file so that everybody on the machine can read it.
    chmod 600 "$token_path"
}

start() {
    local nodes=2 cpus='' port=6379 dashboard_port=8265
    while [ $# -gt 0 ]; do
        [ $# -ge 2 ] || fail "$1: a value is missing"
        case $1 in
            --nodes) nodes=$2 ;;
            --cpus) cpus=$2 ;;
            --port) port=$2 ;;
            --dashboard-port) dashboard_port=$2 ;;
            *) fail "$1: unknown; see the first lines of $0" ;;
        esac
        [[ $2 =~ ^[1-9][0-9]*$ ]] || fail "$1 $2: not a number above 0"
        shift 2
    done
    cpus=${cpus:-$(($(nproc) / nodes))}
    ((cpus > 0)) || cpus=1

    read_started && fail "already running; end it with: $0 stop"
    [ -x "$python" ] || fail "$python is missing; run: make setup"
    for taken in "$port" "$dashboard_port"; do
        listens "$taken" && fail "port $taken is in use; choose others with --port and --dashboard-port"
    done

    umask 077
    mkdir -p "$state"
    make_token
    # A short name: Ray's sockets lie in it, and a socket's path has at most 107 characters.
    folder=$(mktemp -d /tmp/ray-local.XXXXXX)
    # The first two lines: see ray_local_nodes.py, and nothing on the network when ranks meet.
    # The third: a job's command finds the Python that the nodes run, and temporary files go with
    # the folder.
    RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 \
        GLOO_SOCKET_IFNAME=lo NCCL_SOCKET_IFNAME=lo RAY_USAGE_STATS_ENABLED=0 \
        PATH="$(dirname "$python"):$PATH" TMPDIR="$folder" RAY_TMPDIR="$folder" \
        setsid "$python" "$here/ray_local_nodes.py" --port "$port" --dashboard-port "$dashboard_port" \
        --nodes "$nodes" --cpus "$cpus" --folder "$folder" > "$state/log" 2>&1 < /dev/null &
    pid=$!
    echo "$pid $(started_at "$pid") $folder" > "$state/started"

    for ((i = 0; i < start_limit_s * 5; i++)); do
        [ -s "$folder/ready" ] && break
        kill -0 "$pid" 2> /dev/null || break
        sleep 0.2
    done
    if ! [ -s "$folder/ready" ]; then
        end_processes
        forget
        tail -n 5 "$state/log" >&2
        fail "Ray did not start; its words are in $state/log"
    fi

    local exports="RAY_AUTH_MODE=token RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0"
    if [ -n "${RAY_AUTH_TOKEN:-}" ]; then
        token_path="RAY_AUTH_TOKEN of this shell"
    elif [ -n "${RAY_AUTH_TOKEN_PATH:-}" ]; then
        exports+=" RAY_AUTH_TOKEN_PATH=$token_path"
    fi
    cat << END
$nodes Ray node(s), $cpus CPU(s) each, listen on 127.0.0.1; the token is in $token_path

In every shell that uses them, first:
  export $exports
then, as from outside and from inside a cluster:
  make submit JOB=jobs/resnet_zero2.yaml ADDRESS=http://127.0.0.1:$dashboard_port
  RAY_ADDRESS=127.0.0.1:$port make launch JOB=jobs/resnet_zero2.yaml
and in the end:
  $0 stop
END
}

stop() {
    if ! read_started; then
        echo "nothing that $0 started is running; state folder: $state"
        forget
        return
    fi
    end_processes
    forget
    echo "stopped"
}

case ${1:-start} in
    start) start "${@:2}" ;;
    stop) stop ;;
    --*) start "$@" ;;
    *) fail "$1: neither start nor stop; see the first lines of $0" ;;
esac
