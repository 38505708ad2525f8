"""The examples of the documents, decided by the code that the daemon decides with.

A table with a column `decision` is a table of cases: each row makes a policy, a certificate and a
request, and its last cell is the line with which `mtls-sidecar explain` ends, or `mistake: …` where
`check` refuses the policy with that message.  A YAML block that
begins with `version: 1` is a policy and must compile; a block with the title `cases` asks the
policy above it.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from asking import Memory
from described import START, authority, described
from pages import ROOT, Block, Row, blocks, code, pages, tables
from pki import CA, Leaf

from sidecar.commands.explain import as_text, explain
from sidecar.core.answer import render
from sidecar.core.config.dates import parse_date
from sidecar.core.config.schema import keys_of
from sidecar.core.decision import Decision, Reason, Step
from sidecar.core.errors import PolicyError
from sidecar.core.evaluate import STEPS
from sidecar.core.nginx.host import normalize_host
from sidecar.core.policy.compile import compile_policy
from sidecar.core.policy.model import Policy
from sidecar.core.policy.spec import (
    BehaviourSpec,
    LocationSpec,
    PolicySpec,
    TrustSpec,
    rule_schema,
)
from sidecar.core.request import assemble_request

NOW = datetime(2026, 6, 1, tzinfo=UTC)
"""The moment of an example that names none."""

STAFF, PARTNERS = authority("Staff CA"), authority("Partners CA")
ISSUING = authority("Issuing CA", issuer=STAFF)
ENDED = authority("Ended CA", not_after=NOW - timedelta(days=1))
AUTHORITIES = {"staff": STAFF, "partners": PARTNERS, "issuing": ISSUING, "ended": ENDED}


def case_rows() -> list[Row]:
    """The rows of every table of cases."""
    found = (rows for page in pages() for rows in tables(page))
    return [row for rows in found for row in rows if "decision" in row.cells]


# -- a row: a policy, a certificate, a request


def flow(text: str) -> Any:
    """YAML in which every scalar is text, as in a policy."""
    return yaml.load(text, Loader=yaml.BaseLoader)


def cell(row: Row, name: str, default: str = "") -> str:
    """A cell's text; the default where it is empty or there is no such column."""
    return code(row.cells.get(name, "")) or default


def malformed() -> dict[str, bytes]:
    """Values of SSL-Client-Cert that are no readable certificate, by what is wrong with them."""
    alice = described(STAFF, {"cn": "alice"})
    forged = {
        "a control character in the CN": STAFF.forge(cn="a\x01"),
        "NUL in a DNS name": STAFF.forge(dns=["app.example.com\0.evil.example"]),
        "an extension twice": STAFF.forge(repeat_extensions=True),
        "a serial number of 129 octets": STAFF.forge(serial=1 << 1024),
        "an octet behind the DER": replace(alice, der=alice.der + b"\0"),
    }
    return {
        "not PEM": b"MIIB",
        "two certificates": alice.escaped * 2,
        "text around the PEM": b"Certificate:%0A" + alice.escaped,
        **{what: leaf.escaped for what, leaf in forged.items()},
    }


def leaf_of(text: str) -> Leaf | CA | bytes | None:
    """The certificate that a cell describes; bytes are the header's value itself."""
    if text == "none":
        return None
    if not text.startswith("{"):
        return malformed()[text]
    fields = flow(text)
    if "ca" in fields:
        return AUTHORITIES[fields["ca"]]
    issuer = AUTHORITIES[fields.pop("trust", "staff")]
    return described(issuer, fields)


def crl(words: str, leaf: Leaf | CA | bytes | None) -> bytes:
    """The CRL that a cell describes in words."""
    assert isinstance(leaf, Leaf)
    assert leaf.issuer is not None
    known = {"lists it", "does not list it", "ended", "of the future", "without nextUpdate"}
    said = set(words.split(", "))
    start = NOW - timedelta(hours=1)
    if found := re.fullmatch(r"(ended|begins in) (\d+) seconds(?: ago)?", words):
        apart = timedelta(seconds=int(found[2]))
        start = NOW + apart if found[1] == "begins in" else NOW - timedelta(days=1) - apart
    else:
        assert said <= known, f"unknown words about a CRL: {said - known}"
    if "ended" in said:
        start = NOW - timedelta(days=2)
    if "of the future" in said:
        start = NOW + timedelta(days=2)
    revoked = [leaf] if "lists it" in said else []
    return leaf.issuer.crl(revoked, this_update=start, next_update=start + timedelta(days=1))


_TRUST_COLUMNS = {"trust", "second trust", "CRL", "denylist", "CA file"}


