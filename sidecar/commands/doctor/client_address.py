"""Check that the client's address, where rules ask for it, isn't the client's own word."""

from __future__ import annotations

import ipaddress

from sidecar.core.policy.model import Policy

from .findings import Finding
from .server import Server


def client_address(
    server: Server, policy: Policy | None, asked: set[str], findings: list[Finding]
) -> None:
    """`set_real_ip_from` for everybody: a header then says what `$remote_addr` is.

    In a location it holds from the phase before the question on, and in the question's own, too.
    """
    if policy is None:
        return
    names = policy.locations.keys() if "" in asked else asked & policy.locations.keys()
    if not any(policy.locations[name].uses_client_ip for name in names):
        return
    places = [*server.asking, *filter(None, server.questions.values())]
    for place, each in ((e, given) for e in places for given in e.inherited("set_real_ip_from")):
        if _is_everybody(each.args[0]):
            header = place.value("real_ip_header", "X-Real-IP")
            what = f"{header} of anybody is believed, and the policy asks for client_ip"
            write = "set_real_ip_from ADDRESS;   (of the proxy in front alone)"
            findings.append(Finding("address-from-client", each.file, each.line, what, write))


def _is_everybody(text: str) -> bool:
    """Whether a network holds a large part of all addresses."""
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return network.prefixlen < 4
