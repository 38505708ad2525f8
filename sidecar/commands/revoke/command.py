"""Run `revoke TARGET`, `revoke --undo TARGET` and `revoke --list`, and return the exit code.

0: done, and a running daemon confirms it.  1: written, but not confirmed or not everywhere; or
nothing to undo.  2: the call or a file is invalid, and nothing was changed.
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from sidecar.commands.explain import escaped_pem
from sidecar.core.config.settings import Settings
from sidecar.core.decision import Reason
from sidecar.core.errors import PolicyError, brief, printable
from sidecar.core.evaluate import evaluate
from sidecar.core.policy.compile import compile_policy
from sidecar.core.policy.model import Policy
from sidecar.core.policy.spec import read_policy
from sidecar.core.request import assemble_request
from sidecar.core.revocation.crl.index import crl_facts
from sidecar.core.revocation.denied import denied
from sidecar.core.revocation.denylist import DenylistEntry, is_same, of_entries, one_entry
from sidecar.core.x509.certificate import ClientCert
from sidecar.runtime.direct_sources import DirectSources
from sidecar.runtime.files import MAX_POLICY, read_file

from .confirm import Confirmation, gone, in_force, trusts_in_force
from .denylist_file import add, locate, named_by, read_entries, remove
from .late_output import printed_at_the_end
from .lists import ListedTrust, choose, only_file, trusts_of
from .named_clients import Enrolled, EnrolledCertificate, denied_by, find_client, target_of
from .target import Target, read_target


@dataclass(frozen=True, slots=True)
class Call:
    """The arguments of a call.  `form` is the kind of the target, if an option says it."""

    target: str = ""
    form: str = ""
    key: bool = False
    until: str = ""
    reason: str = ""
    trust: str | None = None
    denylist: str | None = None
    undo: bool = False
    listing: bool = False
    as_json: bool = False


def run(call: Call, settings: Settings, enrolled: Enrolled | None = None) -> int:
    """Run the command; return the exit code.

    `enrolled` are the clients that can be named.  Raises `PolicyError`, OSError and ValueError if
    nothing was changed.
    """
    if call.listing:
        return _list(call, settings)
    with printed_at_the_end():
        return _change(call, settings, enrolled)


def _change(call: Call, settings: Settings, enrolled: Enrolled | None) -> int:
    found = find_client(call.target, call.form, enrolled)
    if found is not None and enrolled is not None:
        undo = _undo_client if call.undo else _revoke_client
        return undo(call, settings, found, enrolled)
    target = read_target(call.target, form=call.form, key=call.key)
    code = _undo(call, settings, target) if call.undo else _revoke(call, settings, [target])
    is_done = code == 0 or (code == 1 and not call.undo)
    somewhere = call.trust or call.denylist  # where another CA's certificate can have that number
    if enrolled is not None and is_done and not (target.kind == "serial" and somewhere):
        _note(call, settings, target, enrolled)
    return code


# -- clients of `enroll`


def _note(call: Call, settings: Settings, target: Target, enrolled: Enrolled) -> None:
    """Note in enroll's store what was denied by a line about something else than a client's name.

    So `enroll crl` lists it, nobody renews it, and what is revoked by name later is undone alone.
    """
    try:
        found = denied_by(enrolled, target)
        if call.undo:
            enrolled.unmark(_denied_no_more(call, settings, found))
            return
        if found and not call.until:  # the CRL and the list of clients have none with an end
            enrolled.note([each.sha256 for each in found], time.time(), call.reason)
        for who in dict.fromkeys(f"{each.name}/{each.device}" for each in found):
            others = _held(enrolled.find(who) or (), {each.sha256 for each in found})
            if any(each.revoked is None for each in others):
                text = f"{who} has other certificates, which go on: to deny them, say --name {who}"
                print(printable(f"warning: {text}"), file=sys.stderr)
    except (OSError, PolicyError) as error:
        text = f"whether it is a client of enroll isn't noted: {brief(error)}"
        print(printable(f"warning: {text}"), file=sys.stderr)


def _denied_no_more(
    call: Call, settings: Settings, found: Sequence[EnrolledCertificate]
) -> list[str]:
    """Return the certificates, by SHA-256, that no line of any denylist denies now."""
    if not found:
        return []
    everywhere = replace(call, trust=None, denylist=None)
    lines = of_entries("", _all_lines(everywhere, settings, target_of(found[0], key=False)))
    certs = ((each.sha256, target_of(each, key=False).cert) for each in found)
    return [
        sha256
        for sha256, cert in certs
        if cert is not None and denied([lines], cert, time.time()) is None
    ]


def _revoke_client(
    call: Call, settings: Settings, found: Sequence[EnrolledCertificate], enrolled: Enrolled
) -> int:
    """Deny every certificate of a client that is still valid, then record it in the store.

    One that was issued before the record ended the client's invitations is denied in a next round.
    """
    held, denied, ended, code = _held(found, set()), set[str](), list[str](), 0
    while True:
        if held:
            done = _revoke(call, settings, [target_of(each, key=call.key) for each in held])
            if done == 2 and not denied:  # nothing was written
                return done
            code = max(code, min(done, 1))
        sha256s = [each.sha256 for each in held]
        denied.update(sha256s)
        try:
            # The CRL and the list of clients have no revocation with an end.
            marked = [] if call.until else sha256s
            ended += enrolled.mark(call.target, marked, time.time(), call.reason)
            held = _held(enrolled.find(call.target) or (), denied)
        except (OSError, PolicyError) as error:
            return int(_fail(f"denied, but not noted as revoked by enroll: {brief(error)}"))
        if not held:
            break
    for identifier in ended:
        print(printable(f"invitation {identifier} is cancelled"))
    if not denied and not ended:
        return int(_fail(f"{call.target} has no certificate and no invitation that holds"))
    return code


def _held(found: Sequence[EnrolledCertificate], denied: set[str]) -> list[EnrolledCertificate]:
    """Return the certificates that haven't ended, without those that are denied already."""
    return [each for each in found if time.time() < each.not_after and each.sha256 not in denied]


