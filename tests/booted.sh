#!/bin/sh
# Every fault under load, in a booted systemd: prints asked, failed, wrong, longest wait for each.
#
#   sudo sh tests/booted.sh [--short]
#
# Boots a container from this machine's files (systemd-nspawn, under an overlay that is thrown away),
# installs, and asks 300 times a second with client certificates through a real nginx meanwhile.
# `wrong` is somebody let in who must not be; exit 1 where one was, or where a planned fault lost
# a request.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
[ "$(id -u)" = 0 ] || { echo 'booted.sh: only root boots a container' >&2; exit 2; }
sh "$root/deploy/venv.sh"
sh "$root/tests/get-tools.sh"
cd "$root"
PYTHONPATH=$root:$root/tests/support exec .venv/bin/python tests/support/faults.py "$@"
