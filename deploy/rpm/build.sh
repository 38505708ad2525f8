#!/bin/sh
# Builds an RPM of the same files as the Debian package, for a system with this machine's Python.
#
#   sh deploy/rpm/build.sh OUT [NFPM]     (default: .tools/release/bin/nfpm, of release-tools.lock)
#
# It is built and listed in a test, and not installed anywhere: try it before you rely on it.
set -eu
umask 022
if [ "$(id -u)" = 0 ]; then unset TMPDIR TEMP TMP; fi # see install.sh

here=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd -P)
out=${1:?give a directory}
nfpm=${2:-$here/.tools/release/bin/nfpm}
mkdir -p "$out"
out=$(CDPATH='' cd -- "$out" && pwd -P)
epoch=${SOURCE_DATE_EPOCH:-$(git -c "safe.directory=$here" -C "$here" log -1 --format=%ct)}
export SOURCE_DATE_EPOCH="$epoch" PYTHONDONTWRITEBYTECODE=1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

sh "$here/deploy/deb/stage.sh" "$work/files" "$epoch"
cp "$here"/deploy/rpm/*.sh "$work/"
VERSION=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' "$here/sidecar/__init__.py")
PYTHON=$(/usr/bin/python3 -I -c 'import sys; print("%d.%d" % sys.version_info[:2])')
ARCH=$(uname -m | sed 's/x86_64/amd64/; s/aarch64/arm64/')
export VERSION PYTHON ARCH
# nginx's group has another name there.
sed -i 's/^SocketGroup=www-data/SocketGroup=nginx/' "$work"/files/lib/systemd/system/*.socket
sed -i 's/^socket_group: .*/socket_group: nginx/' "$work/files/etc/mtls-sidecar/sidecar.yaml"
cd "$work"
"$nfpm" package --config "$here/deploy/rpm/nfpm.yaml" --packager rpm --target "$out/"
