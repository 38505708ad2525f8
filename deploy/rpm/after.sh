set -eu
systemd-tmpfiles --create mtls-sidecar.conf || true
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    systemctl try-restart mtls-sidecar.service 'mtls-sidecar-*.service' \
        'mtls-sidecar@*.service' || true
fi
