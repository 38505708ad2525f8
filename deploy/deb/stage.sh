#!/bin/sh
# Lays out the files of a package.
#
#   sh deploy/deb/stage.sh ROOT EPOCH [PYTHON]
#
# The program is an environment in /usr/lib/mtls-sidecar with what deploy/requirements*.lock have,
# the parts too, every hash checked, for the machine's own Python (/usr/bin/python3) and no other.
set -eu
umask 022
if [ "$(id -u)" = 0 ]; then unset TMPDIR TEMP TMP; fi # see install.sh

here=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd -P)
root=$1
epoch=$2
python=${3:-/usr/bin/python3}
lib=$root/usr/lib/mtls-sidecar
doc=$root/usr/share/doc/mtls-sidecar
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

install_program() {
    version=$("$python" -I -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
    site=$lib/lib/$version/site-packages
    "$python" -I -m venv "$work/venv"
    set --
    for each in "$here"/deploy/requirements*.lock; do set -- "$@" -r "$each"; done
    "$work/venv/bin/python" -I -m pip install -qq --disable-pip-version-check --no-input --no-deps \
        --only-binary :all: --require-hashes --no-compile "$@" --target "$site"
    # The packages' own commands are left out; their first line would name the build directory.
    rm -rf "$site/bin"
    sed -i '\,^\.\./\.\./bin/,d' "$site"/*.dist-info/RECORD
    copy_sources "$site/sidecar"
    mkdir -p "$lib/bin" "$root/usr/bin"
    ln -s "../../../bin/$version" "$lib/bin/python"
    printf 'home = /usr/bin\ninclude-system-site-packages = false\n' >"$lib/pyvenv.cfg"
    printf '#!/bin/sh\nexec /usr/lib/mtls-sidecar/bin/python -I -m sidecar "$@"\n' \
        >"$root/usr/bin/mtls-sidecar"
    chmod 755 "$root/usr/bin/mtls-sidecar"
}

copy_sources() {
    cp -R "$here/sidecar" "$1"
    find "$1" -name __pycache__ -prune -exec rm -rf {} +
    chmod -R u=rwX,go=rX "$1" # the source tree may be private to its owner
}

put() { # SOURCE TARGET [MODE]
    mkdir -p "$(dirname "$2")"
    cp "$1" "$2"
    chmod "${3:-644}" "$2"
}

install_units() {
    for unit in "$here"/deploy/*.service "$here"/deploy/*.socket "$here"/deploy/*.timer; do
        put "$unit" "$root/lib/systemd/system/$(basename "$unit")"
    done
    sed -i 's,/opt/mtls-sidecar/bin/mtls-sidecar,/usr/bin/mtls-sidecar,' \
        "$root"/lib/systemd/system/*.service
    put "$here/deploy/deb/sysusers.conf" "$root/usr/lib/sysusers.d/mtls-sidecar.conf"
    for part in enroll fleet; do
        [ -e "$here/deploy/mtls-sidecar-$part.service" ] || continue
        echo "u mtls-sidecar-$part -:mtls-sidecar \"mTLS sidecar for nginx, $part\"" \
            '/nonexistent /usr/sbin/nologin' >>"$root/usr/lib/sysusers.d/mtls-sidecar.conf"
    done
    put "$here/deploy/deb/tmpfiles.conf" "$root/usr/lib/tmpfiles.d/mtls-sidecar.conf"
}

install_config() {
    for each in "$here"/config/*.yaml "$here"/config/*.json; do
        put "$each" "$root/etc/mtls-sidecar/$(basename "$each")" 640
    done
    chmod 750 "$root/etc/mtls-sidecar"
    for each in "$here"/nginx-example/snippets/*; do
        put "$each" "$root/etc/nginx/snippets/$(basename "$each")"
    done
}

install_docs() {
    PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$site \
        "$python" "$here/deploy/man_pages.py" "$root/usr/share/man"
    shells=$here/deploy/completions
    put "$shells/mtls-sidecar.bash" "$root/usr/share/bash-completion/completions/mtls-sidecar"
    put "$shells/_mtls-sidecar" "$root/usr/share/zsh/vendor-completions/_mtls-sidecar"
    put "$shells/mtls-sidecar.fish" "$root/usr/share/fish/vendor_completions.d/mtls-sidecar.fish"
    for each in "$here"/docs/*.md "$here/README.md"; do put "$each" "$doc/$(basename "$each")"; done
    for each in nginx.conf policy.yaml variants recipes; do
        mkdir -p "$doc/examples"
        cp -R "$here/nginx-example/$each" "$doc/examples/"
        chmod -R u=rwX,go=rX "$doc/examples"
    done
    put "$here/deploy/prometheus/rules.yml" "$doc/examples/prometheus-rules.yml"
    put "$here/deploy/grafana/dashboard.json" "$doc/examples/grafana-dashboard.json"
    "$python" -I "$here/deploy/sbom.py" "$here"/deploy/requirements*.lock >"$doc/mtls-sidecar.cdx.json"
    put "$here/CHANGELOG.md" "$doc/changelog"
    gzip -9n "$doc/changelog" "$root"/usr/share/man/man?/*
}

mkdir -p "$root"
install_program
install_units
install_config
install_docs
find "$root" -exec touch -h -d "@$epoch" {} +
