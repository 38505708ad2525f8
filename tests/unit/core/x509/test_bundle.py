"""Read files of authorities as OpenSSL does, and report everything that is left out."""

from __future__ import annotations

from pathlib import Path

import pytest
from asking import policy
from chains import NOW, Spec, basic, chain, cn, key, leaf, name, root, signed
from der import pem, tlv
from tools import need, openssl

from sidecar.core.x509.bundle import Bundle, read_bundle
from sidecar.core.x509.certificate import from_der
from sidecar.core.x509.path_building import Anchors

STRANGE = ("sm2", "brainpoolP512t1", "sect283k1", "secp160r1")
"""Keys that OpenSSL makes and `cryptography` can't use."""

PLAIN = signed(root())
OTHER = signed(root("Other"))


def strange(kind: str) -> bytes:
    """An authority with such a key, signed by somebody else's."""
    return signed(Spec(name(cn(f"Strange {kind}")), key(kind), (basic(),)), root())


def gost() -> bytes:
    """An authority whose key is of an algorithm (GOST R 34.10-2012) that nobody here has."""
    other = root("GOST")
    oid = bytes.fromhex("06082a85030701010101")
    spki = tlv(0x30, tlv(0x30, oid), tlv(0x03, b"\0", tlv(0x04, bytes(64))))
    return signed(Spec(other.subject, type(other.key)(spki, other.key.sign, other.key.algorithm)),
                  root())  # fmt: skip


def written(*certs: bytes) -> bytes:
    return b"".join(pem("CERTIFICATE", der) for der in certs)


def ders(bundle: Bundle) -> list[bytes]:
    return [cert.der for cert in bundle]


@pytest.mark.parametrize("kind", [*STRANGE, "gost"])
def test_an_authority_whose_key_cannot_be_used_is_kept_and_told(kind: str) -> None:
    """An authority with an unusable key is reported, and the others of its file are used."""
    odd = gost() if kind == "gost" else strange(kind)
    bundle = read_bundle(written(PLAIN, odd))
    assert ders(bundle) == [PLAIN, odd]
    (remark,) = bundle.remarks
    assert remark.startswith("certificate 2 (CN=")
    assert "its public key can't be used" in remark
    anchors = Anchors(bundle, [])
    good = from_der(chain(root(), leaf()).leaf)
    forged = from_der(signed(leaf(), Spec(from_subject(odd), key("ec", 7))))
    for find in (anchors.issuing_path, anchors.verified_path):
        assert find(good, NOW.timestamp()) is not None
        assert find(forged, NOW.timestamp()) is None


def from_subject(der: bytes) -> bytes:
    return from_der(der).subject_name


def test_one_that_cannot_be_read_is_left_out_and_told() -> None:
    """An unreadable certificate is reported, and the others of its file are used."""
    broken = signed(root("x"))[:-1] + b"\0\0"
    bundle = read_bundle(written(PLAIN, broken, OTHER))
    assert ders(bundle) == [PLAIN, OTHER]
    assert bundle.remarks[0].startswith("certificate 2 is left out: ")


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\n", b"x", written(PLAIN)[:-30], written(PLAIN, OTHER)[:-200],
        written(PLAIN).replace(b"\nM", b"\n*"), pem("X509 CRL", PLAIN), pem("CERTIFICATE", b"x"),
        b"\x30\x03abc",
    ],
)  # fmt: skip
def test_a_file_without_a_certificate_or_half_written_is_refused(data: bytes) -> None:
    """An incomplete file is refused, so the last good one stays in force."""
    with pytest.raises(ValueError, match=r".") as caught:
        read_bundle(data)
    assert len(caught.value.args) == 2


@pytest.mark.parametrize(
    "data",
    [
        written(PLAIN, OTHER),
        b"01 Root, 02 Other\n" + written(PLAIN, OTHER),
        b"subject=CN = Root\n" + written(PLAIN) + b"\ntext\n" + written(OTHER) + b"the end",
        written(PLAIN, OTHER).replace(b"\n", b"\r\n"),
        pem("X509 CERTIFICATE", PLAIN) + pem("TRUSTED CERTIFICATE", OTHER),
        pem("PRIVATE KEY", b"x") + written(PLAIN) + pem("X509 CRL", b"x") + written(OTHER),
    ],
)
def test_what_openssl_takes_is_taken(data: bytes) -> None:
    """Text around, both line ends, older labels and other blocks are accepted."""
    bundle = read_bundle(data)
    assert (ders(bundle), bundle.remarks) == ([PLAIN, OTHER], ())


