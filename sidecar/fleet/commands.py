"""`fleet …`: from the call to the exit code.

0: done, and with --wait in force on every known node.  1: published, but not in force everywhere;
a node is behind; another publisher was first.  2: the call, a file or a server is wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from sidecar.core.config.dates import parse_date
from sidecar.core.config.fleet_settings import node_name
from sidecar.core.decision import Reason
from sidecar.core.errors import printable
from sidecar.core.fleet.bodies import To, issued_at
from sidecar.core.fleet.entry import Refused, SignedEntry, parse_line
from sidecar.core.fleet.keys import PublicKey, parse_key, parse_name
from sidecar.core.revocation.denylist import one_entry
from sidecar.runtime.log_lines import log_in_thread
from sidecar.runtime.systemd import Notifier

from .call import KEY_FILE, Call
from .canary import Condition, promote
from .hooks import Hooks
from .in_force import difference
from .keeper import head_once, keep
from .key_changes import changed_keys
from .ledger import Ledger
from .log_lines import describe
from .nats_client import connected, require_nats
from .node import Node
from .nodes import known_nodes, wait_for
from .publisher import ATTEMPTS, Beaten, Publisher
from .release_source import read_directory
from .signer import make_key, read_passphrase
from .streams import make_streams


def run(name: str, options: argparse.Namespace, hooks: Hooks) -> int:
    """The exit code of one command.  Raises OSError, ValueError and `PolicyError`."""
    call = Call(options, hooks)
    if name == "keygen":
        return _keygen(call)
    require_nats()
    commands: dict[str, Callable[[Call], Awaitable[int]]] = {
        "publish": _publish,
        "revoke": _revoke,
        "undo": _undo,
        "rollback": _rollback,
        "log": _log,
        "status": _status,
        "keeper": _keeper,
        "node": _node,
        "restore": _restore,
        "keys": _keys,
    }
    try:
        return asyncio.run(_run(commands[name](call)))
    except Beaten as error:
        print(f"mtls-sidecar: {printable('; '.join(map(str, error.args)))}", file=sys.stderr)
        return 1


async def _run(command: Awaitable[int]) -> int:
    return await command


# -- keys


def _keygen(call: Call) -> int:
    options = call.options
    path = Path(options.file) if options.file else call.hooks.config(options).parent / KEY_FILE
    given = options.passphrase_file
    passphrase = read_passphrase(given, path) if given else None
    public = make_key(path, passphrase)
    public = PublicKey(public.raw, heads_only=options.head)
    print(public, flush=True)
    print(
        printable(
            f"{path} is the key: keep it off the NATS servers, and keep a copy; the line that "
            "begins with ed25519 goes to `keys` of every host's sidecar.yaml"
        ),
        file=sys.stderr,
    )
    return 0


# -- publishing


async def _publish(call: Call) -> int:
    options = call.options
    directory = Path(options.directory)
    to = _to(options.to)
    if options.promote_after is not None:
        _condition(options)
    files = read_directory(directory)
    call.hooks.check(call.settings, directory / "policy.yaml")
    async with call.publisher() as publisher:
        if not await _is_wanted(call, publisher, directory, to):
            print("nothing was published", file=sys.stderr)
            return 2
        await _warn_of_nobody(publisher, to)
        listed = await publisher.put_files(files)
        body = {"files": listed, "to": to.body(), "comment": _reason(options)}
        signed = await publisher.publish("release", body)
        code = await _published(call, publisher, signed)
        if options.promote_after is not None and not to.is_everyone:
            code = await promote(publisher, signed, _condition(options), print)
        return code


def _condition(options: argparse.Namespace) -> Condition:
    """When a canary is held.  Raises ValueError."""
    reasons = tuple(filter(None, (word.strip() for word in options.hold_reasons.split(","))))
    if unknown := set(reasons) - set(Reason):
        raise ValueError(f"--hold-reasons: unknown reason {min(unknown)!r}")
    return Condition(options.promote_after, options.hold_above, reasons)


async def _is_wanted(call: Call, publisher: Publisher, directory: Path, to: To) -> bool:
    """Show what the release changes, and ask, where there is somebody to ask."""
    told = await difference(publisher, directory, partial(call.hooks.diff, call.settings))
    if told:
        print(told)
    if call.options.yes or not sys.stdin.isatty():
        return True
    answer = await asyncio.to_thread(input, f"publish {directory} to {to}? [y/N] ")
    return answer.strip().lower() in ("y", "yes")


async def _warn_of_nobody(publisher: Publisher, to: To) -> None:
    """Say so where no node that has reported has a label: it may be mistyped."""
    if not to.labels:
        return
    there = {
        label for node in await known_nodes(publisher.bus, time.time()) for label in node.labels
    }
    for label in sorted(set(to.labels) - there):
        known = ", ".join(sorted(there)) or "none"
        print(f"warning: no node has the label {label}; there are: {known}", file=sys.stderr)


def _to(text: str) -> To:
    """Whom a release is for.  Raises ValueError."""
    if not text:
        return To()
    number = text.removesuffix("%")
    if number.isascii() and number.isdigit():
        if not 1 <= int(number) <= 100:
            raise ValueError(f"--to {text} is no percentage", "write 1% to 100%")
        return To(percent=int(number))
    return To(labels=tuple(parse_name(label.strip()) for label in text.split(",")))


def _reason(options: argparse.Namespace) -> str:
    return printable(options.reason)[:500]


async def _revoke(call: Call) -> int:
    options = call.options
    kind, value, who = call.hooks.target(options)
    entry = one_entry(kind, value, options.until)
    end = int(parse_date(options.until, end=True)) if options.until else None
    if end is not None and end <= time.time():
        raise ValueError(f"--until {options.until} has passed: nobody would be denied")
    comment = "; ".join(filter(None, (printable(who), _reason(options))))[:500]
    body = {"deny": entry.kind, "value": entry.value, "comment": comment}
    async with call.publisher() as publisher:
        signed = await _insist(publisher, lambda: publisher.publish("revocation", body, end))
        return await _published(call, publisher, signed)


async def _undo(call: Call) -> int:
    number = call.options.sequence
    async with call.publisher() as publisher:

        def undo() -> Awaitable[SignedEntry]:
            publisher.revocation(number)
            return publisher.publish("undo", {"sequence": number})

        signed = await _insist(publisher, undo)
        return await _published(call, publisher, signed)


async def _insist(
    publisher: Publisher, publish: Callable[[], Awaitable[SignedEntry]]
) -> SignedEntry:
    """Publish, again behind the others where they were first: a revocation contradicts nothing."""
    for _ in range(ATTEMPTS - 1):
        try:
            return await publish()
        except Beaten:
            continue
    return await publish()


async def _keys(call: Call) -> int:
    """Print the keys, or publish a change of them."""
    options = call.options
    add = [str(parse_key(text)) for text in options.add]
    changing = bool(add or options.remove)
    async with call.publisher(signing=changing) as publisher:
        if changing:
            changed_keys(publisher.ledger.chain.keys, map(parse_key, add), options.remove)
            body = {"add": add, "remove": options.remove}
            signed = await publisher.publish("key", body)
            return await _published(call, publisher, signed)
        for key in publisher.ledger.chain.keys.values():
            print(f"{key.id}  {key}")
    return _looked(publisher, 0)


async def _rollback(call: Call) -> int:
    async with call.publisher() as publisher:
        release = publisher.release(call.options.sequence)
        for file in release.files:
            if await publisher.bus.blob(file.sha256, file.size) is None:
                raise ValueError(
                    f"the servers don't have {file.name} of release {release.sequence} any more",
                    "publish its directory",
                )
        listed = [{"name": f.name, "sha256": f.sha256, "size": f.size} for f in release.files]
        comment = _reason(call.options) or f"as release {release.sequence}"
        body = {"files": listed, "to": None, "comment": comment}
        signed = await publisher.publish("release", body)
        return await _published(call, publisher, signed)


async def _published(call: Call, publisher: Publisher, signed: SignedEntry) -> int:
    """Tell what was published, and with --wait, where it is in force."""
    since = time.monotonic() - max(0.0, time.time() - issued_at(signed.entry))
    await head_once(publisher.bus, publisher.ledger, publisher.signer)
    print(describe(signed))
    if call.options.wait is None:
        return 0

    def told(name: str, seconds: float) -> None:
        print(printable(f"{name}: in force after {seconds:.3f} s"), flush=True)

    number = signed.entry.sequence
    if not await publisher.bus.reports():
        print("no node has reported yet: there is nobody to wait for", file=sys.stderr)
    behind = await wait_for(publisher.bus, number, call.options.wait, told, since)
    if behind:
        names = printable(", ".join(behind))
        message = f"entry {number} is not in force on {len(behind)} nodes: {names}"
        print(f"mtls-sidecar: {message}", file=sys.stderr)
    return 1 if behind else 0


# -- looking


async def _log(call: Call) -> int:
    async with call.publisher(signing=False) as publisher:
        signed = [parse_line(line) for _, line in publisher.ledger.lines()]
    if not signed:
        print("nothing was published yet", file=sys.stderr)
    if call.options.json:
        print(json.dumps([_as_json(each) for each in signed], indent=2))
    else:
        for each in signed:
            print(describe(each))
    return _looked(publisher, 0)


def _looked(publisher: Publisher, code: int) -> int:
    """The exit code of a command that only looks: 2, and why, where the servers were set back."""
    if publisher.set_back:
        print(f"mtls-sidecar: {printable(publisher.set_back)}", file=sys.stderr)
    return 2 if publisher.set_back else code


def _as_json(signed: SignedEntry) -> dict[str, object]:
    entry = signed.entry
    return {
        "fleet": entry.fleet,
        "epoch": entry.epoch,
        "sequence": entry.sequence,
        "previous": entry.previous,
        "kind": entry.kind,
        "body": entry.body,
        "not_after": entry.not_after,
        "hash": entry.hash,
        "key": signed.key,
    }


async def _status(call: Call) -> int:
    async with call.publisher(signing=False) as publisher:
        if call.options.forget:
            await _forget(publisher, parse_name(call.options.forget))
        now = time.time()
        nodes = await known_nodes(publisher.bus, now)
        await _take_head(publisher)
    head = publisher.ledger.chain.head
    age = None if head is None else round(max(0.0, now - head.issued), 3)
    last = publisher.ledger.chain.sequence
    if call.options.json:
        told = {"sequence": last, "head_age": age, "nodes": [node.as_json() for node in nodes]}
        print(json.dumps(told, indent=2))
    else:
        shown = "no head" if age is None else f"head {age:.0f} s old"
        if age is None or age > call.fleet.stale_after:
            shown += ", is a keeper running?"
        print(f"fleet {call.fleet.name}: entry {last}, {shown}, {len(nodes)} nodes")
        for node in nodes:
            behind = "" if node.sequence >= last else f", {last - node.sequence} behind"
            refused = f", {node.refused} refused" if node.refused else ""
            why = f": {node.problem}" if node.problem else ""
            print(
                f"  {node.name}: entry {node.sequence}{behind}, policy {node.hash or 'none'}, "
                f"reported {node.age:.0f} s ago, version {node.version or 'unknown'}{refused}{why}"
            )
    return _looked(publisher, 1 if any(node.sequence < last for node in nodes) else 0)


async def _forget(publisher: Publisher, node: str) -> None:
    """Remove a node's report.  Raises ValueError where there is none."""
    reports = await publisher.bus.reports()
    if node not in reports:
        known = ", ".join(sorted(reports)) or "none"
        raise ValueError(f"no node {node} has reported", f"those that have: {known}")
    await publisher.bus.drop_data(publisher.bus.subjects.report(node))


