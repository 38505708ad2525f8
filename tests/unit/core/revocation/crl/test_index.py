"""Parse CRLs, and check certificates against the CRLs of a trust."""

from __future__ import annotations

import importlib.resources
import math
import pickle
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import x25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ReasonFlags
from cryptography.x509.oid import NameOID
from der import der_int, der_oid, der_rdn, der_time, pem, tlv
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pki import CA, Extension, Leaf
from strange_keys import strange_ca

from sidecar.core.revocation.crl.entries import REMOVE, CrlEntry, build_table
from sidecar.core.revocation.crl.index import (
    Crl,
    CrlError,
    CrlIndex,
    Watermark,
    crl_facts,
    goes_back,
    read_crl,
    read_crls,
    supersedes,
    watermark,
)
from sidecar.core.revocation.crl.parse import MAX_BLOCKS, without_padding
from sidecar.core.revocation.status import Answer, RevocationStatus
from sidecar.core.x509.certificate import from_der
from sidecar.core.x509.der import comparable_name

GOOD, REVOKED, UNKNOWN = RevocationStatus.GOOD, RevocationStatus.REVOKED, RevocationStatus.UNKNOWN
T0 = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
NOW = (T0 + DAY / 2).timestamp()
YEARS: dict[str, Any] = {"not_before": T0 - 400 * DAY, "not_after": T0 + 4000 * DAY}

STAFF = CA("Staff", **YEARS)
ALICE, BOB = STAFF.issue("alice", serial=0xA11CE), STAFF.issue("bob", serial=0xB0B)


def crl(ca: CA = STAFF, revoked: Iterable[Any] = (), **options: Any) -> bytes:
    """A CRL of the day T0; options are those of `CA.crl`."""
    return ca.crl(revoked, **{"this_update": T0, "next_update": T0 + DAY, **options})


def read(data: bytes, *authorities: CA, source: str = "crl.pem") -> Crl:
    return read_crl(data, source, [ca.der for ca in authorities or (STAFF,)])


@dataclass(frozen=True)
class Ask:
    """CRLs, ready to be asked."""

    index: CrlIndex

    def answer(self, leaf: Leaf | CA, issuer: CA = STAFF, now: float = NOW) -> Answer:
        return self.index.status(crl_facts(leaf.cert), from_der(issuer.der), now)

    def status(self, leaf: Leaf | CA, issuer: CA = STAFF, now: float = NOW) -> RevocationStatus:
        return self.answer(leaf, issuer, now).status


def ask(*crls: bytes | Crl, authorities: Iterable[CA] = (STAFF,), **options: Any) -> Ask:
    found = [each if isinstance(each, Crl) else read(each, *authorities) for each in crls]
    return Ask(CrlIndex(found, **options))


def entry(
    leaf: Leaf | CA | int,
    reason: ReasonFlags | None = None,
    *extensions: Extension,
) -> x509.RevokedCertificate:
    serial = leaf if isinstance(leaf, int) else leaf.serial
    builder = x509.RevokedCertificateBuilder(serial_number=serial, revocation_date=T0)
    if reason is not None:
        builder = builder.add_extension(x509.CRLReason(reason), critical=False)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.build()


def uri(text: str) -> list[x509.GeneralName]:
    return [x509.UniformResourceIdentifier(text)]


def idp(
    full_name: list[x509.GeneralName] | None = None,
    *,
    only: str = "",
    reasons: Iterable[ReasonFlags] = (),
    indirect: bool = False,
    relative: x509.RelativeDistinguishedName | None = None,
) -> x509.IssuingDistributionPoint:
    return x509.IssuingDistributionPoint(
        full_name=full_name,
        relative_name=relative,
        only_contains_user_certs=only == "user",
        only_contains_ca_certs=only == "ca",
        only_some_reasons=frozenset(reasons) or None,
        indirect_crl=indirect,
        only_contains_attribute_certs=only == "attribute",
    )


def cdp(
    full_name: list[x509.GeneralName] | None = None,
    *,
    reasons: Iterable[ReasonFlags] = (),
    issuer: CA | None = None,
    relative: x509.RelativeDistinguishedName | None = None,
) -> Extension:
    point = x509.DistributionPoint(
        full_name=full_name,
        relative_name=relative,
        reasons=frozenset(reasons) or None,
        crl_issuer=[x509.DirectoryName(issuer.subject)] if issuer else None,
    )
    return x509.CRLDistributionPoints([point]), False


def by_hand(
    ca: CA,
    entries: Iterable[bytes] = (),
    *,
    version: bytes = der_int(1),
    this_update: bytes = b"",
    next_update: datetime | None = T0 + DAY,
    extensions: bytes = b"",
    issuer: bytes | None = None,
) -> bytes:
    """A CRL as no builder makes one."""
    content = b"".join(entries)
    tbs = tlv(
        0x30,
        version,
        tlv(0x30, der_oid("1.2.840.10045.4.3.2")),
        issuer or ca.subject.public_bytes(),
        this_update or der_time(T0),
        der_time(next_update) if next_update else b"",
        tlv(0x30, content) if content else b"",
        tlv(0xA0, tlv(0x30, extensions)) if extensions else b"",
    )
    return ca.sign_tbs(tbs)


def by_hand_entry(serial: int, *extensions: bytes, at: datetime = T0) -> bytes:
    octets = (serial if serial >= 0 else ~serial).bit_length() // 8 + 1
    number = tlv(0x02, serial.to_bytes(octets, "big", signed=True))
    return tlv(0x30, number, der_time(at), tlv(0x30, *extensions) if extensions else b"")


def by_hand_extension(oid: str, value: bytes, *, critical: bool = False) -> bytes:
    flag = tlv(0x01, b"\xff") if critical else b""
    return tlv(0x30, der_oid(oid), flag, tlv(0x04, value))


# -- reading one


def test_pem_and_der_are_the_same() -> None:
    """Both encodings of one CRL say the same, also with text before the PEM as OpenSSL has it."""
    text = crl(revoked=[ALICE])
    der = x509.load_pem_x509_crl(text).public_bytes(Encoding.DER)
    assert read(text) == read(der) == read(b"Certificate Revocation List:\n\n" + text)
    assert read(text.replace(b"\n", b"\r\n")) == read(text)


def test_what_is_read() -> None:
    """Issuer, number, times and entries are those of the CRL."""
    found = read(crl(revoked=[ALICE, BOB], number=7))
    assert (found.number, found.delta_base, found.entry_count) == (7, None, 2)
    assert (found.this_update, found.next_update) == (T0.timestamp(), (T0 + DAY).timestamp())
    assert (found.source, found.unusable) == ("crl.pem", "")


def test_an_empty_crl_is_a_good_crl() -> None:
    """A CRL without entries says GOOD of all."""
    assert ask(crl()).status(ALICE) is GOOD


PEM = crl(revoked=[ALICE])
DER = x509.load_pem_x509_crl(PEM).public_bytes(Encoding.DER)
PEM_2 = crl(revoked=[BOB])
DER_2 = x509.load_pem_x509_crl(PEM_2).public_bytes(Encoding.DER)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"hello", "neither PEM nor DER"),
        (b"\x30", "not a readable CRL"),
        (b"0" * 5000, "not a readable CRL"),
        (DER[:-1], "not a readable CRL"),
        (DER + b"\0", "neither PEM nor DER"),
        (DER + DER[:-1], "not a readable CRL"),
        (DER + PEM_2, "2 CRLs in one file"),
        (PEM + PEM_2, "2 CRLs in one file"),
        (PEM.replace(b"-----END", b"-----"), "no end"),
        (PEM[:100] + b"!" + PEM[100:], "not a readable CRL"),
        (STAFF.pem, "neither PEM nor DER"),
        (STAFF.der, "not a readable CRL"),
        (pem("X509 CRL", b""), "not a readable CRL"),
    ],
)
def test_what_is_no_crl_is_refused(data: bytes, says: str) -> None:
    """A file that is not exactly one CRL is refused with a message."""
    with pytest.raises(CrlError, match=says):
        read(data)


