"""Clients of `enroll` as targets: `revoke alice`, `revoke alice/phone`.

A target that could be a client and something else is asked about.  Where the clients can't be read,
a certificate's file and a fingerprint are taken all the same: a revocation waits for nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Protocol

from sidecar.core.errors import MalformedCertificate, PolicyError, printable
from sidecar.core.revocation.denylist import one_entry
from sidecar.core.x509.certificate import ClientCert, from_der
from sidecar.core.x509.equivalent_fingerprints import equivalent_fingerprints
from sidecar.core.x509.equivalent_keys import equivalent_keys

from .target import Target, form_of


class EnrolledCertificate(Protocol):
    """A certificate that was issued to a client."""

    @property
    def sha256(self) -> str:
        """Its fingerprint, in lower-case hex."""

    @property
    def spki_sha256(self) -> str:
        """Its public key's, in lower-case hex."""

    @property
    def der(self) -> bytes:
        """The certificate."""

    @property
    def name(self) -> str:
        """Whose it is."""

    @property
    def device(self) -> str:
        """On which device it is."""

    @property
    def not_after(self) -> float:
        """When it ends, in seconds since the epoch."""

    @property
    def revoked(self) -> float | None:
        """When it was revoked, if it was."""

    @property
    def reason(self) -> str:
        """Why it was revoked."""


class Enrolled(Protocol):
    """The clients that `enroll` knows.  Each method raises OSError and `PolicyError`."""

    def find(self, target: str) -> Sequence[EnrolledCertificate] | None:
        """The certificates of NAME or NAME/DEVICE; None where there is no such client."""

    def denied_by(self, kind: str, values: Sequence[str]) -> Sequence[EnrolledCertificate]:
        """The certificates that a line of a denylist with one of these values denies."""

    def note(self, sha256s: Sequence[str], now: float, reason: str) -> None:
        """Note that these are revoked."""

    def mark(self, target: str, sha256s: Sequence[str], now: float, reason: str) -> list[str]:
        """Do as `note`, and end open invitations of the target; their ids."""

    def unmark(self, sha256s: Sequence[str]) -> None:
        """Note that these are revoked no more."""


def find_client(
    text: str, form: str, enrolled: Enrolled | None
) -> Sequence[EnrolledCertificate] | None:
    """The certificates of the client that is meant; None for a target of another kind.

    Raises ValueError for one that could be both, and for `--name` without such a client.
    """
    if form not in ("", "name"):
        return None
    if enrolled is None:
        if form:
            raise ValueError("there is no enroll.yaml beside sidecar.yaml, so nobody has a name")
        return None
    try:
        found = enrolled.find(text)
    except (OSError, PolicyError) as error:
        if form or not _sure_without_names(text):
            raise ValueError(
                f"whether {text!r} is a client's name can't be read: {_brief(error)}",
                "say --file, --serial or --fingerprint where it is one of these",
            ) from None
        warning = f"warning: the clients of enroll can't be read: {_brief(error)}"
        print(printable(warning), file=sys.stderr)
        return None
    if found is None and form:
        raise ValueError(f"enroll knows no client {text!r}; `mtls-sidecar clients` lists them")
    if found is not None and not form:
        _refuse_ambiguous(text)
    return found


def _brief(error: OSError | PolicyError) -> str:
    return str(error.strerror or error) if isinstance(error, OSError) else str(error)


def _sure_without_names(text: str) -> bool:
    """Whether a target is a file or a fingerprint."""
    try:
        return form_of(text) in ("file", "fingerprint")
    except ValueError:
        return False


def _refuse_ambiguous(text: str) -> None:
    """Refuse a client's name that is something else, too.  Raises ValueError."""
    other = "file" if os.path.lexists(text) else ""
    try:
        other = other or form_of(text)
    except ValueError:
        return
    raise ValueError(
        f"{text!r} could be the client of that name, or a {other}: say --name {text}, or "
        f"--{other} {text}"
    )


def denied_by(enrolled: Enrolled, target: Target) -> Sequence[EnrolledCertificate]:
    """The certificates that a target's line denies, in whatever encoding the target is.

    Raises OSError and `PolicyError`.
    """
    values, cert = [one_entry(target.kind, target.value).value], target.cert
    if cert is not None:
        is_key = target.kind == "spki_sha256"
        values += equivalent_keys(cert) if is_key else equivalent_fingerprints(cert)
    return enrolled.denied_by(target.kind, values)


def target_of(found: EnrolledCertificate, *, key: bool) -> Target:
    """What denies a client's certificate, or with `key` every certificate of its key."""
    kind, value = ("spki_sha256", found.spki_sha256) if key else ("sha256", found.sha256)
    return Target(kind, value, f"{found.name}/{found.device}", _readable(found.der))


def _readable(der: bytes) -> ClientCert | None:
    try:
        return from_der(der)
    except (MalformedCertificate, ValueError):
        return None