@pytest.mark.parametrize(
    ("options", "taken"),
    [
        ((), True),
        (("-setalias", "x"), True),
        (("-addtrust", "clientAuth"), True),
        (("-addtrust", "anyExtendedKeyUsage"), True),
        (("-addtrust", "serverAuth"), False),
        (("-addtrust", "serverAuth", "-addtrust", "clientAuth"), True),
        (("-addreject", "serverAuth"), True),
        (("-addreject", "clientAuth"), False),
        (("-addreject", "anyExtendedKeyUsage"), False),
        (("-addtrust", "clientAuth", "-addreject", "clientAuth"), False),
    ],
)
def test_a_trusted_certificate_is_taken_as_openssl_takes_it(
    options: tuple[str, ...], taken: bool, tmp_path: Path
) -> None:
    """`openssl x509 -trustout` output is accepted or reported, as OpenSSL treats it."""
    tool = need(openssl())
    (tmp_path / "root").write_bytes(written(PLAIN))
    (tmp_path / "leaf").write_bytes(written(chain(root(), leaf()).leaf))
    command = ("x509", "-in", "root", "-trustout", *options, "-out", "trusted")
    tool.run(*command, cwd=tmp_path, check=True)
    trusted = (tmp_path / "trusted").read_bytes()
    assert trusted.startswith(b"-----BEGIN TRUSTED CERTIFICATE-----")
    (tmp_path / "ca").write_bytes(trusted + written(OTHER))
    check = ("verify", "-purpose", "sslclient", "-attime", str(int(NOW.timestamp())))
    said = tool.run(*check, "-CAfile", "ca", "leaf", cwd=tmp_path)
    bundle = read_bundle((tmp_path / "ca").read_bytes())
    assert (said.returncode == 0) == taken
    assert ders(bundle) == ([PLAIN, OTHER] if taken else [OTHER])
    assert len(bundle.remarks) == (not taken)
    assert ders(read_bundle(trusted + written(PLAIN, OTHER)))[-1] == OTHER
    assert (PLAIN in ders(read_bundle(trusted + written(PLAIN, OTHER)))) == taken


def test_an_unreadable_trust_setting_is_left_out() -> None:
    """An unreadable setting of a TRUSTED CERTIFICATE means no trust."""
    bundle = read_bundle(pem("TRUSTED CERTIFICATE", PLAIN + b"\x30\x05\x30") + written(OTHER))
    assert ders(bundle) == [OTHER]
    assert len(bundle.remarks) == 1


RULES = """\
version: 1
trust:
  staff: {{ca: ca.crt, verify: {verify}}}
locations:
  - {{name: site, allow: verified}}
"""


@pytest.mark.parametrize("verify", ["nginx", "sidecar"])
@pytest.mark.parametrize("odd", ["sm2", "gost", "broken"])
def test_the_policy_stands_and_warns_with_file_and_certificate(verify: str, odd: str) -> None:
    """An unusual authority causes a warning where the policy names the file, not a refusal."""
    der = {"gost": gost(), "broken": PLAIN[:-1]}.get(odd) or strange(odd)
    rules = policy(RULES.format(verify=verify), ca_crt=written(PLAIN, der))
    (warning,) = map(str, rules.warnings)
    assert warning.startswith("policy.yaml:3:")
    assert "ca.crt: certificate 2 " in warning
    trust = rules.trusts["staff"]
    assert trust.path(from_der(chain(root(), leaf()).leaf), NOW.timestamp()) is not None


def test_an_authority_that_verifies_nothing_under_verify_sidecar_is_told() -> None:
    """A weak CA causes a warning only if the sidecar verifies."""
    weak = signed(root("Weak", key=key("rsa1024")))
    told = policy(RULES.format(verify="sidecar"), ca_crt=written(weak)).warnings
    assert [w.message for w in told] == [
        "ca.crt: verify: sidecar verifies nothing by CN=Weak: its RSA key has 1024 bits"
    ]
    assert policy(RULES.format(verify="nginx"), ca_crt=written(weak)).warnings == ()
