"""Define and run the commands that show who has access: `what`, `who`, `why`, `replay`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping

from sidecar.core.config.dates import parse_date
from sidecar.core.config.settings import Settings
from sidecar.core.errors import printable
from sidecar.core.policy.cases import Principal
from sidecar.core.request import AuthzRequest
from sidecar.core.seen_clients import SeenClient
from sidecar.core.x509.certificate import ClientCert
from sidecar.runtime.files import read_file
from sidecar.runtime.seen_clients_file import seen_clients

from .asking import Circumstances, PolicyFile, SettingsOf

Load = Callable[[argparse.Namespace], PolicyFile]
"""Loads the policy of a command."""

Add = Callable[[str, Callable[[argparse.Namespace], int], str], argparse.ArgumentParser]
"""Adds a command: its name, the function that runs it, and its help text."""


def add_commands(add: Add, load: Load, settings: SettingsOf) -> None:
    """Add the commands to the parser."""
    what = add(
        "what", lambda options: _what(options, load), "show which locations a certificate may use"
    )
    what.add_argument("cert", nargs="?", metavar="CERT", help="the certificate, PEM or DER")
    what.add_argument(
        "--cert-fields", metavar="FIELDS", help="instead of CERT: its fields, '{cn: alice}'"
    )
    what.add_argument("--verify", default="", help="$ssl_client_verify (default: SUCCESS)")
    _add_circumstances(what)

    who = add("who", lambda options: _who(options, load, settings), "show who may use a location")
    who.add_argument("location", nargs="?", metavar="LOCATION", help="the location's name")
    who.add_argument(
        "--shadow",
        action="store_true",
        help="show who would be denied if LOCATION, or each location in monitor mode, were "
        "enforced",
    )
    _add_certs(
        who,
        "the certificates: files or directories (default: of the clients seen)",
    )
    who.add_argument("--verify", default="SUCCESS", help="$ssl_client_verify (default: SUCCESS)")
    _add_circumstances(who)

    why = add("why", lambda options: _why(options, load, settings), "explain a logged decision")
    why.add_argument("id", metavar="REQUEST_ID", help="nginx's $request_id")
    why.add_argument(
        "--log",
        nargs="+",
        action="extend",
        metavar="FILE",
        help="decision logs, plain or compressed (default: the configured log with its rotated "
        "files, or the journal)",
    )
    _add_certs(why, "more certificates, in addition to the clients seen: files or directories")
    why.add_argument("--json", action="store_true", help="print JSON")

    replay = add(
        "replay",
        lambda options: _replay(options, load, settings),
        "decide the requests of decision logs by the policy of today",
    )
    replay.add_argument("logs", nargs="+", metavar="LOG", help="decision logs, - for stdin")
    _add_certs(replay, "more certificates, in addition to the clients seen: files or directories")
    replay.add_argument("--json", action="store_true", help="print JSON")


def _add_certs(parser: argparse.ArgumentParser, meaning: str) -> None:
    parser.add_argument(
        "--certs", nargs="+", action="extend", default=[], metavar="DIR|FILE", help=meaning
    )


def _add_circumstances(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="", help="$host (default: a host of the location)")
    parser.add_argument("--sni", default="", help="$ssl_server_name (default: the host)")
    parser.add_argument("--method", default="GET", help="$request_method (default: GET)")
    parser.add_argument("--client-ip", default="", help="$remote_addr")
    parser.add_argument("--now", help="decide at this time, RFC 3339 (default: now)")
    parser.add_argument("--json", action="store_true", help="print JSON")


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
        raise ValueError("give either CERT or --cert-fields '{cn: alice}'")
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


def _who(options: argparse.Namespace, load: Load, settings: SettingsOf) -> int:
    from . import who
    from .asking import request_of

    if options.location is None and not options.shadow:
        raise ValueError(
            "name a location: who LOCATION; or use who --shadow for those in monitor mode"
        )
    if options.shadow and options.certs:
        raise ValueError("use --shadow or --certs, not both: --shadow is about the clients seen")
    given = _circumstances(options)
    file = load(options)
    seen = {} if options.certs else _seen(settings(options))
    request = request_of(given, Principal())
    if options.shadow:
        return _shadow(options, file, seen, request, given.now)
    certs = _certs(options)
    if not options.certs:
        from .certificate_files import seen_certificates

        certs = seen_certificates(seen)
    access = who.who(file, options.location, certs.values(), request, given.now)
    print(who.as_json(access) if options.json else who.as_text(access, seen))
    return 0


def _shadow(
    options: argparse.Namespace,
    file: PolicyFile,
    seen: Mapping[str, SeenClient],
    request: AuthzRequest,
    now: float,
) -> int:
    from . import who_shadow

    names = [options.location] if options.location else who_shadow.watched(file.policy)
    found = [who_shadow.locked_out(file, name, seen.values(), request, now) for name in names]
    if options.json:
        print(who_shadow.as_json(found, one=options.location is not None))
    else:
        print(who_shadow.as_text(found))
    return 0


def _seen(settings: Settings) -> dict[str, SeenClient]:
    """Read the clients that the daemon has seen.  Raises ValueError if they can't be read."""
    try:
        return seen_clients(settings.state_dir)
    except OSError as error:
        why = f"the clients seen can't be read: {error.filename}: {error.strerror}"
        raise ValueError(why, "run it as root, or give certificates: --certs DIR") from None


