"""An issuance within the test's own process: a database, a CA in memory, and a clock to turn."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from sidecar.enroll import clients, invitations
from sidecar.enroll.authority import CA_DAYS
from sidecar.enroll.certificate_profile import ca_certificate, new_key, now_utc
from sidecar.enroll.issuance import Issuance
from sidecar.enroll.issuer import Issuer, KeyIssuer, signature_hash
from sidecar.enroll.settings import EnrollSettings, read_enroll_settings
from sidecar.enroll.store import Store

YAML = "url: https://app.example.com/enroll\n"


def settings_of(directory: Path, more: str = "") -> EnrollSettings:
    """What an enroll.yaml in a directory says."""
    data = f"{YAML}state_dir: {directory}\n{more}".encode()
    return read_enroll_settings(data, str(directory / "enroll.yaml"))


def own_ca(name: str = "Unit CA") -> KeyIssuer:
    """An issuing CA with a key in memory."""
    key = new_key("ec-p256")
    builder = ca_certificate(name, key, now_utc(time.time() - 86400), CA_DAYS)
    return KeyIssuer(key, (builder.sign(key, signature_hash(key)),))


def request(
    name: str = "alice",
    key: ec.EllipticCurvePrivateKey | None = None,
    *extensions: x509.ExtensionType,
) -> str:
    """A CSR in PEM."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    for each in extensions:
        builder = builder.add_extension(each, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


@dataclass
class Clock:
    """A clock that stands until it is turned."""

    now: float = field(default_factory=lambda: float(int(time.time())))

    def __call__(self) -> float:
        return self.now


class Issuing:
    """An issuance with a store, and shortcuts for what a test asks of both."""

    def __init__(
        self,
        directory: Path,
        more: str = "",
        *,
        issuer: Issuer | None = None,
        store: Store | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.settings = settings_of(directory, more)
        self.store = store or Store(self.settings.database)
        self.store.open_or_create()
        self.clock = clock or Clock()
        self.issuer = issuer or own_ca()
        self.issuance = Issuance(self.settings, self.store, self.issuer, self.clock)
        self.issuance.recover()

    def invite(
        self,
        name: str = "alice",
        *,
        device: str | None = None,
        profile: str = "",
        approve: bool = False,
        seconds: float = 3600,
    ) -> str:
        """The token of a new invitation."""
        token = invitations.new_token()
        with Store(self.store.path).changing() as connection:
            invitations.add(
                connection,
                token=token,
                name=name,
                device=device,
                profile=profile or next(iter(self.settings.profiles)),
                now=self.clock(),
                expires=self.clock() + seconds,
                approve=approve,
            )
        return token

    def state(self, token: str) -> str:
        """What is stored of an invitation."""
        with Store(self.store.path).reading() as connection:
            found = invitations.by_token(connection, token, self.clock())
        assert found is not None
        return found.state.value

    @property
    def clients(self) -> list[clients.IssuedCertificate]:
        with Store(self.store.path).reading() as connection:
            return clients.all_of(connection)

    @property
    def attempts(self) -> list[dict[str, object]]:
        with Store(self.store.path).reading() as connection:
            return [dict(row) for row in connection.execute("SELECT * FROM attempts")]
