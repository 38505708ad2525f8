"""Arguments of the commands that tell who has access: `what`, `who`, `why`, `replay`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

from sidecar.core.config.dates import parse_date
from sidecar.core.errors import printable
from sidecar.core.policy.cases import Principal
from sidecar.core.x509.certificate import ClientCert
from sidecar.runtime.files import read_file

from .asking import Circumstances, PolicyFile

Load = Callable[[argparse.Namespace], PolicyFile]
"""Reads the policy that the command is about."""

Add = Callable[[str, Callable[[argparse.Namespace], int], str], argparse.ArgumentParser]
"""Adds a command: its name, what runs it, and what it does."""


def add_commands(add: Add, load: Load, log_file: Callable[[argparse.Namespace], str]) -> None:
    """Add them to the parser; `log_file` tells the configured decision log."""
    what = add("what", lambda options: _what(options, load), "tell where a certificate gets in")
    what.add_argument("cert", nargs="?", metavar="CERT", help="the certificate, PEM or DER")
    what.add_argument("--cert-fields", metavar="FIELDS", help="or one described: '{cn: alice}'")
    what.add_argument("--verify", default="", help="$ssl_client_verify (default: SUCCESS)")
    _add_circumstances(what)

    who = add("who", lambda options: _who(options, load), "tell who gets in at a location")
    who.add_argument("location", metavar="LOCATION", help="the location's name")
    _add_certs(who, "certificates to ask about: files, or directories of them")
    who.add_argument("--verify", default="SUCCESS", help="$ssl_client_verify (default: SUCCESS)")
    _add_circumstances(who)

    why = add("why", lambda options: _why(options, load, log_file), "explain a logged decision")
    why.add_argument("id", metavar="REQUEST_ID", help="nginx's $request_id")
    why.add_argument(
        "--log",
        nargs="+",
        action="extend",
        metavar="FILE",
        help="decision logs, plain or compressed (default: the configured one and its rotated "
        "ones, or the journal)",
    )
    _add_certs(why, "certificates of clients: files, or directories of them")
    why.add_argument("--json", action="store_true", help="for programs")

    replay = add(
        "replay", lambda options: _replay(options, load), "ask a policy what a log says was asked"
    )
    replay.add_argument("logs", nargs="+", metavar="LOG", help="decision logs, - for stdin")
    _add_certs(replay, "certificates of clients: files, or directories of them")
    replay.add_argument("--json", action="store_true", help="for programs")


def _add_certs(parser: argparse.ArgumentParser, meaning: str) -> None:
    parser.add_argument(
        "--certs", nargs="+", action="extend", default=[], metavar="DIR|FILE", help=meaning
    )


def _add_circumstances(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="", help="$host (default: one that the location serves)")
    parser.add_argument("--sni", default="", help="$ssl_server_name (default: the host)")
    parser.add_argument("--method", default="GET", help="$request_method (default: GET)")
    parser.add_argument("--client-ip", default="", help="$remote_addr")
    parser.add_argument("--now", help="the moment, RFC 3339 (default: now)")
    parser.add_argument("--json", action="store_true", help="for programs")


def _circumstances(options: argparse.Namespace) -> Circumstances:
    return Circumstances(
        now=parse_date(options.now) if options.now else time.time(),
        host=options.host,
        sni=options.sni,
        method=options.method,
        client_ip=options.client_ip,
        verify=getattr(options, "verify", ""),
    )


def _what(options: argparse.Namespace, load: Load) -> int:
    from . import what
    from .asking import request_of
    from .explain import described

    if (options.cert is None) == (options.cert_fields is None):
        raise ValueError("say what CERT, or what --cert-fields '{cn: alice}'")
    given = _circumstances(options)
    who = described(options.cert_fields) if options.cert is None else _escaped(options.cert)
    file = load(options)
    found = what.what(file, request_of(given, who), given.now)
    if options.json:
        print(what.as_json(found))
        for note in what.notes(found):
            print(f"note: {note}", file=sys.stderr)
    else:
        print(what.as_text(found, file.path))
    return 0


def _escaped(path: str) -> bytes:
    from .explain import escaped_pem

    found = escaped_pem(read_file(path))
    if not found:
        raise ValueError(f"{path}: the file is empty", "give a certificate, PEM or DER")
    return found


def _who(options: argparse.Namespace, load: Load) -> int:
    from . import who
    from .asking import request_of

    given = _circumstances(options)
    file = load(options)
    certs = _certs(options)
    request = request_of(given, Principal())
    access = who.who(file, options.location, certs.values(), request, given.now)
    print(who.as_json(access) if options.json else who.as_text(access))
    return 0


def _certs(options: argparse.Namespace) -> dict[str, ClientCert]:
    """The certificates given; what in a directory can't be read is told and left out."""
    from .certificate_files import given_certificates

    found, unread = given_certificates(options.certs)
    for each in unread:
        print(printable(f"warning: left out: {each}"), file=sys.stderr)
    return found


def _why(
    options: argparse.Namespace, load: Load, log_file: Callable[[argparse.Namespace], str]
) -> int:
    from . import why
    from .log_files import lines, with_rotated

    request_id = why.check_id(options.id)
    configured = log_file(options)
    names = options.log or ([] if configured == "stderr" else with_rotated(configured))
    if not names and configured != "stderr":
        raise ValueError(f"{configured}: there is no such log", "name it: --log FILE")
    logs = [(name, lines(name)) for name in names]
    found = why.find(request_id, logs or [("", why.journal(request_id))])
    if not found:
        where = ", ".join(names) or "the journal"
        message = f"no decision about {request_id} in {where}; nginx may have refused it itself"
        print(f"mtls-sidecar: {printable(message)}", file=sys.stderr)
        return 1
    file, certs = load(options), _certs(options)
    told = [why.tell(each, file, certs) for each in found]
    print(why.as_json(told, file.policy.hash) if options.json else why.as_text(told, file))
    return 0


def _replay(options: argparse.Namespace, load: Load) -> int:
    from . import replay
    from .log_files import lines

    file = load(options)
    found = replay.Replay(file.policy, _certs(options), time.time())
    for name in options.logs:
        if sys.stderr.isatty():
            print(f"{printable(name)} …", file=sys.stderr)
        found.take(lines(name))
    print(replay.as_json(found) if options.json else replay.as_text(found))
    return 1 if found.loses() else 0