ONE_CALL = 60.0
"""Seconds within which the certificates of one `revoke` are marked."""


def _undo_client(
    call: Call, settings: Settings, found: Sequence[EnrolledCertificate], enrolled: Enrolled
) -> int:
    """Take back the last `revoke` of a client.

    What was revoked at another time, or for another reason, stays so: a phone that was stolen
    before its holder went on leave.
    """
    lines = _lines_about(call, settings, found)
    targets = {each.sha256: _undo_target(call, each, lines) for each in found}
    revoked = [each for each in found if each.revoked is not None]
    by_name = [each for each in revoked if not _is_denied_otherwise(each, lines)]
    last = max(by_name, key=lambda each: each.revoked or 0.0, default=None)
    unnoted = [each for each in found if each.revoked is None]  # such as with --until
    meant = [each for each in unnoted if _is_denied_for(targets[each.sha256], lines)]
    meant = meant or [each for each in by_name if last and _is_of_one_call(each, last)]
    for each in revoked:
        if each not in meant and time.time() < each.not_after:
            why = ", ".join(filter(None, (_rfc3339(each.revoked or 0.0), each.reason)))
            who = f"{each.name}/{each.device}"
            say = who if each in by_name else f"--fingerprint {each.sha256}"
            text = f"{who} stays revoked ({why}): to take that back, too, say --undo {say}"
            print(printable(text))
    if not meant:
        return int(_fail(f"{call.target} has no certificate that is revoked; nothing to undo"))
    wanted = {(each.kind, each.value): each for each in (targets[m.sha256] for m in meant)}
    codes = [_undo(call, settings, target) for target in wanted.values()]
    if not any(codes):
        enrolled.unmark(_denied_no_more(call, settings, [m for m in meant if m in revoked]))
    return max(codes)


def _is_of_one_call(one: EnrolledCertificate, other: EnrolledCertificate) -> bool:
    """Return whether one `revoke` is likely to have revoked both."""
    apart = abs((one.revoked or 0.0) - (other.revoked or 0.0))
    return apart <= ONE_CALL and one.reason == other.reason


def _lines_about(
    call: Call, settings: Settings, found: Sequence[EnrolledCertificate]
) -> list[DenylistEntry]:
    """Return the lines of the denylists about these certificates and their keys."""
    targets = [target_of(each, key=key) for each in found for key in (False, True)]
    wanted = [one_entry(each.kind, each.value) for each in targets]
    lines = _all_lines(call, settings, targets[0])
    return [each for each in lines if any(is_same(each, one) for one in wanted)]