def test_a_pem_file_holds_several_crls_and_text() -> None:
    """Several CRLs with text before, between and after them are accepted, as in nginx's ssl_crl."""
    other = CA("Other", **YEARS)
    data = b"Staff's\n" + PEM + b"other's\n" + crl(other) + b"\ntail" + STAFF.pem
    found = read_crls(data, "crl.pem", [STAFF.der, other.der])
    assert [(c.source, c.entry_count) for c in found.crls] == [("crl.pem", 1), ("crl.pem#2", 0)]
    assert not found.mistakes
    assert read(PEM + b"garbage").entry_count == 1
    assert read(b"01 Staff, of May\n" + PEM).entry_count == 1


@pytest.mark.parametrize("each", [PEM, DER])
def test_a_crl_that_is_repeated_counts_once(each: bytes) -> None:
    """Whoever writes the file can repeat one as often as a file may have several."""
    found = read_crls(each * 64, "crl.pem", [STAFF.der])
    assert [c.source for c in found.crls] == ["crl.pem"]
    assert not found.mistakes


def test_what_can_be_read_of_a_file_of_crls_is() -> None:
    """An invalid, foreign or incomplete CRL doesn't hide the others of its file."""
    foreign, cut = crl(CA("Other", **YEARS)), PEM[:200]
    damaged = PEM[:100] + b"!" + PEM[100:]
    found = read_crls(foreign + damaged + PEM + cut, "crl.pem", [STAFF.der])
    assert [c.source for c in found.crls] == ["crl.pem#3"]
    assert read_crls(cut + PEM, "crl.pem", [STAFF.der]).crls[0].source == "crl.pem#2"
    said = " ".join(map(str, found.mistakes))
    assert "CN=Other" in said
    assert "not a readable CRL" in said
    assert "no end" in said


@pytest.mark.parametrize("behind", [b"\n", b"garbage", DER[:-1], DER_2, PEM_2])
def test_what_is_behind_a_crl_in_der_hides_it_not(behind: bytes) -> None:
    """As OpenSSL reads it; another CRL there is read, too, and anything else told."""
    found = read_crls(DER + behind, "crl.der", [STAFF.der])
    assert len(found.crls) == (2 if behind in (DER_2, PEM_2) else 1)
    assert len(found.mistakes) == (behind in (b"garbage", DER[:-1]))


@pytest.mark.parametrize("between", [b"", b"\n", b"\r\n"])
def test_a_crl_in_der_behind_one_in_pem_is_read(between: bytes) -> None:
    """As in `cat a.pem b.der`; OpenSSL takes it for text."""
    found = read_crls(PEM + between + DER_2 + b"\n" + PEM + DER_2[:-1], "crl", [STAFF.der])
    assert [c.source for c in found.crls] == ["crl", "crl#2"]
    assert "not a readable CRL" in str(*found.mistakes)


@pytest.mark.parametrize("der", [False, True, None])
def test_a_file_of_too_many_crls_is_told(der: bool | None) -> None:
    """CRLs over the limit are reported, not silently skipped; also PEM and DER in turns (None)."""
    each = [number % 2 == 1 if der is None else der for number in range(MAX_BLOCKS + 1)]
    data = b"".join(crl(number=number, der=der) for number, der in enumerate(each)) + PEM * 9000
    found = read_crls(data, "crl.pem", [STAFF.der])
    assert len(found.crls) == MAX_BLOCKS
    assert "more than 64" in str(found.mistakes[0])


@pytest.mark.parametrize("curve", ["SM2", "brainpoolP512t1", "sect283k1", "secp160r1"])
def test_an_authority_with_a_strange_key_harms_no_other(curve: str) -> None:
    """An authority with an unsupported key doesn't affect the CRLs of other authorities."""
    strange = strange_ca(curve)
    found = read_crl(crl(revoked=[ALICE]), "crl.pem", [strange.der, STAFF.der])
    index = Ask(CrlIndex([found]))
    assert index.status(ALICE) is REVOKED
    assert index.status(BOB) is GOOD
    odd = from_der(strange.der)
    assert index.index.status(crl_facts(ALICE.cert), odd, NOW).status is UNKNOWN


@pytest.mark.parametrize("number", [None, 7])
def test_two_crls_of_one_moment_both_revoke(number: int | None) -> None:
    """CAs may round thisUpdate: of CRLs that are equally new, each counts, in any order."""
    one, other = (crl(revoked=[leaf], number=number) for leaf in (ALICE, BOB))
    for each in (ask(one, other), ask(other, one)):
        assert each.status(ALICE) is REVOKED
        assert each.status(BOB) is REVOKED
        assert each.status(STAFF.issue("carol")) is GOOD


def test_a_refused_crl_revokes_and_never_clears() -> None:
    """A CRL that goes backwards revokes the certificates that it lists, and never says good."""
    old = read(crl(revoked=[ALICE], number=4))
    only = Ask(CrlIndex([], revoking=[old]))
    assert only.status(ALICE) is REVOKED
    assert only.status(BOB) is UNKNOWN
    beside = Ask(CrlIndex([read(crl(number=5))], revoking=[old]))
    assert beside.status(ALICE) is REVOKED
    assert beside.status(BOB) is GOOD


@pytest.mark.parametrize("number", [1 << 159, 1 << 40000], ids=["20 octets", "5,000"])
def test_a_crl_number_without_end_is_none(number: int) -> None:
    """RFC 5280, 5.2.3, limits a number to 20 octets; a longer one counts as absent."""
    found = read(crl(revoked=[ALICE], number=number))
    assert found.number is None
    assert goes_back(Watermark(3, 0.0), found) is not None


def test_an_error_says_what_to_do() -> None:
    """A refusal has a message and a hint, also after it went through a pickle."""
    with pytest.raises(CrlError) as caught:
        read(b"")
    message, hint = pickle.loads(pickle.dumps(caught.value)).args
    assert (message, hint) == ("the file is empty", "put one complete CRL there, PEM or DER")


def test_only_an_authority_of_the_trust_may_sign() -> None:
    """Wrong key under the right name, right key under another name, no such name: refused."""
    other, same_name = CA("Other", **YEARS), CA("Staff", **YEARS)
    for data, authority, says in [
        (crl(same_name), STAFF, "the signature is not by CN=Staff"),
        (crl(key=other), STAFF, "the signature is not by CN=Staff"),
        (crl(other), STAFF, "CN=Other, which is not an authority of this trust"),
    ]:
        with pytest.raises(CrlError, match=says):
            read(data, authority)
    with pytest.raises(CrlError, match="not an authority"):
        read_crl(crl(), "crl.pem", [])


def test_the_key_usage_must_allow_it() -> None:
    """A keyUsage without cRLSign bars an authority from signing CRLs (RFC 5280, 6.3.3 f)."""
    plain = STAFF.issue("Staff")  # a leaf with the authority's name: digitalSignature only
    data = crl(key=plain.private)
    with pytest.raises(CrlError, match="lacks cRLSign"):
        read_crl(data, "crl.pem", [plain.der, STAFF.der])


def test_a_key_that_signs_nothing() -> None:
    """An authority whose key can't sign (X25519) is never a signer."""
    public = x25519.X25519PrivateKey.generate().public_key()
    builder = x509.CertificateBuilder(STAFF.subject, STAFF.subject, public, 1, T0, T0 + DAY)
    cert = builder.sign(STAFF.key, hashes.SHA256())
    with pytest.raises(CrlError, match="the signature is not by"):
        read_crl(crl(), "crl.pem", [cert.public_bytes(Encoding.DER)])


def test_weak_signatures_are_refused() -> None:
    """SHA-1 signatures are refused."""
    algorithm = tlv(0x30, der_oid("1.2.840.113549.1.1.5"), tlv(0x05))
    times = der_time(T0) + der_time(T0 + DAY)
    tbs = tlv(0x30, der_int(1), algorithm, STAFF.subject.public_bytes(), times)
    with pytest.raises(CrlError, match="signed with sha1"):
        read(tlv(0x30, tbs, algorithm, tlv(0x03, bytes(257))))


VECTORS = importlib.resources.files("cryptography_vectors") / "x509" / "custom"


