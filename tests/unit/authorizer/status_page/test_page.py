"""The status page: what it says, that it is bounded, and that no name gets out of its place."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path

import pytest
from pki import CA, now
from status_scene import Scene

from sidecar.authorizer.daemon_status import DaemonStatus
from sidecar.authorizer.status_page.headers import HEADERS, SCRIPT
from sidecar.authorizer.status_page.page import render_page
from sidecar.authorizer.telemetry.counters import Counts
from sidecar.core.request import AuthzRequest
from sidecar.core.seen_clients import Visit
from sidecar.core.x509.certificate import ClientCert, from_der

staff, partners = CA("Staff"), CA("Partners")
MOMENT = now().timestamp()
POLICY = """\
version: 1
trust:
  staff: {ca: ca.crt, crl: crl.pem, revocation: REVOCATION}
locations:
  - {name: site, allow: [{cn: alice}], deny: [{cn: mallory, name: no contractors}]}
  - {name: watched, allow: [{cn: alice}], mode: monitor}
  - {name: open, allow: public}
"""
HOSTILE = [
    '<script>document.title="pwned"</script>',
    '"><img src=x onerror="document.title=1">',
    "</pre></title></style><svg onload=alert(1)>",
    "javascript:alert(1)",
    "{{ 7919 * 7907 }}{% raw %}",
    "\u202egnp.exe",
    "a" * 64,
]


class Tags(HTMLParser):
    """The elements of a page, and their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes += attrs


def cert(name: str, days: float = 90) -> ClientCert:
    return from_der(staff.issue(name, not_after=now() + timedelta(days=days)).der)


def scene(
    directory: Path, policy: str = POLICY, revocation: str = "required", end: int = 24
) -> Scene:
    (directory / "ca.crt").write_bytes(staff.pem)
    begin, until = now() - timedelta(days=4), now() + timedelta(hours=end)
    (directory / "crl.pem").write_bytes(staff.crl(this_update=begin, next_update=until))
    return Scene(directory, policy.replace("REVOCATION", revocation), MOMENT)


def text(page: str) -> str:
    """What a person reads."""
    shown = re.sub(r"(?s)<(style|script)>.*?</\1>", "", page)
    return " ".join(re.sub(r"<[^>]*>", " ", shown).split())


def test_nothing_is_wrong(tmp_path: Path) -> None:
    """A daemon without a fault says so first."""
    found = scene(tmp_path, end=96)
    found.ask("site", cert("alice"))
    page = render_page(found.status, MOMENT)
    assert "Nothing is wrong" in page
    assert "<title>OK" in page


def test_what_is_wrong_comes_first_the_worst_before_the_rest(tmp_path: Path) -> None:
    """A refused reload with its diagnostics, an ended CRL and how many it locks out, lost lines."""
    found = scene(tmp_path, end=-1)
    for name in ("alice", "bob"):
        found.ask("site", cert(name))
    found.counts.log_dropped = lambda: 7
    status = found.status
    status.problems = ("policy.yaml:3:1: unknown key 'alow'",)
    status.standing = lambda: ("decision log: lines are lost: No space left on device",)
    page = text(render_page(status, MOMENT))
    order = [
        "The last reload was refused",
        "policy.yaml:3:1: unknown key &#39;alow&#39;",
        "Decision log lines are lost: No space left on device",
        "CRL crl.pem of trust staff ended",
        "2 clients have come since",
        "7 lines of the decision log were lost",
        "The last hour",
    ]
    places = [page.find(each) for each in order]
    assert -1 not in places
    assert places == sorted(places)


def test_without_a_policy_it_says_what_is_to_be_mended() -> None:
    """The page is there before the first policy is."""
    status = DaemonStatus(Counts(), problems=("policy.yaml: can't be read: No such file",))
    page = text(render_page(status, MOMENT))
    assert "No policy is in force: nothing is served" in page
    assert "can&#39;t be read" in page


def test_a_denial_is_explained_step_by_step(tmp_path: Path) -> None:
    """As `explain` does: each step, what it saw, and the one that denied."""
    found = scene(tmp_path, end=96)
    found.ask("site", cert("mallory"), request_id="c0ffee", uri="/secret?x=1")
    page = render_page(found.status, MOMENT)
    steps = re.findall(r'<li class="(passed|stopped)"><span>(\w+)</span> <span>(.*?)</span>', page)
    assert [name for _, name, _ in steps] == (
        "location public certificate verify readable validity issuer revocation names origin deny"
    ).split()
    assert steps[-1] == ("stopped", "deny", "no contractors matches")
    assert "/secret?..." in page
    assert "x=1" not in page  # a query may hold a token, and any local user may read the page


