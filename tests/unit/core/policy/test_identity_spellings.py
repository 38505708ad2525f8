"""Compare identities by their meaning, in all their spellings."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from asking import ask, matches, mistakes, policy, site
from cryptography import x509
from der import der_oid, tlv
from odd_names import (
    BMP,
    IDENTIFIER,
    NAME,
    ODD,
    ORGANIZATION,
    T61,
    UID,
    UNIVERSAL,
    UTF8,
    Attribute,
    subject,
)
from pki import CA, Leaf

from sidecar.core.decision import Reason
from sidecar.core.policy.uri_spelling import normal_uri
from sidecar.core.x509.certificate import from_der
from sidecar.core.x509.der import within

staff = CA("Staff")


def named(*rdns: list[Attribute]) -> Leaf:
    return staff.forge(subject=subject(*rdns))


def allowed(rule: str, leaf: Leaf, **fields: str) -> bool:
    return ask(site(f"[{rule}]"), leaf, **fields).allowed


def denied(rule: str, leaf: Leaf, **fields: str) -> bool:
    found = ask(site("verified", f"    deny: [{rule}]\n"), leaf, **fields).reason
    assert found in (Reason.DENIED_BY_RULE, Reason.ALLOWED)
    return found is Reason.DENIED_BY_RULE


def is_taken(leaf: Leaf) -> bool:
    return ask(site("verified"), leaf).reason is not Reason.MALFORMED_CERTIFICATE


def dn(text: str) -> str:
    """A rule on `dn`, the text quoted for YAML."""
    return "{dn: '" + text.replace("'", "''") + "'}"


jose = named([(ORGANIZATION, UTF8, b"Ex")], [(NAME, UTF8, "é".encode())])


@pytest.mark.parametrize(
    "text",
    [
        "CN=é,O=Ex",
        "cn=é,o=Ex",
        "CN=é, O=Ex",
        "CN = é , O = Ex",
        r"CN=\C3\A9,O=Ex",
        r"CN=\c3\a9,O=Ex",
        'CN="é",O="Ex"',
        "2.5.4.3=é,OID.2.5.4.10=Ex",
        "CN=#0C02C3A9,O=#13024578",
        "commonName=é,organizationName=Ex",
        "/O=Ex/CN=é",
        r"/O=Ex/CN=\xC3\xA9",
        "CN=é;O=Ex",
    ],
)
def test_a_dn_is_compared_as_a_name(text: str) -> None:
    """Escapes, quotes, blanks, and case and form of types are ignored on both sides."""
    assert allowed(dn(text), jose)
    assert denied(dn(text), jose)


@pytest.mark.parametrize("text", ["CN=É,O=Ex", "CN=é,O=ex", "CN=é", "CN=é+O=Ex", "CN=é,O=Ex,C=DE"])
def test_another_name_is_another_name(text: str) -> None:
    """The case of values, the number of RDNs and the grouping into RDNs matter."""
    assert not allowed(dn(text), jose)
    assert not denied(dn(text), jose)


def test_the_order_of_rdns_counts_for_what_grants_only() -> None:
    """Refusing rules also match OpenSSL's order, the first RDN first."""
    assert not allowed(dn("O=Ex,CN=é"), jose)
    assert denied(dn("O = Ex, CN = é"), jose)


def test_the_order_within_an_rdn_does_not_count() -> None:
    """A SET has no order: both spellings of a multi-valued RDN are one name."""
    for attributes in ([0, 1], [1, 0]):
        both = [(NAME, UTF8, b"a"), (ORGANIZATION, UTF8, b"Ex")]
        leaf = named([both[i] for i in attributes])
        for text in ("CN=a+O=Ex", "O=Ex+CN=a", "/CN=a+O=Ex", "o = Ex + cn = a"):
            assert allowed(dn(text), leaf)
            assert denied(dn(text), leaf)
        assert allowed(dn("CN=a+*"), leaf)
        assert denied(dn("CN=a+*"), leaf)


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        (UTF8, "Jürgen".encode()),
        (T61, "Jürgen".encode("latin-1")),
        (BMP, "Jürgen".encode("utf-16-be")),
        (UNIVERSAL, "Jürgen".encode("utf-32-be")),
    ],
)
def test_the_kind_of_string_does_not_count(tag: int, value: bytes) -> None:
    """UTF8String, T61String, BMPString and UniversalString of one text are one name."""
    leaf = named([(NAME, tag, value)])
    assert allowed(dn("CN=Jürgen"), leaf)
    assert denied(dn(r"CN=J\C3\BCrgen"), leaf)


@pytest.mark.parametrize(
    "text",
    [
        "organizationIdentifier=PSDDE-1",
        "organizationidentifier=PSDDE-1",
        "2.5.4.97=PSDDE-1",
        "2.5.4.97=#0C0750534444452D31",
        "2.5.4.97=#130750534444452D31",
        "/organizationIdentifier=PSDDE-1",
    ],
)
def test_a_type_beyond_rfc_4514_has_several_spellings(text: str) -> None:
    """By OpenSSL's name, by OID with text, and by OID with DER in hex as RFC 4514 wants it."""
    leaf = named([(IDENTIFIER, UTF8, b"PSDDE-1")])
    assert allowed(dn(text), leaf)
    assert denied(dn(text), leaf)