@pytest.mark.parametrize(
    "name", sorted(each.name for each in VECTORS.iterdir() if "crl" in each.name)
)
def test_foreign_vectors_are_refused_quietly(name: str) -> None:
    """Published invalid CRLs, and CRLs of unknown authorities, raise only `CrlError`."""
    data = (VECTORS / name).read_bytes()
    with pytest.raises(CrlError):
        read(data)


def test_foreign_signatures() -> None:
    """CRLs of published test suites verify with the right signature only."""
    authority = x509.load_pem_x509_certificate((VECTORS / "valid_signature_cert.pem").read_bytes())
    authorities = [authority.public_bytes(Encoding.DER)]
    found = read_crl((VECTORS / "valid_signature_crl.pem").read_bytes(), "valid", authorities)
    assert found.entry_count == 0
    with pytest.raises(CrlError, match="signature"):
        read_crl((VECTORS / "invalid_signature_crl.pem").read_bytes(), "invalid", authorities)


# -- mutations

LISTED = crl(revoked=[entry(ALICE, ReasonFlags.key_compromise), BOB], der=True)


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.data())
def test_no_change_of_a_byte_makes_a_revoked_one_good(data: st.DataObject) -> None:
    """A changed, cut or extended CRL raises `CrlError` or still revokes."""
    changed = bytearray(LISTED)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(changed) - 1))
        match data.draw(st.sampled_from(["set", "cut", "put"])):
            case "set":
                changed[at] = data.draw(st.integers(0, 255))
            case "cut":
                del changed[at : at + data.draw(st.integers(1, 8))]
            case "put":
                changed[at:at] = data.draw(st.binary(min_size=1, max_size=8))
        if not changed:
            return
    try:
        found = read(bytes(changed))
    except CrlError:
        return
    assert ask(found).status(ALICE) is REVOKED


@given(st.binary(max_size=400))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    """Any bytes raise only the documented error."""
    for candidate in (data, b"\x30" + data, LISTED[:20] + data, pem("X509 CRL", data)):
        with pytest.raises(CrlError):
            read(candidate)


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.integers(0, 400), st.binary(min_size=1, max_size=6))
def test_signed_nonsense_is_an_error_or_unusable(at: int, put: bytes) -> None:
    """An invalid CRL raises only `CrlError`, even with a valid signature."""
    entries = [
        by_hand_entry(7, by_hand_extension("2.5.29.21", tlv(0x0A, b"\x01"))),
        by_hand_entry(8),
    ]
    content = bytearray(b"".join(entries))
    content[at % len(content) : at % len(content) + len(put)] = put
    try:
        found = read(by_hand(STAFF, [bytes(content)]))
    except CrlError:
        return
    assert found.entry_count >= 1 or found.unusable


# -- entries


@pytest.mark.parametrize(
    "serial",
    [
        *(0, 1, 0x7F, 0x80, 0xFF, 0x100, -1, -0x80, -0x81),
        *(2**159 - 1, 2**159, 2**160 - 1, 2**160, 2**200 + 1, 2**1200),
        *(-(2**159), -(2**160), -(2**161) - 1),
    ],
)
def test_any_serial_is_found_as_a_number(serial: int) -> None:
    """Negative, zero, 20-octet and longer serial numbers are found, and their neighbours are
    not."""
    found = read(by_hand(STAFF, [by_hand_entry(serial), by_hand_entry(12345)]))
    issuer = comparable_name(STAFF.subject.public_bytes())
    assert found.find(issuer, serial) is not None
    assert found.find(issuer, 12345) is not None
    for other in {serial - 1, serial + 1, -serial, serial ^ (1 << 160), serial + (1 << 168)}:
        if other != serial:
            assert found.find(issuer, other) is None
    assert found.find(comparable_name(b"\x30\x00"), serial) is None


@pytest.mark.parametrize("octets", [b"\xff\x0a", b"\xff", b"\xbc" + bytes(19)])
def test_a_zero_octet_that_the_certificate_lacks(octets: bytes) -> None:
    """`FF0A` in a certificate is `00FF0A` in a CRL of a program that writes it right."""
    right, forgotten = int.from_bytes(octets), int.from_bytes(octets, signed=True)
    cert = from_der(STAFF.forge("alice", serial=forgotten, not_before=T0).der)
    for listed, found in (right, REVOKED), (forgotten, REVOKED), (right + 1, GOOD):
        held = CrlIndex([read(by_hand(STAFF, [by_hand_entry(listed)]))])
        assert held.status(crl_facts(cert), from_der(STAFF.der), NOW).status is found


def test_serials_with_leading_zeros_on_the_certificate_side() -> None:
    """The sign octet before a high bit is no part of the number."""
    leaf = STAFF.issue("high", serial=0xFF00000000000001)
    assert ask(crl(revoked=[leaf])).status(leaf) is REVOKED
    assert ask(by_hand(STAFF, [by_hand_entry(-0x00FFFFFFFFFFFFFF)])).status(leaf) is GOOD


RUNS = st.lists(
    st.tuples(
        st.integers(1, 21),  # octets
        st.integers(1, 60),  # how many alike
        st.integers(0, 3),  # days after T0
        st.sampled_from([None, 1, 4, "invalidity"]),
    ),
    max_size=8,
)


def _runs(runs: list[tuple[int, int, int, int | str | None]]) -> dict[int, tuple[bytes, CrlEntry]]:
    """Entries by serial number: their DER, and what is to be found."""
    found: dict[int, tuple[bytes, CrlEntry]] = {}
    for octets, count, days, said in runs:
        for at in range(count):
            serial = (1 << (octets * 8 - 2)) + len(found) * 2**40 + at
            extensions = []
            if isinstance(said, int):
                extensions = [by_hand_extension("2.5.29.21", tlv(0x0A, bytes([said])))]
            elif said:
                moment = der_time(T0 + timedelta(seconds=at))  # none like the one before
                extensions = [by_hand_extension("2.5.29.24", moment)]
            der = by_hand_entry(serial, *extensions, at=T0 + days * DAY)
            day = (T0 + days * DAY).toordinal() - date(1970, 1, 1).toordinal()
            found[serial] = der, CrlEntry(day, said if isinstance(said, int) else 0)
    return found


@settings(max_examples=60, deadline=None)
@given(RUNS)
@example([(16, 3000, 0, None), (17, 40, 1, 1), (16, 5000, 2, None), (13, 2000, 1, "invalidity")])
@example([(octets, 40, octets % 4, 4) for octets in range(1, 22)])
def test_runs_of_entries_alike_are_read_like_any_others(
    runs: list[tuple[int, int, int, int | str | None]],
) -> None:
    """Long and short runs of one form, and changes between forms, are parsed correctly."""
    entries = _runs(runs)
    found = read(by_hand(STAFF, [der for der, _ in entries.values()]))
    issuer = comparable_name(STAFF.subject.public_bytes())
    assert found.entry_count == len(entries)
    for serial, (_, entry) in entries.items():
        assert found.find(issuer, serial) == entry


def test_a_negative_serial_within_a_run_stays_negative() -> None:
    """A negative number with its neighbours' length stays a different number."""
    good = by_hand_entry((1 << 126) + 5)
    at = good.index(b"\x02\x10") + 2
    bad = good[:at] + b"\x80" + good[at + 1 :]
    content = [by_hand_entry((1 << 126) + n * 64) for n in range(40)]
    found = read(by_hand(STAFF, [*content[:20], bad, *content[20:]]))
    issuer = comparable_name(STAFF.subject.public_bytes())
    assert found.find(issuer, int.from_bytes(bad[at : at + 16], "big", signed=True)) is not None
    assert found.find(issuer, int.from_bytes(bad[at : at + 16], "big")) is None


@given(st.dictionaries(st.integers(0, 2**160 - 1), st.integers(0, 10), max_size=60))
def test_a_table_is_a_dict(model: dict[int, int]) -> None:
    """A table finds exactly the inserted serial numbers with their reasons."""
    rows = [n.to_bytes(20, "big") + b"\x50\x00" + bytes([r]) for n, r in model.items()]
    table = build_table(rows[:])
    for serial, reason in model.items():
        assert table.find(serial) == CrlEntry(0x5000, reason)
        for other in (serial + 1, serial << 8, serial >> 8, -serial):
            if other not in model:
                assert table.find(other) is None


