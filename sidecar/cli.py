"""The command line: arguments, wiring, exit codes (0 done or allow, 1 deny, 2 error)."""

from __future__ import annotations

import argparse
import errno
import json
import logging
import os
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from sidecar import __version__, cli_fleet
from sidecar.commands.access import add_commands
from sidecar.commands.asking import check_circumstances, policy_file
from sidecar.commands.diff.command import add_diff
from sidecar.commands.doctor.arguments import add_doctor
from sidecar.commands.help_examples import add_examples
from sidecar.commands.mistakes import show
from sidecar.commands.revoke.arguments import add_revoke
from sidecar.core.config.dates import parse_date
from sidecar.core.config.settings import Settings, parse_address, read_settings, settings_warnings
from sidecar.core.errors import Diagnostic, PolicyError, error_text, printable
from sidecar.core.nginx.host import normalize_host
from sidecar.core.policy.compile import compile_policy
from sidecar.core.policy.model import Policy
from sidecar.core.policy.spec import policy_schema
from sidecar.core.request import Assumed, BadRequest, assemble_request
from sidecar.enroll import arguments as enroll_arguments
from sidecar.enroll.settings import CONFIG as ENROLL_CONFIG
from sidecar.fleet.arguments import add_fleet
from sidecar.fleet.hooks import Hooks
from sidecar.runtime.argument_types import parsed_by, percentage
from sidecar.runtime.direct_sources import DirectSources
from sidecar.runtime.files import MAX_POLICY, read_file, write_named_file
from sidecar.runtime.fleet_places import FleetPlaces
from sidecar.runtime.fleet_state import fleet_denylists
from sidecar.runtime.log_lines import configure_logging
from sidecar.runtime.seen_clients_file import seen_clients
from sidecar.runtime.standard_streams import escape_what_cannot_be_encoded, open_closed_streams

if TYPE_CHECKING:
    from sidecar.enroll.revocation import EnrolledClients

CONFIG = "/etc/mtls-sidecar/sidecar.yaml"


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    open_closed_streams()
    escape_what_cannot_be_encoded()
    os.umask(os.umask(0o077) | 0o022)  # nobody else may write in a directory that a command makes
    try:
        return _run(arguments)
    except PolicyError as error:
        show(error.diagnostics, sys.stderr, named_in=error.file)
    except BrokenPipeError:  # the reader of our output has closed the pipe
        pass
    except (OSError, ValueError) as error:
        print(f"mtls-sidecar: {_said(error)}", file=sys.stderr)
    except (KeyboardInterrupt, EOFError):  # Ctrl-C, or Ctrl-D at a question
        return 130
    _finish_output()
    return 2


