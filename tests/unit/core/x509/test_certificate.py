"""Parse forwarded certificates."""

from __future__ import annotations

import contextlib
from urllib.parse import unquote_to_bytes

import pytest
from der import der_oid, tlv
from hypothesis import example, given
from hypothesis import strategies as st
from pki import CA, CLIENT_AUTH

from sidecar.core.errors import MalformedCertificate
from sidecar.core.x509 import certificate, der
from sidecar.core.x509.certificate import from_der, from_header, pem_to_der, serial_hex

staff = CA("Staff")
alice = staff.issue(
    "alice", o="Example", ou=["SRE", "Ops"], dns=["a.example"], email=["a@x.example"]
)


def test_fields_come_out_as_the_certificate_has_them() -> None:
    """Names, serial number, fingerprints and usages are read from the ASN.1."""
    leaf = staff.issue(
        "alice",
        ou=["SRE"],
        uri=["spiffe://x/y"],
        ip=["192.0.2.7", "2001:db8::1"],
        upn=["alice@corp"],
        policies=["1.2.3.4"],
        serial=0xA1B,
    )
    cert = from_header(leaf.escaped)
    assert (cert.cn, cert.ou) == (("alice",), ("SRE",))
    assert (cert.uri, cert.upn) == (("spiffe://x/y",), ("alice@corp",))
    assert cert.ip == ("192.0.2.7", "2001:db8::1")
    assert (cert.serial, cert.serial_hex) == (0xA1B, "0A1B")
    assert (cert.sha256, cert.spki_sha256) == (leaf.sha256, leaf.spki_sha256)
    assert cert.eku == (CLIENT_AUTH.dotted_string,)
    assert cert.policy_oid == ("1.2.3.4",)
    assert cert.issuer_cn == ("Staff",)


def test_dn_is_rfc_4514() -> None:
    """The DN has the last RDN first, as in nginx's $ssl_client_s_dn."""
    assert from_der(alice.der).dn.startswith("CN=alice,OU=")
    assert from_der(alice.der).dn.endswith("O=Example")


def test_pem_survives_plus_signs() -> None:
    """A + in the Base64 is never read as a blank, escaped or not."""
    leaf = next(x for x in (staff.issue("a") for _ in range(50)) if b"+" in x.pem)
    assert from_header(leaf.escaped).sha256 == leaf.sha256
    assert from_header(leaf.escaped.replace(b"%2B", b"+")).sha256 == leaf.sha256


@pytest.mark.parametrize("cn", ["a\0lice", "alice\r\nX-Auth: 1", "a\x1bb", "a\x7fb", "a\x85b"])
def test_control_characters_in_a_subject_are_malformed(cn: str) -> None:
    """NUL, CR LF, ESC, DEL and C1 in a CN make the certificate malformed."""
    with pytest.raises(MalformedCertificate, match="control character"):
        from_der(staff.forge(cn).der)


@pytest.mark.parametrize("name", ["good.example\0.evil.example", "a\nb"])
def test_control_characters_in_a_san_are_malformed(name: str) -> None:
    """A dNSName with a NUL or a line feed makes the certificate malformed."""
    with pytest.raises(MalformedCertificate):
        from_der(staff.forge(dns=[name]).der)


def test_a_repeated_extension_is_malformed() -> None:
    """RFC 5280, 4.2: a repeated extension makes the certificate malformed."""
    with pytest.raises(MalformedCertificate):
        from_der(staff.forge(repeat_extensions=True).der)


@pytest.mark.parametrize("serial", [-1, 0, -(2**80), 2**200])
def test_unusual_serials_are_numbers(serial: int) -> None:
    """Negative, zero and overlong serial numbers are read as numbers."""
    assert from_der(staff.forge(serial=serial).der).serial == serial


@pytest.mark.parametrize(
    ("serial", "text"), [(0, "00"), (10, "0A"), (0x1234, "1234"), (-1, "-01"), (0x123, "0123")]
)
def test_serial_hex_is_as_nginx_prints_it(serial: int, text: str) -> None:
    """Upper case, an even number of digits."""
    assert serial_hex(serial) == text


def test_two_cns_are_two() -> None:
    """All of several CNs are kept."""
    assert from_der(staff.issue(cns=["alice", "mallory"]).der).cn == ("alice", "mallory")


def test_a_large_certificate_is_read() -> None:
    """20 KB of names are accepted."""
    names = [f"host-{i}.example.com" for i in range(900)]
    leaf = staff.issue("big", dns=names)
    assert len(leaf.der) > 20_000
    assert len(from_header(leaf.escaped).dns) == 900


@pytest.mark.parametrize(
    "header",
    [
        b"garbage",
        b"%",
        b"%zz%00",
        b"-----BEGIN CERTIFICATE----------END CERTIFICATE-----",
        alice.escaped[:-10],
        alice.escaped + alice.escaped,
        alice.escaped + b"x",
        b"x" + alice.escaped,
        alice.pem.replace(b"\n", b"\n\n\x00"),
    ],
)
def test_anything_but_one_pem_certificate_is_malformed(header: bytes) -> None:
    """Garbage, half a certificate, two of them, or bytes around one: malformed."""
    with pytest.raises(MalformedCertificate):
        from_header(header)