def test_records_are_found_by_their_place() -> None:
    """Octets that match across two records are not an entry."""
    rows = [n.to_bytes(20, "big") + b"\x01\x01\x01" for n in (0x0101, 0x010101, 0x01, 0x010001)]
    table = build_table(rows)
    hits = [n for n in range(0x20000) if table.find(n)]
    assert hits == [0x01, 0x0101, 0x010001, 0x010101]


def test_of_two_entries_the_revoking_one_counts() -> None:
    """removeFromCRL beside a revocation of the same serial number has no effect."""
    for reasons in ((b"\1", b"\x08"), (b"\x08", b"\1")):
        codes = [by_hand_extension("2.5.29.21", tlv(0x0A, each)) for each in reasons]
        for serial in (9, -9, 2**170):
            crl_ = read(by_hand(STAFF, [by_hand_entry(serial, code) for code in codes]))
            said = crl_.find(crl_.issuer, serial)
            assert said is not None
            assert said.reason == 1
    for order in (1, -1):
        pair = [b"\0" * 19 + b"\7" + b"\0\0" + bytes([r]) for r in (REMOVE, 1)][::order]
        found = build_table(pair).find(7)
        assert found is not None
        assert found.reason == 1


def test_the_detail_tells_day_and_reason() -> None:
    """An answer has the day and the reason of the revocation."""
    answer = ask(crl(revoked=[entry(ALICE, ReasonFlags.key_compromise)])).answer(ALICE)
    assert answer == Answer(REVOKED, "crl crl.pem", "revoked 2026-03-01 (keyCompromise)", math.inf)


@pytest.mark.parametrize("year", [1950, 1969, 1999, 2049, 2050, 2120, 2300])
def test_any_date_revokes(year: int) -> None:
    """UTCTime and GeneralizedTime, before 1970 and after 2149, and long in the future."""
    at = datetime(year, 5, 6, tzinfo=UTC)
    assert ask(by_hand(STAFF, [by_hand_entry(ALICE.serial, at=at)])).status(ALICE) is REVOKED


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    st.dictionaries(
        st.one_of(st.integers(0, 300), st.integers(-(2**165), 2**165)),
        st.tuples(
            st.datetimes(datetime(1970, 1, 1), datetime(2149, 1, 1)),
            st.sampled_from([None, 0, 1, 4, 6, 9]),
            st.booleans(),
        ),
        max_size=40,
    )
)
def test_entries_are_read_as_they_are(model: dict[int, tuple[datetime, int | None, bool]]) -> None:
    """Any mix of serial numbers, days and reasons is parsed unchanged."""

    def encoded(serial: int, at: datetime, reason: int | None, strange: bool) -> bytes:
        extensions = [by_hand_extension("1.2.3.4", der_int(serial))] if strange else []
        if reason is not None:
            extensions.append(by_hand_extension("2.5.29.21", tlv(0x0A, bytes([reason]))))
        return by_hand_entry(serial, *extensions, at=at.replace(tzinfo=UTC))

    found = read(by_hand(STAFF, [encoded(serial, *said) for serial, said in model.items()]))
    assert found.entry_count == len(model)
    for serial, (at, reason, _) in model.items():
        day = (at - datetime(1970, 1, 1)).days
        assert found.find(found.issuer, serial) == CrlEntry(day, reason or 0)


def test_an_indirect_list_of_many_issuers_is_as_compact() -> None:
    """Many issuers or serial numbers of 300 octets need no more memory per entry."""
    issuers = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{n}")]) for n in range(3000)]
    entries = [entry(n, None, issued_by(name)) for n, name in enumerate(issuers, 1)]
    found = read(crl(revoked=entries, idp=idp(indirect=True)))
    assert len(pickle.dumps(found, 5)) < 3000 * 32 + 4096
    for number, name in enumerate(issuers, 1):
        assert found.find(comparable_name(name.public_bytes()), number) is not None
        assert found.find(found.issuer, number) is None
    long = read(by_hand(STAFF, [by_hand_entry(n << 2400) for n in range(1, 3000)]))
    assert len(pickle.dumps(long, 5)) < 3000 * 32 + 4096
    assert long.find(long.issuer, 7 << 2400) is not None
    assert long.find(long.issuer, 7) is None


def test_a_list_of_many_is_compact() -> None:
    """50,000 random serial numbers need little more than their own octets, also after pickling."""
    serials = [int.from_bytes(hashes_of(n), "big") for n in range(50_000)]
    found = read(by_hand(STAFF, map(by_hand_entry, serials)))
    copied = pickle.dumps(found, 5)
    assert len(copied) < 50_000 * 21
    assert len(found.entries.own.starts) > 4 * 50_000 / 20  # many small buckets
    again = pickle.loads(copied)
    assert again == found
    assert all(again.find(found.issuer, serial) for serial in serials)
    assert not any(again.find(found.issuer, serial + 1) for serial in serials)


def hashes_of(number: int) -> bytes:
    digest = hashes.Hash(hashes.SHA256())
    digest.update(number.to_bytes(4, "big"))
    return digest.finalize()[:16]


# -- what is not understood

STRANGE = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")


def test_an_unknown_critical_extension_leaves_the_revocations() -> None:
    """RFC 5280, 5.2: such a CRL never says good, but its entries are revoked."""
    found = ask(crl(revoked=[ALICE], extra_extensions=[(STRANGE, True)]))
    assert (found.status(ALICE), found.status(BOB)) == (REVOKED, UNKNOWN)
    assert "unknown critical extension 1.2.3.4" in found.answer(BOB).detail
    assert ask(crl(extra_extensions=[(STRANGE, False)])).status(ALICE) is GOOD


def test_an_unknown_critical_entry_extension_leaves_the_revocations() -> None:
    """RFC 5280, 5.3: a CRL with one such entry never says good."""
    found = ask(crl(revoked=[entry(ALICE, None, (STRANGE, True))]))
    assert (found.status(ALICE), found.status(BOB)) == (REVOKED, UNKNOWN)
    assert "1.2.3.4" in found.answer(BOB).detail
    known = ask(crl(revoked=[entry(ALICE, None, (STRANGE, False))]))
    assert (known.status(ALICE), known.status(BOB)) == (REVOKED, GOOD)


def test_a_usable_crl_beside_an_unusable_one_counts() -> None:
    """An unusable CRL doesn't prevent another one from saying good."""
    strange = crl(extra_extensions=[(STRANGE, True)], number=9)
    assert ask(strange, crl(revoked=[ALICE])).status(ALICE) is REVOKED
    assert ask(strange, crl(revoked=[ALICE])).status(BOB) is GOOD


@pytest.mark.parametrize(
    "extensions",
    [
        [by_hand_extension("2.5.29.21", tlv(0x0A, b"\1"))] * 2,
        [by_hand_extension("2.5.29.29", tlv(0x30, tlv(0xA4, tlv(0x30))), critical=True)],
    ],
)
def test_broken_entry_extensions_are_unusable(extensions: list[bytes]) -> None:
    """An extension twice; a certificateIssuer outside an indirect CRL."""
    found = read(by_hand(STAFF, [by_hand_entry(7, *extensions)]))
    assert found.unusable
    assert ask(found).status(ALICE) is UNKNOWN


@pytest.mark.parametrize("reason", [7, 11, 127])
def test_an_unknown_reason_revokes_all_the_same(reason: int) -> None:
    """A reason code that the RFC does not know is still a revocation."""
    extension = by_hand_extension("2.5.29.21", tlv(0x0A, bytes([reason])))
    found = ask(by_hand(STAFF, [by_hand_entry(ALICE.serial, extension)]))
    assert found.status(ALICE) is REVOKED


def test_a_version_1_crl_counts() -> None:
    """`openssl ca -gencrl` without crl_extensions writes version 1; it is complete."""
    found = ask(by_hand(STAFF, [by_hand_entry(ALICE.serial)], version=b""))
    assert (found.status(ALICE), found.status(BOB)) == (REVOKED, GOOD)