def test_a_canonically_equal_letter_grants_only_as_written_and_refuses_always() -> None:
    """Refusing rules match `é` in both Unicode forms, granting rules only as written."""
    apart = named([(NAME, UTF8, "e\u0301".encode())])
    kelvin = named([(NAME, UTF8, "\u212a".encode())])
    assert denied("{cn: 'é'}", apart)
    assert denied(dn("CN=é"), apart)
    assert denied("{cn: '*é'}", apart)
    assert denied("{cn: K}", kelvin)
    assert not allowed("{cn: K}", kelvin)
    assert not allowed(dn("CN=K"), kelvin)
    assert not allowed("{cn: 'é'}", apart)


def test_a_value_cannot_pose_as_a_further_rdn() -> None:
    """A value whose text looks like several RDNs matches no granting rule for these RDNs."""
    posing = named([(NAME, UTF8, b"alice,O=Ex")])
    slash = named([(ORGANIZATION, UTF8, b"Ex/CN=alice")])
    hexadecimal = named([(NAME, UTF8, b"#0C02C3A9")])
    assert not allowed(dn("CN=alice,O=Ex"), posing)
    assert not allowed(dn("/O=Ex/CN=alice"), slash)
    assert denied(dn("/O=Ex/CN=alice"), slash)
    assert not allowed(dn("CN=#0C02C3A9"), hexadecimal)
    assert not allowed(dn("CN=*,O=Ex"), posing)
    assert not allowed(dn("~CN=.*,O=Ex"), posing)
    assert allowed(dn(r"CN=alice\,*"), posing)
    assert allowed(dn(r"CN=alice\2C*"), posing)
    assert allowed(dn(r"~CN=alice\\2CO=Ex"), posing)
    assert denied(dn(r"CN=alice\,*"), posing)


def test_a_glob_that_refuses_sees_nginx_own_spelling() -> None:
    """`deny` also matches the logged form; `allow` matches only the canonical text."""
    leaf = named([(ORGANIZATION, UTF8, b"Ex")], [(NAME, UTF8, "Jürgen".encode())])
    for text in (r"CN=J\C3\BCrgen,*", "/O=Ex/CN=*", "*, CN = *", r"~CN=J\\C3\\BC.*"):
        assert denied(dn(text), leaf), text
        assert not allowed(dn(text), leaf), text


def test_a_glob_that_refuses_sees_what_the_log_shows() -> None:
    """A type beyond RFC 4514's is dotted there, and an RDN's attributes are in their own order."""
    leaf = named(
        [(IDENTIFIER, UTF8, b"PSDDE-1")],
        [(ORGANIZATION, UTF8, b"Ev, il"), (NAME, UTF8, b"bob-1234567")],
    )
    shown = from_der(leaf.der).dn
    assert shown == r"O=Ev\, il+CN=bob-1234567,2.5.4.97=PSDDE-1"
    for text in ("*,2.5.4.97=PSDDE-1", r"O=Ev\, il+CN=bob*", r"~.*2\.5\.4\.97=PSDDE-1"):
        assert denied(dn(text), leaf), text
        assert not allowed(dn(text), leaf), text
    issued = CA(subject=leaf.cert.subject).issue("alice")
    assert denied("{issuer_dn: '*2.5.4.97=PSDDE-1'}", issued)


def test_several_cns_of_active_directory_are_one_dn() -> None:
    """`CN=Alice Smith,CN=Users` has two CNs: `dn` names all of it, `cn` must match both to
    grant."""
    leaf = named([(NAME, UTF8, b"Users")], [(NAME, UTF8, b"Alice Smith")])
    assert allowed(dn("CN=Alice Smith,CN=Users"), leaf)
    assert not allowed("{cn: Alice Smith}", leaf)
    assert allowed("{cn: [Alice Smith, Users]}", leaf)
    assert denied("{cn: Alice Smith}", leaf)


def test_an_issuer_is_compared_like_a_subject() -> None:
    """`issuer_dn` takes the same spellings."""
    leaf = staff.issue("alice")
    for text in ("cn = Staff", "/CN=Staff", "CN=#13055374616666"):
        assert allowed("{issuer_dn: '" + text + "'}", leaf)
        assert denied("{issuer_dn: '" + text + "'}", leaf)


# -- addresses ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "address", "expected"),
    [
        ("192.0.2.7", "::ffff:192.0.2.7", True),
        ("::ffff:192.0.2.7", "192.0.2.7", True),
        ("::ffff:c000:207", "192.0.2.7", True),
        ("::ffff:192.0.2.0/120", "192.0.2.9", True),
        ("192.0.2.0/24", "::ffff:192.0.2.9", True),
        ("::ffff:0:0/96", "10.0.0.1", True),
        ("::/0", "10.0.0.1", False),
        ("::/0", "2001:db8::1", True),
        ("fe80::/10", "fe80::1%eth0", True),
        ("fe80::1", "fe80::1%eth0", True),
        ("2001:DB8:0::1", "2001:db8::1", True),
    ],
)
def test_an_address_is_one_address(pattern: str, address: str, expected: bool) -> None:
    """IPv4 and IPv4-mapped are the same address, in patterns, networks and requests."""
    assert matches("client_ip", pattern, address) is expected
    assert matches("ip", pattern, address, refusing=True) is expected
    leaf = staff.issue("alice")
    rule = f'{{client_ip: "{pattern}"}}'
    assert allowed(rule, leaf, client_ip=address) is expected
    assert denied(rule, leaf, client_ip=address) is expected


