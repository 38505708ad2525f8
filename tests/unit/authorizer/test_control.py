"""Answer questions on the control socket."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import time
from pathlib import Path

import pytest
from asking import policy
from pki import CA

from sidecar.authorizer.control import RETRY, denylist_lines, serve_control
from sidecar.runtime.control_socket import LOCK, NAME, ask_all

STAFF = CA("Staff")
RULES = policy(
    """
version: 1
trust:
  staff: {ca: ca.crt, denylist: [a.txt, b.txt]}
  other: {ca: ca.crt}
locations: [{name: site, allow: verified}]
""",
    ca_crt=STAFF.pem,
    a_txt=b"serial 0a\nserial 0b until 2099-01-01\n",
    b_txt=b"serial 0A # again\n",
)


def test_each_line_in_force_is_named_by_file_and_number() -> None:
    """All denylists of a trust are searched, with any spelling of the number; a line without an end
    has `until` null."""
    found = denylist_lines(RULES, "/p.yaml", {"kind": "serial", "value": "0A"})
    assert found["policy"] == "/p.yaml"
    staff = found["trusts"]["staff"]
    assert [Path(each).name for each in staff["denylists"]] == ["a.txt", "b.txt"]
    assert [(Path(each["file"]).name, each["line"], each["until"]) for each in staff["lines"]] == [
        ("a.txt", 1, None),
        ("b.txt", 1, None),
    ]
    assert found["trusts"]["other"] == {"denylists": [], "lines": []}
    ends = denylist_lines(RULES, "", {"kind": "serial", "value": "b"})["trusts"]["staff"]["lines"]
    assert [each["line"] for each in ends] == [2]
    assert isinstance(ends[0]["until"], float)


@pytest.mark.parametrize(
    "question",
    [
        None,
        [],
        {},
        {"kind": "serial"},
        {"kind": "serial", "value": "xyz"},
        {"value": "0a"},
        {"kind": "cn", "value": "0a"},
        {"kind": "serial", "value": 10},
    ],
)
def test_another_question_is_an_error(question: object) -> None:
    """An invalid question gets an error text, never an exception."""
    assert set(denylist_lines(RULES, "", question)) == {"error"}


async def at_once() -> bool:
    """Everything is copied for the next start already."""
    return True


async def test_a_confirmation_waits_until_what_is_in_force_was_kept(tmp_path: Path) -> None:
    """No answer while copies for the next start are being written; one as soon as they are."""
    written, begun = asyncio.Event(), asyncio.Event()

    async def kept() -> bool:
        begun.set()
        await written.wait()
        return False

    task = asyncio.create_task(serve_control(tmp_path, tmp_path / "p.yaml", lambda: RULES, kept))
    async with asyncio.timeout(60):
        while not (tmp_path / NAME).exists():
            await asyncio.sleep(0.01)
        question = {"kind": "serial", "value": "0a"}
        asking = asyncio.create_task(asyncio.to_thread(ask_all, tmp_path, question, 30))
        await begun.wait()
        assert not asking.done()
        written.set()
        (told,) = await asking
        assert "staff" in told["trusts"]
        assert told["kept"] is False
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_questions_are_answered_until_the_end(tmp_path: Path) -> None:
    """Garbage closes its own connection alone; at the end the socket is removed."""
    task = asyncio.create_task(serve_control(tmp_path, tmp_path / "p.yaml", lambda: RULES, at_once))
    async with asyncio.timeout(60):
        while not (tmp_path / NAME).exists():
            await asyncio.sleep(0.01)
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / NAME))
        writer.write(b"garbage\n")
        assert await reader.read() == b""
        writer.close()
        question = {"kind": "serial", "value": "0a"}
        (found,) = await asyncio.to_thread(ask_all, tmp_path, question, 30)
    assert json.dumps(found["trusts"]["staff"]["lines"])
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert not (tmp_path / NAME).exists()


async def test_two_instances_that_start_at_once_both_answer_soon(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One that finds the other opening its socket tries again at once, and warns of nothing."""
    start = time.monotonic()
    with (tmp_path / LOCK).open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        task = asyncio.create_task(
            serve_control(tmp_path, tmp_path / "p.yaml", lambda: RULES, at_once)
        )
        await asyncio.sleep(0.2)
        assert not (tmp_path / NAME).exists()
    async with asyncio.timeout(60):
        while not (tmp_path / NAME).exists():
            await asyncio.sleep(0.01)
    assert time.monotonic() - start < RETRY
    assert not caplog.records
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
