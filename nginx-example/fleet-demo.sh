#!/bin/sh
# A fleet on one machine: three nginx with three sidecars, one NATS server, one publisher.
#
#   sh nginx-example/fleet-demo.sh [--check]
#
# It needs Python 3.11 or newer, and no root.  A policy is published, a certificate revoked on every
# host, and the server killed, after which everything goes on.  --check tries the lines itself, and
# says by its exit code whether all went as they should.  It leaves nothing behind.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
case ${1-} in
    '' | --check) ;;
    -h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "fleet-demo.sh: unknown argument: $1" >&2; exit 2 ;;
esac
root=$(dirname -- "$here")
sh "$root/deploy/venv.sh"
PYTHONDONTWRITEBYTECODE=1 exec "$root/.venv/bin/python" "$here/fleet_demo.py" "$@"
