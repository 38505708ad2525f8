#!/bin/sh
# For `issuer: {command: […]}` of enroll.yaml: EasyRSA signs.  EASYRSA_PKI is its PKI's directory.
#
# A CSR comes in, the certificate goes out; names, days and alternative names come from the
# environment, and never from the CSR alone: enroll compares the certificate with what it asked for.
set -eu

: "${EASYRSA_PKI:?set EASYRSA_PKI to the directory of the PKI}"
export EASYRSA_PKI EASYRSA_BATCH=1 EASYRSA_CERT_EXPIRE="$MTLS_SIDECAR_DAYS"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/client.req"
id=enroll-$(openssl rand -hex 12)

# Two at once wait for each other: EasyRSA's database has no lock of its own.
exec 9>"$EASYRSA_PKI/enroll.lock"
flock 9
easyrsa import-req "$work/client.req" "$id" >&2
easyrsa ${MTLS_SIDECAR_SAN:+--subject-alt-name="$MTLS_SIDECAR_SAN"} sign-req client "$id" >&2
openssl x509 -in "$EASYRSA_PKI/issued/$id.crt"
openssl x509 -in "$EASYRSA_PKI/ca.crt"
