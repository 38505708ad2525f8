"""A file that couldn't be sent waits for the same request, for a minute, and is given once."""

from __future__ import annotations

from issuing import Clock

from sidecar.enroll.bundles import File
from sidecar.enroll.issuance import Wanted
from sidecar.enroll.undelivered import MOST, SECONDS, UndeliveredFiles

FILE = File(b"data", "text/plain", "a.p12")


def test_a_file_is_given_once_to_who_asks_for_the_same() -> None:
    """Another link, another kind of file or a second time: nothing."""
    files = UndeliveredFiles(Clock())
    files.put("token", Wanted("p12"), FILE)
    assert files.take("other", Wanted("p12")) is None
    assert files.take("token", Wanted("csr")) is None
    assert files.take("token", Wanted("p12")) == FILE
    assert files.take("token", Wanted("p12")) is None


def test_files_are_forgotten() -> None:
    """After a minute, and the oldest beyond a bound."""
    clock = Clock()
    files = UndeliveredFiles(clock)
    for number in range(MOST + 1):
        files.put(str(number), Wanted("p12"), FILE)
    assert not files.has("0")
    assert files.has(str(MOST))
    clock.now += SECONDS
    assert not files.has(str(MOST))
