set -eu
[ "$1" = 0 ] || exit 0 # an upgrade
if [ -d /run/systemd/system ]; then
    systemctl disable --now mtls-sidecar.service mtls-sidecar.socket mtls-sidecar-admin.socket \
        mtls-sidecar-fetch.service || true
fi
