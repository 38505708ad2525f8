#!/bin/sh
# Installs mtls-sidecar beside nginx, or a newer version over an older one.
#
#   sh deploy/install.sh               as root: program, configuration, snippets, units, users
#   sh deploy/install.sh --with enroll,fleet
#                                      these parts, too; an upgrade keeps those that are there
#   sh deploy/install.sh --root DIR    into DIR only, for packages: no user, no systemctl
#   sh deploy/install.sh --uninstall   removes all but the configuration
#
# A part NAME is what deploy/requirements-NAME.lock brings and, where they exist, the units
# deploy/mtls-sidecar-NAME*, with a user and a state directory of their own, and config/NAME.yaml.
#
# A configuration file that you edited is never overwritten: the new one goes beside it as *.new.
set -eu
umask 022 # whatever the caller's is: everybody may run the program, nobody else may change it

here=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
root=
action=install
parts=
while [ $# -gt 0 ]; do
    case $1 in
        --root) root=${2:?--root wants a directory}; shift ;;
        --with) parts=$(echo "${2:?--with wants a list: enroll,fleet}" | tr , ' '); shift ;;
        --uninstall) action=uninstall ;;
        *) echo "install.sh: unknown option $1; see its head" >&2; exit 2 ;;
    esac
    shift
done

program=/opt/mtls-sidecar
config=/etc/mtls-sidecar
state=/var/lib/mtls-sidecar
logs=/var/log/mtls-sidecar
snippets=/etc/nginx/snippets
units=/etc/systemd/system
unit_names='mtls-sidecar.service mtls-sidecar.socket mtls-sidecar-admin.socket
    mtls-sidecar@.service mtls-sidecar@.socket mtls-sidecar-admin@.socket
    mtls-sidecar-fetch.service'
all_parts='enroll fleet'

say() { printf '%s\n' "$*"; }
die() { printf 'install.sh: %s\n' "$*" >&2; exit 1; }
on_host() { [ -z "$root" ]; }
with_systemd() { on_host && command -v systemctl >/dev/null 2>&1; }

for each in $parts; do
    case " $all_parts " in
        *" $each "*) ;;
        *) die "--with: unknown part $each; there are $all_parts" ;;
    esac
done
if on_host && [ "$(id -u)" != 0 ]; then die 'run it as root, or with --root DIR'; fi
cd / # nothing that lies where it was called is ever run
if [ "$(id -u)" = 0 ]; then
    unset TMPDIR TEMP TMP # of another user, who could exchange what Python unpacks there
fi

# nginx's group, which may open the socket.
nginx_group() {
    for group in www-data nginx http; do
        if getent group "$group" >/dev/null 2>&1; then say "$group"; return; fi
    done
    say www-data
}

# -I: neither the caller's directory nor its PYTHON* variables have a say.
find_python() {
    # the system's own first: the service may not look into anybody's home
    for name in /usr/bin/python3 python3 python3.14 python3.13 python3.12 python3.11; do
        command -v "$name" >/dev/null 2>&1 || continue
        "$name" -I -c 'import sys, venv; from ensurepip import version; sys.exit(sys.version_info < (3, 11))' \
            2>/dev/null && { say "$name"; return; }
    done
    die 'needs Python 3.11 or newer with venv (Debian: apt-get install python3-venv)'
}

# Two installations at once wait for each other; the lock goes with this shell.  Whoever can read it
# could hold it for ever: it is this user's alone, and one that wasn't is replaced.
lock() {
    mkdir -p "$root/opt"
    while :; do
        case $(stat -c %a "$root$program.lock" 2>/dev/null) in
            '' | 600) ;;
            *) rm -f "$root$program.lock" ;;
        esac
        (umask 077 && : >>"$root$program.lock")
        exec 9>>"$root$program.lock"
        # It counts if the file is still there: another one may have removed it meanwhile.
        held=$("$1" -I -c '
import fcntl, os, sys
fcntl.flock(9, fcntl.LOCK_EX)
path = sys.argv[1]
print(os.path.exists(path) and os.path.samestat(os.fstat(9), os.stat(path)))' \
            "$root$program.lock" 9>&9)
        if [ "$held" = True ]; then break; fi
    done
}

# Whether nobody but who installs may write a directory, if it is there: whoever else may could put
# links into it, for root to follow.
is_ours() {
    [ -e "$1" ] || return 0
    case $(stat -L -c %u:%A "$1") in "$(id -u)":d????-??-?) ;; *) return 1 ;; esac
}

