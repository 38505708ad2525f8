#!/bin/sh
# Builds the Debian package for this machine's release and architecture.
#
#   sh deploy/deb/build.sh OUT
#
# Only dpkg-deb and python3-venv are needed.  Wheels come from the package index while it is built;
# installing it needs no network.  The same source gives the same bytes: all times are
# SOURCE_DATE_EPOCH, or else the last commit's.
set -eu
umask 022
if [ "$(id -u)" = 0 ]; then unset TMPDIR TEMP TMP; fi # see install.sh

here=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd -P)
out=${1:?give a directory}
mkdir -p "$out"
epoch=${SOURCE_DATE_EPOCH:-$(git -c "safe.directory=$here" -C "$here" log -1 --format=%ct)}
export SOURCE_DATE_EPOCH="$epoch" PYTHONDONTWRITEBYTECODE=1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

root=$work/root
version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' "$here/sidecar/__init__.py")-1
arch=$(dpkg --print-architecture)
minor=$(/usr/bin/python3 -I -c 'import sys; print(sys.version_info[1])')
doc=$root/usr/share/doc/mtls-sidecar
maintainer='mtls-sidecar maintainers <maintainers@mtls-sidecar.invalid>'

changelog() {
    cat <<END
mtls-sidecar ($version) unstable; urgency=medium

  * What changed stands in /usr/share/doc/mtls-sidecar/changelog.gz.

 -- $maintainer  $(LC_ALL=C date -u -R -d "@$epoch")
END
}

copyright() {
    cat <<END
Copyright (C) 2026 the authors of mtls-sidecar
mtls-sidecar is under the Apache License 2.0, see /usr/share/common-licenses/Apache-2.0.

Below /usr/lib/mtls-sidecar are the Python packages that it is built on, unchanged:

END
    for each in "$root"/usr/lib/mtls-sidecar/lib/python*/site-packages/*.dist-info; do
        sed -n 's/^Name: //p; s/^Version: /  version: /p; s/^License\(-Expression\)\{0,1\}: /  license: /p
            s/^Home-page: /  from: /p; /^$/q' "$each/METADATA"
        find "$each" -iname '*licen[cs]e*' -type f -exec printf '  text: %s\n' {} \; |
            sed "s,$root,," | LC_ALL=C sort
    done
}

control() {
    cat <<END
Package: mtls-sidecar
Version: $version
Architecture: $arch
Maintainer: $maintainer
Installed-Size: $(du -sk --apparent-size "$root" | cut -f1)
Depends: python3 (>= 3.$minor), python3 (<< 3.$((minor + 1))), libc6 (>= 2.34), libgcc-s1, libstdc++6, systemd, passwd
Recommends: nginx
Section: net
Priority: optional
Description: authorization by client certificate for nginx
 nginx asks this daemon by auth_request about each request that came with a
 client certificate.  It decides by a policy in YAML, by names, roles, issuers
 and times, and by CRLs, OCSP and denylists, and fails closed.
END
}

sh "$here/deploy/deb/stage.sh" "$root" "$epoch"
changelog | gzip -9n >"$doc/changelog.Debian.gz"
copyright >"$doc/copyright"
mkdir -p "$root/usr/share/lintian/overrides" "$root/DEBIAN"
cp "$here/deploy/deb/lintian-overrides" "$root/usr/share/lintian/overrides/mtls-sidecar"
(cd "$root" && find etc -type f | LC_ALL=C sort | sed 's,^,/,') >"$work/conffiles"
(cd "$root" && find usr lib etc -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum) >"$work/md5sums"
control >"$root/DEBIAN/control"
cp "$work/conffiles" "$work/md5sums" "$root/DEBIAN/"
for each in preinst postinst prerm postrm; do
    cp "$here/deploy/deb/$each" "$root/DEBIAN/$each"
    chmod 755 "$root/DEBIAN/$each"
done
find "$root" -exec touch -h -d "@$epoch" {} +
dpkg-deb --root-owner-group -Zxz -z3 --threads-max=1 --build "$root" "$out/mtls-sidecar_${version}_$arch.deb" >/dev/null
echo "$out/mtls-sidecar_${version}_$arch.deb"
