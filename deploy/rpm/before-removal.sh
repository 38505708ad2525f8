set -eu
[ "$1" = 0 ] || exit 0 # an upgrade
if [ -d /run/systemd/system ]; then
    for each in /usr/lib/systemd/system/mtls-sidecar*; do
        case $each in *@.*) ;; *) systemctl disable --now "${each##*/}" || true ;; esac
    done
    systemctl stop 'mtls-sidecar@*' 'mtls-sidecar-admin@*' || true
fi
