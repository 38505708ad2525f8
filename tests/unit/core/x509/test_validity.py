"""When a certificate is valid."""

from __future__ import annotations

from datetime import UTC, datetime

from pki import CA

from sidecar.core.x509.certificate import from_der
from sidecar.core.x509.validity import is_valid, validity

START, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC)


def test_the_second_of_not_after_is_included() -> None:
    """RFC 5280, 4.1.2.5: from notBefore through notAfter."""
    leaf = CA("x").issue("alice", not_before=START, not_after=END)
    cert = from_der(leaf.der)
    begins, ends = validity(cert)
    assert (begins, ends) == (START.timestamp(), END.timestamp() + 1)
    assert not is_valid(cert, begins - 0.001)
    assert is_valid(cert, begins)
    assert is_valid(cert, END.timestamp() + 0.999)
    assert not is_valid(cert, ends)