PARTNER = CA(
    "Partner CA",
    issuer=staff,
    subject=x509.Name(
        [
            x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Söhne, Ex"),
            x509.NameAttribute(x509.NameOID.COMMON_NAME, "Partner CA"),
        ]
    ),
)
SAME_ISSUER = {
    "as it is": ("Söhne, Ex".encode(), b"Partner CA", UTF8),
    "case": ("SöHNE, ex".encode(), b"PARTNER ca", UTF8),
    "blanks": ("Söhne,   Ex ".encode(), b" Partner  CA", UTF8),
    "string type": ("Söhne, Ex".encode("utf-16-be"), "Partner CA".encode("utf-16-be"), BMP),
    "all": ("SöHNE, ex ".encode("utf-16-be"), " PARTNER  CA".encode("utf-16-be"), BMP),
}
ISSUER_RULES = [
    "issuer_cn: Partner CA",
    "issuer_cn: Partner*",
    'issuer_cn: "~Partner C[A]"',
    'issuer_dn: "CN=Partner CA,O=Söhne\\\\, Ex"',
    'issuer_dn: "O=Söhne\\\\, Ex,CN=Partner CA"',
    'issuer_dn: "/O=Söhne, Ex/CN=Partner CA"',
    'issuer_dn: "CN=Partner CA,*"',
    'issuer_dn: "CN=Part*,O=Söhne\\\\, Ex"',
    'issuer_dn: "~CN=Partner CA,O=S.*"',
]


@pytest.mark.parametrize("verify", ["nginx", "sidecar"])
@pytest.mark.parametrize("rule", ISSUER_RULES)
@pytest.mark.parametrize("spelling", SAME_ISSUER)
def test_an_issuer_that_spells_its_name_otherwise_is_refused(
    spelling: str, rule: str, verify: str
) -> None:
    """OpenSSL and path building find it by any spelling, so what refuses takes all of them."""
    organization, name, kind = SAME_ISSUER[spelling]
    written = subject([(ORGANIZATION, kind, organization)], [(NAME, kind, name)])
    leaf = PARTNER.forge("mallory", issuer=written)
    trust = f"trust: {{t: {{ca: ca.crt, intermediates: [sub.crt], verify: {verify}}}}}"
    for rules, reason in (
        (f"allow: verified, deny: [{{{rule}}}]", Reason.DENIED_BY_RULE),
        (f"allow: [{{cn: mallory, not: {{{rule}}}}}]", Reason.NOT_ALLOWED),
        ("allow: verified", Reason.ALLOWED),
    ):
        text = f"version: 1\n{trust}\nlocations:\n  - {{name: site, {rules}}}\n"
        asked = policy(text, ca_crt=staff.pem, sub_crt=PARTNER.pem)
        assert ask(asked, leaf).reason is reason


def test_another_spelling_of_an_issuer_grants_nothing() -> None:
    """What grants compares the text, case and blanks included."""
    leaf = staff.forge("alice", issuer=subject([(NAME, UTF8, b"STAFF")]))
    for rule in ("{issuer_cn: Staff}", "{issuer_cn: St*}", "{issuer_dn: CN=Staff}"):
        assert not allowed(rule, leaf)
        assert denied(rule, leaf)
    for rule in ("{issuer_cn: Sales}", "{issuer_dn: CN=Sales}", "{issuer_dn: '~CN=Sta'}"):
        assert not denied(rule, leaf)


@pytest.mark.parametrize(
    "rule",
    ["issuer_cn: '~Große İ CA [0-9]+'", "issuer_dn: '~CN=Große İ CA .*'", "issuer_cn: Große İ*"],
)
def test_an_issuer_s_letters_that_fold_to_several_are_refused(rule: str) -> None:
    """Blanks are squeezed where an expression has letters like ß, which folding makes `ss`, too."""
    for text in ("Große İ CA 1", "  Große  İ   CA 1 ", "GROßE İ  ca 1"):
        leaf = staff.forge("mallory", issuer=subject([(NAME, UTF8, text.encode())]))
        assert denied("{" + rule + "}", leaf)
    other = staff.forge("alice", issuer=subject([(NAME, UTF8, "Große J  CA 1".encode())]))
    assert not denied("{" + rule + "}", other)


@pytest.mark.parametrize(
    "rule",
    [
        'issuer_dn: "CN=Zed+CN=alice,O=*"',
        'issuer_dn: "~CN=Zed\\\\+CN=alice,O=.*"',
        'issuer_dn: "O = Ex, CN = Zed + CN = al*"',
        'issuer_dn: "O=Ex, CN=Zed + CN=al*"',
    ],
)
def test_an_issuer_s_attributes_are_refused_in_any_order(rule: str) -> None:
    """Another case or another blank puts the attributes of an RDN into another order."""
    for first, second in ((b"Zed", b"alice"), (b"ALICE", b"zed"), (b"aLiCe", b" ZED")):
        rdn = [(NAME, UTF8, first), (NAME, UTF8, second)]
        leaf = staff.forge("m", issuer=subject([(ORGANIZATION, UTF8, b"Ex")], rdn))
        assert denied("{" + rule + "}", leaf)
    rdn = [(NAME, UTF8, b"Zed"), (NAME, UTF8, b"bob")]
    leaf = staff.forge("m", issuer=subject([(ORGANIZATION, UTF8, b"Ex")], rdn))
    assert not denied("{" + rule + "}", leaf)


