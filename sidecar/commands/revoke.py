"""`revoke`: one line into a denylist, safely, for the person whose laptop was stolen.

The file is replaced at once, under a lock, with its mode and owner; a line that is there already
isn't written twice.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sidecar.core.policy.patterns import PatternError, parse_fingerprint, parse_serial
from sidecar.core.policy.spec import PolicySpec
from sidecar.core.revocation.denylist import format_entry, has_entry, parse_denylist
from sidecar.core.x509.bundle import read_bundle
from sidecar.core.x509.certificate import ClientCert
from sidecar.runtime.files import MAX_POLICY, read_file

PATIENCE = 10.0
"""Seconds that one `revoke` waits for another."""


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be denied: the kind of entry, its value, and whose it is if that is known."""

    kind: str
    value: str
    who: str = ""
    cert: ClientCert | None = None


def read_target(text: str, *, key: bool) -> Target:
    """A certificate's file, a serial number or a SHA-256 fingerprint.

    With `key` the certificate's public key is meant, so that every certificate made for it is
    denied.  Raises ValueError and OSError.
    """
    if Path(text).exists():
        cert = read_bundle(read_file(text, MAX_POLICY))[0]
        if key:
            return Target("spki_sha256", cert.spki_sha256, cert.dn, cert)
        return Target("sha256", cert.sha256, cert.dn, cert)
    with contextlib.suppress(PatternError):
        return Target("spki_sha256" if key else "sha256", parse_fingerprint(text))
    try:
        parse_serial(text)
    except PatternError:
        raise ValueError(f"{text!r} is no file, no serial number and no fingerprint") from None
    if key:
        raise ValueError("--key goes with a certificate's file or a key's fingerprint")
    return Target("serial", text)


def choose_denylists(spec: PolicySpec, base: Path, trust: str | None) -> list[Path]:
    """The denylist of the trust that is named, or the first one of every trust.

    Raises ValueError where there is none.
    """
    if trust is not None and trust not in spec.trust:
        raise ValueError(f"the policy has no trust {trust!r}; it has: {', '.join(spec.trust)}")
    chosen = [t for name, t in spec.trust.items() if trust in (None, name)]
    paths = [base / t.denylist[0].text for t in chosen if t.denylist]
    if not paths:
        raise ValueError("the policy names no denylist; add denylist: denylist.txt to its trust")
    return list(dict.fromkeys(path.resolve() for path in paths))


def add(path: Path, target: Target, until: str, reason: str) -> str | None:
    """Put the line into the file; the line, or None where it denies that already.

    Raises OSError, ValueError and `PolicyError` (the file holds a mistake: nothing is changed).
    """
    stamp = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%SZ}"
    comment = ", ".join(part for part in (stamp, target.who, reason) if part)
    line = format_entry(target.kind, target.value, until, comment)
    with _locked(path):
        try:
            data = read_file(path)
        except FileNotFoundError:
            data = b""
        if has_entry(parse_denylist(data, str(path)), target.kind, target.value, until):
            return None
        gap = b"" if not data or data.endswith(b"\n") else b"\n"
        _replace(path, data + gap + line.encode() + b"\n")
    return line


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the denylist's lock: two who revoke at once lose no line.

    It is a file beside it that only who may write there can open: nobody else can hold it up.
    Raises OSError where it isn't free within `PATIENCE` seconds.
    """
    place = path.with_name(f".{path.name}.lock")
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(place, flags, 0o600)
    try:
        end = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    why = "another `revoke` holds it; see who does: fuser " + str(place)
                    raise TimeoutError(errno.ETIMEDOUT, why, str(place)) from None
                time.sleep(0.02)
        yield
    finally:
        os.close(descriptor)


def _replace(path: Path, data: bytes) -> None:
    """Write aside, then rename: a reader sees the old file or the new one."""
    descriptor, aside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            _inherit(path, descriptor)
            file.flush()
            os.fsync(descriptor)
        os.replace(aside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(aside)
        raise


def _inherit(path: Path, descriptor: int) -> None:
    """Give the new file the old one's mode and owner."""
    try:
        old = os.stat(path)
    except FileNotFoundError:
        os.fchmod(descriptor, 0o644)
        return
    with contextlib.suppress(OSError):  # only root may give a file away, and not everywhere
        os.fchown(descriptor, old.st_uid, old.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(old.st_mode))