@pytest.mark.parametrize(
    "odd",
    [
        {"this_update": tlv(0x18, b"00000101000000Z")},
        {"this_update": tlv(0x18, b"202601010000Z")},
        {"this_update": tlv(0x17, b"260101000000+0100")},
        {"version": der_int(0)},
        {"version": der_int(2)},
    ],
)
def test_an_odd_version_or_this_update_leaves_the_revocations(odd: dict[str, Any]) -> None:
    """A rightly signed CRL revokes whom it lists; this one never says good."""
    found = ask(by_hand(STAFF, [by_hand_entry(ALICE.serial)], **odd))
    assert (found.status(ALICE), found.status(BOB)) == (REVOKED, UNKNOWN)


def test_without_a_crl_nothing_is_known() -> None:
    """Without a CRL of the issuer the status is UNKNOWN, with the reason."""
    other = CA("Other", **YEARS)
    for found in (ask(), ask(crl(other), authorities=[other, STAFF])):
        assert found.answer(ALICE) == Answer(UNKNOWN, "crl", "no CRL by the certificate's issuer")


# -- freshness


@pytest.mark.parametrize(
    ("after", "alice", "bob", "until"),
    [
        (-61, REVOKED, UNKNOWN, -60),
        (-60, REVOKED, GOOD, 86400),
        (0, REVOKED, GOOD, 86400),
        (86399, REVOKED, GOOD, 86400),
        (86400, REVOKED, GOOD, 86400 + 60 + 600),
        (86400 + 659, REVOKED, GOOD, 86400 + 60 + 600),
        (86400 + 660, REVOKED, UNKNOWN, math.inf),
        (10**8, REVOKED, UNKNOWN, math.inf),
    ],
)
def test_freshness(
    after: float, alice: RevocationStatus, bob: RevocationStatus, until: float
) -> None:
    """GOOD from thisUpdate to nextUpdate, with tolerance and grace; REVOKED always.

    `until` is nextUpdate first, then the end of the grace.
    """
    found = ask(crl(revoked=[ALICE]), tolerance=60, grace=600)
    now = T0.timestamp() + after
    assert found.status(ALICE, now=now) is alice
    answer = found.answer(BOB, now=now)
    assert (answer.status, answer.until) == (bob, T0.timestamp() + until)


def test_without_next_update_never_fresh() -> None:
    """RFC 5280, 5.1.2.5, requires nextUpdate: without it nobody is GOOD, entries stay REVOKED."""
    found = ask(by_hand(STAFF, [by_hand_entry(ALICE.serial)], next_update=None))
    assert (found.status(ALICE), found.status(BOB)) == (REVOKED, UNKNOWN)
    assert "no nextUpdate" in found.answer(BOB).detail


def test_a_hold_stays_when_the_crl_ends() -> None:
    """A suspended certificate stays suspended if no new CRL arrives."""
    found = ask(crl(revoked=[entry(ALICE, ReasonFlags.certificate_hold)]))
    assert found.status(ALICE, now=NOW + 1e6) is REVOKED


def test_of_two_the_newer_counts() -> None:
    """An older CRL of the same scope is ignored, in any order of loading."""
    old = crl(revoked=[entry(ALICE, ReasonFlags.certificate_hold)], number=1)
    new = crl(revoked=[BOB], number=2, this_update=T0 + timedelta(hours=1))
    for found in (ask(old, new), ask(new, old)):
        assert (found.status(ALICE), found.status(BOB)) == (GOOD, REVOKED)


def test_a_crl_from_the_future_does_not_hide_the_present_one() -> None:
    """The current CRL says good until then; the future one already revokes."""
    later = crl(revoked=[BOB], number=2, this_update=T0 + DAY, next_update=T0 + 2 * DAY)
    found = ask(crl(number=1), later)
    assert (found.status(ALICE), found.status(BOB)) == (GOOD, REVOKED)
    found = ask(crl(number=1, revoked=[ALICE]), later)
    assert (found.status(ALICE), found.status(BOB)) == (REVOKED, REVOKED)
    assert "not current" in found.answer(BOB).detail
    assert "not current" not in found.answer(ALICE).detail


def test_a_crl_from_the_future_alone() -> None:
    """It doesn't say good before its time, and the answer says when that is."""
    days = [T0 + 3 * DAY, T0 + 2 * DAY]
    crls = [crl(number=n, this_update=day, next_update=T0 + 9 * DAY) for n, day in enumerate(days)]
    answer = ask(*crls, tolerance=60).answer(ALICE)
    assert (answer.status, answer.until) == (UNKNOWN, days[1].timestamp() - 60)
    assert "from the future" in answer.detail


def test_of_two_at_the_same_time_the_higher_number_counts() -> None:
    """CRLs issued in the same second are ordered by their numbers."""
    old, new = crl(revoked=[HELD], number=9), crl(revoked=[BOB], number=10)
    for found in (ask(old, new), ask(new, old)):
        assert (found.status(ALICE), found.status(BOB)) == (GOOD, REVOKED)


@pytest.mark.parametrize("number", [11, None])
def test_what_is_not_certainly_older_revokes_beside_the_newest(number: int | None) -> None:
    """Number and thisUpdate contradict each other, or there is no number to compare."""
    early = T0 - timedelta(hours=2) if number else T0
    found = ask(crl(number=10), crl(revoked=[ALICE], number=number, this_update=early))
    assert (found.status(ALICE), found.status(BOB)) == (REVOKED, GOOD)


def test_a_later_crl_without_a_number_takes_nobody_off_beside_a_numbered_one() -> None:
    """Alone it would be refused as going backwards (`goes_back`), and so release nobody."""
    later = crl(number=None, this_update=T0 + timedelta(hours=1))
    assert ask(crl(revoked=[ALICE], number=10), later).status(ALICE) is REVOKED


# -- deltas


def delta(revoked: Iterable[Any] = (), **options: Any) -> bytes:
    own = {"number": 11, "delta_base": 10, "this_update": T0 + timedelta(hours=1)}
    return crl(revoked=revoked, **{**own, **options})


HELD = entry(ALICE, ReasonFlags.certificate_hold)
REMOVED = entry(ALICE, ReasonFlags.remove_from_crl)


def test_a_delta_adds_and_lifts() -> None:
    """A delta revokes, and removeFromCRL lifts a hold of its base (RFC 5280, 5.2.4)."""
    found = ask(crl(revoked=[HELD], number=10), delta([REMOVED, BOB]))
    assert (found.status(ALICE), found.status(BOB)) == (GOOD, REVOKED)


def test_a_delta_lifts_a_hold_only() -> None:
    """A delta never removes keyCompromise or another final reason."""
    base = crl(revoked=[entry(ALICE, ReasonFlags.key_compromise)], number=10)
    assert ask(base, delta([REMOVED])).status(ALICE) is REVOKED


@pytest.mark.parametrize("base", [9, 11, 12, None])
def test_a_delta_lifts_off_its_own_base_only(base: int | None) -> None:
    """A base before BaseCRLNumber, or as new as the delta, is not changed by the delta."""
    found = ask(crl(revoked=[HELD], number=base), delta([REMOVED]))
    assert found.status(ALICE) is REVOKED


def test_a_delta_that_the_base_has_overtaken_is_silent() -> None:
    """A delta that is not newer than the base neither revokes nor makes it fresh."""
    for number in (11, 12):
        base = crl(number=number, this_update=T0 + timedelta(hours=2))
        late = delta([BOB], next_update=T0 + 9 * DAY)
        assert ask(base, late).status(BOB) is GOOD
        assert ask(base, late).status(BOB, now=NOW + 2 * 86400) is UNKNOWN


def test_a_delta_numbered_in_a_sequence_of_its_own_revokes() -> None:
    """Its number isn't above the base's, but its thisUpdate is later: it isn't included in it."""
    for number in (9, 10):
        assert ask(crl(number=10), delta([BOB], number=number)).status(BOB) is REVOKED


def test_a_delta_lifts_no_hold_that_another_crl_makes_final() -> None:
    """keyCompromise in an older delta, or in a second complete CRL of the base's moment."""
    base = crl(revoked=[HELD], number=10)
    final = entry(ALICE, ReasonFlags.key_compromise)
    newest = delta([REMOVED], number=12, this_update=T0 + timedelta(hours=2))
    assert ask(base, newest).status(ALICE) is GOOD
    assert ask(base, delta([final]), newest).status(ALICE) is REVOKED
    for both in ((base, crl(revoked=[final], number=10)), (crl(revoked=[final], number=10), base)):
        assert ask(*both, newest).status(ALICE) is REVOKED


