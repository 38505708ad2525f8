"""Every fault under a steady load through a real nginx, in a booted systemd.

300 questions a second with client certificates, among them a revoked and a not allowed one.
`tests/booted.sh` runs a longer form of the same script, booted/faults.sh, and prints it as a table.
"""

from __future__ import annotations

import pytest
from faults import Fault, Seen, run, table
from tools import NginxBinary, faketime, need, nginx_binaries, systemd_nspawn

PLANNED = (
    "no fault",
    "restarts",
    "nginx reloads",
    "log rotations",
    "policy edits",
    "reload and restart with a bad policy",
    "restarts without CA, CRL, denylist",
    "journal hung and restarted",
    "full disk for the log",
    "flood of strangers",
    "fetcher and responder hung and dead",
    "clock: a day forwards and back",
    "after the clock was off",
    "after the CRL was replaced",
    "two instances, restarted in turn",
)
KILLED = "killed: kill -9"
DENYING = ("denies: clock ten years off", "denies: a CRL that has ended")


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """What the script saw, and its table in the test's output."""
    nspawn = need(systemd_nspawn())
    need(faketime())
    nginx = nginx_binaries()[1]
    need(nginx)
    assert isinstance(nginx, NginxBinary)
    found = run(tmp_path_factory.mktemp("faults"), nspawn, nginx, full=False)
    assert found.values.get("finished") == "yes", found.console
    return found


def the(seen: Seen, name: str) -> Fault:
    """One fault; the table is shown where the test fails."""
    print(table(seen))
    assert name in seen.faults, seen.console
    assert seen.faults[name].asked > 50
    return seen.faults[name]


@pytest.mark.parametrize("name", [*PLANNED, KILLED, *DENYING])
def test_nobody_is_let_in_wrongly(seen: Seen, name: str) -> None:
    """Whatever happens: not the revoked client, nor the one that isn't allowed, nor a stranger."""
    assert the(seen, name).wrong == 0


@pytest.mark.parametrize("name", PLANNED)
def test_no_request_is_lost(seen: Seen, name: str) -> None:
    """Each is answered, and as always."""
    assert the(seen, name).failed == 0, seen.console


def test_of_those_under_way_some_are_lost_when_the_process_is_killed(seen: Seen) -> None:
    """At most one of each of the twelve askers, each time."""
    assert the(seen, KILLED).failed <= 3 * 12


def test_a_crl_that_has_ended_denies_and_says_whom(seen: Seen) -> None:
    """Everyone of its trust is denied, an ERROR names the locations, /readyz warns."""
    assert the(seen, "denies: a CRL that has ended").failed > 0
    assert seen.values["ended_ready"] == "yes"
    assert seen.values["ended_said"] == "1"


def test_a_full_disk_is_said_once_and_when_it_is_over(seen: Seen) -> None:
    """In the journal once, on /readyz while it lasts, and in the journal when it is over."""
    saw = {name: seen.values[name] for name in ("disk_page", "disk_said", "disk_over")}
    assert saw == {"disk_page": "1", "disk_said": "1", "disk_over": "1"}, seen.console


def test_strangers_can_not_flush_the_log(seen: Seen) -> None:
    """A flood leaves some hundred lines, and summaries with its number."""
    asked = int(seen.values["flood_asked"])
    assert asked > 500
    assert int(seen.values["log_summaries"]) > 0
    assert int(seen.values["log_strangers"]) < int(seen.values["log_lines"]) / 2


def test_a_reload_with_a_mistake_fails(seen: Seen) -> None:
    """`systemctl reload` says so."""
    assert seen.values["bad_reload"] == "refused"
