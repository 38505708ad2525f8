"""What devices install: read by those who read it, and by a look at its structure."""

from __future__ import annotations

import plistlib
import re
import uuid
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from issuing import own_ca, settings_of
from pki import CA
from tools import Found, certtool, keytool, need, openssl

from sidecar.enroll.bundles import (
    File,
    Packed,
    ProfileSigner,
    legacy_p12,
    mobileconfig,
    modern_p12,
    pem_chain,
)
from sidecar.enroll.certificate_profile import Identity, PrivateKey, new_key
from sidecar.enroll.issuer import KeyIssuer

PASSWORD = "abcde-fghjk-mnpqr-stuvw"


def packed(tmp_path: Path, issuer: KeyIssuer | None = None) -> tuple[Packed, PrivateKey]:
    """A certificate for José's phone, with its chain, and its key."""
    issuer, key = issuer or own_ca(), new_key("ec-p256")
    identity = Identity("José", "phone", settings_of(tmp_path).profile("default"))
    builder = x509.CertificateSigningRequestBuilder().subject_name(identity.subject())
    issued = issuer.issue(identity, builder.sign(key, hashes.SHA256()), 1_800_000_000.0)
    label = "José at app.example.com"
    host = "app.example.com"
    return Packed(issued.certificate, issued.chain, label, "José", "phone", host), key


