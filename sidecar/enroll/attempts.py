"""One issuance at a time for an invitation, all or nothing.

Every attempt has the same steps: note it and take the invitation (one transaction), have the
certificate made, pack the file, store the certificate and end the invitation (one transaction),
and only then give the file out.  So nobody gets a certificate without a record.  Whatever fails in
between undoes the attempt.  One that was cut off (kill -9, power) is undone at the next start; if
another CA's command was at work, its key is kept as lost and logged.
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
from cryptography.hazmat.primitives.serialization import Encoding

from sidecar.core.x509.certificate import serial_hex

from . import clients, invitations
from .bundles import File, Packed, ProfileSigner, legacy_p12, mobileconfig, modern_p12, pem_chain
from .certificate_profile import Identity, PrivateKey
from .clients import IssuedCertificate
from .invitations import Invitation, InvitationState
from .issuer import Issued, Issuer, IssuerError
from .refused import ENOUGH, GONE, RENEWED, REVOKED, TOO_MANY, Refused
from .signing_request import spki_sha256
from .store import Store, StoreError

log = logging.getLogger(__name__)

MAX_RENEWALS = 3
"""Most times that one certificate is renewed: a download can fail."""

MAX_VALID = 32
"""Most certificates of a device that are valid at once, to get one by renewal: where `renew_before`
is longer than they are valid, each can be renewed at once.  `revoke` has to write a line for each.
"""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One issuance: for whom, the request, and what it uses up.

    `key` is the one that was made here, if it was; `invitation` or `renewed` entitles to it.
    """

    identity: Identity
    request: x509.CertificateSigningRequest
    key: PrivateKey | None
    format: str
    password: str
    invitation: Invitation | None = None
    renewed: IssuedCertificate | None = None
    id: str = field(default_factory=lambda: secrets.token_hex(8))

    @property
    def spki_sha256(self) -> str:
        """The request's public key, as a denylist names it."""
        return spki_sha256(self.request)

    @property
    def holds(self) -> set[str]:
        """The ids of what nobody else may undo meanwhile."""
        return {self.id} | ({self.invitation.id} if self.invitation else set())


def refuse_renewal(connection: sqlite3.Connection, old: IssuedCertificate, now: float) -> None:
    """Refuse where a certificate was renewed too often, or its device has too many others."""
    if clients.renewals(connection, old.sha256) >= MAX_RENEWALS:
        raise Refused(409, RENEWED)
    if clients.valid_on(connection, old.name, old.device, now) >= MAX_VALID:
        raise Refused(409, ENOUGH.format(MAX_VALID))


def stop_all_of(connection: sqlite3.Connection, name: str, device: str | None) -> None:
    """Stop what is being issued for a person, or with `device` for that device alone."""
    connection.execute(
        "UPDATE attempts SET lost = 'it was revoked meanwhile'"
        " WHERE name = ? AND ? IN (device, '') AND lost = ''",
        (name, device or ""),
    )


