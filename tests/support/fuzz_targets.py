"""The fuzz targets: each takes any bytes and may answer or refuse, but raise nothing else.

`fuzz/fuzz.py` feeds them; `fuzz/corpus/` has the inputs to begin with.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from asking import Memory, site
from asking import policy as rules

from sidecar.authorizer.connection import Connection, Service
from sidecar.authorizer.decision_cache import Engine
from sidecar.authorizer.request_cache import RenderedDecision
from sidecar.authorizer.telemetry.counters import Counts
from sidecar.authorizer.telemetry.decision_log import DecisionLog
from sidecar.authorizer.telemetry.recorder import DecisionRecorder
from sidecar.core.config.settings import Limits
from sidecar.core.errors import MalformedCertificate, PolicyError
from sidecar.core.evaluate import OcspQuestion
from sidecar.core.nginx.host import normalize_host
from sidecar.core.nginx.uri import normalize_uri
from sidecar.core.policy.compile import compile_policy
from sidecar.core.request import AuthzRequest
from sidecar.core.revocation.crl.index import CrlError, read_crl
from sidecar.core.revocation.denylist import parse_denylist
from sidecar.core.revocation.ocsp.response import verify_response
from sidecar.core.revocation.status import RevocationStatus
from sidecar.core.x509.certificate import from_der, from_header

CORPUS = Path(__file__).resolve().parents[1] / "attack" / "fuzz" / "corpus"

_RULES = site("verified")

_CHOOSER = rules("""
version: 1
locations:
  - {name: root, location: /, allow: verified}
  - {name: admin, location: /admin/, allow: verified}
  - {name: exact, location: = /admin/x, allow: verified}
  - {name: final, location: ^~ /static/, allow: verified}
  - {name: script, location: '~ \\.php$', allow: verified}
  - {name: host, server_name: [app.example.com, "*.example.org"], location: /, allow: verified}
  - {name: upper, server_name: '~^www[0-9]', location: '~* ^/A.C', allow: verified}
""").chooser

_OCSP_MOMENT = 1795460036.0
"""When the corpus's responses hold (seconds since the epoch)."""


class _Outright(Service):
    """A service that doesn't turn a failed decision into an answer: here it shall be seen."""

    def decide(
        self, request: AuthzRequest, questions: list[OcspQuestion] | None = None
    ) -> RenderedDecision:
        return self.engine.decide(request, questions)


class Transport:
    """As much of a transport as a connection needs; keeps what was answered."""

    def __init__(self) -> None:
        self.sent = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        self.sent += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def get_extra_info(self, name: str) -> Transport:
        return self

    def fileno(self) -> int:
        return -1

    def getsockopt(self, *_: int) -> bytes:
        return bytes(12)  # root's

    def get_write_buffer_size(self) -> int:
        return 0

    abort = write_eof = close


def silent() -> DecisionRecorder:
    """A recorder whose records nobody reads."""
    return DecisionRecorder(Counts(), DecisionLog("off", "text", "stderr"))


def wire(data: bytes) -> None:
    """The authorization socket, with the bytes split where the first of them says.

    Nothing without a certificate that verifies may ever be allowed.
    """
    engine = Engine(_RULES, entries=16, answers={})
    service = _Outright(engine, silent(), Limits())
    connection, transport = Connection(service), Transport()
    connection.connection_made(transport)  # type: ignore[arg-type]  # one in all but name
    step = (data[0] if data else 0) + 1
    for at in range(0, len(data), step):
        connection.data_received(data[at : at + step])
    assert b" 204 " not in transport.sent
    assert b"callback" not in transport.sent


def certificate(data: bytes) -> None:
    """The `SSL-Client-Cert` header."""
    try:
        from_header(data)
    except MalformedCertificate:
        return


def policy(data: bytes) -> None:
    """policy.yaml."""
    try:
        compile_policy(data, "policy.yaml", Memory())
    except PolicyError:
        return


def crl(data: bytes) -> None:
    """A CRL, with an authority to check it against."""
    try:
        read_crl(data, "crl", _authority())
    except CrlError:
        return


def _authority() -> tuple[bytes, ...]:
    return ((CORPUS / "ca.der").read_bytes(),)


def denylist(data: bytes) -> None:
    """denylist.txt."""
    try:
        parse_denylist(data, "denylist.txt")
    except PolicyError:
        return


def ocsp(data: bytes) -> None:
    """An OCSP response.  The corpus has none that says good, so none made from it may be."""
    leaf, issuer = (from_der((CORPUS / f"ocsp-{name}.der").read_bytes()) for name in ("leaf", "ca"))
    answer = verify_response(data, leaf, issuer, _OCSP_MOMENT, 0.0)
    assert answer.status is not RevocationStatus.GOOD


def uri(data: bytes) -> None:
    """`$host`, a line end, `$request_uri`: a location of ours or none, and no way up."""
    host, _, target = data.partition(b"\n")
    found = _CHOOSER.choose(normalize_host(host.decode("latin-1")) or "", target)
    assert found is None or found in _CHOOSER.names
    for merged in (True, False):
        path = normalize_uri(target, merge_slashes=merged)
        if path is not None:
            assert path.startswith(b"/")
            assert not {b".", b".."} & set(path.split(b"/"))
            assert not (merged and b"//" in path)


TARGETS: dict[str, Callable[[bytes], None]] = {
    f.__name__: f for f in (wire, certificate, policy, crl, denylist, ocsp, uri)
}
