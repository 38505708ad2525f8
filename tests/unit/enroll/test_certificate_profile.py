"""What is in a certificate, as RFC 5280 wants it and OpenSSL's strictest check takes it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from issuing import own_ca, request, settings_of
from tools import need, openssl

from sidecar.enroll.certificate_profile import Identity, new_key
from sidecar.enroll.issuer import KeyIssuer
from sidecar.enroll.settings import KEY_TYPES
from sidecar.enroll.signing_request import read_request

MORE = """\
profiles:
  default:
    o: Example
    ou: [staff, ops]
    dns: "{device}.{name}.example.com"
    email: ["{name}@example.com"]
    uri: "spiffe://example.org/{name}"
"""


def issued(tmp_path: Path, issuer: KeyIssuer) -> x509.Certificate:
    identity = Identity("alice", "Phone", settings_of(tmp_path, MORE).profile("default"))
    now = datetime.now(UTC).timestamp()
    return issuer.issue(identity, read_request(request()), now).certificate


def test_names_are_those_of_the_profile(tmp_path: Path) -> None:
    """CN, O and OU; DNS names, mail addresses and URIs in their places."""
    cert = issued(tmp_path, own_ca())
    assert cert.subject.rfc4514_string() == "CN=alice,O=Example,OU=staff,OU=ops"
    san = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [each.value for each in san] == [
        "phone.alice.example.com",
        "alice@example.com",
        "spiffe://example.org/alice",
    ]


def test_openssl_s_strictest_check_takes_it_for_clients_alone(tmp_path: Path) -> None:
    """`verify -x509_strict`: as sslclient yes, as sslserver no, with the CA as its root."""
    issuer, tool = own_ca(), need(openssl())
    (tmp_path / "ca.pem").write_bytes(issuer.certificate.public_bytes(Encoding.PEM))
    (tmp_path / "a.pem").write_bytes(issued(tmp_path, issuer).public_bytes(Encoding.PEM))
    command = "verify -x509_strict -check_ss_sig -CAfile ca.pem -purpose"
    good = tool.run(*command.split(), "sslclient", "a.pem", cwd=tmp_path)
    assert good.stdout == "a.pem: OK\n", good.stderr
    assert tool.run(*command.split(), "sslserver", "a.pem", cwd=tmp_path).returncode != 0


def test_every_serial_number_is_another(tmp_path: Path) -> None:
    """Random, positive, and of at most 20 octets."""
    issuer = own_ca()
    found = {issued(tmp_path, issuer).serial_number for _ in range(20)}
    assert len(found) == 20
    assert all(0 < each < 2**159 for each in found)


@pytest.mark.parametrize("kind", KEY_TYPES)
def test_each_kind_of_key_can_be_made(kind: str) -> None:
    """Of the size that its name says."""
    assert str(new_key(kind).key_size) == kind.rpartition("-")[2].removeprefix("p")