@pytest.mark.parametrize("rule", ["issuer_cn: '~Staff  C.'", "issuer_dn: '~CN=Staff  C.'"])
def test_an_issuer_s_double_blanks_are_refused_as_one(rule: str) -> None:
    """OpenSSL finds an authority by its name with fewer blanks, too."""
    for text in (b"Staff  CA", b"Staff CA", b" Staff   CA"):
        assert denied("{" + rule + "}", staff.forge("m", issuer=subject([(NAME, UTF8, text)])))
    assert not denied("{" + rule + "}", staff.forge("m", issuer=subject([(NAME, UTF8, b"Sales")])))


@pytest.mark.parametrize("blanks", [4000, 4090, 15000])
def test_an_issuer_s_name_beyond_4_kib_is_refused(blanks: int) -> None:
    """OpenSSL finds an issuer by a name of any length; such a name grants nothing, either."""
    leaf = staff.forge("m", issuer=subject([(NAME, UTF8, b"Partner" + b" " * blanks + b"CA")]))
    for rule in ("issuer_dn: CN=Partner CA", "issuer_dn: '~CN=Partner CA'", "issuer_cn: Partner*"):
        assert denied("{" + rule + "}", leaf)
        assert not allowed("{not: {" + rule + "}, cn: m}", leaf)
    if blanks > 4000:
        assert not allowed("{issuer_cn: 'P*', cn: m}", leaf)


def test_a_mapped_address_in_a_certificate_is_its_ipv4_address() -> None:
    """A SAN of 16 octets is compared as IPv4 by rules and hosts."""
    leaf = staff.issue("alice", ip=["::ffff:10.0.0.1"])
    assert denied("{ip: 10.0.0.1}", leaf)
    assert denied("{ip: 10.0.0.0/8}", leaf)
    assert allowed("{ip: 10.0.0.1}", leaf)
    rules = site("verified", "    san_matches_host: true\n")
    assert ask(rules, leaf, host="10.0.0.1").allowed
    assert ask(rules, leaf, host="[::ffff:10.0.0.1]").allowed
    assert not ask(rules, leaf, host="10.0.0.2").allowed


# -- names of the SAN --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "value", "expected"),
    [
        ("ALICE*", "ALICE@x", True),
        ("ALICE*", "alice@x", False),
        ("*EX.COM", "a@ex.com", True),
        ("*ice@EX.COM", "alice@Ex.com", True),
        ("ALICE*EX.COM", "ALICE@ex.com", True),
        ("A*E*COM", "ALICE@ex.com", True),
        ("a*E*COM", "ALICE@ex.com", False),
        ("*", "a@x", True),
        ("*@x@*", "a@x@y", True),
        ("~.*@EX[.]com", "a@EX.com", True),
        ("~.*@EX[.]com", "a@eX.COM", True),
        ("~.*@EX[.]com", "a@exxcom", False),
        ("~A.*@ex[.]com", "a@ex.com", False),
        ("~[^@]+@(x|Y)", "a@y", True),
        (r"~a\@EX", "a@ex", True),
        ("~ALICE@EX|BOB@EX", "BOB@EX", True),
    ],
)
def test_a_mail_hosts_case_does_not_count(pattern: str, value: str, expected: bool) -> None:
    """The host's case is ignored in exact patterns, in globs and in regular expressions."""
    assert matches("email", pattern, value) is expected
    assert matches("email", pattern, value, refusing=True) is expected


def test_a_mail_regex_whose_host_is_unclear_refuses_without_case() -> None:
    """If the host's part of an expression is uncertain, refusing rules ignore case."""
    for pattern in ("~(ALICE@EX|BOB@EX)", "~.*EX[.]COM", "~.{0,}(?:@)EX[.]COM"):
        value = "BOB@ex" if "BOB" in pattern else "bob@ex.com"
        assert matches("email", pattern, value, refusing=True)


@pytest.mark.parametrize(
    ("pattern", "value"),
    [
        ("spiffe://example.org/ns/a", "SPIFFE://Example.ORG/ns/a"),
        ("SPIFFE://Example.org/ns/a", "spiffe://example.org/ns/a"),
        ("https://example.org/a", "https://example.org:443/a"),
        ("https://[2001:db8::1]/a", "https://[2001:DB8:0::1]:0443/a"),
        (
            "urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6",
            "URN:UUID:F81D4FAE-7DEC-11D0-A765-00a0c91e6bf6",
        ),
        ("https://example.org/", "https://example.org"),
        ("https://example.org/a", "https://example.org/%61"),
        ("https://example.org/%c3%a9", "https://example.org/%C3%A9"),
        ("https://example.org/a/b", "https://example.org/a/./c/../b"),
        ("https://example.org/a/b", "https://example.org/a/%2e/b"),
        ("spiffe://example.org/ns/*", "spiffe://EXAMPLE.org/ns/a"),
        ("SPIFFE://EXAMPLE.org/ns/*", "spiffe://example.org/ns/a"),
        ("*EXAMPLE.org/ns/*", "spiffe://example.org/ns/a"),
        ("~spiffe://Example[.]org/.*", "spiffe://example.org/ns/a"),
    ],
)
def test_another_spelling_of_a_uri_is_refused_and_not_granted(pattern: str, value: str) -> None:
    """Refusing rules match after normalization (RFC 3986, 6.2.2); granting rules don't."""
    assert matches("uri", pattern, value, refusing=True)
    assert not matches("uri", pattern, value)