def test_a_delta_that_fits_no_base_still_revokes() -> None:
    """A gap in the numbers doesn't invalidate a signed revocation."""
    found = ask(crl(number=9), delta([BOB]))
    assert (found.status(ALICE), found.status(BOB)) == (GOOD, REVOKED)


def test_a_delta_alone_clears_nobody() -> None:
    """Without a complete CRL the status is never GOOD."""
    found = ask(delta([BOB]))
    assert (found.status(ALICE), found.status(BOB)) == (UNKNOWN, REVOKED)


def test_a_fresh_delta_makes_an_old_base_current() -> None:
    """RFC 5280, 5.2.4 (a): base and current delta together are current; and end with the delta."""
    late = delta(this_update=T0 + 5 * DAY, next_update=T0 + 6 * DAY)
    found = ask(crl(number=10, revoked=[BOB]), late)
    now = (T0 + 5.5 * DAY).timestamp()
    answer = found.answer(ALICE, now=now)
    assert (answer.status, answer.until) == (GOOD, (T0 + 6 * DAY).timestamp())
    assert found.status(BOB, now=now) is REVOKED
    assert found.status(ALICE, now=now + 86400) is UNKNOWN


def test_a_stale_delta_lifts_nothing_but_still_revokes() -> None:
    """After its end, a delta's revocations remain and its removals have no effect."""
    base = crl(revoked=[HELD], number=10, next_update=T0 + 9 * DAY)
    found = ask(base, delta([REMOVED, BOB]))
    assert found.answer(ALICE).until == (T0 + DAY).timestamp()
    now = (T0 + 2 * DAY).timestamp()
    assert (found.status(ALICE, now=now), found.status(BOB, now=now)) == (REVOKED, REVOKED)


@pytest.mark.parametrize("order", [1, -1])
def test_a_hold_that_a_delta_lifts_is_asked_about_again_at_its_end(order: int) -> None:
    """Though a CRL of another scope says good for longer."""
    users = idp(only="user")
    held = crl(revoked=[HELD], number=10, next_update=T0 + 9 * DAY, idp=users)
    found = ask(*[held, delta([REMOVED], idp=users), crl(next_update=T0 + 9 * DAY)][::order])
    end = (T0 + DAY).timestamp()
    assert (found.status(ALICE), found.answer(ALICE).until) == (GOOD, end)
    assert found.status(ALICE, now=end) is REVOKED


def test_a_good_answer_ends_where_a_crl_from_the_future_begins() -> None:
    """That one takes the place of the one that says good, and may end before it."""
    lasting = crl(number=1, next_update=T0 + 9 * DAY)
    begins, ends = T0 + DAY, T0 + 2 * DAY
    found = ask(lasting, crl(number=2, this_update=begins, next_update=ends))
    answer = found.answer(ALICE)
    assert (answer.status, answer.until) == (GOOD, begins.timestamp())
    answer = found.answer(ALICE, now=begins.timestamp())
    assert (answer.status, answer.until) == (GOOD, ends.timestamp())
    assert found.status(ALICE, now=ends.timestamp()) is UNKNOWN


def test_a_delta_of_another_scope_or_key_lifts_nothing() -> None:
    """A delta removes entries only of a base with the same scope and key."""
    scoped = delta([REMOVED], idp=idp(only="user"))
    assert ask(crl(revoked=[HELD], number=10), scoped).status(ALICE) is REVOKED


def test_a_delta_without_a_number_is_unusable() -> None:
    """RFC 5280, 5.2.3: without a number it has no place in the sequence."""
    assert read(delta([BOB], number=None)).unusable


# -- partitions

A, B = "http://crl.example.com/a.crl", "http://crl.example.com/b.crl"


def test_a_partition_speaks_for_its_own_point() -> None:
    """GOOD needs the partition that the certificate names (RFC 5280, 6.3.3 b 2 i)."""
    mine = STAFF.issue("a", extra_extensions=[cdp(uri(A))])
    theirs = STAFF.issue("b", extra_extensions=[cdp(uri(B))])
    found = ask(crl(idp=idp(uri(A))))
    assert (found.status(mine), found.status(theirs), found.status(ALICE)) == (
        GOOD,
        UNKNOWN,
        UNKNOWN,
    )
    assert "scope" in found.answer(theirs).detail


def test_the_right_partition_is_found_among_many() -> None:
    """Partitions of other points, before and after the right one, have no influence."""
    mine = STAFF.issue("a", extra_extensions=[cdp(uri(A))])
    parts = [crl(idp=idp(uri(f"http://crl.example.com/{n}.crl"))) for n in "xay"]
    assert ask(*parts).status(mine) is GOOD


def test_a_complete_crl_speaks_for_every_point() -> None:
    """A CRL without IDP covers certificates with and without distribution points."""
    mine = STAFF.issue("a", extra_extensions=[cdp(uri(A))])
    assert ask(crl()).status(mine) is GOOD


def test_another_partition_revokes_too() -> None:
    """Issuer and serial number identify a certificate in every partition."""
    mine = STAFF.issue("a", extra_extensions=[cdp(uri(A))])
    found = ask(crl(idp=idp(uri(A))), crl(idp=idp(uri(B)), revoked=[mine]))
    assert found.status(mine) is REVOKED


def test_names_relative_to_the_issuer() -> None:
    """A relative name equals the full name of the other side."""
    rdn = x509.RelativeDistinguishedName([x509.NameAttribute(NameOID.COMMON_NAME, "part 1")])
    full = x509.DirectoryName(x509.Name([*STAFF.subject.rdns, rdn]))
    relative = STAFF.issue("a", extra_extensions=[cdp(relative=rdn)])
    absolute = STAFF.issue("a", extra_extensions=[cdp([full])])
    for part in (idp(relative=rdn), idp([full])):
        found = ask(crl(idp=part))
        assert found.status(relative) is found.status(absolute) is GOOD
        assert found.status(ALICE) is UNKNOWN


def test_an_issuer_named_partition_is_everybody_s() -> None:
    """A certificate without points has its issuer's name as one (RFC 5280, 6.3.3, the end)."""
    part = idp([x509.DirectoryName(STAFF.subject)])
    assert ask(crl(idp=part)).status(ALICE) is GOOD


@pytest.mark.parametrize(
    ("only", "leaf", "ca"),
    [("user", GOOD, UNKNOWN), ("ca", UNKNOWN, GOOD), ("attribute", UNKNOWN, UNKNOWN)],
)
def test_user_ca_and_attribute_certificates(
    only: str, leaf: RevocationStatus, ca: RevocationStatus
) -> None:
    """Only a CRL for its own kind can say that a certificate is good."""
    issuing = STAFF.intermediate("Issuing")
    found = ask(crl(idp=idp(only=only)))
    assert (found.status(ALICE), found.status(issuing)) == (leaf, ca)


def test_attribute_certificates_count_their_own_serials() -> None:
    """A serial number on a CRL for attribute certificates means no other certificate."""
    found = ask(crl(), crl(revoked=[ALICE], idp=idp(only="attribute")))
    assert found.status(ALICE) is GOOD


# -- reasons

KEY = [ReasonFlags.key_compromise, ReasonFlags.ca_compromise]
REST = [
    ReasonFlags.affiliation_changed,
    ReasonFlags.superseded,
    ReasonFlags.cessation_of_operation,
    ReasonFlags.certificate_hold,
    ReasonFlags.privilege_withdrawn,
    ReasonFlags.aa_compromise,
]


def test_good_needs_all_reasons() -> None:
    """GOOD needs all reasons, from one or several CRLs; REVOKED needs one."""
    key, rest = crl(idp=idp(reasons=KEY)), crl(idp=idp(reasons=REST))
    assert ask(key).status(ALICE) is UNKNOWN
    assert "some reasons" in ask(key).answer(ALICE).detail
    assert ask(rest).status(ALICE) is UNKNOWN
    assert ask(key, rest).status(ALICE) is GOOD
    for listing in (KEY, REST):
        data = crl(idp=idp(reasons=listing), revoked=[ALICE])
        assert ask(key if listing is REST else rest, data).status(ALICE) is REVOKED
        assert ask(data).status(ALICE) is REVOKED


