"""An example of a difference: a certificate by its fields, a request, and both decisions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sidecar.core.config.dates import parse_date
from sidecar.core.decision import Decision
from sidecar.core.errors import PolicyError
from sidecar.core.evaluate import evaluate
from sidecar.core.policy.cases import Principal
from sidecar.core.request import AuthzRequest
from sidecar.core.x509.certificate import EKU_NAMES, serial_hex
from sidecar.core.x509.described import SERIAL
from sidecar.core.x509.distinguished_name import parse_name

from ..asking import Circumstances, PolicyFile, request_of
from ..explain import described
from .atoms import Atom
from .formula import CERT, HOST, ORIGIN, SNI, SUCCESS, covers_host, host_of

Values = Mapping[str, tuple[Any, ...]]
"""The values of each field that matters."""

_LISTS = ("o", "ou", "dns", "uri", "ip", "email", "upn", "policy_oid")
_TYPES = {"2.5.4.3": "cn", "2.5.4.10": "o", "2.5.4.11": "ou"}
_NO_HOST = "host.invalid"


@dataclass(frozen=True, slots=True)
class Question:
    """How a location is asked for: by its name, or by host and URI."""

    location: str = ""
    host: str = ""
    uri: str = ""


@dataclass(frozen=True, slots=True)
class Example:
    """One difference; `cert` and `request` are as JSON has them."""

    cert: dict[str, Any] | None
    request: dict[str, str]
    old: Decision
    new: Decision


def examples(
    question: Question, values: Values, assigned: Mapping[Atom, bool], now: float
) -> Iterator[tuple[dict[str, Any] | None, dict[str, str]]]:
    """Certificates and requests with these values; several where a DN may be met by several."""
    presented = bool(_only(values, CERT, False))
    request = _request(question, values, now, presented)
    if not presented:
        yield None, request
        return
    cert = _certificate(values)
    for subject in _names(assigned, "dn"):
        for issuer in _names(assigned, "issuer_dn"):
            found = {"cn": "someone", **cert, **subject, **_of_issuer(issuer)}
            yield {name: _short(name, each) for name, each in found.items() if each != ()}, request


def _short(name: str, value: Any) -> Any:
    """One CN as a text, as people write it."""
    is_one = name in ("cn", "issuer_cn") and isinstance(value, list) and len(value) == 1
    return value[0] if is_one else value


def _only(values: Values, name: str, default: Any) -> Any:
    return values[name][0] if name in values else default


def _certificate(values: Values) -> dict[str, Any]:
    found: dict[str, Any] = {}
    found |= {name: list(values[name]) for name in ("cn", "issuer_cn") if name in values}
    found |= {name: list(values[name]) for name in _LISTS if values.get(name)}
    serial = _only(values, "serial", SERIAL)
    if serial != SERIAL:
        found["serial"] = serial_hex(serial)
    for name in ("sha256", "spki_sha256", "trust"):
        if _only(values, name, ""):
            found[name] = _only(values, name, "")
    usages = list(values.get("eku", (EKU_NAMES["clientAuth"],)))
    if usages != [EKU_NAMES["clientAuth"]]:
        found["eku"] = usages
    return {name: value if value != [] or name == "eku" else () for name, value in found.items()}


def _names(assigned: Mapping[Atom, bool], field: str) -> list[dict[str, Any]]:
    """Names that a DN of the rules asks for, of CN, O and OU; one without any where none does."""
    texts = [t for atom, holds in assigned.items() if holds and atom.field == field
             for t in atom.texts]  # fmt: skip
    return [_parts(text) for text in texts] or [{}]


def _parts(text: str) -> dict[str, Any]:
    try:
        name = parse_name(text)
    except ValueError:
        return {}
    found: dict[str, Any] = {"cn": (), "o": (), "ou": ()}
    for rdn in name:
        for attribute in rdn:
            key = _TYPES.get(attribute.oid, "")
            if key and isinstance(attribute.value, str):
                found[key] = [*found[key], attribute.value]
    return found


def _of_issuer(name: Mapping[str, Any]) -> dict[str, Any]:
    return {"issuer_cn": name["cn"]} if "cn" in name else {}


def _request(question: Question, values: Values, now: float, presented: bool) -> dict[str, str]:
    found = {}
    if question.location:
        found["location"] = question.location
    else:
        found |= {"host": question.host, "uri": question.uri}
    found["verify"] = _only(values, "verify", SUCCESS) if presented else "NONE"
    if not question.host and {HOST, SNI} & values.keys():
        found["host"] = _host(values)
    if SNI in values:
        found["sni"] = found["host"] if _only(values, SNI, False) else f"other-{_NO_HOST}"
    found["method"] = _only(values, "method", "GET")
    if _only(values, "client_ip", ""):
        found["client_ip"] = _only(values, "client_ip", "")
    found["now"] = _rfc3339(_only(values, "now", now))
    if _only(values, ORIGIN, False):
        found["sec_fetch_site"] = "cross-site"
    return found


def _host(values: Values) -> str:
    if not _only(values, HOST, False):
        return _NO_HOST
    names = (*values.get("dns", ()), *values.get("ip", ()))
    return next((host_of(name) for name in names if covers_host(name)), _NO_HOST)


def _rfc3339(moment: float) -> str:
    at = datetime.fromtimestamp(moment, UTC)
    fraction = f".{at.microsecond:06}" if at.microsecond else ""
    return f"{at:%Y-%m-%dT%H:%M:%S}{fraction}Z"


def decide(
    policies: Sequence[PolicyFile], cert: dict[str, Any] | None, request: Mapping[str, str]
) -> list[Decision] | None:
    """What the policies decide, as `explain` would; None where no certificate can be so."""
    get = request.get
    now = parse_date(request["now"])
    given = Circumstances(
        now=now,
        host=get("host", ""),
        sni=get("sni", ""),
        method=get("method", ""),
        client_ip=get("client_ip", ""),
        verify=get("verify", ""),
    )
    try:
        who = Principal()
        if cert is not None:
            who = described(json.dumps(cert, ensure_ascii=False))
        asked: AuthzRequest = request_of(given, who)
    except (PolicyError, ValueError):
        return None
    asked = asked._replace(
        location=request.get("location"),
        uri=get("uri", "").encode("latin-1", "replace"),
        other_origin=get("sec_fetch_site", ""),
    )
    return [evaluate(each.policy, asked, now) for each in policies]
