#!/bin/sh
# Makes .venv/ from tests/requirements.lock (every hash is checked), or leaves a fresh one alone.
#
#   sh deploy/venv.sh && .venv/bin/mtls-sidecar --version
#
# The project itself is importable in it and .venv/bin/mtls-sidecar runs it from the source tree.
# For a server there is deploy/requirements.lock; see docs.  Two runs at once wait for each other.
set -eu
umask 022 # see install.sh
if [ "$(id -u)" = 0 ]; then unset TMPDIR TEMP TMP; fi # see install.sh

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
venv=$root/.venv
lock=$root/tests/requirements.lock

die() {
    printf 'venv.sh: %s\n' "$*" >&2
    exit 1
}

# -I: neither the caller's directory nor its PYTHON* variables have a say.
recent() { "$1" -I -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

complete() { "$1" -I -c 'import venv; from ensurepip import version' >/dev/null 2>&1; }

# The first Python that has all that a venv takes, or else the first that is recent enough.  The
# system's own first, as in install.sh: what is tested and measured is what is installed.
find_python() {
    python=
    for name in /usr/bin/python3 python3 python3.14 python3.13 python3.12 python3.11 python; do
        command -v "$name" >/dev/null 2>&1 && recent "$name" || continue
        python=${python:-$name}
        if complete "$name"; then
            python=$name
            return
        fi
    done
}

# Debian keeps ensurepip in a package of its own, and what is left of that one removed (__pycache__)
# can be imported, too, as a package with nothing in it.
need_venv_module() {
    complete "$python" && return
    package=$("$python" -I -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        echo "venv.sh: installing $package" >&2
        { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y \
            --no-install-recommends "$package"; } >/dev/null || die "could not install $package"
    fi
    complete "$python" || die "Python's venv module is missing; type: sudo apt-get install $package"
}

# What the venv was made of; the same again leaves it alone.
made_of() {
    { cat "$lock" "$root/deploy/venv.sh" && printf '%s\n' "$root"; } | cksum
}

# The interpreter can be gone when the system was upgraded.
fresh() {
    [ "$(cat "$venv/stamp" 2>/dev/null)" = "$(made_of)" ] && "$venv/bin/python" -I -c '' 2>/dev/null
}

make_venv() {
    need_venv_module
    echo "venv.sh: making .venv from tests/requirements.lock, once" >&2
    rm -rf "$venv"
    "$python" -I -m venv "$venv"
    "$venv/bin/python" -I -m pip install -qq --disable-pip-version-check --no-input \
        --no-deps --only-binary :all: --require-hashes -r "$lock" || die "pip failed, see above"
    add_project
    made_of >"$venv/stamp.new"
    mv "$venv/stamp.new" "$venv/stamp"
}

# A path file and a launcher: nothing is built and nothing is written into the tree.
add_project() {
    site=$("$venv/bin/python" -I -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    printf '%s\n' "$root" >"$site/nginx-mtls-sidecar.pth"
    quoted=$(printf '%s\n' "$venv/bin/python" | sed "s/'/'\\\\''/g")
    printf '#!/bin/sh\nexec '\''%s'\'' -P -m sidecar "$@"\n' "$quoted" >"$venv/bin/mtls-sidecar"
    chmod 755 "$venv/bin/mtls-sidecar"
}

. "$root/deploy/lock.sh"

fresh && exit
find_python
[ -n "$python" ] || die "Python 3.11 or newer is needed; type: sudo apt-get install python3-venv"
open_lock "$root/.venv.lock"
"$python" -I -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)' 9>&9
fresh || make_venv
