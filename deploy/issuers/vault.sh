#!/bin/sh
# For `issuer: {command: […]}` of enroll.yaml: Vault (or OpenBao) signs, by a role of its PKI engine
# with use_csr_common_name=false, use_csr_sans=false, allow_any_name=true, enforce_hostnames=false,
# allowed_uri_sans=*, client_flag=true and server_flag=false.  VAULT_ROLE is `pki/sign/NAME`.
set -eu

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/client.csr"

names= uris= rest=$MTLS_SIDECAR_SAN
while [ -n "$rest" ]; do
    each=${rest%%,*}
    case $each in
        URI:*) uris=$uris${uris:+,}${each#*:} ;;
        *) names=$names${names:+,}${each#*:} ;;
    esac
    case $rest in *,*) rest=${rest#*,} ;; *) rest= ;; esac
done
vault write -field=certificate "$VAULT_ROLE" csr=@"$work/client.csr" \
    common_name="$MTLS_SIDECAR_NAME" exclude_cn_from_sans=true \
    alt_names="$names" uri_sans="$uris" ttl="${MTLS_SIDECAR_SECONDS}s"