async def _take_head(publisher: Publisher) -> None:
    line = await publisher.bus.head()
    if line is not None:
        try:
            publisher.ledger.chain.take_head(parse_line(line))
        except Refused as error:
            publisher.ledger.refuse(error)


async def _restore(call: Call) -> int:
    fleet = call.fleet
    with contextlib.closing(call.published()) as ledger:
        async with connected(fleet, "publisher") as bus:
            await make_streams(bus)
            publisher = Publisher(bus, ledger)
            count = await publisher.restore()
            await publisher.sync()
            missing = await publisher.restore_files()
    for name in missing:
        print(f"warning: {printable(name)} is not kept here: publish again", file=sys.stderr)
    print(f"{count} entries were written again; the log ends at {ledger.chain.sequence}")
    return 0


# -- services


async def _keeper(call: Call) -> int:
    fleet, signer = call.fleet, call.signer()
    notifier = Notifier(os.environ)
    with contextlib.closing(Ledger(call.ledger_directory("keeper"), fleet)) as ledger:
        return await _until_stopped(
            keep(fleet, ledger, signer, ready=lambda: notifier.ready("signing heads"))
        )


async def _node(call: Call) -> int:
    fleet, settings = call.fleet, call.settings
    notifier = Notifier(os.environ)
    node = Node(fleet, node_name(fleet, socket.gethostname()), Path(settings.state_dir))
    return await _until_stopped(node.run(lambda: notifier.ready("following the fleet")))


async def _until_stopped(work: Awaitable[None]) -> int:
    """Run until SIGTERM or SIGINT; whoever reads the log holds nothing up."""
    log_in_thread()
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return 0
