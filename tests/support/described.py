"""A certificate described by its fields, as documents and policies write one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from pki import CA, Key, Leaf, new_key

from sidecar.core.x509.certificate import EKU_NAMES

START, END = datetime(2020, 1, 1, tzinfo=UTC), datetime(2060, 1, 1, tzinfo=UTC)
"""The validity of what gives none: examples have moments of their own."""

_LISTS = ("cn", "o", "ou", "dns", "uri", "email", "ip", "upn", "policy_oid")
_OTHERS = ("serial", "not_before", "not_after", "eku", "extensions")
_KEY: Key = new_key()


def authority(name: str, issuer: CA | None = None, not_after: datetime = END) -> CA:
    """A CA that is valid at all moments of examples."""
    return CA(name, key=_KEY, issuer=issuer, not_before=START, not_after=not_after)


def described(issuer: CA, fields: Mapping[str, Any], *, key: Key = _KEY) -> Leaf:
    """Issue the certificate that these fields describe.

    Lists may be a single value.  `serial` is hex, `eku` names or OIDs (default: clientAuth), and
    `extensions` the extensions that the field's name doesn't cover, as (extension, critical).
    """
    unknown = set(fields) - {*_LISTS, *_OTHERS}
    assert not unknown, f"no fields of a certificate: {sorted(unknown)}"
    lists = {name: _many(fields.get(name, ())) for name in _LISTS}
    return issuer.issue(
        cns=lists["cn"],
        o=lists["o"],
        ou=lists["ou"],
        dns=lists["dns"],
        uri=lists["uri"],
        email=lists["email"],
        ip=lists["ip"],
        upn=lists["upn"],
        policies=lists["policy_oid"],
        eku=[_usage(each) for each in _many(fields.get("eku", "clientAuth"))],
        serial=int(re.sub("^0x|:", "", str(fields["serial"])), 16) if "serial" in fields else None,
        not_before=_time(fields.get("not_before"), START),
        not_after=_time(fields.get("not_after"), END),
        key=key,
        extra_extensions=fields.get("extensions", ()),
    )


def _many(value: Any) -> list[str]:
    return [str(each) for each in (value if isinstance(value, list | tuple) else [value])]


def _usage(name: str) -> x509.ObjectIdentifier:
    return x509.ObjectIdentifier(EKU_NAMES.get(name, name))


def _time(text: str | None, default: datetime) -> datetime:
    return default if text is None else datetime.fromisoformat(text)
