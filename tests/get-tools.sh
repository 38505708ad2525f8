#!/bin/sh
# Gets the programs that tests run beside the sidecar, as Debian packages unpacked into .tools/.
#
#   sh tests/get-tools.sh [--install]
#
# Nothing is installed and no service started: apt keeps its lists and files in .tools/ as well.
# Chromium needs too much around it for that; it is installed, with --install or in CI, as root.
# The YAML language server comes from npm, into .tools/language-server.
# What the container's image is built on is a root of Debian's packages, in .tools/base.
# What builds and checks packages comes from deploy/release-tools.lock, into .tools/release.
# What cannot be had is left out: tests/support/tools.py then says so of each test that wants it.
set -eu
umask 022
if [ "$(id -u)" = 0 ]; then unset TMPDIR TEMP TMP; fi # see deploy/install.sh

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
tools=$root/.tools
unpacked=$tools/root
packages='nginx nginx-common libnginx-mod-stream easy-rsa prometheus systemd-container libnss3-tools libfaketime cloud-init'

say() { printf 'get-tools.sh: %s\n' "$*" >&2; }

# apt with a state of its own, so that it works without root and leaves the host's alone.
private_apt() {
    apt-get -qq -o Dir::State="$tools/apt" -o Dir::State::status=/var/lib/dpkg/status \
        -o Dir::Cache="$tools/apt/cache" -o APT::Sandbox::User="$(id -un)" "$@"
}

get() {
    (cd "$tools/debs" && private_apt download "$1" >/dev/null 2>&1) || {
        say "no package $1"
        complete=no
    }
}

unpack_all() {
    for deb in "$tools"/debs/*.deb; do
        [ -e "$deb" ] || return 0
        dpkg -x "$deb" "$unpacked"
        rm "$deb"
    done
}

# The libraries that nginx is linked to and this machine lacks.
get_missing_libraries() {
    for name in $(ldd "$unpacked/usr/sbin/nginx" 2>/dev/null | sed -n 's/ => not found//p'); do
        case $name in
            libpcre2-8.so.*) get libpcre2-8-0 ;;
            libssl.so.3 | libcrypto.so.3) get libssl3 ;;
            libz.so.1) get zlib1g ;;
            libcrypt.so.1) get libcrypt1 ;;
            *) say "nginx wants $name, and no package is known for it" ;;
        esac
    done
}

unpack_packages() {
    [ "$(cat "$tools/stamp" 2>/dev/null)" = "$packages" ] && return 0
    command -v apt-get >/dev/null && command -v dpkg >/dev/null || {
        say 'no apt-get and dpkg here: tests go without nginx 1.22, EasyRSA and promtool'
        return 0
    }
    say "unpacking into .tools/: $packages"
    complete=yes
    rm -rf "$tools/root" "$tools/debs" "$tools/apt" "$tools/stamp"
    mkdir -p "$unpacked" "$tools/debs" "$tools/apt/lists/partial" "$tools/apt/cache/archives/partial"
    private_apt update >/dev/null || say 'apt-get update failed: trying with what there is'
    for package in $packages; do get "$package"; done
    unpack_all
    get_missing_libraries
    unpack_all
    rm -rf "$tools/apt" "$tools/debs"
    if [ "$complete" = yes ]; then printf '%s\n' "$packages" >"$tools/stamp"; fi
}

# A package with all that it depends on and this machine lacks, in a directory of its own.  The
# program that is wanted of it has its name, or the second one given.
unpack_whole() {
    command -v apt-get >/dev/null && [ ! -e "$tools/$1/complete" ] || return 0
    command -v "${2:-$1}" >/dev/null && return 0
    say "unpacking $1 into .tools/$1"
    rm -rf "$tools/$1" "$tools/apt"
    mkdir -p "$tools/$1" "$tools/apt/lists/partial" "$tools/apt/cache/archives/partial"
    private_apt update >/dev/null || say 'apt-get update failed: trying with what there is'
    private_apt -o Debug::NoLocking=1 install -y --download-only --no-install-recommends "$1" \
        >/dev/null && for deb in "$tools"/apt/cache/archives/*.deb; do
        dpkg -x "$deb" "$tools/$1"
    done && touch "$tools/$1/complete" || say "could not get $1"
    rm -rf "$tools/apt"
}

# Python and what it depends on, as `debootstrap --foreign` would leave them: unpacked, in a root of
# their own, nothing of this machine's.
unpack_base() {
    command -v apt-get >/dev/null && [ ! -e "$tools/base/complete" ] || return 0
    say 'unpacking the base of a container into .tools/base'
    rm -rf "$tools/base" "$tools/apt"
    mkdir -p "$tools/base/root" "$tools/apt/lists/partial" "$tools/apt/cache/archives/partial"
    : >"$tools/apt/none" # no package is installed there
    private_apt update >/dev/null || say 'apt-get update failed: trying with what there is'
    private_apt -o Dir::State::status="$tools/apt/none" -o Debug::NoLocking=1 install -y \
        --download-only --no-install-recommends base-files dash coreutils libstdc++6 python3-venv \
        >/dev/null && for deb in "$tools"/apt/cache/archives/*.deb; do
        dpkg -x "$deb" "$tools/base/root"
    done && touch "$tools/base/complete" || say 'could not get the base of a container'
    rm -rf "$tools/apt"
}

# A venv with the tools of a release.
make_release_tools() {
    lock=$root/deploy/release-tools.lock
    cmp -s "$lock" "$tools/release/lock" && "$tools/release/bin/python" -I -c '' 2>/dev/null && return 0
    say 'making .tools/release from deploy/release-tools.lock'
    rm -rf "$tools/release"
    python=/usr/bin/python3
    "$python" -I -c 'from ensurepip import version' 2>/dev/null || python=python3
    "$python" -I -m venv "$tools/release" && "$tools/release/bin/python" -I -m pip install -qq \
        --disable-pip-version-check --no-input --no-deps --only-binary :all: --require-hashes \
        -r "$lock" && cp "$lock" "$tools/release/lock" || say 'no release tools: see above'
}

# The language server that editors use for YAML, by tests/language-server/package-lock.json.
get_language_server() {
    server=$tools/language-server
    lock=$root/tests/language-server/package-lock.json
    cmp -s "$lock" "$server/complete" && return 0
    command -v npm >/dev/null || { say 'no npm, and so no yaml-language-server'; return 0; }
    say 'getting yaml-language-server into .tools/language-server'
    rm -rf "$server"
    mkdir -p "$server"
    cp "$root/tests/language-server/package.json" "$lock" "$server"
    (cd "$server" && npm ci --silent --no-audit --no-fund --ignore-scripts --cache "$server/cache") &&
        rm -rf "$server/cache" && cp "$lock" "$server/complete" || say 'no yaml-language-server'
}

install_chromium() {
    grep -qs "chromium()" -r "$root/tests" --include="*.py" || return 0 # no test wants it
    command -v chromium >/dev/null 2>&1 && return 0
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        say 'chromium is installed by root with apt-get only'
        return 0
    fi
    say 'installing chromium'
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y \
        --no-install-recommends chromium; } >/dev/null || say 'could not install chromium'
}

. "$root/deploy/lock.sh"

mkdir -p "$tools"
open_lock "$tools/lock" # two runs at once wait for each other
if command -v flock >/dev/null; then flock 9; fi
unpack_packages
unpack_whole lintian
unpack_whole rpm
unpack_whole gnutls-bin certtool
unpack_whole podman
unpack_base
make_release_tools
get_language_server
if [ "${CI:-}" = true ] || [ "${1:-}" = --install ]; then install_chromium; fi