def _finish_output() -> None:
    """Write what was printed, and drop what can't be: the interpreter would fail at it again."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(arguments: list[str] | None) -> int:
    """Run one command; what it printed is written before this returns."""
    try:
        options = make_parser().parse_args(arguments)
    except SystemExit:  # --help and --version print and exit
        sys.stdout.flush()
        raise
    configure_logging()
    for name in ("config", "policy", "file", "state_dir", "junit"):
        if getattr(options, name, None) == "":
            raise ValueError(f"the name of the {name} is empty; write a path, or leave it out")
    code: int = options.run(options)
    sys.stdout.flush()
    return code


def _said(error: OSError | ValueError) -> str:
    """Format an error in one line: what, where, and what to write instead."""
    hint = _remedy(error)
    return printable(error_text(error)) + (f"; {hint}" if hint else "")


def _remedy(error: OSError | ValueError) -> str:
    """Say what helps where the system has forbidden it."""
    if isinstance(error, OSError) and error.errno == errno.EACCES:
        return "try it as root (sudo); the service itself reads by the group mtls-sidecar"
    return ""


# -- what the commands share


def settings_of(options: argparse.Namespace) -> Settings:
    """Read sidecar.yaml with the overrides of the command line; the default file may be missing."""
    path = options.config or CONFIG
    try:
        settings = read_settings(read_file(path, MAX_POLICY), path)
    except FileNotFoundError:
        if options.config:
            raise
        settings = Settings()
    given = {
        name: value
        for name in ("policy", "listen", "admin", "state_dir", "decision_log", "log_format")
        if (value := getattr(options, name, None)) is not None
    }
    settings = replace(settings, **given)
    if settings.fleet is not None and "policy" not in given:
        settings = replace(settings, policy=str(FleetPlaces(Path(settings.state_dir)).policy))
    return settings


def warnings_of(options: argparse.Namespace) -> list[Diagnostic]:
    """What sidecar.yaml says in vain; of a policy on the command line nothing."""
    path = options.config or CONFIG
    if options.policy is not None or not os.path.exists(path):
        return []
    data = read_file(path, MAX_POLICY)
    return settings_warnings(read_settings(data, path), data, path)


def load_policy(options: argparse.Namespace, *, trusted_only: bool = False) -> Policy:
    """Load the policy of a command.  Raises `PolicyError`.

    With `trusted_only` files that everyone may write are refused, as the daemon does.
    """
    settings = settings_of(options)
    path = Path(settings.policy)
    is_fleets = path == FleetPlaces(Path(settings.state_dir)).policy
    trusted_only = trusted_only and settings.allow_writable_policy != "true"
    try:
        data = read_file(path, MAX_POLICY, trusted_only=trusted_only)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and settings.fleet is not None and is_fleets:
            from sidecar.authorizer.fleet_follower import no_release

            raise PolicyError([no_release(settings.fleet, path)]) from None
        why = error.strerror or str(error)
        mistake = Diagnostic(str(path), 0, 0, f"can't be read: {why}", _remedy(error))
        raise PolicyError([mistake]) from None
    sources = DirectSources(path.parent, Path(settings.state_dir), trusted_only)
    try:
        policy = compile_policy(data, str(path), sources)
    except PolicyError as error:
        error.file = str(path)
        raise
    if settings.fleet is not None and is_fleets:
        denylists = fleet_denylists(settings.fleet, Path(settings.state_dir))
        policy = replace(policy, denylists=denylists)
    return policy


# -- the commands


def _serve(options: argparse.Namespace) -> int:
    from sidecar.authorizer.service import serve
    from sidecar.runtime.listen import ListenError

    settings = settings_of(options)
    if settings.fleet is not None and options.policy is not None:
        raise ValueError(
            f"--policy: the releases of fleet {settings.fleet.name} are the policy here",
            "leave --policy out, or remove the section fleet from sidecar.yaml",
        )
    for warning in warnings_of(options):
        logging.getLogger("mtls-sidecar").warning("%s", warning)
    try:
        serve(settings)
    except ListenError as error:
        print(f"mtls-sidecar: {error}", file=sys.stderr)
        return 2
    return 0


def _check(options: argparse.Namespace) -> int:
    from sidecar.commands.check import as_json, service_user, unreadable
    from sidecar.commands.contradictions import contradictions
    from sidecar.commands.test import refuse_failing

    if options.file is not None:
        options.policy = options.file
    path = settings_of(options).policy
    try:
        policy = load_policy(options, trusted_only=True)
        refuse_failing(policy, Path(path))
        user = service_user()
        file = policy_file(policy, path)
        refused = list(unreadable(file.spec, Path(path), user)) if user else []
        if refused and options.policy is None:
            raise PolicyError(refused)
    except PolicyError as error:
        if options.json:
            print(as_json(path, None, error.diagnostics))
            return 2
        show(error.diagnostics, sys.stderr, named_in=path)
        count = len(error.diagnostics)
        message = f"{path}: {count} mistake{'s' * (count != 1)}, the policy is refused"
        print(printable(message), file=sys.stderr)
        return 2
    now = time.time()
    found = sorted({*policy.warnings_at(now), *contradictions(file, now)})
    warnings = (*warnings_of(options), *found, *refused)
    if options.json:
        print(as_json(path, policy, (), warnings))
        return 0
    show(warnings, sys.stderr, word="warning", named_in=path)
    count = len(policy.locations)
    print(printable(f"{path}: ok, {count} location{'s' * (count != 1)}, policy {policy.hash}"))
    return 0


def _explain(options: argparse.Namespace) -> int:
    from sidecar.commands.explain import as_json, as_text, described, escaped_pem, explain

    if (options.location is None) == (options.uri is None):
        raise ValueError("say --location NAME, or --host H --uri U")
    if options.cert and options.cert_fields:
        raise ValueError("say --cert FILE or --cert-fields, not both")
    policy = load_policy(options)
    cert = b"" if options.cert is None else escaped_pem(read_file(options.cert))
    if options.cert is not None and not cert:
        raise ValueError(f"{options.cert} is empty; leave --cert out to ask without a certificate")
    who = described(options.cert_fields) if options.cert_fields else None
    if who is not None:
        cert = b"described"
    verify = options.verify if options.verify is not None else ("SUCCESS" if cert else "NONE")
    fields = {
        "host": normalize_host(options.host) or options.host,
        "uri": options.uri,
        "verify": verify,
        "server_name": options.sni,
        "method": options.method,
        "client_ip": options.client_ip,
        "site": options.sec_fetch_site,
    }
    found = {name: os.fsencode(value) for name, value in fields.items() if value}
    now = parse_date(options.now) if options.now else time.time()
    try:
        request = assemble_request(options.location, {**found, "cert": cert})
    except BadRequest as error:
        raise ValueError(str(error)) from None
    check_circumstances(request, options.method, options.client_ip)
    if who is not None:
        request = request._replace(subject=who.cert, assumed=Assumed(who.trust, denylists=True))
    decision, steps = explain(policy, request, now)
    print(as_json(decision, steps) if options.json else as_text(decision, steps))
    return 0 if decision.allowed else 1


def _test(options: argparse.Namespace) -> int:
    from sidecar.commands import test

    path = settings_of(options).policy
    try:
        policy = load_policy(options)
        outcomes = [test.run_own(policy, Path(path))]
        outcomes += [test.run_file(policy, Path(file)) for file in options.files]
    except PolicyError as error:
        show(error.diagnostics, sys.stderr, named_in=path)
        return 2
    result = test.together(policy, outcomes)
    if options.junit:
        write_named_file(Path(options.junit), test.as_junit(result), 0o644)
    print(test.as_json(result) if options.json else test.as_text(result))
    if result.coverage < options.threshold:
        message = f"{result.coverage:.0f}% tested, less than --threshold {options.threshold}"
        print(f"mtls-sidecar: {message}", file=sys.stderr)
        return 1
    return 1 if result.failed else 0


def _enrolled(options: argparse.Namespace) -> EnrolledClients | None:
    """Return the clients of the given enroll.yaml, or of the one beside sidecar.yaml."""
    place = options.enroll or Path(options.config or CONFIG).with_name("enroll.yaml")
    if not options.enroll and not os.path.lexists(place):
        return None
    from sidecar.enroll.revocation import EnrolledClients

    return EnrolledClients(str(place))


def _last_seen(options: argparse.Namespace) -> dict[str, float]:
    """Return the last time each certificate was seen; sidecar.yaml is beside enroll.yaml."""
    place = Path(options.config or ENROLL_CONFIG).with_name("sidecar.yaml")
    state_dir = options.state_dir
    try:
        state_dir = state_dir or read_settings(read_file(place), str(place)).state_dir
    except FileNotFoundError:
        state_dir = Settings().state_dir
    try:
        found = seen_clients(state_dir)
    except OSError as error:
        print(f"note: last_seen is not known: {_said(error)}", file=sys.stderr)
        return {}
    return {sha256: client.last_seen for sha256, client in found.items()}


def _fetch(options: argparse.Namespace) -> int:
    from sidecar.fetcher.service import FetchOptions, main
    from sidecar.runtime.systemd import Notifier

    notifier = Notifier(os.environ)
    fetch = FetchOptions.of(settings_of(options))
    return main(fetch, once=options.once, ready=lambda: notifier.ready("fetching"))


def schema_text() -> str:
    """Return the JSON Schema of policy.yaml, as it is shipped."""
    return json.dumps(policy_schema(), indent=2)


def _schema(_: argparse.Namespace) -> int:
    print(schema_text())
    return 0


# -- arguments


class _Parser(argparse.ArgumentParser):
    """Escape what a mistake quotes: a `*` of the shell brings names of files that others chose."""

    def error(self, message: str) -> NoReturn:
        """Print a mistake, and exit."""
        super().error(printable(message))


def make_parser() -> argparse.ArgumentParser:
    """Build the parser of commands and options; the manual page is made from it."""
    parser = _Parser(
        prog="mtls-sidecar",
        description="Decide which client certificates may use which locations of nginx.",
    )
    parser.add_argument("--version", action="version", version=f"mtls-sidecar {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = _command(commands, "serve", _serve, "run the daemon that answers nginx")
    serve.add_argument("--listen", type=parsed_by(parse_address), help="unix:PATH or HOST:PORT")
    serve.add_argument("--admin", type=parsed_by(parse_address), help="unix:PATH or HOST:PORT")
    serve.add_argument("--state-dir", help="directory for state that survives restarts")
    serve.add_argument("--decision-log", choices=("all", "denied", "off"))
    serve.add_argument("--log-format", choices=("text", "json"))

    check = _command(commands, "check", _check, "check a policy and report its mistakes")
    check.add_argument(
        "file", nargs="?", metavar="POLICY", help="check this file instead of the configured policy"
    )
    check.add_argument("--json", action="store_true", help="print JSON")

    explain = _command(commands, "explain", _explain, "decide one request, step by step")
    explain.add_argument("--location", help="the location's name")
    explain.add_argument("--host", default="", help="$host")
    explain.add_argument("--uri", help="choose the location by this $request_uri")
    explain.add_argument("--cert", help="the client's certificate, PEM or DER")
    explain.add_argument(
        "--cert-fields",
        metavar="FIELDS",
        help="instead of --cert: the certificate's fields, '{cn: alice, dns: [app.example.com]}'; "
        "its issuer is accepted, and only denylists can revoke it",
    )
    explain.add_argument("--verify", help="$ssl_client_verify (default: SUCCESS with a --cert)")
    explain.add_argument("--sni", default="", help="$ssl_server_name")
    explain.add_argument("--method", default="GET", help="$request_method")
    explain.add_argument("--client-ip", default="", help="$remote_addr")
    explain.add_argument(
        "--sec-fetch-site", default="", help="the browser's header: same-origin, cross-site, …"
    )
    explain.add_argument("--now", help="decide at this time, RFC 3339 (default: now)")
    explain.add_argument("--json", action="store_true", help="print JSON")

    test = _command(commands, "test", _test, "run the tests of the policy and of other files")
    test.add_argument(
        "files", nargs="*", metavar="FILE", help="more tests, in addition to the policy's own"
    )
    test.add_argument("--junit", metavar="FILE", help="also write the result as JUnit XML")
    test.add_argument(
        "--threshold",
        type=percentage,
        default=0.0,
        metavar="PERCENT",
        help="fail if less than this part of the locations and rules is tested",
    )
    test.add_argument("--json", action="store_true", help="print JSON")

    add_diff(
        _command(commands, "diff", None, "show who gains or loses access by a policy change"),
        lambda options, path: policy_file(
            load_policy(argparse.Namespace(**{**vars(options), "policy": path})), path
        ),
    )

    add_commands(
        partial(_command, commands),
        lambda options: policy_file(load_policy(options), settings_of(options).policy),
        settings_of,
    )

    add_revoke(
        _command(commands, "revoke", None, "deny a certificate from now on"),
        settings_of,
        _enrolled,
    )

    enroll_arguments.add_commands(commands, _last_seen)

    fetch = _command(commands, "fetch", _fetch, "download CRLs and OCSP answers")
    fetch.add_argument("--once", action="store_true", help="download every CRL once, then exit")
    fetch.add_argument("--state-dir", help="directory for the downloads")

    add_doctor(
        _command(commands, "doctor", None, "find dangerous mistakes in nginx's configuration"),
        load_policy,
        settings_of,
    )

    add_fleet(
        commands,
        CONFIG,
        Hooks(
            settings_of,
            lambda options: Path(options.config or CONFIG),
            cli_fleet.check_release,
            cli_fleet.revoked_target,
            cli_fleet.policy_difference,
        ),
    )

    schema = commands.add_parser("schema", help="print the policy's JSON Schema")
    schema.set_defaults(run=_schema)
    add_examples(parser)
    return parser


def _command(commands: Any, name: str, run: Any, doc: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=doc, description=doc)
    parser.set_defaults(run=run)
    parser.add_argument("-c", "--config", help=f"sidecar.yaml (default: {CONFIG})")
    if name != "diff":
        parser.add_argument("--policy", help="policy.yaml, instead of the configured one")
    return parser