def _certs_by_sha256(options: argparse.Namespace, settings: SettingsOf) -> dict[str, ClientCert]:
    """Return the certificates that were given or that the daemon has seen."""
    from .certificate_files import seen_certificates

    given = _certs(options)
    try:
        seen = _seen(settings(options))
    except ValueError as error:
        print(printable(f"warning: {'; '.join(error.args)}"), file=sys.stderr)
        return given
    return {**seen_certificates(seen), **given}


def _certs(options: argparse.Namespace) -> dict[str, ClientCert]:
    """Read the given certificates; warn about files in a directory that can't be read."""
    from .certificate_files import given_certificates

    found, unread = given_certificates(options.certs)
    for each in unread:
        print(printable(f"warning: left out: {each}"), file=sys.stderr)
    return found


def _why(options: argparse.Namespace, load: Load, settings: SettingsOf) -> int:
    from . import why
    from .log_files import lines, with_rotated

    request_id = why.check_id(options.id)
    configured = settings(options).decision_log_file
    names = options.log or ([] if configured == "stderr" else with_rotated(configured))
    if not names and configured != "stderr":
        raise ValueError(f"{configured}: there is no such log", "name the log: --log FILE")
    logs = [(name, lines(name)) for name in names]
    found = why.find(request_id, logs or [("", why.journal(request_id))])
    if not found:
        where = ", ".join(names) or "the journal"
        message = f"no decision about {request_id} in {where}; nginx may have refused it itself"
        print(f"mtls-sidecar: {printable(message)}", file=sys.stderr)
        return 1
    file, certs = load(options), _certs_by_sha256(options, settings)
    told = [why.tell(each, file, certs) for each in found]
    print(why.as_json(told, file.policy.hash) if options.json else why.as_text(told, file))
    return 0


def _replay(options: argparse.Namespace, load: Load, settings: SettingsOf) -> int:
    from . import replay
    from .log_files import lines
    from .progress import bar

    file = load(options)
    found = replay.Replay(file.policy, _certs_by_sha256(options, settings), time.time())
    for name in options.logs:
        with bar(name, sys.stderr) as watch:
            found.take(lines(name, watch))
    if found.others and not found.asked + found.skipped:
        message = f"no line of {', '.join(options.logs)} is a decision; give the decision log"
        print(f"warning: {printable(message)}, not nginx's", file=sys.stderr)
    print(replay.as_json(found) if options.json else replay.as_text(found))
    return 1 if found.loses() else 0