def _all_lines(call: Call, settings: Settings, target: Target) -> list[DenylistEntry]:
    """Return the lines of all denylists, or of those that the call names."""
    trusts = _all_or_chosen(call, settings, target)
    lines: list[DenylistEntry] = []
    for place in dict.fromkeys(locate(path) for each in trusts for path in each.denylists):
        with contextlib.suppress(OSError):  # it is told when a line is to be removed
            lines += read_entries(place)[0]
    return lines


def _undo_target(call: Call, found: EnrolledCertificate, lines: Sequence[DenylistEntry]) -> Target:
    """Return what of a certificate is denied: itself, or its key alone, for this client."""
    whole, key = (target_of(found, key=each) for each in (False, True))
    by_key = _of(key, lines)
    theirs = [each for each in by_key if key.who in each.comment.split(", ")]
    return key if call.key or (by_key and by_key == theirs and not _of(whole, lines)) else whole


def _of(target: Target, lines: Sequence[DenylistEntry]) -> list[DenylistEntry]:
    wanted = one_entry(target.kind, target.value)
    return [each for each in lines if is_same(each, wanted)]


def _is_denied_for(target: Target, lines: Sequence[DenylistEntry]) -> bool:
    """Return whether a line denies a target in the client's name."""
    return any(target.who in each.comment.split(", ") for each in _of(target, lines))


def _is_denied_otherwise(found: EnrolledCertificate, lines: Sequence[DenylistEntry]) -> bool:
    """Return whether lines deny a certificate or its key, but none in the client's name."""
    targets = [target_of(found, key=key) for key in (False, True)]
    denied_now = any(_of(each, lines) for each in targets)
    return denied_now and not any(_is_denied_for(each, lines) for each in targets)


# -- revoke


def _revoke(call: Call, settings: Settings, targets: Sequence[Target]) -> int:
    """Write every line, then ask the daemon about each."""
    if one_entry(targets[0].kind, targets[0].value, call.until).until <= time.time():
        raise ValueError(f"--until {call.until} has passed: nobody would be denied")
    chosen = [_chosen(call, settings, target) for target in targets]
    failed, done = False, []
    for target, trusts in zip(targets, chosen, strict=True):
        written, broken = _write(call, settings, target, trusts)
        failed = failed or broken
        if written:
            done.append((target, trusts))
    if not done:
        return 2
    names = []
    # Every line is written before a daemon is waited for.
    told = _told_in_force(call, settings, done[0][0])
    for target, trusts in done:
        more = _more_in_force(told, trusts)
        failed = _write_more(call, settings, target, more) or failed
        names.append((target, list(dict.fromkeys(each.name for each in (*trusts, *more)))))
    codes = [_confirm(call, settings, target, trusts, failed) for target, trusts in names]
    return max(codes)


def _write(
    call: Call, settings: Settings, target: Target, trusts: Sequence[ListedTrust]
) -> tuple[int, bool]:
    """Add a target to its denylists; return how many have it, and whether one of them failed."""
    failed, written = False, 0
    for place, users in _places(trusts, call, settings, most=1).items():
        try:
            line = add(place, target, call.until, call.reason, users)
        except OSError as error:
            failed = _fail(f"{_said(error, place)}; not revoked in {place}")
        else:
            written += 1
            print(printable(f"{place}: {line or 'denied already, nothing to add'}"))
    if written and target.cert is not None and _is_authority(target.cert):
        who = target.cert.dn
        lacking = [each for each in trusts if each.remains]
        for each in lacking:
            failed = _fail(f"{who} is an authority, but trust {each.name!r} {each.remains}")
        if not lacking:
            print(printable(f"{who} is an authority: every certificate below it is denied"))
    if written and not any(each.concerned for each in trusts):
        names = ", ".join(repr(each.name) for each in trusts)
        text = f"no authority of trust {names} issued it, and other trusts don't deny it by this"
        print(printable(f"warning: {text}"), file=sys.stderr)
    return written, failed


