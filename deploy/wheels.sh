#!/bin/sh
# Brings the wheels of deploy/requirements*.lock for one Python, every hash checked: what is built
# of them needs no network.
#
#   sh deploy/wheels.sh DIR [PYTHON]     (default: /usr/bin/python3)
set -eu
umask 022
if [ "$(id -u)" = 0 ]; then unset TMPDIR TEMP TMP; fi # see install.sh

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
out=${1:?give a directory}
python=${2:-/usr/bin/python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$python" -I -m venv "$work/venv"
set --
for each in "$here"/requirements*.lock; do set -- "$@" -r "$each"; done
"$work/venv/bin/python" -I -m pip download -qq --disable-pip-version-check --no-input --no-deps \
    --only-binary :all: --require-hashes "$@" -d "$out"
