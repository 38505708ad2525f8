"""Cerbos' files, and the njs that asks it: its API takes and gives JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

ADAPTER = """
async function decide(r) {
    const asked = {
        principal: {id: r.headersIn['X-CN'] || '-', roles: ['client']},
        resources: [{resource: {kind: 'location', id: r.uri.slice(7)}, actions: ['GET']}],
    };
    const answer = await r.subrequest('/check', {method: 'POST', body: JSON.stringify(asked)});
    const found = answer.status == 200 && JSON.parse(answer.responseText).results[0].actions.GET;
    r.return(found == 'EFFECT_ALLOW' ? 204 : 403);
}
export default {decide};
"""


def write(directory: Path, http: int, grpc: int, names: Iterable[str]) -> None:
    """`cerbos.json` and its policy: whoever is one of `names` may go anywhere."""
    policies = directory / "policies"
    policies.mkdir()
    rule = {
        "actions": ["*"],
        "effect": "EFFECT_ALLOW",
        "roles": ["*"],
        "condition": {"match": {"expr": "P.id in C.names"}},
    }
    policy = {
        "version": "default",
        "resource": "location",
        "constants": {"local": {"names": dict.fromkeys(names, True)}},
        "rules": [rule],
    }
    settings = {
        "server": {"httpListenAddr": f"127.0.0.1:{http}", "grpcListenAddr": f"127.0.0.1:{grpc}"},
        "storage": {"driver": "disk", "disk": {"directory": str(policies)}},
        "telemetry": {"disabled": True},
        "audit": {
            "enabled": True,
            "backend": "file",
            "accessLogsEnabled": False,
            "decisionLogsEnabled": True,
            "file": {"path": str(directory / "audit.log")},
        },
    }
    (policies / "location.json").write_text(
        json.dumps({"apiVersion": "api.cerbos.dev/v1", "resourcePolicy": policy})
    )
    (directory / "cerbos.json").write_text(json.dumps(settings))
