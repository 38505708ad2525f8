"""Build an OCSP request about one certificate, and verify the response (RFC 6960).

`verify_response` never raises.  Only a response that passes every check is GOOD.  A
response that is missing, late, wrongly signed or unreadable is UNKNOWN, with the reason in
`detail`.

Where the RFCs leave a choice:

- A nonce that differs from the one sent is refused (RFC 9654, section 2.1: replay).  A response
  without a nonce is accepted, because responders produce answers ahead of time (RFC 6960,
  section 4.4.1); how long such an answer can be replayed is bounded by `nextUpdate`.
  `require_nonce` refuses it.
- Without `nextUpdate`, "newer revocation information is available all the time" (RFC 6960,
  section 4.2.2.1): such an answer is used for `DEFAULT_LIFETIME` after its `thisUpdate`.
- Signatures by MD5 or SHA-1 are refused: a client that chooses the nonce chooses a part of the
  signed octets.  SHA-1 in a CertID only names the issuer and is accepted.
- Several single responses may be about the certificate, for example by SHA-1 and by SHA-256: each
  must be valid.  One REVOKED is enough; GOOD needs all of them, in the intersection of their times.
- An answer that its signer has rightly signed, and that says REVOKED, revokes even if it is refused
  otherwise (it or its signer has ended, is from the future, another nonce, an extension), as a
  CRL does: a clock that is wrong must not let in whom `best_effort` lets in unasked.  It never
  `holds`, so that the responder is asked on.
- A delegated responder's own revocation is not checked here.  `OcspAnswer.delegate` is its
  certificate and `nocheck` says whether its issuer waived that check (RFC 6960, 4.2.2.2.1).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.x509 import ocsp

from sidecar.core.errors import brief
from sidecar.core.revocation.status import RevocationStatus
from sidecar.core.x509.certificate import ClientCert, refused_serials
from sidecar.core.x509.der import (
    BOOLEAN,
    INTEGER,
    OCTET_STRING,
    SEQUENCE,
    Tlv,
    children,
    encode,
    only,
)
from sidecar.core.x509.validity import is_valid, validity

from .responder import (
    ResponseRefused,
    SignedResponse,
    has_nocheck,
    key_bits,
    signed_part,
    signer_of,
)

DEFAULT_LIFETIME = 60.0
"""Seconds after `thisUpdate` for which an answer without `nextUpdate` is used."""

MAX_RESPONSE = 256 * 1024
"""Maximum length of a response, in bytes."""

MAX_EXTENSIONS = 4096
"""Maximum length of the extensions of a response, and of a single one: a nonce takes 50 bytes."""

MAX_ABOUT_ONE = 8
"""Maximum number of single responses about one certificate: CertIDs use up to five hashes."""

_CERT_ID_HASHES = (
    hashes.SHA1,
    hashes.SHA224,
    hashes.SHA256,
    hashes.SHA384,
    hashes.SHA512,
)


class OcspKey(NamedTuple):
    """The subject of an answer: one certificate issued by one authority, and who is asked.

    The certificate is named by its signed part: whoever holds it can write its signature otherwise
    (`equivalent_fingerprints`), and a revoked answer must serve all of these encodings.
    """

    signed_sha256: str
    issuer_sha256: str
    tolerance: int
    responder: str


def ocsp_key(cert: ClientCert, issuer: ClientCert, tolerance: int, responder: str = "") -> OcspKey:
    """Build the key of an answer about a certificate of an issuer.

    `tolerance` is the trust's `clock_tolerance` (seconds), which an answer's period depends on, and
    `responder` the address of its responder.
    """
    return OcspKey(hashlib.sha256(cert.signed).hexdigest(), issuer.sha256, tolerance, responder)


@dataclass(frozen=True, slots=True)
class OcspAnswer:
    """The verified content of one response about one certificate.  Times are epoch seconds.

    It may be used from `since` (`thisUpdate` minus the clock tolerance) until `until` (`nextUpdate`
    plus the tolerance), and only while its delegate is valid.  The beginning matters because a
    clock may go back.  A new answer should be available by `next_update`.
    """

    status: RevocationStatus
    detail: str = ""
    this_update: float = 0.0
    next_update: float = 0.0
    until: float = 0.0
    delegate: ClientCert | None = None
    nocheck: bool = False
    since: float = 0.0

    def holds(self, now: float) -> bool:
        """Return whether the answer may be used at `now`."""
        return self.since <= now < self.until


_NONCE = bytes.fromhex("06092b0601050507300102")


def build_request(cert: ClientCert, issuer: ClientCert, nonce: bytes | None) -> bytes:
    """Build the DER request about one certificate; the CertID uses SHA-1 (RFC 5019, 2.1.1).

    `nonce`: 1 to 128 octets (RFC 9654, 2.1).  Raises `ValueError` for invalid input.
    """
    if nonce is not None and not 1 <= len(nonce) <= 128:
        raise ValueError("a nonce has 1 to 128 octets")
    serial = encode(INTEGER, cert.serial.to_bytes(cert.serial.bit_length() // 8 + 1, signed=True))
    names = (hashlib.sha1(octets).digest() for octets in (cert.issuer_name, key_bits(issuer.spki)))
    hashed = b"".join(encode(OCTET_STRING, digest) for digest in names)
    cert_id = encode(SEQUENCE, _SHA1 + hashed + serial)
    request = encode(SEQUENCE, encode(SEQUENCE, cert_id))
    if nonce is not None:
        value = encode(OCTET_STRING, encode(OCTET_STRING, nonce))
        extension = encode(SEQUENCE, _NONCE + value)
        request += encode(_REQUEST_EXTENSIONS, encode(SEQUENCE, extension))
    return encode(SEQUENCE, encode(SEQUENCE, request))


_SHA1 = bytes.fromhex("300906052b0e03021a0500")
_REQUEST_EXTENSIONS = 0xA2


def verify_response(
    der: bytes,
    cert: ClientCert,
    issuer: ClientCert,
    now: float,
    tolerance: float,
    nonce: bytes | None = None,
    *,
    require_nonce: bool = False,
) -> OcspAnswer:
    """Verify the response `der` about `cert` at `now`; `tolerance` of clocks is in seconds.

    The caller must have verified that `issuer` issued `cert` and is trusted.  Never raises.
    """
    try:
        return _verify(der, cert, issuer, now, tolerance, nonce, require_nonce)
    except ResponseRefused as refused:
        return OcspAnswer(RevocationStatus.UNKNOWN, str(refused))
    except Exception as error:  # noqa: BLE001 - parsers raise many classes on hostile bytes
        return OcspAnswer(RevocationStatus.UNKNOWN, f"not a readable response: {brief(error)}")


def _verify(
    der: bytes,
    cert: ClientCert,
    issuer: ClientCert,
    now: float,
    tolerance: float,
    nonce: bytes | None,
    require_nonce: bool,
) -> OcspAnswer:
    """Run the checks of RFC 6960, section 3.2, in order.

    Raises `ResponseRefused` and the parsers' errors.
    """
    response, signed = _load(der)
    found = _singles_for(response, cert, issuer)
    delegate = signer_of(signed, issuer, now)
    try:
        if delegate is not None and not is_valid(delegate, now):
            raise ResponseRefused("the responder's certificate is not valid now")
        if len(found) > MAX_ABOUT_ONE:
            raise ResponseRefused("too many answers about this certificate")
        _bound(_parts(signed.data, only(signed.data, SEQUENCE))[-1])
        _check_nonce(response, nonce, require_nonce)
        return _together(list(_answers(response, signed.data, found, delegate, now, tolerance)))
    except Exception as refused:  # noqa: BLE001 - parsers raise many classes on hostile bytes
        return _revoked_anyway(found, delegate, refused)


def _answers(
    response: ocsp.OCSPResponse,
    data: bytes,
    found: Sequence[_Single],
    delegate: ClientCert | None,
    now: float,
    tolerance: float,
) -> Iterator[OcspAnswer]:
    """Yield each single answer.  Raises `ResponseRefused` and ValueError."""
    start, stop = (0.0, math.inf) if delegate is None else validity(delegate)
    for single, index in found:
        _check_extensions(response, _single_extensions(data, index))
        this_update, next_update = _check_times(response, single, now, tolerance)
        status, detail = _status(single)
        produced = response.produced_at_utc.timestamp()
        yield OcspAnswer(
            status,
            detail,
            this_update,
            next_update,
            min(next_update + tolerance, stop),
            delegate,
            delegate is not None and has_nocheck(delegate),
            max(this_update - tolerance, produced - tolerance, start),
        )


def _revoked_anyway(
    found: Sequence[_Single], delegate: ClientCert | None, refused: Exception
) -> OcspAnswer:
    """Return the latest answer that says revoked; it never holds.

    Raises `refused` if there is none.
    """
    revoked = [one for one, _ in found if one.certificate_status is ocsp.OCSPCertStatus.REVOKED]
    if not revoked:
        raise refused
    latest = max(revoked, key=lambda single: single.this_update_utc)
    status, detail = _status(latest)
    at = latest.this_update_utc.timestamp()
    detail += f" (by an answer that is refused otherwise: {brief(refused)})"
    return OcspAnswer(status, detail, at, at, delegate=delegate)


_WORST_FIRST = (RevocationStatus.REVOKED, RevocationStatus.UNKNOWN, RevocationStatus.GOOD)


def _together(answers: list[OcspAnswer]) -> OcspAnswer:
    """Combine the answers about one certificate: the worst status, in the common period."""
    worst = min(answers, key=lambda answer: _WORST_FIRST.index(answer.status))
    return replace(
        worst,
        this_update=max(answer.this_update for answer in answers),
        next_update=min(answer.next_update for answer in answers),
        since=max(answer.since for answer in answers),
        until=min(answer.until for answer in answers),
    )


def _load(der: bytes) -> tuple[ocsp.OCSPResponse, SignedResponse]:
    if len(der) > MAX_RESPONSE:
        raise ResponseRefused(f"longer than {MAX_RESPONSE} bytes")
    try:
        signed = signed_part(der)
    except ValueError:
        response = ocsp.load_der_ocsp_response(der)
        if response.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
            answered = response.response_status.name.lower()
            raise ResponseRefused(f"the responder answered {answered}") from None
        raise
    response = ocsp.load_der_ocsp_response(signed.bare)
    if response.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
        raise ResponseRefused(f"the responder answered {response.response_status.name.lower()}")
    return response, signed


# -- the single response about this certificate ------------------------------------------------


def _singles_for(
    response: ocsp.OCSPResponse, cert: ClientCert, issuer: ClientCert
) -> list[_Single]:
    """Return the single responses whose CertID names `cert`, at least one."""

    # As hashed once by each algorithm, however many there are that nobody may have signed.
    @cache
    def named(algorithm: str) -> tuple[frozenset[bytes], bytes]:
        names = (cert.issuer_name, issuer.subject_name)
        hashed = frozenset(hashlib.new(algorithm, name).digest() for name in names)
        return hashed, hashlib.new(algorithm, key_bits(issuer.spki)).digest()

    singles = enumerate(response.responses)
    found = [(one, index) for index, one in singles if _is_about(one, cert.serial, named)]
    if not found:
        raise ResponseRefused("no answer about this certificate")
    return found


def _is_about(
    single: ocsp.OCSPSingleResponse,
    serial: int,
    named: Callable[[str], tuple[frozenset[bytes], bytes]],
) -> bool:
    """Return whether a CertID names the certificate, with the hash algorithm of the response.

    The hashed name may be encoded as in the certificate, or as in the issuer's own certificate.
    What revokes may have the octets of a negative serial number instead (see `refused_serials`).
    """
    revokes = single.certificate_status is ocsp.OCSPCertStatus.REVOKED
    if single.serial_number not in (refused_serials(serial) if revokes else (serial,)):
        return False
    try:
        algorithm = single.hash_algorithm
    except UnsupportedAlgorithm:
        return False
    if not isinstance(algorithm, _CERT_ID_HASHES):
        return False
    names, key = named(algorithm.name)
    return single.issuer_name_hash in names and single.issuer_key_hash == key


def _status(single: ocsp.OCSPSingleResponse) -> tuple[RevocationStatus, str]:
    match single.certificate_status:
        case ocsp.OCSPCertStatus.GOOD:
            return RevocationStatus.GOOD, ""
        case ocsp.OCSPCertStatus.REVOKED:
            said = ["revoked"]
            with suppress(ValueError):  # a time or reason that can't be read
                at = single.revocation_time_utc
                said += [at.strftime("%Y-%m-%dT%H:%M:%SZ")] if at else []
                reason = single.revocation_reason
                said += [f"({reason.value})"] if reason else []
            return RevocationStatus.REVOKED, " ".join(said)
        case _:
            return RevocationStatus.UNKNOWN, "the responder does not know this certificate"


# -- times, nonce, extensions ------------------------------------------------------------------


def _check_times(
    response: ocsp.OCSPResponse,
    single: ocsp.OCSPSingleResponse,
    now: float,
    tolerance: float,
) -> tuple[float, float]:
    """Return `thisUpdate`, and `nextUpdate` or its substitute (RFC 6960, 4.2.2.1)."""
    this_update = single.this_update_utc.timestamp()
    if this_update > now + tolerance or response.produced_at_utc.timestamp() > now + tolerance:
        raise ResponseRefused("thisUpdate is in the future")
    given: datetime | None = single.next_update_utc
    next_update = given.timestamp() if given else this_update + DEFAULT_LIFETIME
    if next_update < this_update:
        raise ResponseRefused("nextUpdate is before thisUpdate")
    if now >= next_update + tolerance:
        raise ResponseRefused("expired")
    return this_update, next_update


def _check_nonce(response: ocsp.OCSPResponse, nonce: bytes | None, require: bool) -> None:
    if nonce is None:
        return
    try:
        got = response.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce
    except x509.ExtensionNotFound:
        if require:
            raise ResponseRefused("without the nonce that was sent") from None
        return
    if got != nonce:
        raise ResponseRefused("not the nonce that was sent")


def _check_extensions(response: ocsp.OCSPResponse, single: list[_Extension]) -> None:
    """Refuse unknown critical extensions; only the nonce is known (RFC 6960, section 4.1.2)."""
    for extension in response.extensions:
        if extension.critical and not isinstance(extension.value, x509.OCSPNonce):
            raise ResponseRefused(f"unknown critical extension {extension.oid.dotted_string}")
    if any(extension.critical for extension in single):
        raise ResponseRefused("unknown critical extension of the single answer")
    if len({extension.oid for extension in single}) != len(single):
        raise ResponseRefused("an extension of the single answer is repeated")


_CONTEXT_1 = 0xA1


class _Extension(NamedTuple):
    oid: bytes
    critical: bool


_Single = tuple[ocsp.OCSPSingleResponse, int]
"""A single response and its number."""


def _single_extensions(tbs: bytes, index: int) -> list[_Extension]:
    """Return the extensions of single response number `index`, which `cryptography` hides.

    ResponseData (RFC 6960, 4.2.1): version [0] OPTIONAL, responderID [1] or [2], producedAt,
    responses, extensions [1].  SingleResponse: certID, certStatus, thisUpdate, nextUpdate [0]
    OPTIONAL, singleExtensions [1] OPTIONAL.
    """
    responses = next(part for part in _parts(tbs, only(tbs, SEQUENCE)) if part.tag == SEQUENCE)
    single = _parts(tbs, _parts(tbs, responses)[index])
    found = [part for part in single[3:] if part.tag == _CONTEXT_1]
    if not found:
        return []
    _bound(found[0])
    return [_extension(tbs, part) for part in _parts(tbs, _parts(tbs, found[0])[0])]


def _bound(last: Tlv) -> None:
    """Refuse extensions that take long to read, if the last part of a response is extensions."""
    if last.tag == _CONTEXT_1 and last.stop - last.start > MAX_EXTENSIONS:
        raise ResponseRefused("too many extensions")


def _extension(data: bytes, at: Tlv) -> _Extension:
    oid, second, *_ = _parts(data, at)
    critical = second.tag == BOOLEAN and data[second.start : second.stop] != b"\x00"
    return _Extension(data[oid.start : oid.stop], critical)


def _parts(data: bytes, at: Tlv) -> list[Tlv]:
    return list(children(data, at.start, at.stop))