def test_trailing_bytes_in_the_der_are_malformed() -> None:
    """Octets after the certificate within the PEM make it malformed."""
    with pytest.raises(MalformedCertificate):
        from_der(alice.der + b"\0")


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    """Any bytes raise only the documented error."""
    with pytest.raises(MalformedCertificate):
        from_header(data)


@given(st.integers(0, len(alice.der) - 1), st.integers(0, 255))
def test_no_changed_byte_raises_anything_else(at: int, value: int) -> None:
    """A certificate with any one byte changed is read or refused, never an exception."""
    der = alice.der[:at] + bytes([value]) + alice.der[at + 1 :]
    with contextlib.suppress(MalformedCertificate):
        from_der(der)


@pytest.mark.parametrize(
    "value",
    [tlv(0x04, b"a"), tlv(0x0C, b"\xc3"), tlv(0x0C, b"a\nb"), tlv(0x1E, b"a"), tlv(0x14, b"\x85")],
)
def test_an_issuer_that_can_not_be_read_is_malformed(value: bytes) -> None:
    """The issuer's name must be as readable as the subject, because rules and log use it."""
    name = tlv(0x30, tlv(0x31, tlv(0x30, der_oid("2.5.4.3"), value)))
    good = CA("Staff").issue("alice")
    issuer = good.cert.issuer.public_bytes()
    leaf = good.der.replace(issuer, name)
    assert from_der(good.der).issuer_cn == ("Staff",)
    with pytest.raises(MalformedCertificate):
        from_der(_resized(leaf, len(name) - len(issuer)))


def _resized(der: bytes, by: int) -> bytes:
    """A certificate whose TBSCertificate has grown: both its lengths put right."""
    assert der[:2] == der[4:6] == b"\x30\x82"
    lengths = (int.from_bytes(der[at : at + 2]) + by for at in (2, 6))
    outer, inner = (length.to_bytes(2) for length in lengths)
    return b"\x30\x82" + outer + b"\x30\x82" + inner + der[8:]


# -- what nginx writes

PIECES = ["%", "%%", "%0", "%0A", "%0a", "%0D", "%20", "%2B", "%2b", "%zz", "=", "%3D", "%3D%3D"]
PIECES += ["\n", "\r", "\t", " ", "+", "A", "AAAA", "\0", "\xff", "-", "%2D", "%\n", "%=", "=\n"]


@given(st.integers(0, len(alice.escaped)), st.sampled_from(PIECES), st.integers(0, 4))
@example(len(alice.escaped) - 33, "%", 0)
@example(len(alice.escaped) - 33, "%%", 0)
def test_every_spelling_is_decoded_as_by_urllib(at: int, piece: str, cut: int) -> None:
    """The fast decoder accepts only a subset of the general one, with the same result."""
    value = alice.escaped[:at] + piece.encode("latin-1") + alice.escaped[at + cut :]
    short = certificate._as_nginx_writes(value)
    try:
        long = pem_to_der(unquote_to_bytes(value))
    except MalformedCertificate:
        long = None
    assert short in (None, long)


def test_what_nginx_writes_goes_the_short_way() -> None:
    """The value of $ssl_client_escaped_cert is decoded by the fast decoder."""
    assert certificate._as_nginx_writes(alice.escaped) == alice.der
    assert from_header(alice.escaped).der == alice.der


# -- what is bounded


@pytest.mark.parametrize(("octets", "read"), [(128, True), (129, False)])
def test_serial_numbers_are_bounded(octets: int, read: bool) -> None:
    """A serial number has a maximum length, because it is converted to decimal and hex."""
    der = staff.forge(serial=1 << (8 * octets - 2)).der
    if read:
        assert from_der(der).serial_hex.startswith("40")
    else:
        with pytest.raises(MalformedCertificate, match="serial"):
            from_der(der)


@pytest.mark.parametrize(
    ("time", "moment"),
    [
        (tlv(0x17, b"700101000000Z"), 0.0),
        (tlv(0x17, b"491231235959Z"), 2524607999.0),
        (tlv(0x17, b"500101000000Z"), -631152000.0),
        (tlv(0x18, b"99991231235959Z"), 253402300799.0),
        (tlv(0x18, b"20260301000000Z"), 1772323200.0),
    ],
)
def test_times_are_read(time: bytes, moment: float) -> None:
    """UTCTime until 2049, GeneralizedTime (RFC 5280, 4.1.2.5)."""
    assert der.parse_time(time) == moment


@pytest.mark.parametrize(
    "time",
    [
        tlv(0x17, b"260301000000"),
        tlv(0x17, b"2603010000Z"),
        tlv(0x17, b"260301000000+0000"),
        tlv(0x17, b"260229000000Z"),
        tlv(0x17, b"260301240000Z"),
        tlv(0x17, b"260301006000Z"),
        tlv(0x17, b"260301000060Z"),
        tlv(0x17, b"26 301000000Z"),
        tlv(0x17, b"2603010000\xb20Z"),
        tlv(0x17, b"20260301000000Z"),
        tlv(0x18, b"260301000000Z"),
        tlv(0x18, b"20260301000000.5Z"),
        tlv(0x18, b"00000301000000Z"),
        tlv(0x16, b"260301000000Z"),
        tlv(0x17),
        b"\x17",
        b"",
    ],
)
def test_times_that_are_none_are_not(time: bytes) -> None:
    """Other zones, fractions, missing parts and impossible days are refused."""
    with pytest.raises(ValueError, match=r"time|day|month|year"):
        der.parse_time(time)
