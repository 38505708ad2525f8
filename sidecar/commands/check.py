"""`check`: report mistakes and warnings of a policy, and files that the service can't read."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from sidecar.core.config.crl_place import is_address
from sidecar.core.config.schema import Located
from sidecar.core.errors import Diagnostic
from sidecar.core.policy.model import Policy
from sidecar.core.policy.spec import PolicySpec

SERVICE_USER = "mtls-sidecar"


@dataclass(frozen=True, slots=True)
class User:
    """A user of this machine with all of its groups."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]

    def can_read(self, path: Path) -> bool:
        """Return whether the user may read a file, tested in a process of that user (as root).

        It has nothing of root's: the user could trace it, take what is open in it (a terminal can
        be read, too), and see its variables and its directory.
        """
        done = subprocess.run(
            ["test", "-r", str(path.absolute())],
            user=self.uid,
            group=self.gid,
            extra_groups=self.groups,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
            env={"PATH": os.environ.get("PATH", os.defpath)},
            check=False,
        )
        return done.returncode == 0


def service_user(name: str = SERVICE_USER) -> User | None:
    """Return the service's user, or None if there is none or this process isn't root."""
    if os.geteuid() != 0:
        return None
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        return None
    if found.pw_uid == 0:
        return None
    groups = tuple(os.getgrouplist(name, found.pw_gid))
    return User(name, found.pw_uid, found.pw_gid, groups)


def as_json(
    path: str,
    policy: Policy | None,
    mistakes: Sequence[Diagnostic],
    warnings: Sequence[Diagnostic] = (),
) -> str:
    """The result for programs; `policy` is None where the file is refused."""
    found = {
        "file": path,
        "ok": policy is not None,
        "policy": "" if policy is None else policy.hash,
        "locations": [] if policy is None else list(policy.locations),
        "mistakes": [asdict(each) for each in mistakes],
        "warnings": [asdict(each) for each in warnings],
    }
    return json.dumps(found, indent=2)


def unreadable(spec: PolicySpec, policy: Path, user: User) -> Iterator[Diagnostic]:
    """Yield each file of a policy, and the policy itself, that the service's user can't read."""
    if not user.can_read(policy):
        yield Diagnostic(str(policy), 0, 0, _why(policy, user), _hint(user))
    for place in _files(spec):
        path = policy.parent / place.text
        if path.exists() and not user.can_read(path):
            node = place.node
            yield Diagnostic(str(policy), node.line, node.column, _why(path, user), _hint(user))


def _files(spec: PolicySpec) -> Iterator[Located]:
    for trust in spec.trust.values():
        yield from trust.ca
        yield from trust.intermediates
        yield from trust.denylist
        yield from (place for place in trust.crl if not is_address(place.text))


def _why(path: Path, user: User) -> str:
    return f"the service's user {user.name} can't read {str(path)!r}"


def _hint(user: User) -> str:
    return f"chgrp {user.name} it and chmod g+r it, and let the group into its directories (g+x)"