def test_another_uri_is_another_uri() -> None:
    """The case of a path counts on both sides."""
    for value in ("https://example.org/B", "https://example.org/b/", "https://example.com/b"):
        assert not matches("uri", "https://example.org/b", value, refusing=True)
    assert normal_uri("urn:ex:A") != normal_uri("urn:ex:a")
    assert normal_uri("https://x/../../a") == "https://x/a"


def test_a_principal_name_is_refused_without_case() -> None:
    """Refusing rules ignore case, as Active Directory does; granting rules don't."""
    for pattern in ("alice@corp.example", "alice@*", "~alice@.*"):
        assert matches("upn", pattern, "Alice@CORP.example", refusing=True)
        assert not matches("upn", pattern, "Alice@CORP.example")


def test_a_dot_at_the_end_of_a_dns_name_evades_no_rule() -> None:
    """For refusing rules, `example.com.` equals `example.com`."""
    assert matches("dns", "a.example.com", "a.example.com.", refusing=True)
    assert matches("dns", "*.example.com", "a.EXAMPLE.com.", refusing=True)
    assert not matches("dns", "a.example.com", "a.example.com.")


@pytest.mark.parametrize("text", ["clientauth", "CLIENTAUTH", "ClientAuth"])
def test_the_case_of_a_key_usages_name_does_not_count(text: str) -> None:
    """`clientauth` is clientAuth."""
    assert matches("eku", text, "1.3.6.1.5.5.7.3.2")


def mailbox(value: bytes, tag: int = UTF8) -> Leaf:
    """A certificate with an SmtpUTF8Mailbox (RFC 9598)."""
    other = tlv(0xA0, der_oid("1.3.6.1.5.5.7.8.9"), tlv(0xA0, tlv(tag, value)))
    return staff.forge(extensions=[tlv(0x30, der_oid("2.5.29.17"), tlv(0x04, tlv(0x30, other)))])


@pytest.mark.parametrize(
    ("pattern", "address"),
    [
        ("*@example.org", "jürgen@Example.org"),
        ("alice@example.org", "alice@example.org."),
        ("~j.rgen@example[.]org", "jürgen@example.org"),
        ("*@xn--bcher-kva.example", "jürgen@bücher.example"),
    ],
)
def test_a_mail_address_of_other_letters_is_refused_and_never_grants(
    pattern: str, address: str
) -> None:
    """An SmtpUTF8Mailbox is a mail address; one that can't be read is refused by any pattern."""
    rule = f'{{email: "{pattern}"}}'
    leaf = mailbox(address.encode())
    assert denied(rule, leaf)
    assert not allowed(rule, leaf)
    assert not allowed(f"{{not: {rule}}}", leaf)
    assert not denied(rule, mailbox("jürgen@other.example".encode()))
    assert denied(rule, mailbox(b"\xff@other.example"))
    assert not is_taken(mailbox(b"a\0@other.example"))
    assert not is_taken(mailbox(b"a\n@other.example"))


@pytest.mark.parametrize(
    ("serial", "octets"),
    [(-0xF6, "FF0A"), (-1, "FF"), (-128, "80"), (-129, "FF7F"), (-0x7F0A, "80f6")],
)
def test_a_negative_serial_number_is_refused_by_its_octets(serial: int, octets: str) -> None:
    """Of an authority that forgot the zero octet; they never grant."""
    leaf = negative(serial)
    assert bytes.fromhex("02" + f"{len(octets) // 2:02x}" + octets) in leaf.der
    for text in (octets, f"{serial:X}"):
        assert denied(f'{{serial: "{text}"}}', leaf)
        assert allowed(f'{{serial: "{text}"}}', leaf) is (text != octets)
        listed = policy(LISTED, ca_crt=staff.pem, deny_txt=f"serial {text}".encode())
        assert ask(listed, leaf).reason is Reason.REVOKED
    assert not denied('{serial: "F6"}', leaf)
    assert not denied(f'{{serial: "{serial:X}"}}', negative(int(octets, 16)))


LISTED = """
version: 1
trust: {t: {ca: ca.crt, denylist: deny.txt}}
locations: [{name: site, allow: verified}]
"""


