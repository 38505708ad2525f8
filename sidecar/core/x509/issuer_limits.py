"""Read what an authority may issue, and tell what it certainly may not, for `verify: nginx`.

nginx may have verified another path than the one found here: an intermediate can have several
certificates for one key, below several roots, and the client sends one of them.  So the limits of
the found path are asked as well: name constraints (RFC 5280, 4.2.1.10) and extended key usage.

Only what OpenSSL would refuse is refused: names in a form that isn't plain, kinds of names that
aren't compared, and constraints that can't be read are left out.  `name_constraints` is for
`verify: sidecar`, and refuses where this is uncertain.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from . import extension_values as ext
from .canonical_name import canonical_name
from .certificate import ClientCert
from .client_purpose import CLIENT_AUTH
from .name_constraints import (
    ConstrainedNames,
    Constraints,
    is_certainly_outside,
    names_of,
    read_constraints,
)


class IssuerLimits(NamedTuple):
    """The limits of one authority."""

    constraints: Constraints | None = None
    is_for_clients: bool = True


def read_limits(cert: ClientCert) -> IssuerLimits:
    """Read the limits of an authority; without limits if its extensions can't be told apart."""
    try:
        found = ext.extensions_of(cert)
    except ValueError:
        return IssuerLimits()
    limits, usages = found.get(ext.NAME_CONSTRAINTS), found.get(ext.EXTENDED_USAGE)
    return IssuerLimits(
        None if limits is None else _constraints(limits.value),
        usages is None or _is_for_clients(usages.value),
    )


def _constraints(value: bytes) -> Constraints | None:
    try:
        return read_constraints(value)
    except ValueError:
        return None


def _is_for_clients(value: bytes) -> bool:
    try:
        return CLIENT_AUTH in ext.oids(value)
    except ValueError:
        return False


_LABEL = rb"[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?"
_HOST = re.compile(_LABEL + rb"(?:\." + _LABEL + rb")+")
"""A CN that OpenSSL holds against constraints on DNS names: no hyphen stands beside a dot."""


def are_certainly_exceeded(
    leaf: ClientCert, path: Sequence[tuple[ClientCert, IssuerLimits]]
) -> bool:
    """Return whether a certificate of a path has a name that an authority above forbids.

    `path` is the leaf's issuers, nearest first, each with its limits.
    """
    lower = [leaf, *(cert for cert, _ in path)]
    for at, (_, limits) in enumerate(path):
        if limits.constraints is None:
            continue
        for place, cert in enumerate(lower[: at + 1]):
            names = _names(cert, is_leaf=place == 0)
            if names is not None and is_certainly_outside(names, limits.constraints):
                return True
    return False


def _names(cert: ClientCert, *, is_leaf: bool) -> ConstrainedNames | None:
    """Return the names to compare; None for a self-issued authority (RFC 5280, 6.1.4 (b)).

    Also None if they can't be read.
    """
    try:
        if not is_leaf and canonical_name(cert.subject_name) == canonical_name(cert.issuer_name):
            return None
        value = cert.extension(_ALTERNATIVE_NAME)
        names = names_of(cert, [] if value is None else ext.general_names(value))
    except ValueError:
        return None
    hosts: tuple[bytes, ...] = ()
    if is_leaf and not any(name.tag == ext.DNS for name in names.alternative):
        hosts = tuple(host for host in names.hosts if _HOST.fullmatch(host))
    return names._replace(hosts=hosts)


_ALTERNATIVE_NAME = bytes.fromhex("551d11")
