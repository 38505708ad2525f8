"""Why there is no connection to a NATS server, in words: what is wrong, and what to look at."""

from __future__ import annotations

import os
import socket
import ssl
from datetime import UTC, datetime

from cryptography import x509

from sidecar.core.config.fleet_settings import FleetTls
from sidecar.core.errors import brief
from sidecar.runtime.files import read_file

_MAX_PEM = 1024 * 1024


def in_words(error: BaseException, tls: FleetTls) -> str:
    """One line about an error of a connection; of what the server refuses it says little itself."""
    text = brief(error).removeprefix("nats: ")
    match error:
        case ssl.SSLCertVerificationError():
            mine = tls.ca or "the system's authorities"
            return f"its certificate is not accepted: {error.verify_message} (tls: ca: {mine})"
        case ssl.SSLError():
            reason = (error.reason or text).replace("_", " ").lower()
            return f"TLS fails: {reason} ({_certificate(tls)})"
        case TimeoutError() | socket.timeout():
            return "it does not answer in time"
        case ConnectionResetError() | BrokenPipeError():  # may overtake the alert of TLS 1.3
            return f"it closed the connection: does it accept {_certificate(tls)}?"
        case ConnectionError() if not error.errno:
            return f"it closed the connection: does it accept {_certificate(tls)}?"
        case socket.gaierror():
            return text[:1].lower() + text[1:]
        case OSError() if error.errno:
            return os.strerror(error.errno).lower()
    if "authorization violation" in text.lower():
        return f"it gives no user of its configuration to {_certificate(tls)}"
    return text


def _certificate(tls: FleetTls) -> str:
    """The certificate that is shown to servers, with what they map to a user, and its end."""
    if not tls.cert:
        return "no certificate, as tls: cert: names none"
    try:
        cert = x509.load_pem_x509_certificate(read_file(tls.cert, _MAX_PEM))
    except (OSError, ValueError) as error:
        return f"{tls.cert}, {brief(error)}"
    end = cert.not_valid_after_utc
    told = f", which ended {end:%Y-%m-%d}" if end < datetime.now(UTC) else ""
    return f"{tls.cert}{told}, subject {cert.subject.rfc4514_string()}"


def tls_context(tls: FleetTls) -> ssl.SSLContext:
    """What to connect with.  Raises ValueError that names the file which can't be used."""
    try:
        context = ssl.create_default_context(cafile=tls.ca or None)
    except OSError as error:
        raise ValueError(
            f"{tls.ca} can't be used as the authority of the NATS servers: {_why(error)}",
            "name its certificate in PEM: tls: ca:",
        ) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if tls.cert:
        for path in (tls.cert, tls.key):
            read_file(path, _MAX_PEM)
        try:
            context.load_cert_chain(tls.cert, tls.key)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{tls.cert} and {tls.key} are no certificate and its key: {_why(error)}"
            ) from None
    return context


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        words = (error.reason or "").replace("_", " ").lower()
        return words or "it is no PEM"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return brief(error)