def negative(serial: int) -> Leaf:
    """A certificate with this serial number, in as few octets as DER has it."""
    wide = staff.forge(serial=4711)
    octets = serial.to_bytes(max(serial, ~serial).bit_length() // 8 + 1, signed=True)
    tbs = within(wide.der, 0x30)[0]
    fields = within(tbs, 0x30)
    changed = tlv(0x30, fields[0], tlv(0x02, octets), *fields[2:])
    return Leaf(wide.name, staff.sign_tbs(changed), wide.private, staff)


# -- what OpenSSL prints -------------------------------------------------------------------------


def issue_odd(name: str) -> Leaf | None:
    """A certificate with an odd name; None where it isn't one that is taken."""
    leaf = named(*ODD[name])
    return leaf if is_taken(leaf) else None


NEWER = ("utf8,sep_comma_plus_space", "esc_ctrl,utf8,dump_unknown,dump_der,sep_comma_plus_space")
"""The forms of `openssl x509 -subject` by default, of OpenSSL 3.2 and 4.0."""


DENYING = "version: 1\nlocations: [{{name: site, allow: verified, deny: [{}]}}]\n"


@pytest.mark.parametrize("form", ["RFC2253", "oneline", "compat", "", *NEWER])
@pytest.mark.parametrize("name", list(ODD))
def test_what_openssl_prints_refuses(name: str, form: str, tmp_path: Path) -> None:
    """`deny: [{dn: …}]` with the output of `openssl x509 -subject` denies the certificate."""
    leaf = issue_odd(name)
    if leaf is None:
        return  # never let in anyway
    path = tmp_path / "leaf.pem"
    path.write_bytes(leaf.pem)
    options = ["-nameopt", form] if form else []
    command = ["openssl", "x509", "-noout", "-subject", *options, "-in", str(path)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    text = printed.removeprefix("subject=").removesuffix("\n").removeprefix(" ")
    if not text.isprintable():
        return  # no pattern: a policy holds no control characters
    if form not in NEWER or not mistakes(DENYING.format(dn(text))):  # nothing is escaped there
        assert denied(dn(text), leaf), text
    assert denied(dn(text + "*"), leaf), text
    if form == "RFC2253" and name != UID:
        assert allowed(dn(text), leaf), text
        assert allowed(dn(text), named(*ODD[name]))


def test_a_value_that_is_not_nginx_s_escape_grants_its_own_name_alone() -> None:
    """In a name as RFC 4514 writes it, `\\\\x22` is a backslash and `x22`, no quotation mark."""
    quoted, literal = named([(NAME, UTF8, b'a"')]), named([(NAME, UTF8, rb"a\x22")])
    for text in (r"CN=a\\x22", r"CN=a\x5C\x5Cx22"):
        assert allowed(dn(text), literal)
        assert not allowed(dn(text), quoted)
    for text in (r"CN=a\"", r"CN=a\x5C\x22"):
        assert allowed(dn(text), quoted)
        assert not allowed(dn(text), literal)


@pytest.mark.parametrize("pattern", ["*", "~.*"])
def test_an_empty_value_is_none_to_what_grants(pattern: str) -> None:
    """A CN of no octets, and a subject of no RDNs; a rule that refuses matches them."""
    for key, leaf in (("cn", named([(NAME, UTF8, b"")])), ("dn", named())):
        rule = f'{{{key}: "{pattern}"}}'
        assert not allowed(rule, leaf)
        assert not allowed(f"{{not: {rule}}}", leaf)
        assert denied(rule, leaf)
        assert allowed(rule, staff.issue("alice"))


def test_odd_names_are_read() -> None:
    """Of the unusual names above, only those that the certificate parser refuses are refused."""
    assert [name for name in ODD if issue_odd(name) is None] == []


def test_an_authority_that_names_itself_otherwise_is_the_same(tmp_path: Path) -> None:
    """An issuer as `openssl x509 -issuer` prints it, by a rule on `issuer_dn`."""
    name = x509.Name.from_rfc4514_string("CN=Ünder,O=Ex")
    ca = CA("under", subject=name)
    leaf = ca.issue("alice")
    path = tmp_path / "leaf.pem"
    path.write_bytes(leaf.pem)
    command = ["openssl", "x509", "-noout", "-issuer", "-in", str(path)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    text = printed.removeprefix("issuer=").strip()
    assert denied("{issuer_dn: '" + text + "'}", leaf)


@pytest.mark.parametrize("value", ['"alice"@example.org', '"al\\ice"@EXAMPLE.org.'])
def test_a_quoted_local_part_is_the_same_mailbox_to_what_refuses(value: str) -> None:
    """RFC 5321, 4.1.2: quotation marks and backslashes don't count; they never grant."""
    for pattern in ("alice@example.org", "*@example.org", "~ali.*@example[.]org", "alice@*"):
        assert matches("email", pattern, value, refusing=True)
    assert not matches("email", "alice@example.org", value)
    assert matches("email", value.lower().removesuffix("."), value, refusing=True)
    assert not matches("email", "bob@example.org", value, refusing=True)
    assert matches("email", value.removesuffix("."), "alice@example.org", refusing=True)
    assert not matches("email", value.removesuffix("."), "alice@example.org")


@pytest.mark.parametrize(
    ("pattern", "value"),
    [
        ("mailto:alice@EX.com", "mailto:alice@ex.com"),
        ("mailto:alice@ex.com", "MAILTO:alice@EX.com."),
        ("mailto:*@ex.com", "mailto:alice@EX.com"),
        ("sip:alice@EX.com;transport=TCP", "SIP:alice@ex.com;transport=TCP"),
        ("xmpp:alice@ex.com/Res", "xmpp:alice@EX.com/Res"),
        ("acct:alice@ex.com", "acct:alice@EX.COM"),
        ("https://x.org/*", "https://x.org?q"),
        ("https://x.org/*", "https://x.org"),
        ("https://x.org/?q", "HTTPS://x.org?q"),
        ("https://x.org?q", "https://x.org/?q"),
    ],
)
def test_users_at_hosts_and_empty_paths_have_one_spelling(pattern: str, value: str) -> None:
    """What refuses such a URI refuses it in every spelling; what grants it grants one."""
    assert matches("uri", pattern, value, refusing=True)
    assert matches("uri", pattern, value) is ("*" in pattern and value.startswith(pattern[:-1]))


@pytest.mark.parametrize(
    ("key", "pattern", "value"),
    [
        ("email", "alice@[IPv6:2001:db8::1]", "alice@[ipv6:2001:DB8:0::1]"),
        ("email", "alice@[IPv6:2001:db8::1]", "alice@[IPv6:2001:db8:0:0:0:0:0:1]."),
        ("email", "alice@[ipv6:2001:DB8:0::1]", "alice@[IPv6:2001:db8::1]"),
        ("email", "alice@[2001:db8::1]", "alice@[IPv6:2001:db8::1]"),
        ("email", "alice@[IPv6:::ffff:192.0.2.1]", "alice@[192.0.2.1]"),
        ("email", "alice@[192.0.2.1]", "alice@[IPv6:::FFFF:c000:201]"),
        ("email", "alice@[192.0.2.1]", "alice@[192.000.002.001]"),  # RFC 5321, 4.1.3: decimal
        ("email", "alice@[192.0.2.1]", '"alice"@[192.0.2.1]'),
        ("email", "alice@[IPv6:fe80::1]", "alice@[IPv6:fe80::1%eth0]"),
        ("email", "*@[IPv6:2001:db8:0::1]", "alice@[IPv6:2001:DB8::1]"),
        ("email", "al*@[IPv6:2001:db8::1]", "alice@[ipv6:2001:db8:0::1]"),
        ("email", "~.*@[[]ipv6:2001:db8::1[]]", "alice@[IPv6:2001:db8::1]"),
        ("email", "~.*@[[]192[.]0[.]2[.]1[]]", "alice@[IPv6:::ffff:192.0.2.1]"),
        ("uri", "mailto:alice@[IPv6:2001:db8::1]", "mailto:alice@[ipv6:2001:DB8:0::1]"),
        ("uri", "sip:alice@[2001:db8::1]:5070;x=y", "sip:alice@[2001:DB8:0::1]:05070;x=y"),
        ("uri", "sip:alice@ex.com:5070", "sip:alice@EX.com.:5070"),
        ("uri", "https://192.0.2.1/a", "https://[::ffff:192.0.2.1]/a"),
        ("uri", "https://192.0.2.1/a", "https://[::FFFF:C000:201]:443/a"),
        ("uri", "https://[fe80::1]/a", "https://[fe80::1%25eth0]/a"),
        ("uri", "https://192.0.2.1/a", "https://0300.0.2.01/a"),
        ("uri", "https://192.0.2.1/a", "https://0xC0000201/a"),
        ("uri", "https://192.0.2.1/*", "https://3221225985/a"),
        ("uri", "https://ex.com:8443/a", "https://EX.com.:08443/a"),
        ("uri", "https://ex.com/a", "https://@ex.com/a"),
        ("uri", "https://alice@ex.com/a", "https://alice:@ex.com/a"),
        ("uri", "https://ex.com/a", "https://%65x%2Ecom/a"),
        ("uri", "https://xn--mnchen-3ya.example/a", "https://m%C3%BCnchen.example/a"),
        ("uri", "https://xn--mnchen-3ya.example/a", "https://M%c3%9cNCHEN.example/a"),
        ("uri", "https://münchen.example/a", "https://XN--MNCHEN-3YA.example/a"),
        ("uri", "https://xn--mnchen-3ya.example/*", "https://mu%CC%88nchen%E3%80%82example/a"),
        ("uri", "coap://ex.com/a", "coap://ex.com:5683/a"),
        ("uri", "ipps://ex.com/a", "ipps://EX.com:631/a"),
        ("uri", "urn:ex:a", "urn:ex:a?+resolve"),
        ("uri", "urn:ex:a", "URN:ex:a?=query#fragment"),
        ("upn", "alice@xn--mnchen-3ya.example", "alice@München.example"),
        ("upn", "alice@münchen.example", "alice@xn--mnchen-3ya.example"),
        ("upn", "*@münchen.example", "alice@XN--mnchen-3ya.example."),
        ("upn", "alice@xn--strae-oqa.example", "Alice@Straße.example"),
        ("upn", "alice@STRASSE.example", "alice@straße.example"),
        ("upn", "alice@ex.com", "alice@e\u00adx.com"),
        ("uri", "https://ex.com/*", "https://e%C2%ADx.com/a"),
        ("uri", "http://127.0.0.1/", f"http://{'0' * 300}177.0.0.1/"),
        ("upn", "alice@ex.com", "Alice@EX.com."),
    ],
)
def test_a_host_in_another_spelling_is_refused_and_not_granted(
    key: str, pattern: str, value: str
) -> None:
    """Address literals, IPv4-mapped ones, zones, numbers, ports, IDNs, and a URN's other parts."""
    assert matches(key, pattern, value, refusing=True)
    assert not matches(key, pattern, value) or pattern.startswith("~.*@[[]ipv6")  # as written


@pytest.mark.parametrize(
    ("key", "pattern", "value"),
    [
        ("email", "alice@[IPv6:2001:db8::1]", "alice@[IPv6:2001:db8::2]"),
        ("email", "alice@[IPv6:2001:db8::1]", "Alice@[IPv6:2001:db8::1]"),
        ("email", "alice@[192.0.2.1]", "alice@[192.0.2.10]"),
        ("email", "ALICE*", "alice@x"),
        ("uri", "https://192.0.2.1/a", "https://192.0.2.010/a"),
        ("uri", "https://192.0.2.1/a", "https://192.0.2.256/a"),
        ("uri", "https://192.0.2.1/a", "https://[2001:db8::192.0.2.1]/a"),
        ("uri", "https://ex.com/a", "https://ex.com:8443/a"),
        ("uri", "https://ex.com/a", "https://alice@ex.com/a"),
        ("uri", "sip:alice@ex.com", "sip:alice@ex.com:5060"),  # RFC 3261, 19.1.4
        ("uri", "https://xn--strae-oqa.example/a", "https://strasse.example/a"),
        ("uri", "urn:ex:a", "urn:ex:b?+resolve"),
        ("upn", "alice@ex.com", "alice@ex.com.org"),
    ],
)
def test_another_host_is_another_host(key: str, pattern: str, value: str) -> None:
    """Another number, port, user or label is refused by no rule for this one."""
    assert not matches(key, pattern, value, refusing=True)
    assert not matches(key, pattern, value)


@pytest.mark.parametrize(
    ("pattern", "value"),
    [
        ("mailto:alice@ex.com", "mailto:Alice@ex.com"),
        ("xmpp:alice@ex.com/Res", "xmpp:alice@ex.com/res"),
        ("sip:alice@ex.com;transport=tcp", "sip:bob@ex.com;transport=tcp"),
        ("tel:+12125550100;ext=5", "tel:+12125550100;ext=6"),
        ("tel:+12125550100", "tel:12125550100"),
        ("tag:a@ex.com,2020:X", "tag:a@ex.com,2020:x"),
        ("https://x.org/*", "https://x.organic"),
    ],
)
def test_other_users_and_hosts_are_others(pattern: str, value: str) -> None:
    """The case of a user, a resource or an unknown scheme's rest counts."""
    assert not matches("uri", pattern, value, refusing=True)


@pytest.mark.parametrize(
    ("key", "pattern"),
    [
        ("email", "alice@ex.com."),
        ("email", '"alice"@ex.com.'),
        ("email", "alice@*."),
        ("email", "~alice@ex[.]com[.]"),
        ("dns", "~a[.]ex[.]com[.]"),
        ("dns", "~a[.].*[.]"),
    ],
)
def test_what_refuses_a_dot_at_the_end_refuses_it(key: str, pattern: str) -> None:
    """A certificate is refused in its own spelling, not only in others."""
    value = "alice@ex.com." if key == "email" else "a.ex.com."
    assert matches(key, pattern, value, refusing=True)


def test_a_mail_address_with_a_dot_at_the_end_is_denied_as_written() -> None:
    leaf = staff.issue("alice", email=["alice@ex.com."])
    assert denied("{email: alice@ex.com.}", leaf)
    assert denied("{email: alice@ex.com}", leaf)
    assert denied("{email: alice@ex.com.}", staff.issue("alice", email=["alice@ex.com"]))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("wss://x.org/a", "wss://x.org:443/a"),
        ("ws://x.org/a", "WS://x.org:80/a"),
        ("ftp://x.org/a", "ftp://x.org:21/a"),
        ("file:///a", "file:/a"),
        ("file://localhost/a", "file:///b/../a"),
        ("app:/a/../b", "app:/b"),
        ("mailto:a@ex.com,b@ex.com", "mailto:a@EX.com,b@Ex.com"),
        ("mailto:a@ex.com", "mailto:a@ex.com?subject=x"),
        ("tel:+1-212-555-0100", "TEL:+1(212)555.0100"),
        ("tel:+12125550100;ext=5", "tel:+12125550100;isup=x;ext=5"),
        ("tel:0100;phone-context=EX.com", "tel:01-00;phone-context=ex.com"),
        ("sip:a@ex.com", "sip:a@EX.com;transport=tcp?subject=x"),
        ("sips:a@ex.com:5061;lr", "sips:a@ex.com:5061;maddr=192.0.2.1"),
        ("sip:ex.com", "sip:EX.com;transport=tcp"),
        ("xmpp:a@ex.com/b@c", "xmpp:a@EX.com/b@c?message"),
        ("im:a@ex.com", "im:a@ex.com?subject=x"),
    ],
)
def test_further_schemes_have_their_own_spellings(one: str, other: str) -> None:
    """Ports of WebSocket and FTP, paths without an authority, several mail addresses, telephone
    numbers, and what says only how to reach or to greet an address."""
    for pattern, value in ((one, other), (other, one)):
        assert matches("uri", pattern, value, refusing=True)
        assert not matches("uri", pattern, value)
