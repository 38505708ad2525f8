"""Parse a CRL and verify its signature: a frozen `Crl`, or a `CrlError`.

The signer must be an authority of the trust that has the CRL's issuer name and may sign CRLs.  On
the path from there to a trust anchor, names, signatures, CA flags and keyCertSign are checked; the
index checks validity periods at each question.  Not checked: name constraints, policies and path
lengths.

A CRL with an unknown critical extension or an unreadable part is kept as `unusable`: it never says
good (RFC 5280, 5.2 and 5.3), but the certificates that it lists are revoked.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes

from sidecar.core.errors import brief, printable
from sidecar.core.x509.der import begins_as_der, comparable_name, tlv
from sidecar.core.x509.pem_text import plain_pem
from sidecar.core.x509.signature import is_signed_by, scheme
from sidecar.core.x509.subject import read_name

from .entries import CrlEntry, Entries, read_entries
from .fields import CrlFields, read_extensions, take_apart
from .scope import Scope
from .signers import CrlAuthorities, Signer


class CrlError(ValueError):
    """The trust can't use a CRL.  Arguments: the mistake, and what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)

    def __str__(self) -> str:
        return printable("; ".join(filter(None, map(str, self.args))))


@dataclass(frozen=True, slots=True)
class Crl:
    """One verified CRL.  Times are seconds since the epoch; names are in comparable form.

    `signer_key` is the SHA-256 of the signer's key.  `speaks_for` holds the SHA-256 of the keys of
    all authorities that share an anchor with the signer: the CRL may cover only certificates that
    these issued (RFC 5280, 6.3.3 f).  `unusable` says why the CRL only revokes ("": it can also say
    good).  `covers` is the same for all CRLs of an issuer and scope, `key` for two of which one can
    replace the other (`_scope_key`).
    """

    source: str
    issuer: bytes
    number: int | None
    delta_base: int | None
    this_update: float
    next_update: float | None
    scope: Scope
    signer_key: bytes
    signers: tuple[Signer, ...]
    speaks_for: frozenset[bytes]
    entries: Entries = field(repr=False)
    unusable: str = ""
    covers: str = field(init=False, repr=False, compare=False)
    key: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Made once: a scope may have thousands of names, and be compared with hundreds.
        covers = f"{self.issuer.hex()}\n{self.scope}"
        object.__setattr__(self, "covers", hashlib.sha256(covers.encode()).hexdigest())
        object.__setattr__(self, "key", _scope_key(self, covers))

    @property
    def entry_count(self) -> int:
        """The number of listed certificates."""
        return self.entries.count

    def find(self, issuer: bytes, serial: int) -> CrlEntry | None:
        """Return the entry of the certificate with this issuer and serial number, or None."""
        return self.entries.find(issuer, serial)

    def may_cover(self, key: bytes) -> bool:
        """Return whether the CRL may cover certificates issued with a key (a SHA-256)."""
        return key == self.signer_key or key in self.speaks_for


class CrlFile(NamedTuple):
    """The content of a file of CRLs: the usable ones, and the mistakes of the others."""

    crls: tuple[Crl, ...]
    mistakes: tuple[CrlError, ...]


def read_crls(
    data: bytes, source: str, authorities: Sequence[bytes], ders: list[bytes] | None = None
) -> CrlFile:
    """Read a file of CRLs in PEM, with any text around as in OpenSSL, or in DER, or in both.

    Each is verified against a trust's authorities (DER certificates), once if it is repeated.
    `source` names the CRL in answers; a second CRL in the file is named `source#2`.  `ders` takes
    the DER of each.  Raises MemoryError, nothing else.
    """
    crls: list[Crl] = []
    mistakes: list[CrlError] = []
    seen: set[bytes] = set()
    for number, block in enumerate(_blocks(data), 1):
        if number > MAX_BLOCKS:
            mistakes.append(
                CrlError(f"more than {MAX_BLOCKS} CRLs in one file", "use several files")
            )
            break
        name = source if number == 1 else f"{source}#{number}"
        try:
            if isinstance(block, CrlError):
                raise block
            digest = hashlib.sha256(block).digest()
            if digest in seen:
                continue
            seen.add(digest)
            crls.append(_read(block, name, tuple(authorities)))
            if ders is not None:
                ders.append(block)
        except CrlError as error:
            mistakes.append(error)
        except MemoryError:  # it may be there later
            raise
        except Exception as error:  # noqa: BLE001 - the parser's errors are of many classes
            why = f"not a readable CRL: {brief(error)}"
            mistakes.append(CrlError(why, "put complete CRLs there, PEM or DER"))
    return CrlFile(tuple(crls), tuple(mistakes))


