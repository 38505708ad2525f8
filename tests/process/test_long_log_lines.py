"""No line of a log is longer than 8 KiB or begins with what somebody else chose."""

from __future__ import annotations

import json
import os
import random
import re
import secrets
from pathlib import Path
from typing import Any

import pytest
from daemon import Daemon, question
from pki import CA

from sidecar.authorizer.request_cache import CachedAnswer, RenderedDecision
from sidecar.authorizer.telemetry.decision_log import CUT, MAX_LINE, DecisionLog
from sidecar.core.decision import Decision, Reason
from sidecar.core.request import AuthzRequest
from sidecar.core.x509.certificate import ClientCert, from_der

staff = CA("Staff")
POLICY = """\
version: 1
trust: {staff: {ca: ca.crt}}
locations: [{name: site, location: /, allow: verified}, {name: named, allow: verified}]
"""
LONG = 30_000
WORST = ["\xff", "\x00", "\x7f", '"', "\\", "<", "\u202e", "\U0001f600", "\n<0>", "A"]


def logged(tmp_path: Path, form: str, write: Any) -> list[bytes]:
    """The lines of a decision log."""
    log = DecisionLog("all", form, str(tmp_path / f"{secrets.token_hex(4)}.log"))
    write(log)
    log.close()
    return Path(log._path).read_bytes().splitlines(keepends=True)


def strange(text: str) -> ClientCert:
    """A certificate whose every name is this text: no authority would issue it."""
    leaf = from_der(staff.issue("alice").der)
    object.__setattr__(leaf, "dn", text)
    return leaf


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("text", WORST, ids=ascii)
def test_no_value_makes_a_long_line(tmp_path: Path, form: str, text: str) -> None:
    """Every value at once, of the text that is escaped longest, in both forms and both ways."""
    long = text * (LONG // len(text))
    latin = "".join(c if ord(c) < 256 else "\xff" for c in long)
    decision = Decision(
        Reason.NOT_ALLOWED, location=long, rule=long, subject=strange(long), detail=long
    )
    request = AuthzRequest(
        long, latin, latin, b"", latin, latin.encode("latin-1"), latin, latin, latin
    )

    def write(log: DecisionLog) -> None:
        answered = RenderedDecision(decision, b"", 0.0, 1.0)
        log.write(answered, request, 0.1)
        log.write(answered, None, 0.1)
        again = CachedAnswer(request, answered, b"", 0.0, 1.0)
        uri = latin.encode("latin-1").replace(b"\n", b"")
        log.write_cached([(again, uri, b"0" * 32, 0.0, 1e9), (again, None, b"1" * 32, 0.0, 0.1)])

    lines = logged(tmp_path, form, write)
    assert len(lines) == 4
    for line in lines:
        assert len(line) <= MAX_LINE
        assert line.isascii()
        assert b"<" not in line
        values = (
            json.loads(line)
            if form == "json"
            else {
                n: json.loads(v) for n, v in re.findall(r'(\w+)=("(?:[^"\\]|\\.)*")', line.decode())
            }
        )
        assert {"uri", "subject", "detail", "id"} <= set(values)
        for value in values.values():
            str(value).encode()  # no half of a surrogate pair


@pytest.mark.parametrize("form", ["text", "json"])
def test_values_of_usual_length_stay_whole(tmp_path: Path, form: str) -> None:
    """What is cut ends in dots; what fits is as it came, `<` as an escape of JSON."""
    decision = Decision(Reason.NOT_ALLOWED, detail="a<b")
    uri = b"/" + b"a" * 2047
    lines = logged(
        tmp_path,
        form,
        lambda log: [
            log.write(
                RenderedDecision(decision, b"", 0.0, 1.0), AuthzRequest("site", uri=each), 0.1
            )
            for each in (uri, uri + b"b")
        ],
    )
    assert uri in lines[0]
    assert b"a\\u003cb" in lines[0]
    assert uri[: 2048 - len(CUT)] + CUT.encode() in lines[1]


def test_cutting_splits_no_escape() -> None:
    """Whatever is cut reads back as a beginning of what it was (seed printed)."""
    from sidecar.authorizer.telemetry.decision_log import _inside

    seed = random.randrange(2**32)
    print("seed", seed)
    some = random.Random(seed)
    for _ in range(2000):
        text = "".join(some.choice([*WORST, "\\u", "\u00e9"]) for _ in range(some.randrange(60)))
        most = some.randrange(8, 90)
        found = _inside(text, most)
        assert len(found) <= most
        read = json.loads(f'"{found}"')
        read.encode()
        assert read == text or text.startswith(read.removesuffix(CUT))


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_stranger_s_uri_makes_no_record_of_its_own(tmp_path: Path, form: str) -> None:
    """7,500 bytes 0xff, and a URI full of `<0>`, first and again: lines of the daemon's own."""
    with Daemon(tmp_path, POLICY, f"log_format: {form}\n", ca_crt=staff.pem) as daemon:
        for location in ("site", "named", None):
            for uri in ("/" + "\xff" * 7500, "/" + "<0>" * 2500, "/<0>"):
                for _ in range(3):
                    with daemon.client() as client:
                        client.send(question(location, None, {"X-Original-URI": uri}))
                        assert client.receive() is not None
    lines = daemon.log.read_bytes().splitlines()
    decisions = [line for line in lines if b"no_certificate" in line]
    assert len(decisions) == 27
    for line in lines:
        assert len(line) < MAX_LINE
        assert b"<" not in line
        assert re.match(rb"20\d\d-|\{\"time\"|INFO |WARNING |    ", line), line[:80]


def test_the_journal_has_the_daemons_priorities(tmp_path: Path) -> None:
    """Where stderr is the journal, each line of a message begins with its priority; else none."""
    daemon = Daemon(tmp_path, POLICY, ca_crt=staff.pem)
    daemon.log.touch()
    found = os.stat(daemon.log)
    daemon.environ["JOURNAL_STREAM"] = f"{found.st_dev}:{found.st_ino}"
    with daemon:
        daemon.write("policy.yaml", "version: [\n")
        daemon.until(lambda: daemon.has_failed(1))
        with daemon.client() as client:
            client.ask("site", None, {"X-Original-URI": "/<0>"})
    lines = daemon.log.read_text().splitlines()
    assert any(line.startswith("<6>INFO mtls-sidecar ") and " serving " in line for line in lines)
    errors = [line for line in lines if line.startswith("<3>")]
    assert errors[0].startswith("<3>ERROR ")
    assert errors[1].startswith("<3>    ")
    assert "<0>" not in "".join(lines)
    daemon.environ["JOURNAL_STREAM"] = "1:1"
    daemon.write("policy.yaml", POLICY)
    before = len(daemon.log.read_text())
    with daemon:
        pass
    assert "<6>" not in daemon.log.read_text()[before:]
