#!/bin/sh
# For `issuer: {command: […]}` of enroll.yaml: step-ca signs, by a JWK provisioner.
# STEP_PROVISIONER is its name, STEP_PASSWORD_FILE has its password; `step ca bootstrap` came before.
set -eu

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/client.csr"

# --san once for each name: without one step takes the CN for a DNS name.
set -- --san "$MTLS_SIDECAR_NAME"
rest=$MTLS_SIDECAR_SAN
if [ -n "$rest" ]; then set --; fi
while [ -n "$rest" ]; do
    each=${rest%%,*}
    set -- "$@" --san "${each#*:}"
    case $rest in *,*) rest=${rest#*,} ;; *) rest= ;; esac
done
token=$(step ca token "$MTLS_SIDECAR_NAME" "$@" \
    --provisioner "$STEP_PROVISIONER" --password-file "$STEP_PASSWORD_FILE")
# As a variable: everybody may read arguments, and whoever is first has this name signed for himself.
STEP_TOKEN=$token step ca sign --not-after "${MTLS_SIDECAR_SECONDS}s" \
    "$work/client.csr" "$work/client.crt" >&2
cat "$work/client.crt"
