"""Build certificates from descriptions that equal real ones with these names."""

from __future__ import annotations

import pytest
from pki import CA

from sidecar.core.errors import MalformedCertificate
from sidecar.core.x509.certificate import from_der
from sidecar.core.x509.described import Described, build

FIELDS = {
    "cn": ["älice"],
    "o": ["Example, Inc."],
    "ou": ["SRE", "Ops"],
    "dns": ["app.example.com", "*.example.org"],
    "uri": ["spiffe://example.org/ns/prod"],
    "ip": ["192.0.2.7", "2001:db8::1"],
    "email": ["alice@example.com"],
}


def test_it_reads_as_an_issued_one() -> None:
    """Every field equals that of a certificate issued by a real CA."""
    real = from_der(
        CA("Staff")
        .issue(
            cns=FIELDS["cn"],
            **{name: values for name, values in FIELDS.items() if name != "cn"},  # type: ignore[arg-type]  # lists of text, each
        )
        .der
    )
    made = build(Described(**FIELDS, issuer_cn=["Staff"]))  # type: ignore[arg-type]  # lists of text, each
    for name in (*FIELDS, "dn", "eku", "issuer_cn", "subject_name", "unreadable"):
        assert getattr(made, name) == getattr(real, name), name


@pytest.mark.parametrize("serial", [0, 1, 127, 128, 255, 256, -1, 1 << 159])
def test_serials(serial: int) -> None:
    """A serial number is the number itself."""
    assert build(Described(serial=serial)).serial == serial


@pytest.mark.parametrize("moment", [0.0, 2_524_607_999.0, 2_524_608_000.0, 4_000_000_000.0])
def test_times(moment: float) -> None:
    """Both forms of time, at their border too."""
    assert build(Described(not_before=moment)).not_before == moment


def test_usages_and_fingerprint() -> None:
    """Any OID is one; the fingerprint is the one given."""
    made = build(Described(eku=["2.5.29.37.0", "1.3.6.1.4.1.311.20.2.2"], sha256="ab" * 32))
    assert made.eku == ("2.5.29.37.0", "1.3.6.1.4.1.311.20.2.2")
    assert made.sha256 == "ab" * 32
    assert build(Described(eku=[])).eku == ()


def test_what_no_certificate_may_have() -> None:
    """A control character in a name is malformed here too."""
    with pytest.raises(MalformedCertificate):
        build(Described(cn=["a\x01"]))
