"""Turn an invitation, or a certificate that ends soon, into one new certificate.

Every issuance has the same steps: note the attempt and take the invitation (one transaction), have
the certificate made, pack the file, store the certificate and end the invitation (one transaction),
and only then give the file out.  So nobody gets a certificate without a record.  Whatever fails in
between undoes the attempt.  An attempt that was cut off (kill -9, power) is undone at the next
start; if another CA's command was at work, its key is kept as lost and logged.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sidecar.core.x509.certificate import serial_hex

from . import clients, invitations
from .bundles import File, Packed, ProfileSigner, legacy_p12, mobileconfig, modern_p12, pem_chain
from .certificate_profile import Identity, PrivateKey, new_key
from .clients import IssuedCertificate
from .invitations import Invitation, InvitationState
from .issuer import Issued, Issuer, IssuerError
from .settings import EnrollSettings
from .signing_request import read_request, read_request_der, refuse_other_names
from .store import Store, StoreError

log = logging.getLogger(__name__)

MAX_RENEWALS = 3
"""Most times that one certificate is renewed: a download can fail."""


class Refused(Exception):
    """No certificate is given out; the argument tells the holder why, `status` is HTTP's.

    `certificate` is one that was made before.
    """

    def __init__(
        self, status: int, message: str, certificate: x509.Certificate | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.certificate = status, certificate


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a holder asks for."""

    format: str
    device: str = ""
    csr: str = ""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One issuance under way."""

    id: str
    identity: Identity
    request: x509.CertificateSigningRequest
    key: PrivateKey | None
    format: str
    password: str
    invitation: Invitation | None = None
    renewed: IssuedCertificate | None = None


@dataclass(slots=True)
class Issuance:
    """Issues certificates; its methods may be called by several threads."""

    settings: EnrollSettings
    store: Store
    issuer: Issuer
    clock: Callable[[], float]
    signer: ProfileSigner | None = None
    holder: str = field(default_factory=lambda: f"{os.getpid()}-{secrets.token_hex(8)}")
    _active: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _secret: bytes = b""

    def recover(self) -> None:
        """Undo what an earlier process left unfinished.  Raises `StoreError`."""
        self._secret = self.store.secret()
        self._tidy()

    def _tidy(self) -> None:
        """Undo attempts that nobody works on: of processes that are gone, and of failed undos."""
        with self.store.changing() as connection:
            self._tidy_in(connection)

    def _tidy_in(self, connection: sqlite3.Connection) -> None:
        with self._lock:
            active = tuple(self._active)
        for identifier in invitations.give_back_all(connection, self.holder, active):
            log.warning("invitation %s: an issuance was cut off; it can be used", identifier)
        for row in list(connection.execute("SELECT * FROM attempts WHERE lost = ''")):
            if row["holder"] == self.holder and row["id"] in active:
                continue
            self._undo_attempt(connection, row["id"], "it was cut off")
            if self.issuer.goes_by_request:
                log.warning(
                    "the CA's command was cut off while it made a certificate for %s: if it "
                    "made one, revoke it there; its key is spki_sha256 %s",
                    row["name"],
                    row["spki_sha256"],
                )

    # -- invitations

    def find(self, token: str) -> Invitation:
        """Find a link's invitation.  Raises `Refused`."""
        if invitations.TOKEN.fullmatch(token) is None:
            raise Refused(404, "There is no such invitation.")
        with self.store.reading() as connection:
            found = invitations.by_token(connection, token, self.clock())
        if found is None:
            raise Refused(404, "There is no such invitation.")
        if found.state in invitations.ENDED:
            raise Refused(410, GONE[found.state])
        if found.profile not in self.settings.profiles:
            raise Refused(410, "This invitation's profile is gone. Ask for a new invitation.")
        return found

    def password(self, token: str, found: Invitation) -> str:
        """Derive the password of an invitation's file."""
        return invitations.password(self._secret, token.encode(), found.salt)

    def redeem(self, token: str, wanted: Wanted) -> File | None:
        """Give out an invitation's file, or None where it waits for approval now.

        Raises `Refused`, `UnusableRequest`, `IssuerError` and `StoreError`.
        """
        found = self.find(token)
        if found.state is InvitationState.ISSUING:
            self._tidy()
            found = self.find(token)
        if found.state is InvitationState.ISSUING:
            raise Refused(410, "This invitation is being used at this moment.")
        if found.state is InvitationState.WAITING:
            raise Refused(409, WAITS)
        identity = self._identity(found, wanted)
        if found.approve and found.state is not InvitationState.APPROVED:
            self._ask_for_approval(found, wanted, identity)
            return None
        key, request = self._request(identity, found, wanted)
        password = self.password(token, found)
        attempt = self._attempt(identity, request, key, wanted.format, password, found)
        with self._attempting(attempt):
            return self._issue(attempt)

    def _identity(self, found: Invitation, wanted: Wanted) -> Identity:
        profile = self.settings.profiles[found.profile]
        if wanted.format not in profile.formats:
            raise Refused(400, "This invitation has no such kind of file.")
        if found.device and wanted.device not in ("", found.device):
            raise Refused(400, f"This invitation is for the device {found.device}.")
        if found.request_device and wanted.device not in ("", found.request_device):
            raise Refused(400, f"What was approved is for the device {found.request_device}.")
        named = found.device or found.request_device or wanted.device
        device = named or self.settings.default_device
        with self.store.reading() as connection:
            theirs = clients.of_person(connection, found.name)
        used = clients.devices_in_use(theirs, self.clock())
        if not named:
            device = next(each for each in _numbered(device) if each not in used)
        if device not in used and len(used) >= profile.max_devices:
            raise Refused(409, TOO_MANY.format(found.name, profile.max_devices))
        return Identity(found.name, device, profile)

    def _request(
        self, identity: Identity, found: Invitation, wanted: Wanted
    ) -> tuple[PrivateKey | None, x509.CertificateSigningRequest]:
        """Read the CSR, or make a key and its CSR.  Raises `Refused` and `UnusableRequest`."""
        if found.request_format not in ("", wanted.format):
            raise Refused(400, "What was approved is another kind of file.")
        if wanted.format == "csr":
            return None, self._checked_request(identity, found, wanted)
        return self._own_request(identity)

    def _checked_request(
        self, identity: Identity, found: Invitation, wanted: Wanted
    ) -> x509.CertificateSigningRequest:
        if found.request:
            request = read_request_der(found.request)
            if wanted.csr.strip() and read_request(wanted.csr) != request:
                raise Refused(400, "What was approved is another CSR.")
        else:
            request = read_request(wanted.csr)
        if self.issuer.goes_by_request:
            refuse_other_names(request, identity.subject(), identity.alternative_names())
        return request

    def _own_request(self, identity: Identity) -> tuple[PrivateKey, x509.CertificateSigningRequest]:
        key = new_key(identity.profile.key_type)
        builder = x509.CertificateSigningRequestBuilder().subject_name(identity.subject())
        if names := identity.alternative_names():
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return key, builder.sign(key, hashes.SHA256())

    def _ask_for_approval(self, found: Invitation, wanted: Wanted, identity: Identity) -> None:
        request = b""
        if wanted.format == "csr":
            request = self._checked_request(identity, found, wanted).public_bytes(Encoding.DER)
        with self.store.changing() as connection:
            now = invitations.by_id(connection, found.id, self.clock())
            if now.state is InvitationState.WAITING:
                raise Refused(409, WAITS)
            if now.state is not InvitationState.OPEN:
                raise Refused(410, GONE.get(now.state, "This invitation is used."))
            device = identity.device if not found.device else ""
            invitations.file_request(connection, now, request, wanted.format, device)
        log.info("invitation %s of %s waits for enroll approve", found.id, found.name)

    # -- renewal

    def renewable(self, sha256: str) -> IssuedCertificate:
        """Find a certificate that may be renewed now.  Raises `Refused`."""
        with self.store.reading() as connection:
            found = clients.by_sha256(connection, sha256)
            count = clients.renewals(connection, sha256)
        if found is None:
            raise Refused(403, "Your certificate isn't one that was issued here.")
        if found.revoked is not None:
            raise Refused(403, "Your certificate is revoked.")
        now = self.clock()
        if not found.not_before <= now < found.not_after:
            raise Refused(403, "Your certificate isn't valid now. Ask for a new invitation.")
        profile = self.settings.profiles.get(found.profile)
        if profile is None:
            raise Refused(403, "Your certificate's profile is gone. Ask for a new invitation.")
        if now < found.not_after - profile.renew_before:
            raise Refused(403, "It is too early to renew your certificate.")
        if count >= MAX_RENEWALS:
            raise Refused(409, RENEWED)
        return found

    def renewal_password(self, found: IssuedCertificate) -> str:
        """Derive the password of a renewal's file."""
        return invitations.password(self._secret, b"renewal", found.sha256.encode())

    def renew(self, sha256: str, wanted: Wanted) -> File:
        """Give out a new certificate for an old one's identity.

        Raises `Refused`, `UnusableRequest`, `IssuerError` and `StoreError`.
        """
        old = self.renewable(sha256)
        identity = Identity(old.name, old.device, self.settings.profiles[old.profile])
        if wanted.format not in identity.profile.formats:
            raise Refused(400, "There is no such kind of file.")
        if wanted.device not in ("", old.device):
            raise Refused(400, f"Your certificate is for the device {old.device}.")
        key: PrivateKey | None = None
        if wanted.format == "csr":
            request = read_request(wanted.csr)
            if self.issuer.goes_by_request:
                refuse_other_names(request, identity.subject(), identity.alternative_names())
        else:
            key, request = self._own_request(identity)
        password = self.renewal_password(old)
        attempt = self._attempt(identity, request, key, wanted.format, password, renewed=old)
        with self._attempting(attempt):
            return self._issue(attempt)

    # -- the steps that both share

    def _attempt(
        self,
        identity: Identity,
        request: x509.CertificateSigningRequest,
        key: PrivateKey | None,
        wanted: str,
        password: str,
        invitation: Invitation | None = None,
        renewed: IssuedCertificate | None = None,
    ) -> Attempt:
        identifier = secrets.token_hex(8)
        return Attempt(identifier, identity, request, key, wanted, password, invitation, renewed)

    @contextmanager
    def _attempting(self, attempt: Attempt) -> Iterator[None]:
        """Take the invitation while the block runs; undo it where the block fails."""
        held = {attempt.id} | ({attempt.invitation.id} if attempt.invitation else set())
        try:
            with self.store.changing() as connection:
                self._tidy_in(connection)
                self._take(connection, attempt)
                with self._lock:
                    self._active |= held
            try:
                yield
            except BaseException as error:
                self._undo(attempt, error)
                raise
        finally:
            with self._lock:
                self._active -= held

    def _take(self, connection: sqlite3.Connection, attempt: Attempt) -> None:
        """Note the attempt, and take the invitation if nobody else has.  Raises `Refused`."""
        identity, found, now = attempt.identity, attempt.invitation, self.clock()
        if found is not None:
            current = invitations.by_id(connection, found.id, now)
            if not current.ready or current.request != found.request:
                raise Refused(410, GONE.get(current.state, "This invitation is being used."))
            invitations.reserve(connection, current, self.holder)
        used = clients.devices_in_use(clients.of_person(connection, identity.name), now)
        under_way = connection.execute(
            "SELECT DISTINCT device FROM attempts WHERE name = ? AND lost = '' AND holder = ?",
            (identity.name, self.holder),
        )
        used |= {row["device"] for row in under_way}
        if identity.device not in used and len(used) >= identity.profile.max_devices:
            raise Refused(409, TOO_MANY.format(identity.name, identity.profile.max_devices))
        connection.execute(
            "INSERT INTO attempts VALUES (?, ?, ?, ?, ?, ?, ?, ?, '')",
            (
                attempt.id,
                _spki_sha256(attempt.request),
                identity.name,
                identity.device,
                identity.profile.name,
                found.id if found else None,
                self.holder,
                now,
            ),
        )

    def _issue(self, attempt: Attempt) -> File:
        issued = self.issuer.issue(attempt.identity, attempt.request, self.clock())
        try:
            file = self._packed(attempt, issued)
        except Exception as error:
            log.exception("a certificate for %s can't be packed", attempt.identity.name)
            raise IssuerError("it can't be packed", issued.certificate) from error
        record = self._record(attempt, issued.certificate)
        with self.store.changing() as connection:
            self._check_again(connection, attempt, issued.certificate)
            clients.add(connection, record)
            connection.execute("DELETE FROM attempts WHERE id = ?", (attempt.id,))
            if attempt.invitation is not None:
                invitations.use_up(connection, attempt.invitation.id, self.clock())
        log.info(
            "issued a certificate for %s/%s: serial %s, sha256 %s",
            record.name,
            record.device,
            record.serial,
            record.sha256,
        )
        return file

    def _check_again(
        self, connection: sqlite3.Connection, attempt: Attempt, made: x509.Certificate
    ) -> None:
        """Refuse where the invitation was cancelled, or the old certificate revoked, meanwhile."""
        if attempt.invitation is not None:
            now = invitations.by_id(connection, attempt.invitation.id, self.clock())
            if now.state is not InvitationState.ISSUING:
                raise Refused(410, GONE[InvitationState.CANCELLED], made)
        if attempt.renewed is not None:
            found = clients.by_sha256(connection, attempt.renewed.sha256)
            if found is None or found.revoked is not None:
                raise Refused(403, "Your certificate is revoked.", made)
            if clients.renewals(connection, found.sha256) >= MAX_RENEWALS:
                raise Refused(409, RENEWED, made)

    def _packed(self, attempt: Attempt, issued: Issued) -> File:
        identity = attempt.identity
        label = f"{identity.name} at {self.settings.host}"
        packed = Packed(
            issued.certificate,
            issued.chain,
            label,
            identity.name,
            identity.device,
            self.settings.host,
        )
        if attempt.key is None:
            return pem_chain(packed)
        if attempt.format == "mobileconfig":
            return mobileconfig(packed, attempt.key, attempt.password, self.signer)
        pack = legacy_p12 if attempt.format == "p12-legacy" else modern_p12
        return pack(packed, attempt.key, attempt.password)

    def _record(self, attempt: Attempt, cert: x509.Certificate) -> IssuedCertificate:
        der = cert.public_bytes(Encoding.DER)
        return IssuedCertificate(
            sha256=hashlib.sha256(der).hexdigest(),
            serial=serial_hex(cert.serial_number),
            spki_sha256=_spki_sha256(attempt.request),
            der=der,
            name=attempt.identity.name,
            device=attempt.identity.device,
            profile=attempt.identity.profile.name,
            invitation=attempt.invitation.id if attempt.invitation else None,
            renewed_from=attempt.renewed.sha256 if attempt.renewed else None,
            issued=self.clock(),
            not_before=cert.not_valid_before_utc.timestamp(),
            not_after=cert.not_valid_after_utc.timestamp(),
        )

    # -- what failed

    def _undo(self, attempt: Attempt, error: BaseException) -> None:
        """Give the invitation back, and keep what another CA may have made.

        If even that fails, the reservation counts as left behind: the next request undoes it.
        """
        made = error.certificate if isinstance(error, IssuerError | Refused) else None
        try:
            with self.store.changing() as connection:
                if attempt.invitation is not None:
                    invitations.give_back(connection, attempt.invitation.id)
                self._undo_attempt(connection, attempt.id, str(error))
                if made is not None and self.issuer.goes_by_request:
                    self._keep_undelivered(connection, attempt, made)
        except (StoreError, sqlite3.Error) as again:
            log.error("an attempt to issue couldn't be undone, and will be later: %s", again)

    def _keep_undelivered(
        self, connection: sqlite3.Connection, attempt: Attempt, cert: x509.Certificate
    ) -> None:
        """Store a certificate that another CA has made and nobody got, as revoked."""
        found = self._record(attempt, cert)
        if clients.by_sha256(connection, found.sha256) is None:
            clients.add(connection, found)
        clients.mark_revoked(connection, [found.sha256], self.clock(), "never given out")
        log.warning(
            "the CA has made a certificate for %s that nobody got: revoke it there, serial %s",
            found.name,
            found.serial,
        )

    def _undo_attempt(self, connection: sqlite3.Connection, identifier: str, why: str) -> None:
        """Forget an attempt, or where another CA may have made a certificate, keep it as lost."""
        if self.issuer.goes_by_request:
            connection.execute(
                "UPDATE attempts SET lost = ? WHERE id = ?", (why[:200] or "failed", identifier)
            )
        else:
            connection.execute("DELETE FROM attempts WHERE id = ?", (identifier,))


GONE = {
    InvitationState.USED: "This invitation was used. Ask for a new one.",
    InvitationState.CANCELLED: "This invitation was cancelled. Ask for a new one.",
    InvitationState.EXPIRED: "This invitation has ended. Ask for a new one.",
}

WAITS = "This invitation waits for approval."

RENEWED = "Your certificate was renewed already. Ask for a new invitation."

TOO_MANY = "{} has {} devices already, which is the most. Have one of them revoked first."


def _numbered(device: str) -> Iterator[str]:
    """`phone`, `phone-2`, `phone-3`, …"""
    yield device
    number = 2
    while True:
        yield f"{device[:27]}-{number}"
        number += 1


def _spki_sha256(request: x509.CertificateSigningRequest) -> str:
    spki = request.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).hexdigest()