def test_one_stale_half_leaves_it_unknown() -> None:
    """Every part of the reasons must be fresh; the first end limits the answer."""
    key = crl(idp=idp(reasons=KEY), next_update=T0 + DAY)
    rest = crl(idp=idp(reasons=REST), next_update=T0 + 2 * DAY)
    assert ask(key, rest).answer(ALICE).until == (T0 + DAY).timestamp()
    assert ask(key, rest).status(ALICE, now=(T0 + 1.5 * DAY).timestamp()) is UNKNOWN


def test_a_point_for_some_reasons() -> None:
    """A partition for some reasons covers only those."""
    mine = STAFF.issue("a", extra_extensions=[cdp(uri(A), reasons=KEY)])
    assert ask(crl(idp=idp(uri(A)))).status(mine) is UNKNOWN
    assert ask(crl(idp=idp(uri(A))), crl(idp=idp(reasons=REST))).status(mine) is GOOD


# -- indirect CRLs

ROOT = CA("Root", **YEARS)
ISSUING = CA("Issuing", issuer=ROOT, **YEARS)
CRL_ISSUER = CA("CRL Issuer", issuer=ROOT, **YEARS)
ALL = (ROOT, ISSUING, CRL_ISSUER)
CAROL = ISSUING.issue("carol", extra_extensions=[cdp(issuer=CRL_ISSUER)])
DAVE = ISSUING.issue("dave", extra_extensions=[cdp(issuer=CRL_ISSUER)])
ERIN = ISSUING.issue("erin")


def issued_by(name: x509.Name) -> Extension:
    return x509.CertificateIssuer([x509.DirectoryName(name)]), True


def indirect(*entries: Any, **options: Any) -> bytes:
    return crl(CRL_ISSUER, entries, idp=idp(indirect=True), **options)


def test_an_indirect_crl_speaks_for_those_who_name_it() -> None:
    """cRLIssuer delegates a certificate's revocation to another authority of the trust."""
    found = ask(indirect(entry(CAROL, None, issued_by(ISSUING.subject))), authorities=ALL)
    assert found.status(CAROL, ISSUING) is REVOKED
    assert found.status(DAVE, ISSUING) is GOOD
    assert found.status(ERIN, ISSUING) is UNKNOWN


def test_nobody_else_s_word_counts() -> None:
    """An authority that the certificate doesn't name can neither revoke nor say good."""
    listed = indirect(entry(ERIN, None, issued_by(ISSUING.subject)))
    own = crl(ISSUING)
    assert ask(listed, authorities=ALL).status(ERIN, ISSUING) is UNKNOWN
    assert ask(listed, own, authorities=ALL).status(ERIN, ISSUING) is GOOD
    assert ask(crl(CRL_ISSUER), authorities=ALL).status(CAROL, ISSUING) is UNKNOWN


def test_the_certificate_issuer_holds_for_the_entries_after_it() -> None:
    """RFC 5280, 5.3.3: an entry without certificateIssuer has the issuer of the entry before."""
    found = ask(
        indirect(
            1,
            entry(2, None, issued_by(ISSUING.subject)),
            CAROL,
            entry(3, None, issued_by(CRL_ISSUER.subject)),
            DAVE,
        ),
        authorities=ALL,
    )
    assert found.status(CAROL, ISSUING) is REVOKED
    assert found.status(DAVE, ISSUING) is GOOD


def test_issuer_names_are_compared_as_names() -> None:
    """Case, blanks and string type of a certificateIssuer do not hide an entry (RFC 5280, 7.1)."""
    other = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, " ISSUING ", x509.name._ASN1Type.PrintableString)]
    )
    found = ask(indirect(entry(CAROL, None, issued_by(other))), authorities=ALL)
    assert found.status(CAROL, ISSUING) is REVOKED


# -- who signs


def test_the_crl_of_one_key_does_not_stand_in_for_that_of_another() -> None:
    """An authority has a CRL for each of its keys, as Windows' do, and one of them has ended:
    whoever withholds it can't have the other one say good of the first key's clients."""
    old, new = (CA("x", issuer=ROOT, subject=ISSUING.subject, **YEARS) for _ in range(2))
    known = (ROOT, old, new)
    carol, dora, erin = old.issue("carol"), old.issue("dora"), new.issue("erin")
    ended = crl(old, [carol], this_update=T0 - DAY, next_update=T0)
    lapsed = ask(ended, crl(new, [erin.serial + 1]), authorities=known)
    assert lapsed.status(carol, old) is REVOKED
    assert lapsed.status(dora, old) is UNKNOWN
    assert lapsed.status(erin, new) is GOOD
    for others in ([carol], [carol, erin]):  # after a change of keys, it lists both keys' clients
        covers = ask(ended, crl(new, others), authorities=known)
        assert covers.status(dora, old) is GOOD
    assert ask(crl(new), authorities=known).status(dora, old) is GOOD
    nobody = crl(old, this_update=T0 - DAY, next_update=T0)
    assert ask(nobody, crl(new), authorities=known).status(dora, old) is GOOD
    short = crl(old, [1, 2], this_update=T0 - DAY, next_update=T0)
    for numbers, says in (([1, 2, 3], GOOD), ([1, 3], UNKNOWN)):  # a small authority's
        assert ask(short, crl(new, numbers), authorities=known).status(dora, old) is says


def test_a_key_of_its_own_for_crls() -> None:
    """A second certificate of the same authority, under the same anchor, may sign its CRLs."""
    signer = CA("x", issuer=ROOT, subject=ISSUING.subject, **YEARS)
    found = ask(crl(signer, revoked=[ERIN]), authorities=(ROOT, ISSUING, signer))
    assert found.status(ERIN, ISSUING) is REVOKED
    assert found.status(CAROL, ISSUING) is GOOD


def test_a_namesake_under_another_anchor_does_not_count() -> None:
    """RFC 5280, 6.3.3 (f): CRL and certificate need the same anchor, not only the same names."""
    namesake = CA("Staff", **YEARS)
    found = ask(crl(namesake, revoked=[BOB]), authorities=(STAFF, namesake))
    assert found.status(ALICE) is found.status(BOB) is UNKNOWN
    assert "anchor" in found.answer(ALICE).detail


def test_who_is_no_authority_makes_no_signer() -> None:
    """A signer's certificate that was issued by a client's certificate is not accepted."""
    mallory = ROOT.issue("mallory")
    middle = CA("mallory", key=mallory.private, **YEARS)
    signer = CA("x", issuer=middle, subject=ISSUING.subject, **YEARS)
    authorities = [each.der for each in (ROOT, ISSUING, mallory, signer)]
    found = ask(read_crl(crl(signer, revoked=[ERIN]), "crl.pem", authorities))
    assert found.status(ERIN, ISSUING) is found.status(CAROL, ISSUING) is UNKNOWN


def test_a_signer_that_ended_clears_nobody() -> None:
    """A CRL of an expired signer still revokes, but never says good."""
    brief: dict[str, Any] = {"not_before": T0 - DAY, "not_after": T0 + DAY / 4}
    signer = CA("x", issuer=ROOT, subject=ISSUING.subject, **brief)
    found = ask(crl(signer, revoked=[ERIN]), authorities=(ROOT, ISSUING, signer))
    early = (T0 + DAY / 8).timestamp()
    answer = found.answer(CAROL, ISSUING, now=early)
    assert (answer.status, answer.until) == (GOOD, (T0 + DAY / 4).timestamp() + 1)
    assert found.status(CAROL, ISSUING) is UNKNOWN
    assert found.status(ERIN, ISSUING) is REVOKED


def test_a_signer_with_two_certificates() -> None:
    """One valid certificate of the signer is enough, in any order."""
    brief: dict[str, Any] = {"not_before": T0 - DAY, "not_after": T0 + DAY / 4}
    old = CA("x", issuer=ROOT, subject=ISSUING.subject, **brief)
    new = CA("x", issuer=ROOT, subject=ISSUING.subject, key=old.key, **YEARS)
    for two in ((old, new), (new, old)):
        found = ask(crl(old), authorities=(ROOT, ISSUING, *two))
        assert found.status(CAROL, ISSUING) is GOOD


