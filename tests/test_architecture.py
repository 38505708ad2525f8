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

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "sidecar"

LAYERS = (
    ("errors", "der", "memo", "uri", "pcre"),
    ("signature", "crl_entry", "names"),
    ("extensions",),
    ("certificate",),
    ("decision", "yamlstrict", "hostname", "crl_entries", "crl_scope", "ocsp_signer", "twins"),
    ("wire", "matching", "schema", "locations", "crl_read"),
    ("spec", "settings", "revocation"),
    ("rules", "trust", "crl", "ocsp"),
    ("policy",),
    ("pdp",),
)
"""The core from the ground up: each module imports only from layers before its own."""

CORE_MAY_IMPORT = set(
    """__future__ base64 binascii bisect collections collections.abc contextlib dataclasses datetime
    difflib enum functools hashlib ipaddress itertools json math operator re string struct typing
    unicodedata urllib.parse warnings zlib cryptography re2 yaml""".split()
)
"""Nothing that reaches a file, a socket, a process, a thread or the clock."""

IMPURE_CALLS = {"open", "print", "input", "eval", "exec", "compile", "__import__", "breakpoint"}
CLOCKS = {"now", "utcnow", "today"}

OUTBOUND = {"aiohttp", "urllib.request", "http.client", "requests", "httpx", "ssl", "smtplib"}
CONNECTS = {"open_connection", "create_connection"}


@dataclass(frozen=True)
class Import:
    """`from MODULE import NAME`, MODULE absolute."""

    module: str
    names: tuple[str, ...]

    @property
    def modules(self) -> set[str]:
        """The modules it can mean: `from sidecar.core import wire` is sidecar.core.wire."""
        if self.module in ("sidecar", "sidecar.core", "sidecar.daemon", "sidecar.tools"):
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


each_of_core = pytest.mark.parametrize(
    "path",
    [path for path in modules("core") if path.stem != "__init__"],
    ids=lambda path: path.stem,
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
    assert path.stem in floor, f"say in LAYERS where {path.stem} belongs"
    used = {name.split(".")[2] for name in ours(imported(path), "sidecar.core")}
    upward = {name for name in used if floor[name] >= floor[path.stem]}
    assert not upward, f"{path.stem} imports {upward}, not below it"


def test_every_layer_is_of_modules_that_are_there() -> None:
    """LAYERS names no module that is gone."""
    there = {path.stem for path in modules("core")} - {"__init__"}
    assert {name for layer in LAYERS for name in layer} == there


@pytest.mark.parametrize(
    ("folder", "never"),
    [
        ("core", ("sidecar.daemon", "sidecar.tools", "sidecar.files", "sidecar.cli")),
        ("daemon", ("sidecar.tools", "sidecar.cli")),
        ("tools", ("sidecar.daemon", "sidecar.cli")),
    ],
)
def test_the_packages_import_one_way(folder: str, never: tuple[str, ...]) -> None:
    """cli uses daemon and tools; these use files and core, and not each other."""
    for path in modules(folder):
        for package in never:
            assert not ours(imported(path), package), f"{path.name} imports {package}"


def test_only_the_fetcher_can_call_out() -> None:
    """The daemon that decides opens no connection; of aiohttp it may have the server."""
    for path in modules():
        if path.parent.name == "daemon" and path.stem.split("_")[0] == "fetch":
            continue
        for each in imports(path):
            client = each.module.split(".")[0] in OUTBOUND or each.module in OUTBOUND
            server = each.module.startswith("aiohttp") and set(each.names) <= {"web", "web_log"}
            assert not client or (server and each.names), f"{path.name} imports {each.module}"
        assert not called(path) & {"." + name for name in CONNECTS}, path.name


def test_the_source_reads_as_this_test_thinks() -> None:
    """The reader of imports sees relative ones, aliases, and those within functions."""
    names = imported(PACKAGE / "cli.py")
    assert {"sidecar.core.errors", "sidecar.daemon.run", "argparse", "sidecar.files"} <= names
