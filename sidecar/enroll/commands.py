"""`invite`, `clients` and `enroll …`: what each does and prints."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from sidecar.core.errors import printable
from sidecar.runtime.files import MAX_POLICY, read_file, write_file, write_named_file

from . import clients, invitations
from .certificate_profile import Identity
from .clients import IssuedCertificate
from .durations import in_words, rfc3339
from .invitations import Invitation, InvitationError, InvitationState
from .names import folded, parse_device, parse_person
from .settings import CONFIG, EnrollSettings, read_enroll_settings
from .state_owner import as_owner_of, ended_after
from .store import Store, StoreError

LONGEST = 60.0
"""Seconds after which a command that uses the store ends: see `ended_after`."""

Run = Callable[[argparse.Namespace], int]


def run_guarded(run: Run, options: argparse.Namespace) -> int:
    """Run a command; turn this package's errors into those that the command line knows."""
    try:
        return run(options)
    except (StoreError, InvitationError) as error:
        raise ValueError(str(error)) from None


def load_settings(path: str | None) -> EnrollSettings:
    """Read enroll.yaml.  Raises `PolicyError` and OSError.

    A file that others may write is refused: it names programs that run.
    """
    place = path or CONFIG
    return read_enroll_settings(read_file(place, MAX_POLICY, trusted_only=True), place)


@contextlib.contextmanager
def _opened(settings: EnrollSettings) -> Iterator[Store]:
    """Yield the store, as the user whom it belongs to, for some time at most."""
    directory = Path(settings.state_dir)
    why = f"it takes longer than {LONGEST:g} s; see what is there: ls -l {directory}"
    with as_owner_of(directory), ended_after(LONGEST, f"{directory}: {why}"):
        store = Store(settings.database)
        store.require()
        yield store


# -- invite


def invite(options: argparse.Namespace) -> int:
    """Make a link, list the links, or cancel one."""
    asked = [options.name is not None, options.list, options.cancel is not None]
    if sum(asked) != 1:
        raise ValueError("say invite NAME, invite --list, or invite --cancel ID")
    settings = load_settings(options.config)
    if options.list:
        return _list(settings, options.json)
    if options.cancel is not None:
        with _opened(settings) as store, store.changing() as connection:
            found = invitations.cancel(connection, options.cancel, time.time())
        print(printable(f"invitation {found.id} of {found.name} is cancelled"))
        return 0
    return _new(settings, options)


def _new(settings: EnrollSettings, options: argparse.Namespace) -> int:
    name = parse_person(options.name)
    device = parse_device(options.device) if options.device else None
    profile = settings.profile(options.profile or next(iter(settings.profiles)))
    Identity(name, device or settings.default_device, profile).alternative_names()
    token, now = invitations.new_token(), time.time()
    with _opened(settings) as store, store.changing() as connection:
        _refuse_alike(clients.names(connection), name)
        used = clients.devices_in_use(clients.of_person(connection, name), now)
        if device not in used and len(used) >= profile.max_devices:
            raise ValueError(
                f"{name} has {len(used)} devices, and profile {profile.name} allows "
                f"{profile.max_devices}",
                f"revoke one of them first: {', '.join(sorted(used))}",
            )
        identifier = invitations.add(
            connection,
            token=token,
            name=name,
            device=device,
            profile=profile.name,
            now=now,
            expires=now + options.expires,
            approve=options.approve or profile.approve,
        )
    url, expires = f"{settings.url}/{token}", rfc3339(now + options.expires)
    if options.json:
        print(json.dumps({"id": identifier, "url": url, "expires": expires}))
        return 0
    print(url)
    if sys.stdout.isatty():
        print_qr_code(url, sys.stdout)
    print(printable(f"invitation {identifier} for {name}, until {expires}; the link works once"))
    return 0


def _refuse_alike(names: set[str], name: str) -> None:
    """Refuse a name that differs from another person's by upper and lower case alone."""
    alike = [each for each in names if each != name and folded(each) == folded(name)]
    if alike:
        raise ValueError(f"{name!r} is too like {alike[0]!r}, who is there already", "use that one")


def print_qr_code(url: str, out: TextIO) -> None:
    """Print a link as a QR code that fits a terminal."""
    try:
        import segno
    except ImportError:
        print("(for a QR code: pip install nginx-mtls-sidecar[enroll])", file=out)
        return
    segno.make(url, error="m", micro=False).terminal(out, compact=True)


def _list(settings: EnrollSettings, as_json: bool) -> int:
    with _opened(settings) as store, store.reading() as connection:
        found = invitations.all_of(connection, time.time())
    if as_json:
        print(json.dumps([_invitation_json(each) for each in found], indent=2))
        return 0
    for each in found:
        state = "to be approved" if each.state is InvitationState.WAITING else each.state.value
        key = f", CSR sha256 {each.request_key}" if each.request_key else ""
        what = f"{each.name}/{each.device or each.request_device or '?'}"
        line = f"{each.id}  {state:<14}  until {rfc3339(each.expires)}  {what}{key}"
        print(printable(line))
    return 0


