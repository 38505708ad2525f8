"""The policy in an editor: the schema that is shipped, read by the real YAML language server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from language_server import LanguageServer
from tools import ROOT, language_server, need

from sidecar.cli import schema_text

CONFIG = ROOT / "config"
SCHEMA = CONFIG / "policy.schema.json"
HEAD = (CONFIG / "policy.yaml").read_text().partition("\n")[0]


def test_the_schema_that_is_shipped_is_the_command_s() -> None:
    """`mtls-sidecar schema > config/policy.schema.json` writes it anew."""
    assert SCHEMA.read_text() == schema_text() + "\n"


def test_each_key_has_a_text() -> None:
    """An editor shows it beside the key."""

    def properties(node: Any) -> Iterator[tuple[str, dict[str, Any]]]:
        if isinstance(node, dict):
            yield from node.get("properties", {}).items()
        for inner in node.values() if isinstance(node, dict) else node:
            if isinstance(inner, (dict, list)):
                yield from properties(inner)

    found = list(properties(json.loads(SCHEMA.read_text())))
    assert len(found) > 60
    assert [name for name, form in found if not form.get("description")] == []


def test_the_policy_names_its_schema_on_its_first_line() -> None:
    """The path is relative to the file, and the schema is installed beside it."""
    assert f"# yaml-language-server: $schema={SCHEMA.name}" == HEAD


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LanguageServer]:
    directory = tmp_path_factory.mktemp("editor")
    (directory / SCHEMA.name).write_text(schema_text())
    with LanguageServer(need(language_server()), directory) as found:
        yield found


@pytest.fixture
def place(server: LanguageServer, tmp_path: Path) -> Path:
    (tmp_path / SCHEMA.name).write_text(schema_text())
    return tmp_path


def test_an_editor_finds_nothing_wrong_with_the_policies_that_are_shipped(
    server: LanguageServer, place: Path
) -> None:
    """Numbers, dates and flags as they are written in YAML are taken."""
    for path in (CONFIG / "policy.yaml", ROOT / "nginx-example" / "policy.yaml"):
        text = path.read_text()
        text = text if text.startswith(HEAD) else f"{HEAD}\n{text}"
        assert server.open(place / f"{path.parent.name}.yaml", text) == []


def test_an_editor_shows_a_mistake_at_its_place(server: LanguageServer, place: Path) -> None:
    """An unknown key and a wrong word, each where it stands."""
    text = f"{HEAD}\nversion: 1\nlocations:\n  - name: site\n    alow: [{{cn: a}}]\n    mode: off\n"
    found = server.open(place / "policy.yaml", text, has_mistakes=True)
    places = {each["range"]["start"]["line"]: each for each in found}
    assert set(places) == {4, 5}, found
    assert places[4]["range"]["start"]["character"] == 4
    assert "alow" in places[4]["message"]
    assert "enforce" in places[5]["message"]


def test_an_editor_completes_keys_with_their_texts(server: LanguageServer, place: Path) -> None:
    """The keys of a location and of a rule."""
    path = place / "completed.yaml"
    rules = "    allow:\n      - cn: a\n        \n"
    server.open(path, f"{HEAD}\nversion: 1\nlocations:\n  - name: site\n    \n{rules}")
    location = server.completions(path, 4, 4)
    assert {"san_matches_host", "deny", "without_certificate"} <= set(location)
    assert "RFC 9525" in location["san_matches_host"]
    rule = server.completions(path, 7, 8)
    assert {"client_ip", "until", "sha256"} <= set(rule)
    assert "hexadecimal" in rule["sha256"]
