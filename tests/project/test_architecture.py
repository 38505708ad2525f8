"""Which module may import what, read from the source.

The core decides and does nothing else: no files, no sockets, no clock.  What it imports is listed
here by name, so that a new import is a decision and not an accident.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "sidecar"

LAYERS = (
    (
        "errors", "bounded", "ip_address", "config.crl_place", "config.dates", "revocation.status",
        "x509.der", "x509.attribute_types", "x509.curve_orders", "nginx.uri",
        "x509.pem_text",
        "nginx.selector_error", "nginx.regex_tree", "nginx.pcre_classes", "fleet.canonical",
        "fleet.freshness",
    ),
    (
        "x509.service_identity", "policy.matching", "x509.signature",
        "revocation.crl.entry_extensions", "revocation.crl.points", "x509.subject", "x509.keys",
        "x509.canonical_name", "nginx.pcre_parser", "nginx.atomic_groups",
    ),
    (
        "x509.key_encoding", "x509.extensions", "x509.distinguished_name", "policy.host_spelling",
        "nginx.regex", "policy.text_patterns",
    ),
    ("x509.certificate", "policy.dn_warnings", "policy.uri_spelling"),
    ("x509.validity", "fleet.keys", "policy.name_patterns", "policy.address_patterns"),
    ("fleet.entry",),
    ("fleet.manifest",),
    (
        "decision", "config.yaml_tree", "nginx.host", "revocation.crl.entries",
        "revocation.crl.scope", "revocation.crl.fields",
        "x509.bundle",
        "x509.equivalent_fingerprints", "x509.equivalent_keys",
        "x509.extension_values", "x509.described", "seen_clients",
    ),
    (
        "x509.name_constraints", "origin", "revocation.crl.signers", "revocation.ocsp.responder",
    ),
    ("x509.client_purpose",),
    (
        "request", "answer", "policy.patterns", "config.schema", "nginx.locations",
        "revocation.crl.parse", "x509.issuer_limits",
    ),
    ("policy.cases", "revocation.crl.succession"),
    ("config.fleet_settings",),
    ("policy.spec", "config.settings", "revocation.denylist"),
    ("fleet.bodies", "revocation.denied"),
    ("fleet.chain",),
    (
        "policy.policy_warnings", "policy.rules", "x509.path_building", "revocation.crl.index",
        "revocation.ocsp.response",
    ),
    ("policy.lockouts", "policy.model", "policy.rule_lines"),
    (
        "policy.trust", "policy.rule_words", "policy.pinned", "policy.older_crls",
        "policy.long_denylists", "policy.keys_without_crl",
    ),
    ("policy.compile",),
    ("evaluate",),
    ("policy_tests",),
)  # fmt: skip
"""The core from the ground up: each module imports only from layers before its own."""

CORE_MAY_IMPORT = set(
    """__future__ base64 binascii bisect collections collections.abc contextlib dataclasses datetime
    difflib enum functools hashlib ipaddress itertools json math operator re string struct typing
    unicodedata urllib.parse warnings zlib cryptography re2 yaml""".split()
)
"""Nothing that reaches a file, a socket, a process, a thread or the clock."""

IMPURE_CALLS = {"open", "print", "input", "eval", "exec", "compile", "__import__", "breakpoint"}
CLOCKS = {"now", "utcnow", "today"}

OUTBOUND = set("aiohttp urllib.request http.client requests httpx ssl smtplib nats".split())
CONNECTS = {"open_connection", "create_connection"}


@dataclass(frozen=True)
class Import:
    """`from MODULE import NAME`, MODULE absolute."""

    module: str
    names: tuple[str, ...]

    @property
    def modules(self) -> set[str]:
        """The modules it can mean: `from sidecar.core import request` is sidecar.core.request."""
        if (ROOT / self.module.replace(".", "/")).is_dir():
            return {f"{self.module}.{name}" for name in self.names} or {self.module}
        return {self.module}


def modules(folder: str = "") -> list[Path]:
    return sorted((PACKAGE / folder).rglob("*.py"))


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def imports(path: Path) -> Iterator[Import]:
    package = dotted(path).split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield Import(module, tuple(alias.name for alias in node.names))


def imported(path: Path) -> set[str]:
    return {module for each in imports(path) for module in each.modules}


def called(path: Path) -> set[str]:
    """Names that the module calls: `open` of open(), `now` of datetime.now()."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name):
                found.add(node.func.id)
            elif isinstance(node.func, ast.Attribute):
                found.add("." + node.func.attr)
    return found


def ours(names: set[str], package: str) -> set[str]:
    return {name for name in names if name == package or name.startswith(package + ".")}


def within_core(module: str) -> str:
    return module.removeprefix("sidecar.core.")


