"""Turn an invitation, or a certificate that ends soon, into one new certificate: the rules.

What makes it all or nothing is in attempts.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from . import clients, invitations
from .attempts import Attempt, Attempts, refuse_renewal
from .bundles import File, ProfileSigner
from .certificate_profile import Identity, PrivateKey, new_key
from .clients import IssuedCertificate
from .invitations import Invitation, InvitationState
from .issuer import Issuer
from .refused import GONE, REVOKED, TOO_MANY, WAITS, Refused
from .settings import EnrollSettings
from .signing_request import (
    UnusableRequest,
    read_request,
    read_request_der,
    refuse_other_names,
    spki_sha256,
)
from .store import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a holder asks for."""

    format: str
    device: str = ""
    csr: str = ""


class Issuance:
    """Gives out certificates; its methods may be called by several threads."""

    def __init__(
        self,
        settings: EnrollSettings,
        store: Store,
        issuer: Issuer,
        clock: Callable[[], float],
        signer: ProfileSigner | None = None,
    ) -> None:
        self.settings, self.store, self.issuer, self.clock = settings, store, issuer, clock
        self._attempts = Attempts(settings.host, store, issuer, clock, signer)
        self._secret = b""

    def recover(self) -> None:
        """Undo what an earlier process left unfinished.  Raises `StoreError`."""
        self._secret = self.store.secret()
        self._attempts.tidy()

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
            self._attempts.tidy()
            found = self.find(token)
        if found.state is InvitationState.ISSUING:
            raise Refused(410, GONE[found.state])
        if found.state is InvitationState.WAITING:
            raise Refused(409, WAITS)
        identity = self._identity(found, wanted)
        if found.approve and found.state is not InvitationState.APPROVED:
            self._ask_for_approval(found, wanted, identity)
            return None
        key, request = self._request(identity, found, wanted)
        password = self.password(token, found)
        attempt = Attempt(identity, request, key, wanted.format, password, invitation=found)
        return self._attempts.run(attempt)

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
        identity = Identity(found.name, device, profile)
        try:
            identity.alternative_names()
        except ValueError as error:
            log.warning("invitation %s: %s", found.id, error.args[0])
            raise Refused(
                400, f"The device can't be named {device} here. Choose another."
            ) from None
        return identity

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
        self._check_request(request, identity)
        return request

    def _check_request(self, request: x509.CertificateSigningRequest, identity: Identity) -> None:
        """Refuse a key that was revoked, and names that another CA would take over."""
        with self.store.reading() as connection:
            revoked = clients.is_revoked_key(connection, spki_sha256(request))
        if revoked:
            raise UnusableRequest("the CSR's key was revoked: make a new key")
        if self.issuer.goes_by_request:
            refuse_other_names(request, identity.subject(), identity.alternative_names())

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
                raise Refused(410, GONE.get(now.state, GONE[InvitationState.ISSUING]))
            device = identity.device if not found.device else ""
            invitations.file_request(connection, now, request, wanted.format, device)
        log.info("invitation %s of %s waits for enroll approve", found.id, found.name)

    # -- renewal

    def renewable(self, sha256: str) -> IssuedCertificate:
        """Find a certificate that may be renewed now.  Raises `Refused`."""
        now = self.clock()
        with self.store.reading() as connection:
            found = clients.by_sha256(connection, sha256)
            if found is None:
                raise Refused(403, "Your certificate isn't one that was issued here.")
            if found.revoked is not None:
                raise Refused(403, REVOKED)
            if not found.not_before <= now < found.not_after:
                raise Refused(403, "Your certificate isn't valid now. Ask for a new invitation.")
            profile = self.settings.profiles.get(found.profile)
            if profile is None:
                raise Refused(403, "Your certificate's profile is gone. Ask for a new invitation.")
            if now < found.not_after - profile.renew_before:
                raise Refused(403, "It is too early to renew your certificate.")
            refuse_renewal(connection, found, now)
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
            self._check_request(request, identity)
        else:
            key, request = self._own_request(identity)
        password = self.renewal_password(old)
        attempt = Attempt(identity, request, key, wanted.format, password, renewed=old)
        return self._attempts.run(attempt)


def _numbered(device: str) -> Iterator[str]:
    """`phone`, `phone-2`, `phone-3`, …"""
    yield device
    number = 2
    while True:
        yield f"{device[:27]}-{number}"
        number += 1