@pytest.fixture(params=[modern_p12, legacy_p12], ids=["p12", "p12-legacy"])
def p12(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[File, Packed, str]:
    found, key = packed(tmp_path, chain_of_three())
    file = request.param(found, key, PASSWORD)
    (tmp_path / "a.p12").write_bytes(file.data)
    return file, found, request.node.callspec.id


def told_by(tool: Found, tmp_path: Path, *arguments: str) -> str:
    """What a program that succeeds prints."""
    done = tool.run(*arguments, cwd=tmp_path, errors="replace")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_openssl_reads_it_with_the_ciphers_that_were_meant(
    tmp_path: Path, p12: tuple[File, Packed, str]
) -> None:
    """AES-256 and SHA-256, or with -legacy Triple DES and SHA-1; key, certificate and the
    intermediate, but not the root, which nobody needs to trust."""
    legacy = p12[2] == "p12-legacy"
    tool, how = need(openssl()), ["-legacy"] if legacy else []
    command = ["pkcs12", "-in", "a.p12", *how, "-nodes", "-passin"]
    told = told_by(tool, tmp_path, *command, f"pass:{PASSWORD}", "-info")
    ciphers = "pbeWithSHA1And3-KeyTripleDES-CBC" if legacy else "AES-256-CBC"
    assert told.count(ciphers) == 2
    assert ("MAC: sha1" if legacy else "MAC: sha256") in told
    assert told.count("BEGIN CERTIFICATE") == 2
    assert "BEGIN PRIVATE KEY" in told
    assert tool.run(*command, "pass:wrong", cwd=tmp_path).returncode != 0


def test_gnutls_reads_it(tmp_path: Path, p12: tuple[File, Packed, str]) -> None:
    """certtool reads it, as GNOME's programs do."""
    told = told_by(
        need(certtool()),
        tmp_path,
        *("--p12-info", "--inder", "--infile", "a.p12", "--password", PASSWORD),
    )
    assert told.count("BEGIN CERTIFICATE") == 2
    assert "PRIVATE KEY" in told


if isinstance(keytool(), Found):  # a Java is too large to get for this alone

    def test_java_reads_it(tmp_path: Path, p12: tuple[File, Packed, str]) -> None:
        """keytool lists one entry with a key and its chain of two."""
        told = told_by(
            need(keytool()),
            tmp_path,
            *("-J-Xmx64m", "-list", "-v", "-storetype", "PKCS12"),
            *("-keystore", "a.p12", "-storepass", PASSWORD),
        )
        assert "PrivateKeyEntry" in told
        assert "Certificate chain length: 2" in told


def test_a_p12_has_a_harmless_name(p12: tuple[File, Packed, str]) -> None:
    """The file name is ASCII, whatever the person's."""
    assert (p12[0].name, p12[0].media_type) == ("Jose-phone.p12", "application/x-pkcs12")


# -- profiles for Apple devices


def chain_of_three() -> KeyIssuer:
    """An issuing CA below an offline root."""
    root = CA("Root")
    below = root.intermediate("Issuing")
    return KeyIssuer(below.key, (below.cert, root.cert))


def test_a_profile_has_the_identity_and_the_whole_chain(tmp_path: Path) -> None:
    """Every key that Apple's format wants, each payload with an identifier of its own."""
    found, key = packed(tmp_path, chain_of_three())
    file = mobileconfig(found, key, PASSWORD, None)
    assert file.media_type == "application/x-apple-aspen-config"
    profile = plistlib.loads(file.data)
    check_profile(profile)
    kinds = [each["PayloadType"] for each in profile["PayloadContent"]]
    prefix = "com.apple.security."
    assert kinds == [f"{prefix}pkcs12", f"{prefix}pkcs1", f"{prefix}root"]
    identity, issuing, root = profile["PayloadContent"]
    assert "Password" not in identity
    assert PASSWORD.encode() not in file.data
    assert x509.load_der_x509_certificate(issuing["PayloadContent"]) == found.chain[0]
    assert x509.load_der_x509_certificate(root["PayloadContent"]) == found.chain[1]
    (tmp_path / "a.p12").write_bytes(identity["PayloadContent"])
    command = ["pkcs12", "-legacy", "-in", "a.p12", "-nodes", "-passin", f"pass:{PASSWORD}"]
    assert "PRIVATE KEY" in told_by(need(openssl()), tmp_path, *command)


def check_profile(profile: dict[str, object]) -> None:
    """Validate what Apple's documentation requires of a profile and its payloads."""
    payloads = profile["PayloadContent"]
    assert isinstance(payloads, list)
    assert profile["PayloadType"] == "Configuration"
    assert profile["PayloadRemovalDisallowed"] is False
    for each in (profile, *payloads):
        assert each["PayloadVersion"] == 1
        assert isinstance(each["PayloadDisplayName"], str)
        assert str(uuid.UUID(each["PayloadUUID"])).upper() == each["PayloadUUID"]
        assert re.fullmatch(r"[a-z0-9.-]+", each["PayloadIdentifier"])
    for each in payloads:
        assert isinstance(each["PayloadContent"], bytes)
        assert each["PayloadIdentifier"].startswith(f"{profile['PayloadIdentifier']}.")
    for key in ("PayloadUUID", "PayloadIdentifier"):
        assert len({each[key] for each in (profile, *payloads)}) == len(payloads) + 1


def test_a_profile_is_signed_where_a_server_key_is_given(tmp_path: Path) -> None:
    """OpenSSL verifies the CMS under the server's CA, and the content is the profile."""
    ca = CA("Server CA")
    server = ca.issue("app.example.com", dns=["app.example.com"], eku=[])
    signer = ProfileSigner(server.private, (server.cert, ca.cert))
    found, key = packed(tmp_path)
    file = mobileconfig(found, key, PASSWORD, signer)
    (tmp_path / "a.mobileconfig").write_bytes(file.data)
    (tmp_path / "ca.pem").write_bytes(ca.pem)
    command = "cms -verify -inform DER -in a.mobileconfig -CAfile ca.pem -purpose any -out"
    told_by(need(openssl()), tmp_path, *command.split(), "content.plist")
    check_profile(plistlib.loads((tmp_path / "content.plist").read_bytes()))


def test_a_csr_s_answer_is_what_tls_sends(tmp_path: Path) -> None:
    """The certificate and the intermediates; not the root, and no key."""
    found, _ = packed(tmp_path, chain_of_three())
    certs = x509.load_pem_x509_certificates(pem_chain(found).data)
    assert certs == [found.certificate, found.chain[0]]
    assert pem_chain(found).data.count(b"BEGIN") == 2
    assert found.certificate.public_bytes(Encoding.PEM) in pem_chain(found).data