each_of_core = pytest.mark.parametrize(
    "path",
    [path for path in modules("core") if path.stem != "__init__"],
    ids=lambda path: within_core(dotted(path)),
)


@each_of_core
def test_the_core_imports_only_what_cannot_reach_the_world(path: Path) -> None:
    """Standard library and packages by a list; of the project nothing but the core."""
    names = imported(path)
    assert ours(names, "sidecar") == ours(names, "sidecar.core")
    foreign = {
        name
        for name in names - ours(names, "sidecar")
        if name not in CORE_MAY_IMPORT and name.split(".")[0] not in ("cryptography", "yaml")
    }
    assert not foreign, f"{path.name} imports {foreign}; see CORE_MAY_IMPORT"


@each_of_core
def test_the_core_opens_no_file_and_reads_no_clock(path: Path) -> None:
    """The moment, and the content of files, are arguments."""
    assert not called(path) & (IMPURE_CALLS | {"." + name for name in CLOCKS})


@each_of_core
def test_the_core_imports_only_downwards(path: Path) -> None:
    """Each core module has its layer, and its imports are below that."""
    floor = {name: number for number, layer in enumerate(LAYERS) for name in layer}
    own = within_core(dotted(path))
    assert own in floor, f"say in LAYERS where {own} belongs"
    used = {within_core(name) for name in ours(imported(path), "sidecar.core")}
    upward = {name for name in used if floor[name] >= floor[own]}
    assert not upward, f"{own} imports {upward}, not below it"


def test_every_layer_is_of_modules_that_are_there() -> None:
    """LAYERS names no module that is gone."""
    there = {within_core(dotted(p)) for p in modules("core") if p.stem != "__init__"}
    assert {name for layer in LAYERS for name in layer} == there


PROCESSES = ("authorizer", "fetcher", "enroll", "fleet", "commands")


@pytest.mark.parametrize(
    ("folder", "may"),
    [
        ("core", ("core",)),
        ("runtime", ("core", "runtime")),
        *((process, ("core", "runtime", process)) for process in PROCESSES),
    ],
)
def test_the_packages_import_one_way(folder: str, may: tuple[str, ...]) -> None:
    """cli → {each process} → runtime → core; processes never import each other."""
    allowed = {"sidecar.__version__"}
    for path in modules(folder):
        names = ours(imported(path), "sidecar") - allowed
        for package in may:
            names -= ours(names, f"sidecar.{package}")
        assert not names, f"{path.relative_to(ROOT)} imports {names}"


def test_only_the_fetcher_and_the_fleet_can_call_out() -> None:
    """The daemon that decides opens no connection; of aiohttp it may have the server."""
    for path in modules():
        if path.is_relative_to(PACKAGE / "fetcher") or path.is_relative_to(PACKAGE / "fleet"):
            continue
        for each in imports(path):
            client = each.module.split(".")[0] in OUTBOUND or each.module in OUTBOUND
            server = each.module.startswith("aiohttp") and set(each.names) <= {"web", "web_log"}
            assert not client or (server and each.names), f"{path.name} imports {each.module}"
        assert not called(path) & {"." + name for name in CONNECTS}, path.name


def test_the_source_reads_as_this_test_thinks() -> None:
    """The reader of imports sees relative ones, aliases, and those within functions."""
    names = imported(PACKAGE / "cli.py")
    assert {
        "sidecar.core.errors",
        "sidecar.authorizer.service",
        "argparse",
        "sidecar.runtime.files",
    } <= names


MANY = {
    "authorizer/test_waiting_trusts.py": "policy_store, trust_files and last_good together",
    "commands/doctor/test_what_is_right.py": "all checks together, on what people write rightly",
    "core/policy/test_identity_spellings.py": "matching, dn_spelling and uri_spelling together",
    "core/test_without_certificate.py": "evaluate, spec and rules together",
    "core/revocation/crl/test_odd_authorities.py": "CRLs: parse and index together",
    "core/x509/test_unsigned_octets.py": "certificate, signature and fingerprints together",
}
"""Unit tests of several modules, and why they stand together."""


def test_a_unit_test_stands_where_its_module_does() -> None:
    """tests/unit/a/test_x.py is about sidecar/a/x.py; the few that span modules are named here."""
    unit = ROOT / "tests" / "unit"
    found = {path.relative_to(unit) for path in unit.rglob("test_*.py")}
    astray = {
        str(path)
        for path in found
        if not (ROOT / "sidecar" / path.parent / path.name.removeprefix("test_")).exists()
        and not (ROOT / "sidecar" / path.parent / path.stem.removeprefix("test_")).is_dir()
    }
    assert astray == set(MANY)