MAX_PADDING = 16
"""How many times as long as its CRLs a file may be to be kept as it is: text around is shorter."""


def without_padding(data: bytes, ders: Sequence[bytes]) -> bytes:
    """Return a file, or the CRLs alone that were read there (DER) if it is mostly anything else.

    Whoever writes the file, and can sign nothing, could put a hole of any size behind a CRL.
    """
    length = sum(map(len, ders))
    if not length or MAX_PADDING * length >= len(data):
        return data
    head, tail = b"-----BEGIN X509 CRL-----\n", b"-----END X509 CRL-----\n"
    return b"".join(head + base64.encodebytes(der) + tail for der in ders)


def issuers(data: bytes) -> frozenset[bytes]:
    """Return who issued the readable CRLs of a file, by comparable names; verifies nothing."""
    found = set()
    for block in _blocks(data):
        with contextlib.suppress(ValueError):
            if not isinstance(block, CrlError):
                found.add(comparable_name(take_apart(block).issuer))
    return frozenset(found)


def read_crl(data: bytes, source: str, authorities: Sequence[bytes]) -> Crl:
    """Read the only CRL of a file; see `read_crls`.  Raises `CrlError`, nothing else."""
    crls, mistakes = read_crls(data, source, authorities)
    if mistakes:
        raise mistakes[0]
    if len(crls) > 1:
        raise CrlError(f"{len(crls)} CRLs in one file", "put each CRL into a file of its own")
    return crls[0]


_PEM = re.compile(
    rb"-----BEGIN X509 CRL-----(.*?)(?:-----(END X509 CRL-----)|(?=-----)|\Z)", re.DOTALL
)
"""A block, up to its end; one without an end takes nothing of the next one."""

_END = re.compile(rb"-----END X509 CRL-----\s*")

MAX_BLOCKS = 64
"""Maximum number of CRLs in one file."""


def _blocks(data: bytes) -> Iterator[bytes | CrlError]:
    """Yield at least one item: the DER of each CRL in a file, or its mistake."""
    if begins_as_der(data):
        yield from _values(data)
        return
    for end in _END.finditer(data):
        if begins_as_der(data[end.end() : end.end() + 2]):
            yield from _blocks(data[: end.end()])
            yield from _values(data[end.end() :])
            return
    text = plain_pem(data)
    if data[:1] == b"\x30" and not _PEM.search(text):
        yield data
        return
    is_pem = False
    for found in _PEM.finditer(text):
        is_pem = True
        body, last = found.groups()
        if not last:
            yield CrlError("the PEM block has no end", "put complete CRLs there, PEM or DER")
            continue
        try:
            yield binascii.a2b_base64(body.translate(None, b" \t\n"), strict_mode=True)
        except binascii.Error as error:
            why = f"not a readable CRL: {brief(error)}"
            yield CrlError(why, "put complete CRLs there, PEM or DER")
    if not is_pem and not data.strip():
        yield CrlError("the file is empty", "put one complete CRL there, PEM or DER")
    elif not is_pem:
        hint = "a PEM file has -----BEGIN X509 CRL-----"
        yield CrlError("neither PEM nor DER of a CRL", hint)


def _values(data: bytes) -> Iterator[bytes | CrlError]:
    """Yield each of several CRLs in DER, one behind the other; blanks may follow one.

    OpenSSL reads the first one, whatever is behind it.
    """
    while True:
        try:
            stop = tlv(data, 0, len(data)).stop
        except ValueError:  # who takes it apart tells why
            stop = len(data)
        yield data[:stop]
        data = data[stop:].lstrip()
        if not begins_as_der(data):
            yield from _blocks(data) if data else ()
            return