def test_a_signer_under_a_renewed_authority() -> None:
    """One path to an anchor must be valid now; an old path alone is not enough."""
    brief: dict[str, Any] = {"not_before": T0 - DAY, "not_after": T0 + DAY / 4}
    old = CA("Middle", issuer=ROOT, **brief)
    new = CA("Middle", issuer=ROOT, key=old.key, **YEARS)
    signer = CA("x", issuer=old, subject=ISSUING.subject, **YEARS)
    own = crl(signer)
    both = ask(own, authorities=(ROOT, ISSUING, old, new, signer))
    assert both.status(CAROL, ISSUING) is GOOD
    alone = ask(own, authorities=(ROOT, ISSUING, old, signer))
    assert alone.status(CAROL, ISSUING) is UNKNOWN
    early = alone.answer(CAROL, ISSUING, now=T0.timestamp())
    assert (early.status, early.until) == (GOOD, brief["not_after"].timestamp() + 1)


def test_a_signer_that_begins_to_be_valid_tells_when() -> None:
    """An UNKNOWN answer ends when the signer becomes valid, so it is not cached longer."""
    begins: dict[str, Any] = {"not_before": T0 + DAY / 4 * 3, "not_after": T0 + 400 * DAY}
    signer = CA("x", issuer=ROOT, subject=ISSUING.subject, **begins)
    found = ask(crl(signer), authorities=(ROOT, ISSUING, signer))
    early = found.answer(CAROL, ISSUING)
    assert (early.status, early.until) == (UNKNOWN, begins["not_before"].timestamp())
    assert found.status(CAROL, ISSUING, now=early.until) is GOOD


def cross(*names: str) -> list[CA]:
    """Authorities, each of which has certified each other; nobody is self-signed."""
    cas = [CA(name, **YEARS) for name in names]
    return [
        CA("x", key=child.key, subject=child.subject, issuer=parent, **YEARS)
        for child in cas
        for parent in cas
        if child is not parent
    ]


def test_a_mesh_of_authorities() -> None:
    """Many paths, or none, from a signer to an anchor are evaluated quickly and correctly."""
    mesh = cross(*"ABCDEFGHIJ")
    issuer = mesh[0]
    leaf = issuer.issue("leaf")
    other = CA("y", issuer=mesh[1], subject=issuer.subject, **YEARS)
    for signer, status in ((issuer, GOOD), (other, UNKNOWN)):
        assert ask(crl(signer), authorities=[*mesh, other]).status(leaf, issuer) is status
    hung = [*mesh, ROOT, CA("z", key=issuer.key, subject=issuer.subject, issuer=ROOT, **YEARS)]
    assert ask(crl(other), authorities=[*hung, other]).status(leaf, issuer) is GOOD


def test_a_revoked_signer_only_revokes() -> None:
    """CRLs of a revoked signer revoke whom they list, and say good of nobody."""
    signer = CA("x", issuer=ROOT, subject=ISSUING.subject, **YEARS)
    authorities = (ROOT, ISSUING, signer)
    own = crl(signer, revoked=[ERIN])
    found = ask(own, crl(ROOT, revoked=[signer]), authorities=authorities)
    assert found.status(ERIN, ISSUING) is REVOKED
    assert found.status(CAROL, ISSUING) is UNKNOWN
    assert "its signer's certificate is revoked" in found.answer(CAROL, ISSUING).detail
    assert ask(own, crl(ROOT), authorities=authorities).status(CAROL, ISSUING) is GOOD


def test_signers_that_revoke_each_other_both_revoke() -> None:
    """Neither says good any more, and whom either lists is revoked."""
    one, two = (CA(n, issuer=ROOT, subject=ISSUING.subject, **YEARS) for n in "xy")
    authorities = (ROOT, ISSUING, one, two)
    crls = crl(ROOT, revoked=[one, two]), crl(one, revoked=[ERIN]), crl(two, revoked=[CAROL])
    for whole in (False, True):
        found = ask(*crls, authorities=authorities, whole_chain=whole)
        assert found.status(ERIN, ISSUING) is found.status(CAROL, ISSUING) is REVOKED
        assert found.status(ISSUING.issue("dan", **YEARS), ISSUING) is UNKNOWN


def test_the_whole_chain_includes_the_signer() -> None:
    """With `whole_chain`, a separate signer must itself be known to be GOOD."""
    signer = CA("x", issuer=ROOT, subject=ISSUING.subject, **YEARS)
    authorities = (ROOT, ISSUING, signer)
    own = crl(signer)
    assert ask(own, authorities=authorities, whole_chain=True).status(CAROL, ISSUING) is UNKNOWN
    both = ask(own, crl(ROOT), authorities=authorities, whole_chain=True)
    assert both.status(CAROL, ISSUING) is GOOD


# -- names


def test_comparable_names() -> None:
    """String type, case and blanks are ignored; values, types and order matter."""

    def name(*values: str, tag: int = 0x0C, codec: str = "utf-8", oid: str = "2.5.4.3") -> bytes:
        rdns = [der_rdn(oid, value.encode(codec), tag) for value in values]
        return comparable_name(tlv(0x30, *rdns))

    same = name("Big CA")
    assert same == name(" big  ca ", tag=0x13) == name("BIG CA", tag=0x1E, codec="utf-16-be")
    assert same != name("BigCA")
    assert same != name("Big CA", oid="2.5.4.10")
    assert name("a", "b") != name("b", "a") != name("ab")
    assert name("\u00e4") == name("\u00e4", tag=0x14, codec="latin-1") != name("a")


# -- backwards


def test_what_goes_back_is_told() -> None:
    """A lower number, a missing number and an older thisUpdate each give a reason."""
    mark = Watermark(5, T0.timestamp())
    later, earlier = T0 + DAY / 2, T0 - DAY
    assert goes_back(None, read(crl())) is None
    assert goes_back(mark, read(crl(number=5))) is None
    assert goes_back(mark, read(crl(number=6, this_update=later))) is None
    assert "number is 4" in str(goes_back(mark, read(crl(number=4, this_update=later))))
    assert "no CRL number" in str(goes_back(mark, read(crl(number=None))))
    assert "thisUpdate" in str(goes_back(mark, read(crl(number=5, this_update=earlier))))


def test_supersedes_among_the_same_scope() -> None:
    """A CRL replaces another one unless it is older; other scopes are independent."""
    old, new = read(crl(number=5)), read(crl(number=6, this_update=T0 + DAY / 2))
    assert supersedes(new, old)
    assert supersedes(old, old)
    assert not supersedes(old, new)
    assert supersedes(read(crl(number=1, idp=idp(only="user"))), new)
    assert watermark(old) == Watermark(5, T0.timestamp())


def test_the_key_tells_streams_apart() -> None:
    """Issuer, scope, key, and delta or complete distinguish sequences; the content doesn't."""
    other = CA("Other", **YEARS)
    signer = CA("Staff", **YEARS)
    streams = [
        read(crl()),
        read(crl(idp=idp(only="user"))),
        read(crl(idp=idp(uri(A)))),
        read(crl(idp=idp(reasons=KEY))),
        read(delta()),
        read(crl(other), other),
        read(crl(signer), signer),
    ]
    assert len({each.key for each in streams}) == len(streams)
    assert read(crl(number=1)).key == read(crl(revoked=[ALICE], number=2)).key


def test_padding_is_left_out_and_text_is_not() -> None:
    """What is mostly something else is kept as its CRLs alone; `openssl crl -text` as it is."""
    ca = CA("Padded")
    data = b"".join(ca.crl([], number=number) for number in (1, 2))
    ders = list[bytes]()
    found = read_crls(data + bytes(32 * len(data)), "a.crl", (ca.der,), ders)
    assert without_padding(b"#" * 8 * len(data) + data, ders) == b"#" * 8 * len(data) + data
    assert without_padding(b"garbage" * len(data), ()) == b"garbage" * len(data)
    left = without_padding(data + bytes(32 * len(data)), ders)
    assert len(left) < 2 * len(data)
    assert read_crls(left, "a.crl", (ca.der,)).crls == found.crls