def trusts_of(row: Row, leaf: Leaf | CA | bytes | None, files: dict[str, bytes]) -> dict[str, Any]:
    """The `trust:` of a row's policy; its files are put into `files`."""
    if not _TRUST_COLUMNS & set(row.cells):
        return {}
    names = cell(row, "CA file", "staff").split(", ")
    assert not isinstance(leaf, bytes | None)
    files["ca.crt"] = b"".join(
        leaf.pem if name == "the certificate itself" else AUTHORITIES[name].pem for name in names
    )
    first = {
        **flow(cell(row, "trust", "{}")),
        **{key: words for key in ("crl", "denylist") if (words := cell(row, _HEADINGS[key]))},
    }
    written = {"first": first}
    if second := cell(row, "second trust"):
        written["second"] = flow(second)
    return {name: _trust(name, trust, leaf, files) for name, trust in written.items()}


_HEADINGS = {"crl": "CRL", "denylist": "denylist"}


def _trust(
    name: str, written: dict[str, Any], leaf: Leaf | CA | bytes | None, files: dict[str, bytes]
) -> dict[str, Any]:
    """One trust, with files in place of the words for its CRL and its denylist."""
    trust = {"ca": "ca.crt", **written}
    if trust.get("crl") == "not fetched yet":
        trust["crl"] = "http://crl.example/ca.crl"
    elif "crl" in trust:
        files[f"{name}.crl"] = crl(trust["crl"], leaf)
        trust["crl"] = f"{name}.crl"
    if "denylist" in trust:
        assert isinstance(leaf, Leaf)
        files[f"{name}.txt"] = trust["denylist"].replace("SERIAL", f"{leaf.serial:X}").encode()
        trust["denylist"] = f"{name}.txt"
    return trust


def policy_of(row: Row, leaf: Leaf | CA | bytes | None) -> Policy:
    """The policy of a row: one location, `site`."""
    location: dict[str, Any] = {"name": "site", "allow": flow(cell(row, "allow", "verified"))}
    if cell(row, "allow") == "left out":
        del location["allow"]
    if deny := cell(row, "deny"):
        location["deny"] = flow(deny)
    more = flow(cell(row, "location", "{}"))
    location |= {key: value or _EMPTY for key, value in more.items()}
    files: dict[str, bytes] = {}
    whole: dict[str, Any] = {"version": "1", "locations": [location]}
    if trusts := trusts_of(row, leaf, files):
        whole["trust"] = trusts
    for part in ("groups", "defaults"):
        if text := cell(row, part):
            whole[part] = flow(text)
    text = yaml.safe_dump(whole).replace(_EMPTY, "")
    return compile_policy(text.encode(), "policy.yaml", Memory(files))


_EMPTY = "left-empty"
"""Stands for a key with nothing behind it, until the policy is text."""


@dataclass(frozen=True)
class Case:
    """What is asked of a policy, and the line that `explain` should end with."""

    policy: Policy
    leaf: Leaf | CA | bytes | None
    location: str | None
    fields: dict[str, str]
    expected: str

    def ask(self) -> str:
        """The line with which `explain` ends."""
        decision, steps, _ = self.decide()
        return as_text(decision, steps).splitlines()[-1]

    def headers(self) -> list[str]:
        """The lines of the answer to nginx."""
        decision, _, now = self.decide()
        return render(decision, self.policy.hash, now).decode().splitlines()

    def decide(self) -> tuple[Decision, list[Step], float]:
        """The decision, its steps and its moment."""
        fields = dict(self.fields)
        now = parse_date(fields.pop("now", f"{NOW:%Y-%m-%dT%H:%M:%SZ}"))
        fields.setdefault("verify", "NONE" if self.leaf is None else "SUCCESS")
        fields["server_name"] = fields.pop("sni", "")
        fields["host"] = normalize_host(fields.get("host", "")) or fields.get("host", "")
        found = {name: value.encode("latin-1") for name, value in fields.items()}
        if self.leaf is not None:
            found["cert"] = escaped(self.leaf)
        return *explain(self.policy, assemble_request(self.location, found), now), now


def escaped(leaf: Leaf | CA | bytes) -> bytes:
    """A certificate as nginx forwards it."""
    if isinstance(leaf, bytes):
        return leaf
    return (leaf if isinstance(leaf, Leaf) else Leaf("ca", leaf.der, leaf.key)).escaped


@pytest.mark.parametrize("row", case_rows(), ids=str)
def test_a_case_of_a_table_is_decided_as_it_says(row: Row) -> None:
    """The last cell is the line with which `explain` ends, or the mistake in the policy."""
    leaf = leaf_of(cell(row, "certificate", "{cn: alice}"))
    request = flow(cell(row, "request", "{}"))
    kind, _, message = cell(row, "decision").partition(": ")
    if kind == "mistake":
        with pytest.raises(PolicyError, match=re.escape(message)):
            policy_of(row, leaf)
        return
    case = Case(policy_of(row, leaf), leaf, "site", request, cell(row, "decision"))
    assert case.ask() == case.expected, row
    headers = case.headers()
    if identity := cell(row, "identity headers"):
        assert any(line.startswith("X-Client-DN: ") for line in headers) is (identity == "yes")
    if caching := cell(row, "caching"):
        assert caching in headers


# -- policies in blocks, and cases about them


