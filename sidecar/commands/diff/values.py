"""Values to try for a field: those that patterns name, those beside them, and usual ones."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sidecar.core.ip_address import IpAddress, parse_network, unmapped_address
from sidecar.core.policy.patterns import KEY_COMPARISONS
from sidecar.core.x509.certificate import EKU_NAMES
from sidecar.core.x509.described import ALWAYS, SERIAL

from .atoms import ABSENT, Atom
from .formula import FAILED, SUCCESS

UNLISTED = "unlisted"
"""The name of a trust that stands for every authority that neither policy names."""

_USUAL = {
    "cn": ["someone"],
    "o": ["Example"],
    "ou": ["Staff"],
    "issuer_cn": ["Example CA"],
    "dns": ["app.example.org", "*.example.org"],
    "email": ["someone@example.org"],
    "uri": ["https://example.org/", "spiffe://example.org/someone"],
    "upn": ["someone@example.org"],
    "policy_oid": ["1.3.6.1.4.1.99999.1"],
}
_METHODS = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "PROPFIND", "REPORT"]

COMPLETE = frozenset(
    {"ip", "client_ip", "serial", "sha256", "spki_sha256", "eku", "policy_oid", "method", "now"}
    | {"verify", "trust", "cert", "origin", "host", "sni"}
)
"""Fields for which the values tried stand for all that there are."""


def values_of(field: str, atoms: Sequence[Atom], now: float) -> list[Any]:
    """The values to try, the most natural first."""
    texts = [text for atom in atoms for text in atom.texts]
    make = _MAKERS.get(field)
    found = make(texts) if make else _SPECIAL[field](atoms, now)
    return list(dict.fromkeys(found))


def _names(field: str) -> Callable[[list[str]], list[str]]:
    def make(texts: list[str]) -> list[str]:
        found = [*_USUAL[field]]
        for text in texts:
            if not text.startswith("~"):
                found += [text.replace("*", each) for each in ("x", "")] if "*" in text else [text]
        return [each for each in found if each]

    return make


def _dns(texts: list[str]) -> list[str]:
    found = [*(text for text in texts if not text.startswith("~")), *_USUAL["dns"]]
    concrete = [text.replace("*", "any", 1) for text in found]
    return [*concrete, *found, *(f"{name}." for name in found)]


def _addresses(texts: list[str]) -> list[str]:
    """The ends of every network and of what is between them, and one within."""
    inner: list[IpAddress] = []
    edges: list[IpAddress] = [ipaddress.IPv4Address("192.0.2.1")]
    edges += [ipaddress.IPv6Address("2001:db8::1"), ipaddress.IPv4Address(0)]
    edges.append(ipaddress.IPv6Address(0))
    for network in map(parse_network, texts):
        last = int(network.network_address) + network.num_addresses - 1
        kind = type(network.network_address)
        if network.num_addresses > 2:
            inner.append(kind(int(network.network_address) + 1))
        edges.append(network.network_address)
        if last < 2**network.max_prefixlen - 1:
            edges.append(kind(last + 1))
    return [str(unmapped_address(each)) for each in (*inner, *edges)]


def _client_addresses(texts: list[str]) -> list[str]:
    return [*_addresses(texts), ABSENT]


def _serials(texts: list[str]) -> list[int]:
    named = [_only(KEY_COMPARISONS["serial"].parse(text).exact) for text in texts]
    other = next(n for n in range(SERIAL, SERIAL + len(named) + 1) if n not in named)
    return [other, *named]


def _fingerprints(texts: list[str]) -> list[str]:
    """Those that are named; empty: another."""
    return ["", *(str(_only(KEY_COMPARISONS["sha256"].parse(text).exact)) for text in texts)]


def _usages(texts: list[str]) -> list[str]:
    named = [str(_only(KEY_COMPARISONS["eku"].parse(text).exact)) for text in texts]
    return [EKU_NAMES["clientAuth"], *named, "1.3.6.1.4.1.99999.1"]


def _only(values: Iterable[Any]) -> Any:
    return next(iter(values))


def _methods(texts: list[str]) -> list[str]:
    return [*_METHODS, *texts, *(["OTHER"] if set(_METHODS) <= set(texts) else []), ABSENT]


_MAKERS: dict[str, Callable[[list[str]], list[Any]]] = {
    **{field: _names(field) for field in _USUAL},
    "dns": _dns,
    "ip": _addresses,
    "client_ip": _client_addresses,
    "serial": _serials,
    "sha256": _fingerprints,
    "spki_sha256": _fingerprints,
    "eku": _usages,
    "method": _methods,
}


def _moments(atoms: Sequence[Atom], now: float) -> list[float]:
    """Now, then each moment at which a rule begins or ends, the next ones first."""
    turns = {moment for atom in atoms for moment in atom.moments if 0 <= moment < ALWAYS[1]}
    before = {max(0.0, moment - 1) for moment in turns} | {0.0}
    ordered = sorted(turns | before)
    future = [each for each in ordered if each > now]
    return [now, *future, *reversed([each for each in ordered if each <= now])]


def _trusts(atoms: Sequence[Atom], now: float) -> list[str]:
    return [*sorted({word for atom in atoms for word in atom.words}), UNLISTED]


def _verdicts(atoms: Sequence[Atom], now: float) -> list[str]:
    return [SUCCESS, FAILED]


def _either(atoms: Sequence[Atom], now: float) -> list[bool]:
    return [False, True]


_SPECIAL: dict[str, Callable[[Sequence[Atom], float], list[Any]]] = {
    "now": _moments,
    "trust": _trusts,
    "verify": _verdicts,
    **dict.fromkeys(("cert", "origin", "host", "sni"), _either),
}

SINGLE = frozenset(
    {"client_ip", "method", "serial", "sha256", "spki_sha256", "now", "trust", "verify"}
    | {"cert", "origin", "host", "sni"}
)
"""Fields that have one value; the others have any number of values."""