def _write_more(
    call: Call, settings: Settings, target: Target, more: Sequence[ListedTrust]
) -> bool:
    """Add a target to the denylists in force, too; return whether one of them failed."""
    if not more:
        return False
    text = f"{settings.policy} names other denylists than the policy in force: both get the line"
    print(printable(f"warning: {text}"), file=sys.stderr)
    try:
        return _write(call, settings, replace(target, cert=None), more)[1]
    except OSError as error:
        return _fail(f"not revoked in a denylist in force: {brief(error)}")


def _is_authority(cert: ClientCert) -> bool:
    """Return whether a certificate says that it is an authority's."""
    try:
        return crl_facts(cert).is_ca
    except ValueError:
        return False


def _confirm(call: Call, settings: Settings, target: Target, names: list[str], failed: bool) -> int:
    if not any(names):
        text = f"no trust of {settings.policy} names {call.denylist} as its denylist"
        return int(_fail(f"written, but {text}: nobody is denied by it"))
    entry = one_entry(target.kind, target.value, call.until)
    found = in_force(settings, Path(settings.policy), names, entry)
    return _told(found, failed, "written, but not known to be in force")


def _chosen(call: Call, settings: Settings, target: Target) -> list[ListedTrust]:
    """Choose the trusts to revoke in.  Raises `PolicyError`, OSError, ValueError."""
    if call.denylist:
        path = Path(call.denylist)
        if not path.exists():
            locate(path)
            raise FileNotFoundError(2, "no such file; make it first, with touch", str(path))
        try:
            return list(only_file(_trusts(settings, target), path)) or [ListedTrust("", (path,))]
        except (PolicyError, OSError, ValueError):  # the denylist has no readable policy now
            return [ListedTrust(UNKNOWN, (path,))]
    return choose(_trusts(settings, target), call.trust)


UNKNOWN = "unknown, as the policy can't be read"
"""The name shown for a file's trust while the policy can't be read."""


def _trusts(settings: Settings, target: Target) -> list[ListedTrust]:
    """Return the trusts of the policy; if it can't be read, those of the running daemon.

    Raises `PolicyError` and OSError.
    """
    path = Path(settings.policy)
    try:
        spec = read_policy(read_file(path, MAX_POLICY), str(path))
    except (PolicyError, OSError) as error:
        found = trusts_in_force(settings, one_entry(target.kind, target.value))
        if not found:
            raise error from None
        why = f"warning: {path} can't be used now; the trusts are those of the running daemon"
        print(printable(why), file=sys.stderr)
        return found
    return trusts_of(spec, path.parent, target)


def _told_in_force(call: Call, settings: Settings, target: Target) -> list[ListedTrust]:
    """Ask the daemon for the trusts in force that a call is about: none, if it names a file."""
    if call.denylist:
        return []
    found = trusts_in_force(settings, one_entry(target.kind, target.value))
    return [each for each in found if call.trust in (None, each.name)]


def _more_in_force(told: Sequence[ListedTrust], trusts: Sequence[ListedTrust]) -> list[ListedTrust]:
    """Return the trusts in force with a first denylist that these don't have.

    The policy's file can have an edit that the daemon refuses.
    """
    known = {(each.name, path.resolve()) for each in trusts for path in each.denylists[:1]}
    return [
        each
        for each in told
        if any((each.name, path.resolve()) not in known for path in each.denylists[:1])
    ]


def _places(
    trusts: Sequence[ListedTrust], call: Call, settings: Settings, most: int | None = None
) -> dict[Path, frozenset[int]]:
    """Return the first denylists of each trust, and which users beside root have named them.

    Raises OSError for a dangling link.
    """
    policy = None if call.denylist else Path(settings.policy)
    found: dict[Path, frozenset[int]] = {}
    for trust in trusts:
        for path in trust.denylists[:most]:
            users = named_by(path, of=policy, told_by=trust.told_by)
            place = locate(path)
            found[place] = found.get(place, frozenset()) | users
    return found


def _said(error: OSError, place: Path) -> str:
    return f"{error.filename or place}: {error.strerror or error}"


def _fail(text: str) -> bool:
    print(f"mtls-sidecar: {printable(text)}", file=sys.stderr)
    return True


