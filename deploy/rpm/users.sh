set -eu
getent group mtls-sidecar >/dev/null || groupadd --system mtls-sidecar
for user in mtls-sidecar mtls-sidecar-fetch mtls-sidecar-enroll mtls-sidecar-fleet; do
    getent passwd "$user" >/dev/null || useradd --system --gid mtls-sidecar --no-create-home \
        --home-dir /nonexistent --shell /sbin/nologin "$user"
done
