"""The arguments of `what`, `who`, `why` and `replay`, and the mistakes in them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import pytest

from sidecar.commands import access
from sidecar.core.config.settings import Settings


def _unused(_: argparse.Namespace) -> object:
    raise AssertionError("the arguments are checked before a file is read")


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    commands = argparse.ArgumentParser().add_subparsers()

    def add(
        name: str, run: Callable[[argparse.Namespace], int], text: str
    ) -> argparse.ArgumentParser:
        parser = commands.add_parser(name, help=text)
        parser.set_defaults(run=run)
        return parser

    access.add_commands(add, _unused, _unused)  # type: ignore[arg-type]  # never called
    return commands.choices[arguments[0]].parse_args(arguments[1:])


def test_the_circumstances_of_a_question_are_those_of_the_options() -> None:
    """Each option becomes a field of the request; the time is read as RFC 3339."""
    arguments = "--host a.example --sni b.example --method PUT --client-ip 192.0.2.7"
    moment = ["--now", "1970-01-01T00:01:00Z"]
    found = access._circumstances(_options(["who", "site", *arguments.split(), *moment]))
    assert (found.host, found.sni, found.method) == ("a.example", "b.example", "PUT")
    assert (found.client_ip, found.now, found.verify) == ("192.0.2.7", 60.0, "SUCCESS")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["what"], "give either CERT or --cert-fields"),
        (["what", "a.crt", "--cert-fields", "{cn: a}"], "give either CERT or --cert-fields"),
        (["who"], "name a location: who LOCATION"),
        (["who", "--shadow", "--certs", "a.crt"], "use --shadow or --certs, not both"),
    ],
)
def test_arguments_that_contradict_each_other_are_refused(
    arguments: list[str], message: str
) -> None:
    """The error says what to write, before any file is read."""
    options = _options(arguments)
    with pytest.raises(ValueError, match=message):
        options.run(options)


def test_certificates_of_several_options_are_added() -> None:
    """`--certs` may be repeated."""
    found = _options(["replay", "a.log", "--certs", "a", "b", "--certs", "c"])
    assert found.certs == ["a", "b", "c"]


def test_unreadable_clients_seen_name_the_file_and_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without permission to read the daemon's list, the error says how to give certificates."""

    def fail(_: str) -> None:
        raise PermissionError(13, "Permission denied", "/var/lib/x")

    monkeypatch.setattr(access, "seen_clients", fail)
    with pytest.raises(ValueError, match=r"/var/lib/x: Permission denied.*--certs DIR"):
        access._seen(Settings())
