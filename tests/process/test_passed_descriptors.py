"""A real daemon to which nginx's user passes descriptors whose close lingers (unix(7))."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemon import UNMEASURED, Daemon, question
from lingering import OLDER_KERNEL, lingering, pass_along
from pki import CA

STAFF = CA("Staff")
BOB = STAFF.issue("bob")
POLICY = """\
version: 1
trust: {staff: {ca: ca.crt, denylist: [list.txt]}}
locations: [{name: site, allow: verified}]
"""
ASKED = question("site", BOB)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    found = Daemon(
        tmp_path, POLICY, "limits: {max_connections: 2}\n", ca_crt=STAFF.pem, list_txt=b""
    )
    found.under = [sys.executable, "-c", OLDER_KERNEL]
    found.environ = UNMEASURED
    with found:
        yield found


def test_where_the_kernel_takes_descriptors_they_hold_up_no_decision(daemon: Daemon) -> None:
    """Before Linux 6.16: beside a question, behind one, and on a connection over the limit; then
    decisions go on, a line takes effect, and the log says whose user passed them."""
    with daemon.client() as asking, lingering() as (passed, _):
        for octets, behind in ((ASKED, b""), (ASKED[:50], b""), (ASKED, b"x")):
            with daemon.client() as peer:
                if behind:
                    peer.send(octets)
                with contextlib.suppress(BrokenPipeError):  # closed already, as it doesn't wait
                    pass_along(peer.socket, behind or octets, passed.fileno())
                while peer.receive() is not None:
                    pass
            assert asking.ask("site", BOB).status == 204
        with daemon.client() as second:
            assert second.ask("site", BOB).status == 204
            with daemon.client() as third, contextlib.suppress(BrokenPipeError):
                pass_along(third.socket, ASKED, passed.fileno())
            passed.close()
            daemon.write("list.txt", f"sha256 {BOB.sha256}\n")
            daemon.until(lambda: second.ask("site", BOB).reason == "revoked")
    assert daemon.log.read_text().count("passed descriptors on a connection") == 1