def policy_blocks() -> list[Block]:
    """Every YAML block that is a whole policy."""
    found = (block for page in pages() for block in blocks(page))
    return [each for each in found if each.language == "yaml" and "version: 1\n" in each.text]


def compiled(block: Block) -> Policy:
    """The policy of a block, with files that are what their names say."""
    files = {}
    for path in re.findall(r"[\w/.-]+\.(?:crt|pem|txt|crl)\b", block.text):
        name = re.sub(r"\W|crt|pem", "", path.rpartition("/")[2])
        issuer = PARTNERS if "partner" in name else STAFF
        files[path] = issuer.pem
        if "crl" in path:
            files[path] = issuer.crl(this_update=START, next_update=NOW + timedelta(days=1))
        if path.endswith(".txt"):
            files[path] = b""
    return compile_policy(block.text.encode(), str(block), Memory(files))


@pytest.mark.parametrize("block", policy_blocks(), ids=str)
def test_a_policy_in_a_document_compiles(block: Block) -> None:
    """`check` accepts it without a warning."""
    policy = compiled(block)
    assert policy.locations
    assert not policy.warnings_at(NOW.timestamp())


def block_cases() -> Iterator[tuple[str, Block, dict[str, Any]]]:
    """Each case of a block `cases`, with the policy above it."""
    for page in pages():
        policy = None
        for block in blocks(page):
            if block.language == "yaml" and "version: 1\n" in block.text:
                policy = block
            if block.title == "cases":
                assert policy is not None, f"{block}: no policy above it"
                for number, case in enumerate(flow(block.text), 1):
                    yield f"{block}#{number}", policy, case


CASES = list(block_cases())


@pytest.mark.parametrize(
    ("block", "case"), [each[1:] for each in CASES], ids=[each[0] for each in CASES]
)
def test_a_case_of_a_block_is_decided_as_it_says(block: Block, case: dict[str, Any]) -> None:
    """`decision` is the line with which `explain` ends."""
    asked = dict(case)
    fields = asked.pop("cert", None)
    leaf = None
    if fields is not None:
        leaf = described(AUTHORITIES[fields.pop("trust", "staff")], fields)
    location, expected = asked.pop("location", None), asked.pop("decision")
    assert Case(compiled(block), leaf, location, asked, expected).ask() == expected


# -- the examples themselves


def test_an_unknown_column_is_found() -> None:
    """A table of cases has no column that the test passes over."""
    known = {"allow", "deny", "location", "groups", "defaults", "certificate", "request"}
    known |= {*_TRUST_COLUMNS, "identity headers", "caching", "decision", "why"}
    for row in case_rows():
        assert set(row.cells) <= known, row


def test_a_wrong_example_is_found() -> None:
    """A row that says otherwise than the code does not pass."""
    row = Row(Path(ROOT / "x.md"), 1, {"allow": "`[{cn: bob}]`", "decision": "`allow`"})
    case = Case(policy_of(row, None), leaf_of("{cn: alice}"), "site", {}, "")
    assert case.ask() == "deny (not_allowed)"
    assert replace(case, leaf=leaf_of("{cn: bob}")).ask() == "allow (allowed) by allow[0]"


# -- the lists of the reference are whole


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


def test_every_key_of_the_policy_is_in_its_page() -> None:
    """Each with its value and its default, in a table."""
    for record in (PolicySpec, TrustSpec, BehaviourSpec, LocationSpec):
        for name in keys_of(record):
            assert re.search(rf"(?m)^\|[^|]*`{name}`", page("policy.md")), name
    for name in rule_schema()["anyOf"][1]["properties"]:
        assert re.search(rf"(?m)^\|[^|]*`{name}`", page("rules.md")), name


def test_every_reason_step_and_command_is_in_its_page() -> None:
    """Reasons with their status, steps in their order, commands with their exit codes."""
    for reason in Reason:
        assert f"`{reason}`" in page("answers.md"), reason
    order, _, _ = page("decision.md").partition("No location, no match")
    found = re.findall(r"(?m)^\| `(\w+)` ", order)
    assert found == [name for name, _ in STEPS]
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", "--help"], cwd=ROOT, capture_output=True, text=True
    )
    for command in re.findall(r"(?m)^    (\w+) ", done.stdout):
        assert re.search(rf"(?m)^\| `{command}\b", page("commands.md")), command


def test_every_metric_is_in_its_page() -> None:
    """Those of the authorizer and of the fetcher, under the names that Prometheus sees."""
    told = set(re.findall(r"`(mtls_sidecar_\w+)`", page("metrics.md")))
    source = [*(ROOT / "sidecar").rglob("prometheus.py"), ROOT / "sidecar/fetcher/metrics.py"]
    text = "".join(path.read_text() for path in source)
    names = re.findall(r'_(?:counter|gauge)\(\s*"(\w+)"', text)
    names += re.findall(r'"mtls_sidecar_(\w+)"', text) + re.findall(r'PREFIX \+ "(\w+)"', text)
    assert len(names) > 20
    for name in names:
        assert {f"mtls_sidecar_{name}{end}" for end in ("", "_total", "_info")} & told, name