@dataclass(slots=True)
class Attempts:
    """Makes attempts; its methods may be called by several threads.

    `host` stands in the files' labels, `holder` names this process in the database.
    """

    host: str
    store: Store
    issuer: Issuer
    clock: Callable[[], float]
    signer: ProfileSigner | None = None
    holder: str = field(default_factory=lambda: f"{os.getpid()}-{secrets.token_hex(8)}")
    _active: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, attempt: Attempt) -> File:
        """Issue a certificate, and return its file once all is stored.

        Raises `Refused`, `IssuerError` and `StoreError`; then nothing was issued.
        """
        made: x509.Certificate | None = None
        with self._taken(attempt):
            try:
                issued = self.issuer.issue(attempt.identity, attempt.request, self.clock())
                made = issued.certificate
                file = self._packed(attempt, issued)
                self._finish(attempt, made)
            except BaseException as error:
                if isinstance(error, IssuerError):
                    made = made or error.certificate
                self._undo(attempt, str(error), made)
                raise
        return file

    def tidy(self) -> None:
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

    @contextmanager
    def _taken(self, attempt: Attempt) -> Iterator[None]:
        """Note the attempt and take the invitation, while the block runs.  Raises `Refused`."""
        try:
            with self.store.changing() as connection:
                self._tidy_in(connection)
                self._take(connection, attempt)
                with self._lock:
                    self._active |= attempt.holds
            yield
        finally:
            with self._lock:
                self._active -= attempt.holds

    def _take(self, connection: sqlite3.Connection, attempt: Attempt) -> None:
        """Note the attempt, and take the invitation if nobody else has.  Raises `Refused`."""
        identity, found, now = attempt.identity, attempt.invitation, self.clock()
        if found is not None:
            current = invitations.by_id(connection, found.id, now)
            if not current.ready or current.request != found.request:
                raise Refused(410, GONE.get(current.state, GONE[InvitationState.ISSUING]))
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
                attempt.spki_sha256,
                identity.name,
                identity.device,
                identity.profile.name,
                found.id if found else None,
                self.holder,
                now,
            ),
        )

    def _packed(self, attempt: Attempt, issued: Issued) -> File:
        """Pack the file.  Raises `IssuerError` for whatever goes wrong with it."""
        name, device = attempt.identity.name, attempt.identity.device
        label = f"{name} at {self.host}"
        packed = Packed(issued.certificate, issued.chain, label, name, device, self.host)
        try:
            if attempt.key is None:
                return pem_chain(packed)
            if attempt.format == "mobileconfig":
                return mobileconfig(packed, attempt.key, attempt.password, self.signer)
            pack = legacy_p12 if attempt.format == "p12-legacy" else modern_p12
            return pack(packed, attempt.key, attempt.password)
        except Exception as error:
            log.exception("a certificate for %s can't be packed", name)
            raise IssuerError("it can't be packed") from error

    def _finish(self, attempt: Attempt, cert: x509.Certificate) -> None:
        """Store the certificate and end the invitation, at once.  Raises `Refused`."""
        record = self._record(attempt, cert)
        with self.store.changing() as connection:
            self._check_again(connection, attempt)
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

    def _check_again(self, connection: sqlite3.Connection, attempt: Attempt) -> None:
        """Refuse where the invitation was cancelled, or the client revoked, meanwhile."""
        row = connection.execute("SELECT lost FROM attempts WHERE id = ?", (attempt.id,)).fetchone()
        if row is None or row["lost"]:
            raise Refused(410, GONE[InvitationState.CANCELLED])
        if attempt.invitation is not None:
            now = invitations.by_id(connection, attempt.invitation.id, self.clock())
            if now.state is not InvitationState.ISSUING:
                raise Refused(410, GONE[InvitationState.CANCELLED])
        if attempt.renewed is not None:
            found = clients.by_sha256(connection, attempt.renewed.sha256)
            if found is None or found.revoked is not None:
                raise Refused(403, REVOKED)
            refuse_renewal(connection, found, self.clock())

    def _record(self, attempt: Attempt, cert: x509.Certificate) -> IssuedCertificate:
        der = cert.public_bytes(Encoding.DER)
        return IssuedCertificate(
            sha256=hashlib.sha256(der).hexdigest(),
            serial=serial_hex(cert.serial_number),
            spki_sha256=attempt.spki_sha256,
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

    def _undo(self, attempt: Attempt, why: str, made: x509.Certificate | None) -> None:
        """Give the invitation back, and keep what another CA has made.

        If even that fails, the attempt counts as left behind: the next request undoes it.
        """
        try:
            with self.store.changing() as connection:
                if attempt.invitation is not None:
                    invitations.give_back(connection, attempt.invitation.id)
                self._undo_attempt(connection, attempt.id, why)
                if made is not None and self.issuer.goes_by_request:
                    self._keep_undelivered(connection, attempt, made)
        except (StoreError, sqlite3.Error) as again:
            log.error("an attempt to issue couldn't be undone, and will be later: %s", again)

    def _keep_undelivered(
        self, connection: sqlite3.Connection, attempt: Attempt, cert: x509.Certificate
    ) -> None:
        """Store a certificate that another CA has made and nobody got, as revoked."""
        found = self._record(attempt, cert)
        if clients.by_sha256(connection, found.sha256) is not None:
            log.error("the CA's command printed the certificate of %s again", found.name)
            return
        clients.add(connection, found)
        clients.mark_revoked(connection, [found.sha256], self.clock(), clients.NEVER_GIVEN_OUT)
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
