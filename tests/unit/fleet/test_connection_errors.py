"""What is wrong with a connection to a NATS server, in words."""

from __future__ import annotations

import errno

import pytest

from sidecar.core.config.fleet_settings import FleetTls
from sidecar.fleet.connection_errors import in_words


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
        BrokenPipeError(errno.EPIPE, "Broken pipe"),
        ConnectionError("unexpected end"),
    ],
)
def test_a_connection_that_the_server_closed_names_the_certificate(error: Exception) -> None:
    """A server that refuses it closes the connection; its alert may be overtaken by that."""
    told = in_words(error, FleetTls())
    assert (
        told == "it closed the connection: does it accept no certificate, as tls: cert: names none?"
    )


def test_a_server_that_is_not_there() -> None:
    """Says nothing of certificates."""
    refused = ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
    assert in_words(refused, FleetTls()) == "connection refused"