# A directory below which nobody else could exchange what root makes and runs; /tmp will do above it.
must_be_ours() {
    if [ "$(id -u)" != 0 ] || [ ! -e "$1" ]; then return 0; fi
    place=$(CDPATH='' cd -- "$1" && pwd -P)
    allowed='0:d????-??-?'
    while :; do
        case $(stat -c %u:%A "$place") in
            0:d????-??-? | $allowed) ;;
            *) die "others may write $place, and so change what root runs; choose another directory, \
or run this as the user whose it is" ;;
        esac
        if [ "$place" = / ]; then return 0; fi
        place=$(dirname "$place") allowed='0:d????????[tT]'
    done
}

# Nothing is in force before all that can fail is done: a file is written beside its place first
# (NAME.part), the program is built beside its own (.new), and `put_in_place` renames them.

# Copies standard input to a file, once all is put in place.  The file keeps its group.
put_file() {
    printf '%s\n' "$1" >>"$written" || die "can't write $written"
    rm -f "$1.part"
    { cat >"$1.part" && chmod "$2" "$1.part" && keep_group "$1" "$1.part"; } ||
        die "can't write $1, which is as it was"
}

put_in_place() {
    if [ -e "$root$program" ]; then mv "$root$program" "$root$program.old"; fi
    mv "$fresh" "$root$program"
    while IFS= read -r each; do mv -f "$each.part" "$each"; done <"$written"
}

# At the end, and at the start after an end that nobody saw: a program that was taken away for one
# that never came is put back, and what wasn't put in place is removed.
clear_up() {
    if [ ! -e "$root$program" ] && [ -e "$root$program.old" ]; then
        mv "$root$program.old" "$root$program"
    fi
    rm -rf "$root$program.old"
    if [ -e "$written" ]; then
        while IFS= read -r each; do rm -f "$each.part"; done <"$written"
    fi
    rm -rf "$fresh" "$written"
}

keep_group() {
    [ ! -e "$1" ] || [ -L "$1" ] || chgrp "$(stat -c %g "$1")" "$2"
}

# The new file in place of the old one, unless somebody edited that, or put a link there.  The
# checksum of what was shipped last is kept: an edited file is told of only where what is shipped has
# changed since.
put_config() {
    source=$1 target=$2 mode=$3
    shipped=$root$config/.shipped/$(basename "$target")
    mkdir -p "$root$config/.shipped"
    if [ -L "$target" ] ||
        { [ -e "$target" ] && [ "$(cksum <"$target")" != "$(cat "$shipped" 2>/dev/null)" ]; }
    then
        if ! cmp -s "$source" "$target" && [ "$(cksum <"$source")" != "$(cat "$shipped" 2>/dev/null)" ]
        then
            put_file "$target.new" "$mode" <"$source"
            say "kept your $target; the new one is $target.new"
        fi
        cksum <"$source" | put_file "$shipped" 0644
        return
    fi
    put_file "$target" "$mode" <"$source"
    cksum <"$source" | put_file "$shipped" 0644
}

# The parts asked for, and those that an earlier installation has.
chosen_parts() {
    for each in $all_parts; do
        case " $parts $(cat "$root$program/parts" 2>/dev/null) " in *" $each "*) say "$each" ;; esac
    done
}

# The units of the parts that are named.
part_units() {
    for each in $*; do
        for unit in "$here/deploy/mtls-sidecar-$each".* "$here/deploy/mtls-sidecar-$each"-*; do
            if [ -e "$unit" ]; then basename "$unit"; fi
        done
    done
}

