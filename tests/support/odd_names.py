"""Names of subjects that are odd, and that authorities issue all the same."""

from __future__ import annotations

from der import der_oid, tlv

ORGANIZATION, COUNTRY, NAME, IDENTIFIER = "2.5.4.10", "2.5.4.6", "2.5.4.3", "2.5.4.97"
UTF8, PRINTABLE, T61, BMP, UNIVERSAL, BITS = 0x0C, 0x13, 0x14, 0x1E, 0x1C, 0x03

Attribute = tuple[str, int, bytes]


def subject(*rdns: list[Attribute]) -> bytes:
    """A Name, DER, each RDN of one or more attributes."""
    return tlv(
        0x30,
        *(tlv(0x31, *(tlv(0x30, der_oid(oid), tlv(tag, v)) for oid, tag, v in r)) for r in rdns),
    )


UID = "uid, which is RFC 4514's UID in a pattern that grants"
ODD: dict[str, list[list[Attribute]]] = {
    "umlaut": [[(COUNTRY, PRINTABLE, b"DE")], [(NAME, UTF8, "Jürgen".encode())]],
    "specials": [[(NAME, UTF8, b'a "b", +\\<>;= #')]],
    "slash": [[(ORGANIZATION, UTF8, b"a/b+c")], [(NAME, UTF8, b"#x ")]],
    "type within": [[(ORGANIZATION, UTF8, b"a/CN=b")], [(NAME, UTF8, b"x,O=y")]],
    "blanks": [[(NAME, UTF8, b" a  b ")]],
    "one blank": [[(NAME, UTF8, b" ")]],
    "two RDNs": [[(ORGANIZATION, UTF8, b"Ex"), (NAME, UTF8, b"b"), (NAME, UTF8, b"a")]],
    "two RDNs, sorted": [[(NAME, UTF8, b"b"), (ORGANIZATION, UTF8, b"Ex")]],
    "BMPString": [[(NAME, BMP, "Jürgen".encode("utf-16-be"))]],
    "T61String": [[(NAME, T61, "Jürgen".encode("latin-1"))]],
    "UniversalString": [[(NAME, UNIVERSAL, "Jü".encode("utf-32-be"))]],
    "an OID that OpenSSL knows": [[(IDENTIFIER, UTF8, b"PSDDE-1")]],
    "an OID that nobody knows": [[("1.2.3.4.5", UTF8, b"abc")], [(NAME, UTF8, b"a")]],
    "bits": [[("2.5.4.45", BITS, b"\0\1\2")], [(NAME, UTF8, b"a")]],
    "emoji": [[(NAME, UTF8, "😀".encode())]],
    "backslash": [[(NAME, UTF8, rb"EX\alice")]],
    "nginx's escapes": [[(NAME, UTF8, rb"a\x22b\x5C")], [(ORGANIZATION, UTF8, b"Ex")]],
    "a sequence": [[(IDENTIFIER, 0x30, b"\x0c\1/")], [(NAME, UTF8, b"a")]],
    "one number sign": [[(NAME, UTF8, b"#")], [(ORGANIZATION, UTF8, b"Ex")]],
    "hex-like": [[(NAME, UTF8, rb"\C3\BC")]],
    "street, mail, DC": [
        [("0.9.2342.19200300.100.1.25", 0x16, b"ex")],
        [("2.5.4.9", UTF8, b"Main")],
        [("1.2.840.113549.1.9.1", 0x16, b"a@ex.com")],
    ],
    UID: [[("0.9.2342.19200300.100.1.44", UTF8, b"unique")], [(NAME, UTF8, b"a")]],
    "jurisdiction": [
        [("1.3.6.1.4.1.311.60.2.1.3", PRINTABLE, b"DE")],
        [("2.5.4.15", UTF8, b"Private Organization")],
        [("2.5.4.4", UTF8, b"Smith")],
        [("2.5.4.42", UTF8, b"Al")],
        [("0.9.2342.19200300.100.1.1", UTF8, b"u")],
        [("2.5.4.5", PRINTABLE, b"17")],
        [("2.5.4.12", UTF8, b"Dr")],
    ],
}