def _invitation_json(found: Invitation) -> dict[str, object]:
    return {
        "id": found.id,
        "name": found.name,
        "device": found.device or found.request_device or None,
        "profile": found.profile,
        "state": found.state.value,
        "approve": found.approve,
        "expires": rfc3339(found.expires),
        "csr_sha256": found.request_key or None,
    }


def approve(options: argparse.Namespace) -> int:
    """Let a waiting request have its certificate."""
    settings = load_settings(options.config)
    with _opened(settings) as store, store.changing() as connection:
        found = invitations.approve(connection, options.id, time.time())
    key = f" for the CSR with sha256 {found.request_key}" if found.request_key else ""
    print(printable(f"approved: {found.name} can open the link again{key}"))
    return 0


# -- clients


def list_clients(options: argparse.Namespace) -> int:
    """Print the certificates that were issued; `options.last_seen` tells who was seen when."""
    settings = load_settings(options.config)
    now = time.time()
    with _opened(settings) as store, store.reading() as connection:
        every = clients.all_of(connection)
    found = [each for each in every if options.name in (None, each.name)]
    if options.expiring is not None:
        found = [e for e in found if e.holds_at(now) and e.not_after <= now + options.expiring]
    seen = options.last_seen(options)
    if options.json:
        print(json.dumps([_client_json(each, seen.get(each.sha256)) for each in found], indent=2))
        return 0
    for each in found:
        print(printable(_client_line(each, seen.get(each.sha256), now)))
    return 0


def _client_json(found: IssuedCertificate, seen: float | None) -> dict[str, object]:
    return {
        "name": found.name,
        "device": found.device,
        "serial": found.serial,
        "sha256": found.sha256,
        "not_before": rfc3339(found.not_before),
        "not_after": rfc3339(found.not_after),
        "revoked": found.revoked is not None,
        "last_seen": rfc3339(seen) if seen is not None else None,
    }


def _client_line(found: IssuedCertificate, seen: float | None, now: float) -> str:
    if found.revoked is not None:
        state = f"revoked {rfc3339(found.revoked)}"
    elif now >= found.not_after:
        state = f"ended {rfc3339(found.not_after)}"
    else:
        state = f"ends in {in_words(found.not_after - now)}"
    last = f"seen {rfc3339(seen)}" if seen is not None else "never seen"
    issued = f"issued {rfc3339(found.issued)}"
    return f"{found.name}/{found.device}  {found.serial}  {issued}  {state}  {last}"


# -- enroll


def init(options: argparse.Namespace) -> int:
    """Make what isn't there yet: enroll.yaml, the database and the issuing CA."""
    from .authority import make_authority

    place = Path(options.config or CONFIG)
    if not place.exists():
        if not options.url:
            raise ValueError(
                f"{place}: no such file", "say enroll init --url https://app.example.com/enroll"
            )
        data = f"url: {options.url}\n".encode()
        read_enroll_settings(data, str(place))
        write_file(place, data, 0o640)
        if os.geteuid() == 0:  # the service's group reads its configuration, as by install.sh
            group = place.absolute().parent.stat().st_gid
            os.chown(place, -1, group, follow_symlinks=False)
        print(f"{place}: a first configuration")
    settings = load_settings(str(place))
    if options.url and options.url.rstrip("/") != settings.url:
        raise ValueError(f"{place} says url: {settings.url}; change it there")
    name = parse_person(options.name)
    with as_owner_of(Path(settings.state_dir)):
        Store(settings.database).open_or_create()
        print(f"{settings.database}: the database")
        if settings.issuer.command:
            print("a command issues: there is no CA to make")
            return 0
        done = make_authority(
            settings.issuer,
            os.environ,
            name=name,
            below_root=options.below_root,
            now=time.time(),
        )
    for line in done:
        print(printable(line))
    return 0


def serve(options: argparse.Namespace) -> int:
    """Run the process that nginx passes invitations to."""
    from .service import main

    return main(load_settings(options.config), os.environ)


def crl(options: argparse.Namespace) -> int:
    """Sign a CRL of the revoked certificates."""
    from .crl import sign_crl
    from .issuer import load_key_issuer

    settings = load_settings(options.config)
    if settings.issuer.command:
        raise ValueError("a command issues, so its CA signs the CRL, not this one")
    place = Path(options.out or settings.crl.file)
    with _opened(settings) as store:
        issuer = load_key_issuer(settings.issuer, os.environ)
        data, count = sign_crl(store, issuer, time.time(), settings.crl.validity)
        if not options.out:
            write_file(place, data, 0o644)
    if options.out:
        write_named_file(place, data, 0o644)
    print(printable(f"{place}: {count} revoked"))
    return 0


def backup(options: argparse.Namespace) -> int:
    """Copy the database while it is in use."""
    settings = load_settings(options.config)
    target = Path(options.file).absolute()
    if not target.parent.is_dir():
        raise FileNotFoundError(2, "no such directory", str(target.parent))
    with _opened(settings) as store:
        data = store.copy()
    write_named_file(target, data, 0o600)
    print(printable(f"{target}: a copy of the database; the CA's key is not in it"))
    return 0