def _read(der: bytes, source: str, authorities: tuple[bytes, ...]) -> Crl:
    fields = take_apart(der)
    issuer = comparable_name(fields.issuer)
    signer = _verify(fields, issuer, CrlAuthorities.of(authorities))
    found = read_extensions(fields.extensions, fields.issuer)
    entries = read_entries(fields.signed, issuer, indirect=found.scope.indirect)
    return Crl(
        source=source,
        issuer=issuer,
        number=found.number,
        delta_base=found.delta_base,
        this_update=fields.this_update,
        next_update=fields.next_update,
        scope=found.scope,
        signer_key=signer.key,
        signers=signer.signers,
        speaks_for=signer.speaks_for,
        entries=entries,
        unusable=fields.unusable or found.unusable or entries.unusable,
    )


# -- who signed ----------------------------------------------------------------------------------

_WEAK = (hashes.MD5, hashes.SHA1)


class _Signed(NamedTuple):
    key: bytes
    signers: tuple[Signer, ...]
    speaks_for: frozenset[bytes]


def _verify(fields: CrlFields, issuer: bytes, known: CrlAuthorities) -> _Signed:
    """Find the signer, and the authorities whose certificates it covers.  Raises `CrlError`."""
    name = _shown(fields.issuer)
    named = known.named.get(issuer, ())
    if not named:
        hint = "add its certificate to ca or intermediates of this trust, or name another CRL"
        raise CrlError(f"issued by {name}, which is not an authority of this trust", hint)
    _refuse_weak(fields.algorithm)
    signed = [a for a in named if is_signed_by(a.public, fields.signed, fields.algorithm, fields)]
    if not signed:
        hint = "download it again; if the CA has a new key, add its new certificate to the trust"
        raise CrlError(f"the signature is not by {name}", hint)
    signers = [a for a in signed if a.signs_crls]
    if not signers:
        hint = "have the CA's certificate issued with the keyUsage cRLSign"
        raise CrlError(f"{name} may not sign CRLs: its keyUsage lacks cRLSign", hint)
    return _Signed(signers[0].key, known.signers(signers), known.speak_for(signers))


def _shown(name: bytes) -> str:
    """Format a Name for a message."""
    try:
        return read_name(name).dn[:200]
    except ValueError:
        return f"a name that can't be read (DER {name[:80].hex()})"


def _refuse_weak(algorithm: bytes) -> None:
    try:
        hashing = scheme(algorithm).hashing
    except UnsupportedAlgorithm:
        raise CrlError("the signature algorithm is not understood") from None
    if isinstance(hashing, _WEAK):
        hint = "have the CA sign it with SHA-256"
        raise CrlError(f"signed with {hashing.name}, which can be forged", hint)


# -- going backwards -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Watermark:
    """The newest CRL that was accepted for one issuer and scope."""

    number: int | None
    this_update: float


def watermark(crl: Crl) -> Watermark:
    """Return the watermark of an accepted CRL, to be kept under its `key`."""
    return Watermark(crl.number, crl.this_update)


def _scope_key(crl: Crl, covers: str) -> str:
    """Return a key that two CRLs share if one can replace the other; equal in every process.

    It covers issuer, scope, complete or delta, and the signing key: after a change of keys, a CA
    may start its numbers again, and may also issue CRLs with the old key.
    """
    kind = "complete" if crl.delta_base is None else "delta"
    text = "\n".join([covers, kind, crl.signer_key.hex()])
    return hashlib.sha256(text.encode()).hexdigest()


def goes_back(mark: Watermark | None, crl: Crl) -> str | None:
    """Explain why a CRL is older than the accepted one of its `key`; None if it isn't."""
    if mark is None:
        return None
    if mark.number is not None:
        if crl.number is None:
            return f"it has no CRL number, the one accepted before has {mark.number}"
        if crl.number < mark.number:
            return f"its CRL number is {crl.number}, the one accepted before has {mark.number}"
    if crl.this_update < mark.this_update:
        return "its thisUpdate is before that of the one accepted before"
    return None


def supersedes(new: Crl, old: Crl) -> bool:
    """Return whether `new` may replace `old`: equally new, newer, or of another scope."""
    return new.key != old.key or goes_back(watermark(old), new) is None
