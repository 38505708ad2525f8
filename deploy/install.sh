#!/bin/sh
# Installs mtls-sidecar beside nginx, or a newer version over an older one.
#
#   sh deploy/install.sh               as root: program, configuration, units, user
#   sh deploy/install.sh --root DIR    into DIR only, for packages: no user, no systemctl
#   sh deploy/install.sh --uninstall   removes program and units; configuration and state stay
#
# A configuration file that you edited is never overwritten: the new one goes beside it as *.new.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
root=
action=install
while [ $# -gt 0 ]; do
    case $1 in
        --root) root=${2:?--root wants a directory}; shift ;;
        --uninstall) action=uninstall ;;
        *) echo "install.sh: unknown option $1; see its head" >&2; exit 2 ;;
    esac
    shift
done

program=/opt/mtls-sidecar
config=/etc/mtls-sidecar
units=/etc/systemd/system
unit_names='mtls-sidecar.service mtls-sidecar@.service mtls-sidecar.socket mtls-sidecar-fetch.service'

say() { printf '%s\n' "$*"; }
on_host() { [ -z "$root" ]; }

if on_host && [ "$(id -u)" != 0 ]; then
    echo 'install.sh: run it as root, or with --root DIR' >&2
    exit 1
fi

# nginx's group, which may open the socket.
nginx_group() {
    for group in www-data nginx http; do
        if getent group "$group" >/dev/null 2>&1; then say "$group"; return; fi
    done
    say www-data
}

find_python() {
    # the system's own first: the service may not look into anybody's home
    for name in /usr/bin/python3 python3 python3.14 python3.13 python3.12 python3.11; do
        command -v "$name" >/dev/null 2>&1 || continue
        "$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null &&
            { say "$name"; return; }
    done
    echo 'install.sh: needs Python 3.11 or newer with venv (Debian: apt-get install python3-venv)' >&2
    exit 1
}

# The new file in place of the old one, unless somebody edited that.  The checksum of what was
# shipped is kept.
put_config() {
    source=$1 target=$2
    shipped=$root$config/.shipped/$(basename "$target")
    mkdir -p "$root$config/.shipped"
    if [ -e "$target" ] && [ "$(cksum <"$target")" != "$(cat "$shipped" 2>/dev/null)" ]; then
        if cmp -s "$source" "$target"; then return; fi
        cp "$source" "$target.new"
        say "kept your $target; the new one is $target.new"
        return
    fi
    cp "$source" "$target"
    chmod 0644 "$target"
    cksum <"$target" >"$shipped"
}

# Built aside and put in place whole: what runs keeps its files until it is restarted, and an
# installation that fails halfway leaves the old one.
install_program() {
    python=$(find_python)
    fresh=$root$program.new
    rm -rf "$fresh"
    mkdir -p "$fresh"
    "$python" -m venv "$fresh"
    "$fresh/bin/python" -m pip install -qq --disable-pip-version-check --no-input --no-deps \
        --only-binary :all: --require-hashes -r "$here/deploy/requirements.lock"
    site=$("$fresh/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    cp -R "$here/sidecar" "$site/sidecar"
    find "$site/sidecar" -name __pycache__ -prune -exec rm -rf {} +
    "$fresh/bin/python" -m compileall -q "$site/sidecar"
    launcher=$fresh/bin/mtls-sidecar
    printf '#!/bin/sh\nexec %s/bin/python -P -m sidecar "$@"\n' "$program" >"$launcher"
    chmod 0755 "$launcher"
    rm -rf "$root$program.old"
    if [ -e "$root$program" ]; then mv "$root$program" "$root$program.old"; fi
    mv "$fresh" "$root$program"
    rm -rf "$root$program.old"
}

install_config() {
    mkdir -p "$root$config"
    group=$(nginx_group)
    prepared=$(mktemp)
    sed "s/^socket_group: .*/socket_group: $group/" "$here/config/sidecar.yaml" >"$prepared"
    put_config "$prepared" "$root$config/sidecar.yaml"
    rm -f "$prepared"
    put_config "$here/config/policy.yaml" "$root$config/policy.yaml"
}

install_units() {
    mkdir -p "$root$units"
    group=$(nginx_group)
    for name in $unit_names; do
        sed "s/^SocketGroup=.*/SocketGroup=$group/" "$here/deploy/$name" >"$root$units/$name"
        chmod 0644 "$root$units/$name"
    done
}

# The daemon's user belongs to nginx's group, so that it may give the socket to it.  The fetcher has
# a user of its own, and of the daemon's directories only the one for what it brings.
make_users() {
    make_user mtls-sidecar --user-group
    make_user mtls-sidecar-fetch --gid mtls-sidecar
    usermod -a -G "$(nginx_group)" mtls-sidecar
    install -d -m 0750 -o mtls-sidecar -g mtls-sidecar /var/lib/mtls-sidecar
    install -d -m 0750 -o mtls-sidecar-fetch -g mtls-sidecar /var/lib/mtls-sidecar/crl
}

make_user() {
    user=$1
    shift
    getent passwd "$user" >/dev/null ||
        useradd --system "$@" --no-create-home --home-dir /nonexistent \
            --shell /usr/sbin/nologin "$user"
}

uninstall() {
    if on_host && command -v systemctl >/dev/null 2>&1; then
        systemctl disable --now mtls-sidecar.socket mtls-sidecar.service mtls-sidecar-fetch.service \
            2>/dev/null || true
        systemctl list-units --all --plain --no-legend 'mtls-sidecar@*.service' |
            while read -r unit _; do systemctl disable --now "$unit" 2>/dev/null || true; done
        rm -f /usr/local/bin/mtls-sidecar
    fi
    for name in $unit_names; do rm -f "$root$units/$name"; done
    rm -rf "$root$program"
    if on_host && command -v systemctl >/dev/null 2>&1; then systemctl daemon-reload || true; fi
    say "removed; $config and /var/lib/mtls-sidecar stay"
}

if [ "$action" = uninstall ]; then
    uninstall
    exit 0
fi
install_program
install_config
install_units
if on_host; then
    make_users
    if command -v systemctl >/dev/null 2>&1; then systemctl daemon-reload || true; fi
    ln -sf "$program/bin/mtls-sidecar" /usr/local/bin/mtls-sidecar
fi
cat <<EOF
installed.  Next:
  1. edit $config/policy.yaml (it lets nobody in yet), then: mtls-sidecar check
  2. systemctl enable --now mtls-sidecar
  3. nginx: include the files of nginx-example/snippets, then: nginx -t && systemctl reload nginx
  4. where the policy names http(s) CRLs or OCSP: systemctl enable --now mtls-sidecar-fetch
  5. over an older version: systemctl try-restart mtls-sidecar mtls-sidecar-fetch
EOF
