"""Recognize a confirmation of the running daemon."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sidecar.commands.revoke import confirm
from sidecar.commands.revoke.command import Call, run
from sidecar.core.config.settings import Address, Settings
from sidecar.core.revocation.denylist import one_entry
from sidecar.runtime.control_socket import NoDaemon

ENTRY = one_entry("serial", "0A", "2099-01-01")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(confirm, "PATIENCE", 0.0)
    return Settings(
        listen=Address(path=str(tmp_path / "authz.sock")),
        policy=str(tmp_path / "policy.yaml"),
        state_dir=str(tmp_path / "state"),
    )


def daemon(monkeypatch: pytest.MonkeyPatch, told: dict[str, Any] | Exception) -> None:
    """Let the daemon answer this."""

    def ask_all(*_: object) -> list[dict[str, Any]]:
        if isinstance(told, Exception):
            raise told
        return [told]

    monkeypatch.setattr(confirm, "ask_all", ask_all)


def says(settings: Settings, *lines: dict[str, Any]) -> dict[str, Any]:
    return {"policy": settings.policy, "trusts": {"staff": {"lines": list(lines)}}}


@pytest.mark.parametrize(
    ("until", "done"), [(None, True), (ENTRY.until, True), (ENTRY.until - 1, False)]
)
def test_a_line_must_deny_at_least_as_long(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, until: float | None, done: bool
) -> None:
    """A line that ends earlier is no confirmation."""
    daemon(monkeypatch, says(settings, {"file": "/d", "until": until}))
    found = confirm.in_force(settings, Path(settings.policy), ["staff"], ENTRY)
    assert found.done is done


def test_each_trust_must_deny(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trust without the line, or one that the daemon doesn't have, is named."""
    daemon(monkeypatch, says(settings, {"file": "/d", "until": None}))
    found = confirm.in_force(settings, Path(settings.policy), ["staff", "guests"], ENTRY)
    assert not found.done
    assert "'guests'" in found.text


def test_undone_is_a_line_that_is_gone_from_its_file(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Only lines of the given files matter; a line of another file may still deny."""
    daemon(monkeypatch, says(settings, {"file": str(tmp_path / "d.txt"), "until": None}))
    policy = Path(settings.policy)
    assert not confirm.gone(settings, policy, [tmp_path / "d.txt"], ENTRY).done
    assert confirm.gone(settings, policy, [tmp_path / "other.txt"], ENTRY).done


@pytest.mark.parametrize(
    ("told", "done", "text"),
    [
        (NoDaemon("nothing answers"), True, "no daemon is running"),
        (PermissionError(13, "Permission denied"), False, "run this as root"),
        (TimeoutError("timed out"), False, "timed out, and may hang: restart it"),
        ({"error": "unknown kind"}, False, "unknown kind"),
        ({"policy": "/other.yaml", "trusts": {}}, False, "serves another policy"),
    ],
)
def test_what_is_no_confirmation(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    told: dict[str, Any] | Exception,
    done: bool,
    text: str,
) -> None:
    """Each failure says what to do; without a daemon no confirmation is needed."""
    daemon(monkeypatch, told)
    found = confirm.in_force(settings, Path(settings.policy), ["staff"], ENTRY)
    assert found.done is done
    assert text in found.text


@pytest.mark.parametrize(
    "told",
    [
        {"trusts": {}},
        {"policy": 5, "trusts": {}},
        {"policy": "\0", "trusts": {}},
        {"policy": "p", "trusts": []},
        {"policy": "p", "trusts": {"staff": []}},
        {"policy": "p", "trusts": {"staff": {"lines": [{"until": "soon"}]}}},
        {"policy": "p", "trusts": {"staff": {"lines": [{"until": 10**400}]}}},
    ],
)
def test_an_answer_of_another_form_confirms_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, told: dict[str, Any]
) -> None:
    """Whatever a daemon that was taken over says: a sentence, and no confirmation."""
    daemon(monkeypatch, told)
    found = confirm.in_force(settings, Path(settings.policy), ["staff"], ENTRY)
    assert not found.done
    assert "the daemon can't be asked" in found.text


def test_the_list_in_force_is_written_though_the_policy_names_another(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An edit that the daemon refuses names a new list: both get the line, and lose it again."""
    policy, old, new = (tmp_path / name for name in ("policy.yaml", "old.txt", "new.txt"))
    policy.write_text("version: 1\ntrust: {staff: {ca: none, denylist: new.txt}}\nlocations: []\n")
    old.touch()
    Path(settings.state_dir).mkdir()
    lines = [{"file": str(old), "until": None}]
    told = {"policy": str(policy), "trusts": {"staff": {"denylists": [str(old)], "lines": lines}}}
    daemon(monkeypatch, told)
    assert run(Call("0A"), settings) == 0
    assert all(each.read_text().startswith("serial 0A ") for each in (old, new))
    told["trusts"] = {"staff": {"denylists": [str(old)], "lines": []}}
    assert run(Call("0A", undo=True), settings) == 0
    assert old.read_text() == new.read_text() == ""