# What runs keeps its files until it is restarted.
build_program() {
    mkdir -p "$fresh"
    "$python" -I -m venv "$fresh"
    for lock in requirements $(for each in $parts; do say "requirements-$each"; done); do
        "$fresh/bin/python" -I -m pip install -qq --disable-pip-version-check --no-input --no-deps \
            --only-binary :all: --require-hashes -r "$here/deploy/$lock.lock"
    done
    say "$parts" >"$fresh/parts"
    # What installs has no business in production.
    "$fresh/bin/python" -I -m pip uninstall -qq --disable-pip-version-check -y pip setuptools \
        2>/dev/null
    rm -f "$fresh"/bin/pip*
    site=$("$fresh/bin/python" -I -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    cp -R "$here/sidecar" "$site/sidecar"
    find "$site/sidecar" -name __pycache__ -prune -exec rm -rf {} +
    # The source tree may be private to its owner; the program is everybody's to read.
    chmod -R u=rwX,go=rX "$site/sidecar"
    "$fresh/bin/python" -I -m compileall -q "$site/sidecar"
    launcher=$fresh/bin/mtls-sidecar
    printf '#!/bin/sh\nexec %s/bin/python -I -m sidecar "$@"\n' "$program" >"$launcher"
    chmod 0755 "$launcher"
}

# The policy tells who may go where, and is nobody's but the services' to read.
install_config() {
    mkdir -p "$root$config"
    chmod 0750 "$root$config"
    prepared=$fresh/sidecar.yaml
    sed "s/^socket_group: .*/socket_group: $(nginx_group)/" "$here/config/sidecar.yaml" >"$prepared"
    put_config "$prepared" "$root$config/sidecar.yaml" 0640
    rm -f "$prepared"
    put_config "$here/config/policy.yaml" "$root$config/policy.yaml" 0640
    # an editor reads it
    put_file "$root$config/policy.schema.json" 0640 <"$here/config/policy.schema.json"
    for each in $parts; do
        [ -e "$here/config/$each.yaml" ] || continue
        put_config "$here/config/$each.yaml" "$root$config/$each.yaml" 0640
    done
}

give_config() {
    chgrp -h mtls-sidecar "$config"
    for each in sidecar policy $parts; do
        if [ -e "$config/$each.yaml" ]; then chgrp -h mtls-sidecar "$config/$each.yaml"; fi
    done
    chgrp -h mtls-sidecar "$config/policy.schema.json"
}

install_snippets() {
    [ -d "$root/etc/nginx" ] || return 0
    if ! is_ours "$root/etc/nginx" || ! is_ours "$root$snippets"; then
        say "others may write $root$snippets, or /etc/nginx: put nginx-example/snippets/* there as they"
        return 0
    fi
    mkdir -p "$root$snippets"
    for each in "$here"/nginx-example/snippets/*; do
        target=$root$snippets/$(basename "$each")
        put_config "$each" "$target" 0644
        if [ ! -e "$target.part" ] && ! cmp -s "$each" "$target"; then
            say "$target is not as this version ships it: nginx -T | mtls-sidecar doctor - says what that opens"
        fi
    done
}

install_units() {
    mkdir -p "$root$units"
    group=$(nginx_group)
    for name in $unit_names $(part_units $parts); do
        unit=$(sed "s/^SocketGroup=www-data/SocketGroup=$group/" "$here/deploy/$name")
        say "$unit" | put_file "$root$units/$name" 0644
    done
}

# The fetcher and the fleet's agent have users of their own, and of the daemon's directories only
# the one for what they bring.  Those who own a directory could put a link into it: nothing below is followed, and
# what is there already is left to its owner.
make_users() {
    make_user mtls-sidecar --user-group
    make_user mtls-sidecar-fetch --gid mtls-sidecar
    for each in $(part_users $parts); do
        make_user "$each" --gid mtls-sidecar
        make_directory "/var/lib/$each" "$each"
    done
    make_directory "$state" mtls-sidecar
    make_directory "$state/crl" mtls-sidecar-fetch
    case " $parts " in *' fleet '*) make_directory "$state/fleet" mtls-sidecar-fleet ;; esac
}

part_users() {
    for each in $*; do
        if [ -e "$here/deploy/mtls-sidecar-$each.service" ]; then say "mtls-sidecar-$each"; fi
    done
}

make_user() {
    user=$1
    shift
    getent passwd "$user" >/dev/null ||
        useradd --system "$@" --no-create-home --home-dir /nonexistent \
            --shell /usr/sbin/nologin "$user"
}

make_directory() {
    if [ -L "$1" ] || { [ -e "$1" ] && [ ! -d "$1" ]; }; then
        die "$1 is a link or a file; look at who put it there, and remove it"
    fi
    mkdir -m 0750 "$1" 2>/dev/null || return 0
    chown -h "$2:mtls-sidecar" "$1"
}

restart_what_runs() {
    systemctl daemon-reload || true
    for name in mtls-sidecar.service mtls-sidecar-fetch.service $(part_units $parts); do
        case $name in *.service) ;; *) continue ;; esac
        systemctl try-restart "$name" || say "$name does not start: systemctl status $name"
    done
    each_instance try-restart
}

each_instance() {
    systemctl list-units --all --plain --no-legend 'mtls-sidecar@*.service' 2>/dev/null |
        while read -r unit _; do systemctl $1 "$unit" || true; done
}

uninstall() {
    say 'nginx answers 500 wherever it asks the sidecar, from now on'
    if with_systemd; then
        systemctl disable --now mtls-sidecar.socket mtls-sidecar-admin.socket mtls-sidecar.service \
            mtls-sidecar-fetch.service $(part_units $all_parts) 2>/dev/null || true
        each_instance 'disable --now' 2>/dev/null
        systemctl stop 'mtls-sidecar@*.socket' 'mtls-sidecar-admin@*.socket' 2>/dev/null || true
    fi
    for name in $unit_names $(part_units $all_parts); do rm -f "$root$units/$name"; done
    for each in '' .new .old .files .lock; do rm -rf "$root$program$each"; done
    rm -rf "$root$config/.shipped" "$root$config"/*.new "$root$snippets"/*.new
    if with_systemd; then systemctl daemon-reload || true; fi
    if on_host; then
        rm -f /usr/local/bin/mtls-sidecar
        rm -rf "$state" "$logs" /run/mtls-sidecar /run/mtls-sidecar-fetch
        for each in $(part_users $all_parts); do remove_part "$each"; done
        rm -rf /var/lib/mtls-sidecar-fleet-keeper
        # The numbers are the next new group's and user's, who have no business with these.
        if [ -d "$config" ] && getent group mtls-sidecar >/dev/null; then
            find "$config" -group mtls-sidecar -exec chgrp -h root {} +
        fi
        for user in $(part_users $all_parts) mtls-sidecar-fetch mtls-sidecar; do
            if [ -d "$config" ] && getent passwd "$user" >/dev/null; then
                find "$config" -user "$user" -exec chown -h root {} +
            fi
            if getent passwd "$user" >/dev/null && ! userdel "$user" 2>/dev/null; then
                say "the user $user stays: see its processes, ps -fu $user, and userdel it"
            fi
        done
        if getent group mtls-sidecar >/dev/null; then groupdel mtls-sidecar 2>/dev/null || true; fi
    fi
    say "removed; $config and $snippets stay"
}

# The certification authority of `enroll` is not to be had again: it stays, for root alone.
remove_part() {
    rm -rf "/run/$1" "/var/log/$1"
    [ -e "/var/lib/$1" ] || return 0
    case $1 in
        *-enroll)
            if rmdir "/var/lib/$1" 2>/dev/null; then return 0; fi # never used
            chown -hR root:root "/var/lib/$1"
            chmod 0700 "/var/lib/$1"
            say "/var/lib/$1, with the keys of a CA, stays"
            ;;
        *) rm -rf "/var/lib/$1" ;;
    esac
}

if ! on_host; then
    mkdir -p "$root"
    for each in "$root" "$root/opt" "$root/etc" "$root$units"; do must_be_ours "$each"; done
fi
if [ "$action" = uninstall ]; then
    uninstall
    exit 0
fi
for each in "$root$config" "$root$config/.shipped"; do
    is_ours "$each" || die "others may write $each, and so lead root elsewhere: chown root and chmod \
go-w it; a policy of another user's may be in a directory of its own (policy: in sidecar.yaml)"
done
python=$(find_python)
lock "$python"
fresh=$root$program.new written=$root$program.files
clear_up
trap clear_up EXIT
trap 'exit 1' HUP INT TERM
upgrade=
if [ -e "$root$program" ]; then upgrade=yes; fi
parts=$(echo $(chosen_parts))
build_program
if on_host; then make_users; fi
install_config
install_snippets
install_units
trap '' HUP INT TERM # from here on nothing needs room on the disk
put_in_place
trap - HUP INT TERM
if on_host; then give_config; fi
if on_host; then ln -sfn "$program/bin/mtls-sidecar" /usr/local/bin/mtls-sidecar; fi
if [ -n "$upgrade" ]; then
    if with_systemd; then restart_what_runs; fi
    say "upgraded to $("$root$program/bin/python" -I -m sidecar --version)"
    exit 0
fi
if with_systemd; then systemctl daemon-reload || true; fi
cat <<END
installed.  Next:
  1. edit $config/policy.yaml (it lets nobody in yet), then: mtls-sidecar check
  2. systemctl enable --now mtls-sidecar
  3. nginx: include the files of $snippets, then: nginx -t && systemctl reload nginx
  4. where the policy names http(s) CRLs or OCSP: systemctl enable --now mtls-sidecar-fetch
END
for each in $parts; do say "  with $each: docs/$each.md"; done