def test_a_denial_is_found_by_its_request_id(tmp_path: Path) -> None:
    """By the beginning of the id, in either case; one that isn't there is not."""
    found = scene(tmp_path, end=96)
    for number in range(100):
        who = cert("bob") if number % 10 == 0 else None
        found.ask("site", who, request_id=f"{number:032x}")
    page = render_page(found.status, MOMENT, f"{10:032X}")
    assert re.findall(r"<code>([0-9a-f]{32})</code>", page) == [f"{10:032x}"]
    assert page.count('<details class="denial"') == page.count(" open>") == 1
    page = text(page)
    assert "CN=bob" in page
    assert "(no certificate)" not in page
    page = text(render_page(found.status, MOMENT, "f" * 32))
    assert "mtls-sidecar why REQUEST_ID" in page


def test_clients_are_found_by_name(tmp_path: Path) -> None:
    """With their end and their last decision; those that end first stand first."""
    found = scene(tmp_path, end=96)
    for name, days in (("alice", 200), ("bob", 2), ("carol", 40)):
        found.ask("site", cert(name, days))
    page = text(render_page(found.status, MOMENT))
    seen = page[page.find("Clients seen") :]
    assert seen.find("CN=bob") < seen.find("CN=carol") < seen.find("CN=alice")
    page = text(render_page(found.status, MOMENT, "carol"))
    assert "CN=bob" not in page
    assert "in 40 d" in page


def test_monitor_mode_tells_whom_enforcing_would_lock_out(tmp_path: Path) -> None:
    """The number of clients, by reason, and their names."""
    found = scene(tmp_path, end=96)
    for name in ("alice", "bob", "carol"):
        found.ask("watched", cert(name), times=3)
    page = text(render_page(found.status, MOMENT))
    row = page[page.find("Monitor mode") :]
    assert "watched 2 2 not_allowed CN=bob · CN=carol" in row


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_text(tmp_path: Path, name: str) -> None:
    """In a subject, a URI, a host, an address, an id, a mistake, a query: never markup."""
    found = scene(tmp_path, end=96)
    found.ask(
        "site",
        replace(cert("x"), dn=name),
        request_id=name,
        uri=name,
        request=AuthzRequest(None, host=name, client_ip=name, method=name, server_name=name),
    )
    found.status.problems = (f"policy.yaml:1:1: {name}",)
    found.status.standing = lambda: (f"{name}: {name}",)
    plain = Tags(render_page(scene(tmp_path, end=96).status, MOMENT))
    page = render_page(found.status, MOMENT, name)
    tags = Tags(page)
    allowed = plain.names | set(
        "article pre details summary ol li dl dt dd tr th td tbody thead table code rect "
        "br b a time span h3 p ul path svg figure figcaption".split()
    )
    assert tags.names <= allowed
    assert page.count("<script") == page.count("<style") == 1
    assert not [key for key, _ in tags.attributes if key.startswith("on") or key == "style"]
    assert not any(
        (value or "").startswith("javascript:") for key, value in tags.attributes if key == "href"
    )
    assert "\u202e" not in page
    assert str(7919 * 7907) not in text(page)


def test_the_page_is_bounded(tmp_path: Path) -> None:
    """Ten thousand locations, each asked, and thousands of clients: a page of bounded size."""
    (tmp_path / "ca.crt").write_bytes(staff.pem)
    many = "".join(
        f"  - {{name: l{i}, allow: [{{cn: a}}], mode: monitor}}\n" for i in range(10_000)
    )
    found = Scene(tmp_path, f"version: 1\nlocations:\n{many}", MOMENT)
    for number in range(10_000):
        found.counts.decisions[f"l{number}", "deny", "not_allowed"] = number
        found.counts.locked_out[f"l{number}"] = {f"{number:064x}": ("not_allowed", "")}
    plain = cert("many")
    for number in range(3_000):
        client = replace(plain, sha256=f"{number:064x}", dn="CN=" + "x" * 250)
        found.seen.note(client, "l1", Visit(MOMENT, "allow", "not_allowed", ""))
    page = render_page(found.status, MOMENT)
    assert len(page) < 500_000
    assert page.count("<tr>") < 250
    assert "9,950 locations more" not in page  # a minute is kept of the hundred busiest alone
    assert "l9999" in page


def test_nothing_is_loaded_and_nothing_is_inline() -> None:
    """The page's own style and script are named by their hashes; nothing else is allowed."""
    policy = HEADERS["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert "http" not in policy
    page = render_page(DaemonStatus(Counts()), MOMENT)
    tags = Tags(page)
    sources = [value for key, value in tags.attributes if key in ("src", "href", "action")]
    assert all(value and value.startswith(("/", "data:image/svg+xml,")) for value in sources)
    assert page.count("<script>") == page.count("<style>") == 1


def test_it_refreshes_with_its_readers_certificate() -> None:
    """Behind nginx Firefox shows no certificate with `credentials: "omit"` (seen with 153)."""
    assert 'fetch(location.href, { cache: "no-store", credentials: "same-origin" })' in SCRIPT
