"""Normalize hosts for refusing rules."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from counted import lines
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.policy.host_spelling import (
    ipv4_of_numbers,
    normal_address,
    normal_host,
    normal_mail_host,
    normal_name,
)
from sidecar.core.policy.patterns import KEY_COMPARISONS


@pytest.mark.parametrize(
    ("host", "normal"),
    [
        ("Example.ORG.", "example.org"),
        ("M\u00dcNCHEN.example", "xn--mnchen-3ya.example"),
        ("m%C3%BCnchen.example", "xn--mnchen-3ya.example"),
        ("m%FCnchen.example", "m%fcnchen.example"),
        ("%61.example", "a.example"),
        ("a\u3002example", "a.example"),
        ("a\u00ad\u200b\ufe0f.example", "a.example"),
        ("%EF%BB%BFa.ex\u2060ample", "a.example"),
        ("a" + "\u00ad" * 300 + ".example", "a.example"),
        ("\u0391\u03a3.example", "xn--mxa0b.example"),
        ("\u03b1\u03c2.example", "xn--mxa8a.example"),
        ("stra\u00dfe.example", "xn--strae-oqa.example"),
        ("\uab70.example", "xn--58d.example"),
        (".".join(["\u1100\u1161\u11a8" * 50] * 2), ".".join(["xn--p39" + "a" * 50] * 2)),
        ("\u00ad", ""),
        ("", ""),
        ("\u00e9" * 63, "xn--9c" + "a" * 63),
        ("\u00e9" * 64, "\u00e9" * 64),
        ("\u00c9." * 126 + "\u00e9b", "\u00e9." * 126 + "\u00e9b"),
    ],
)
def test_a_name_has_one_form(host: str, normal: str) -> None:
    """Lower case, A-labels, no dot at the end, and without what UTS 46 leaves out, however long it
    is before letters are composed; octets that aren't UTF-8 stay as they are, and so does what is
    too long for a label or a name."""
    assert normal_name(host) == normal


@pytest.mark.parametrize(
    ("host", "of_uri", "of_mail"),
    [
        ("[2001:DB8:0::1]", "[2001:db8::1]", "[2001:db8::1]"),
        ("[IPv6:2001:DB8:0::1]", "[2001:db8::1]", "[2001:db8::1]"),
        ("[::ffff:192.0.2.1]", "192.0.2.1", "[192.0.2.1]"),
        ("[192.0.2.010]", "192.0.2.10", "[192.0.2.10]"),
        ("[192.0.2.999]", "[192.0.2.999]", "[192.0.2.999]"),
        ("[v1.X]", "[v1.x]", "[v1.x]"),
        ("[", "[", "["),
        ("[]", "[]", "[]"),
    ],
)
def test_an_address_has_one_form(host: str, of_uri: str, of_mail: str) -> None:
    """What is no address in brackets is a name."""
    assert normal_host(host) == of_uri
    assert normal_mail_host(host) == of_mail
    assert normal_address(f"A.b@{host}") == f"A.b@{of_mail}"


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("0xc0.0.513", "192.0.2.1"),
        ("0300.0.02.1", "192.0.2.1"),
        ("127.1", "127.0.0.1"),
        ("0x", "0.0.0.0"),
        ("0" * 300 + "300.0.02.1", "192.0.2.1"),
        ("0x" + "0" * 300 + "c0.0.513", "192.0.2.1"),
        ("0" * 300 + "8.1.1.1", "08.1.1.1"),
        ("0", "0.0.0.0"),
        ("4294967296", "4294967296"),
        ("1.2.3.4.5", "1.2.3.4.5"),
        ("256.1.1.1", "256.1.1.1"),
        ("08.1.1.1", "08.1.1.1"),
        ("a.1", "a.1"),
        ("", ""),
        ("1..2", "1..2"),
    ],
)
def test_numbers_are_an_address_as_inet_aton_reads_them(host: str, address: str) -> None:
    """Decimal, octal and hexadecimal, of one to four parts; nothing else is one."""
    assert ipv4_of_numbers(host) == address


def test_a_host_longer_than_any_costs_nothing() -> None:
    """Neither a number of 100,000 digits nor as many labels or letters are read as such."""
    for each in (
        "9" * 100_000,
        "ü" * 100_000,
        "%C3%BC" * 100_000,
        "1." * 100_000,
    ):
        assert ipv4_of_numbers(each) == each
        assert len(normal_host(each)) <= len(each)


EACH_ANOTHER = "".join(map(chr, range(0x100, 0x17F)))
"""Letters that IDNA takes."""


@pytest.mark.parametrize("ligatures", [0, 400])
@pytest.mark.parametrize("key", ["uri", "email", "upn"])
def test_letters_cost_what_as_many_octets_do(key: str, ligatures: int) -> None:
    """Punycode takes a label's length times its different letters, and NFKC makes 18 of U+FDFA: a
    certificate had room for minutes of that."""
    host = "\ufdfa" * ligatures + EACH_ANOTHER * 3
    written = f"http://{quote(host)}/" if key == "uri" else f"a@{host}"
    assert lines(lambda: KEY_COMPARISONS[key].refuses(written)) < 30 * len(written)


@given(st.text(max_size=40), st.text("[]:.%0123456789abcdefxXvIP@\u00fc\u3002", max_size=20))
def test_any_text_has_a_form_and_that_form_is_its_own(text: str, likely: str) -> None:
    """No text raises; normalizing twice changes nothing where no escape is left."""
    for each in (text, likely):
        for normalize in (normal_name, normal_host, normal_mail_host, normal_address):
            normalize(each)
        ipv4_of_numbers(each)
