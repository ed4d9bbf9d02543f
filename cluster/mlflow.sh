#!/usr/bin/env bash
# An MLflow server on this machine, for jobs with `tracking: {uri: http://HOST:5000}`:
#
#   cluster/mlflow.sh [--port 5000] [--workers 1]
#       [--database postgresql://USER@HOST/NAME]    instead of sqlite; the password in PGPASSFILE or PGPASSWORD
#       [--host 127.0.0.1]                          the address to listen on
#       [--allowed-hosts NAME,NAME]                 names it answers to, besides localhost and 127.0.0.1
#       [--password-file FILE]                      a login; user: admin, password: the file's first line
#       [--open]                                    no login on an address that others reach
#
# Runs until Ctrl-C or SIGTERM. Database and artifacts lie in mlflow-server/ of the state folder
# (.orchestrator in the current folder, or ORCHESTRATOR_HOME).
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-$here/../.venv/bin/python}
psycopg='psycopg[binary]==3.3.9'
flask_wtf='Flask-WTF==1.3.0'

fail() {
    echo "$1" >&2
    exit 2
}

has_module() {
    "$python" -c "import importlib.util, sys; sys.exit(importlib.util.find_spec('$1') is None)"
}

host=127.0.0.1 port=5000 workers=1 database='' names='' password_file='' open=''
while [ $# -gt 0 ]; do
    if [ "$1" = --open ]; then
        open=yes
        shift
        continue
    fi
    [ $# -ge 2 ] || fail "$1: a value is missing; see the first lines of $0"
    case $1 in
        --host) host=$2 ;;
        --port) port=$2 ;;
        --workers) workers=$2 ;;
        --database) database=$2 ;;
        --allowed-hosts) names=$2 ;;
        --password-file) password_file=$2 ;;
        *) fail "$1: unknown; see the first lines of $0" ;;
    esac
    shift 2
done

[ -x "$python" ] || fail "$python is missing; run: make setup"
case $host in
    127.0.0.1 | localhost) ;;
    *)
        [ -n "$password_file$open" ] \
            || fail "--host $host lets others read and write: add --password-file FILE, or --open if a firewall keeps them out"
        [ -n "$names" ] || fail "--host $host: name the hosts it may be called by, such as --allowed-hosts mlflow.example.com"
        ;;
esac
[[ $names != *'*'* ]] || fail "--allowed-hosts $names: write whole names; a star lets a page of somebody else in (DNS rebinding)"

if [ -n "$password_file" ]; then
    has_module flask_wtf || fail "a login needs one package more: $python -m pip install '$flask_wtf'"
    [ -r "$password_file" ] || fail "$password_file cannot be read"
    [[ $(stat -c %a "$password_file") == ?00 ]] \
        || fail "$password_file can be read by others; run: chmod 600 $password_file"
    IFS= read -r password < "$password_file" || [ -n "$password" ] || fail "$password_file is empty"
fi

umask 077
folder=${ORCHESTRATOR_HOME:-.orchestrator}/mlflow-server
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)

case $database in
    '') database=sqlite:///$folder/mlflow.db ;;
    *://*:*@*) fail "--database: leave the password out, everybody on this machine can read it there; put it in PGPASSFILE or PGPASSWORD" ;;
    postgresql://*)
        has_module psycopg || fail "PostgreSQL needs a driver: $python -m pip install '$psycopg'"
        database=postgresql+psycopg://${database#postgresql://}
        ;;
    *) fail "--database $database: write postgresql://USER@HOST/NAME, or leave it out for sqlite" ;;
esac

allowed='localhost,localhost:*,127.0.0.1,127.0.0.1:*'
for name in ${names//,/ }; do
    allowed+=",$name,$name:*"
done

options=()
if [ -n "$password_file" ]; then
    cat > "$folder/auth.ini" << END
[mlflow]
default_permission = READ
database_uri = sqlite:///$folder/users.db
admin_username = admin
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
END
    export MLFLOW_AUTH_CONFIG_PATH=$folder/auth.ini MLFLOW_AUTH_ADMIN_PASSWORD=$password
    MLFLOW_FLASK_SERVER_SECRET_KEY=$("$python" -c 'import secrets; print(secrets.token_hex(32))')
    export MLFLOW_FLASK_SERVER_SECRET_KEY
    options+=(--app-name basic-auth)
fi

# Jobs over HTTP stay off: nothing here needs them, they quadruple the server's memory, and
# CVE-2026-0545 came in through them.
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false MLFLOW_DISABLE_TELEMETRY=true GIT_PYTHON_REFRESH=quiet
echo "MLflow at http://$host:$port, in about ten seconds; state in $folder" >&2
exec "$python" -m mlflow server \
    --backend-store-uri "$database" \
    --serve-artifacts --artifacts-destination "file://$folder/artifacts" \
    --host "$host" --port "$port" --workers "$workers" \
    --allowed-hosts "$allowed" "${options[@]}"