def _told(found: Confirmation, failed: bool, otherwise: str) -> int:
    if not found.done:
        failed = _fail(f"{otherwise}: {found.text}")
    elif not failed:
        print(printable(found.text))
    return int(failed)


# -- undo


def _undo(call: Call, settings: Settings, target: Target) -> int:
    """Undo `revoke` of this target, and report what still revokes it."""
    entry = one_entry(target.kind, target.value)
    trusts = [each for each in _all_or_chosen(call, settings, target) if each.denylists]
    places = _places(trusts, call, settings)
    failed = undone = False
    for place, users in places.items():
        try:
            removed = remove(place, target, users)
        except OSError as error:
            failed = _fail(f"{_said(error, place)}; not undone in {place}")
            continue
        for line in removed:
            undone = True
            print(printable(f"{place}: removed: {line}"))
    if not undone and not failed:
        failed = _fail(f"no denylist has a line {target.kind} {target.value}; nothing to undo")
    for text in _still_revoked(settings, target, entry):
        print(printable(f"it is revoked still: {text}"))
    if failed:
        return 1
    found = gone(settings, Path(settings.policy), list(places), entry)
    return _told(found, failed, "removed, but not known to be out of force")


def _all_or_chosen(call: Call, settings: Settings, target: Target) -> list[ListedTrust]:
    chosen = call.denylist or call.trust
    trusts = _chosen(call, settings, target) if chosen else _trusts(settings, target)
    return [*trusts, *_more_in_force(_told_in_force(call, settings, target), trusts)]


def _still_revoked(settings: Settings, target: Target, entry: DenylistEntry) -> list[str]:
    """Return the reasons that deny the target now, according to the current files."""
    path = Path(settings.policy)
    try:
        sources = DirectSources(path.parent, Path(settings.state_dir))
        policy = compile_policy(read_file(path, MAX_POLICY), str(path), sources)
    except (PolicyError, OSError) as error:
        return [f"maybe; the policy can't be used to tell: {brief(error)}"]
    if target.cert is not None:
        return _revoked_in(policy, target.cert)
    found = [
        each.answer()
        for trust in policy.trusts.values()
        for denylist in trust.denylists
        for each in denylist.entries.values()
        if is_same(each, entry) and time.time() < each.until
    ]
    return list(dict.fromkeys(f"{each.source}: {each.detail}" for each in found))


def _revoked_in(policy: Policy, cert: ClientCert) -> list[str]:
    """Return the details of all `revoked` decisions about a certificate."""
    found: dict[str, None] = {}
    for name in policy.locations:
        fields = {"verify": b"SUCCESS", "cert": escaped_pem(cert.der)}
        decision = evaluate(policy, assemble_request(name, fields), time.time())
        if decision.reason is Reason.REVOKED:
            found[decision.detail] = None
    return list(found)


# -- list


def _list(call: Call, settings: Settings) -> int:
    """Print the lines in force, by trust and file."""
    trusts = _all_or_chosen(call, settings, Target("serial", "0"))
    found: list[dict[str, object]] = []
    for trust in trusts:
        if not trust.denylists and not call.as_json:
            print(printable(f"{trust.name}: no denylist, so nobody can be denied in it"))
        for path in trust.denylists:
            entries, mistakes = read_entries(locate(path))
            lines = [each for each in entries if time.time() < each.until]
            found += [_as_json(trust.name, path, each) for each in lines]
            if not call.as_json:
                print(printable(f"{trust.name or 'no trust'}: {path}"))
                for each in lines:
                    print(printable(f"  line {each.line}: {each.answer().detail}"))
            for mistake in mistakes:
                print(f"warning: not in force: {mistake}", file=sys.stderr)
    if call.as_json:
        print(json.dumps(found, indent=2))
    return 0


def _as_json(trust: str, path: Path, entry: DenylistEntry) -> dict[str, object]:
    end = None if entry.until == math.inf else _rfc3339(entry.until)
    return {
        "trust": trust,
        "file": str(path),
        "line": entry.line,
        "kind": entry.kind,
        "value": entry.value,
        "until": end,
        "comment": entry.comment,
    }


def _rfc3339(moment: float) -> str | None:
    try:
        return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%dT%H:%M:%SZ}"
    except (ValueError, OverflowError, OSError):
        return None
