"""Authorities and CRLs as editors and shells of any system save them: none is silently dropped."""

from __future__ import annotations

import codecs
from collections.abc import Callable

import pytest
from pki import CA

from sidecar.commands.explain import escaped_pem
from sidecar.core.revocation.crl.index import read_crls
from sidecar.core.x509.bundle import read_bundle, read_certificates
from sidecar.core.x509.certificate import from_header
from sidecar.core.x509.pem_text import plain_pem

FIRST, SECOND = CA("First"), CA("Second")
NAMES = ["CN=First", "CN=Second"]

SAVED: dict[str, Callable[[bytes], bytes]] = {
    "a mark": lambda pem: codecs.BOM_UTF8 + pem,
    "two marks": lambda pem: codecs.BOM_UTF8 * 2 + pem,
    "UTF-16, little-endian": lambda pem: codecs.BOM_UTF16_LE + pem.decode().encode("utf-16-le"),
    "UTF-16, big-endian": lambda pem: codecs.BOM_UTF16_BE + pem.decode().encode("utf-16-be"),
    "UTF-16 without a mark": lambda pem: pem.decode().encode("utf-16-le"),
    "UTF-16 of CR LF": lambda pem: pem.replace(b"\n", b"\r\n").decode().encode("utf-16"),
    "UTF-32": lambda pem: pem.decode().encode("utf-32"),
    "CR LF": lambda pem: pem.replace(b"\n", b"\r\n"),
    "CR": lambda pem: pem.replace(b"\n", b"\r"),
    "no last line end": lambda pem: pem.rstrip(b"\n"),
    "blanks behind BEGIN": lambda pem: pem.replace(b"-----\nM", b"----- \t\nM"),
}
each_way = pytest.mark.parametrize("way", list(SAVED))


@each_way
def test_every_authority_of_a_file_is_read(way: str) -> None:
    """Of one that was saved otherwise, and of one that stands before or behind others."""
    save = SAVED[way]
    for data in (
        save(FIRST.pem + SECOND.pem),
        save(FIRST.pem) + b"\n" + SECOND.pem,
        FIRST.pem + save(SECOND.pem),
        save(FIRST.pem) + b"\n" + save(SECOND.pem),
    ):
        bundle = read_bundle(data)
        assert ([cert.dn for cert in bundle], bundle.remarks) == (NAMES, ())
        assert [cert.dn for cert in read_certificates(data)] == NAMES


def test_files_put_together_without_a_last_line_end_are_read() -> None:
    """`cat a.crt b.crt`, where an editor has saved a.crt so, loses no authority."""
    for data in (
        FIRST.pem.rstrip(b"\n") + SECOND.pem,
        b"-----BEGIN EC PARAMETERS-----\nBggq\n-----END EC PARAMETERS-----"
        + FIRST.pem
        + SECOND.pem,
        FIRST.pem.replace(b"\n", b"\r\n").rstrip() + codecs.BOM_UTF8 + SECOND.pem,
    ):
        bundle = read_bundle(data)
        assert ([cert.dn for cert in bundle], bundle.remarks) == (NAMES, ())
        assert [cert.dn for cert in read_certificates(data)] == NAMES
    commented = b"# " + FIRST.pem.rstrip(b"\n").replace(b"\n", b"\n# ") + SECOND.pem + FIRST.pem
    assert [cert.dn for cert in read_bundle(commented)] == NAMES[:1]


@each_way
def test_every_crl_of_a_file_is_read(way: str) -> None:
    """What revokes waits for nobody's editor."""
    save = SAVED[way]
    lists = FIRST.crl([1]), SECOND.crl([2])
    for data in (save(lists[0] + lists[1]), lists[0] + save(lists[1]), save(lists[0]) + lists[1]):
        found = read_crls(data, "x.crl", (FIRST.der, SECOND.der))
        assert (len(found.crls), found.mistakes) == (2, ())


@each_way
def test_a_clients_certificate_is_read(way: str) -> None:
    """`explain --cert` and its like take it."""
    assert from_header(escaped_pem(SAVED[way](FIRST.pem))).dn == "CN=First"


BEFORE = [b"\0", b" ", b"\t", b"\xe2\x80\x8b", b"\xa0", b"\0\0\0", b"x", b"> ", b"----", b"was: "]


@pytest.mark.parametrize("before", BEFORE)
def test_what_is_still_left_out_is_told(before: bytes) -> None:
    """OpenSSL reads no block that doesn't begin its line; no authority goes without a word."""
    bundle = read_bundle(before + FIRST.pem + SECOND.pem)
    assert [cert.dn for cert in bundle] == NAMES[1:]
    assert bundle.remarks == (
        "a certificate is left out: -----BEGIN CERTIFICATE----- isn't alone on line 1",
    )
    with pytest.raises(ValueError, match="isn't alone on line 1"):
        read_bundle(before + FIRST.pem)
    behind = FIRST.pem + SECOND.pem.replace(b"-----\nM", b"-----M")
    line = len(FIRST.pem.splitlines()) + 1
    assert read_bundle(behind).remarks[0].endswith(f"isn't alone on line {line}")


def test_what_is_commented_out_is_no_remark() -> None:
    """By a `#` before BEGIN, wherever it stands; any other text may be a file's last line."""
    bundle = read_bundle(FIRST.pem + b"# " + SECOND.pem + b"  #was: " + SECOND.pem)
    assert ([cert.dn for cert in bundle], bundle.remarks) == (NAMES[:1], ())


def test_a_nul_within_the_base64_is_broken() -> None:
    """A file that lost a part is refused as a whole, so the last good one stays in force."""
    middle = len(FIRST.pem) // 2
    for nul in (b"\0", b"\0" * 64):
        data = FIRST.pem[:middle] + nul + FIRST.pem[middle:] + SECOND.pem
        with pytest.raises(ValueError, match="Base64"):
            read_bundle(data)
        lists = FIRST.crl([1])
        found = read_crls(lists[:200] + nul + lists[200:], "x.crl", (FIRST.der,))
        assert (found.crls, len(found.mistakes)) == ((), 1)


def test_der_is_never_taken_for_text() -> None:
    """Octets of a mark, a CR or a NUL belong to it."""
    assert [cert.dn for cert in read_bundle(FIRST.der)] == NAMES[:1]
    der = FIRST.crl([0x0D0D0D, 0xEFBBBF], der=True)
    assert not read_crls(der, "x.crl", (FIRST.der,)).mistakes
    assert plain_pem(b"a\0b") == b"a\0b"
