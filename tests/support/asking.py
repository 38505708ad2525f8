"""Ask the decision point directly: a policy as text, files in memory, a certificate."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pki import Leaf

from sidecar.core.config.crl_place import is_address
from sidecar.core.decision import Decision
from sidecar.core.errors import Diagnostic, PolicyError
from sidecar.core.evaluate import evaluate
from sidecar.core.policy.compile import compile_policy
from sidecar.core.policy.model import Policy
from sidecar.core.policy.patterns import KEY_COMPARISONS
from sidecar.core.request import AuthzRequest, assemble_request
from sidecar.core.revocation.crl.index import Crl, read_crls
from sidecar.core.revocation.denylist import Denylist, parse_denylist
from sidecar.core.x509.bundle import Bundle, read_bundle

NOW = time.time()


@dataclass
class Memory:
    """A policy's files, in memory."""

    files: Mapping[str, bytes] = field(default_factory=dict)

    def _read(self, path: str) -> bytes:
        try:
            return self.files[path]
        except KeyError:
            raise FileNotFoundError(2, "No such file or directory", path) from None

    def certificates(self, path: str) -> Bundle:
        return read_bundle(self._read(path))

    def denylist(self, path: str) -> Denylist:
        return parse_denylist(self._read(path), path)

    def crls(
        self, place: str, trust: str, authorities: tuple[bytes, ...]
    ) -> tuple[Crl, ...] | None:
        if is_address(place) and place not in self.files:
            return None
        found = read_crls(self._read(place), place, authorities)
        for mistake in found.mistakes:
            raise mistake
        return found.crls

    def revoking(self, place: str, trust: str, authorities: tuple[bytes, ...]) -> tuple[Crl, ...]:
        return ()


def policy(text: str, **files: bytes) -> Policy:
    """A policy; a file `ca.crt` is given as `ca_crt=…`."""
    named = {name.replace("_", "."): data for name, data in files.items()}
    return compile_policy(text.encode(), "policy.yaml", Memory(named))


def mistakes(text: str | bytes, **files: bytes) -> list[Diagnostic]:
    """What is wrong with a policy."""
    data = text if isinstance(text, bytes) else text.encode()
    named = {name.replace("_", "."): data for name, data in files.items()}
    try:
        compile_policy(data, "policy.yaml", Memory(named))
    except PolicyError as error:
        return list(error.diagnostics)
    return []


def request(
    leaf: Leaf | bytes | None = None, location: str | None = "site", **fields: str
) -> AuthzRequest:
    """What nginx would send for this certificate."""
    found = {name: value.encode("latin-1") for name, value in fields.items()}
    if leaf is not None:
        found["cert"] = leaf if isinstance(leaf, bytes) else leaf.escaped
    found.setdefault("verify", b"NONE" if leaf is None else b"SUCCESS")
    return assemble_request(location, found)


def ask(
    rules: Policy, leaf: Leaf | bytes | None = None, location: str | None = "site", **fields: Any
) -> Decision:
    """The decision about a request; `at` is its moment, `trace` takes its steps."""
    at, trace = fields.pop("at", NOW), fields.pop("trace", None)
    return evaluate(rules, request(leaf, location, **fields), at, trace=trace)


def site(allow: str, more: str = "") -> Policy:
    """The simplest policy: one location, nginx's own list of CAs."""
    return policy(f"version: 1\nlocations:\n  - name: site\n    allow: {allow}\n{more}")


def matches(key: str, pattern: str, value: str | int, *, refusing: bool = False) -> bool:
    """Whether a pattern of a rule's key matches one value, in rules that grant or that refuse."""
    kind = KEY_COMPARISONS[key]
    parsed = kind.parse(pattern).on(refusing)
    read = kind.reader(refusing)(value)
    if not set(parsed.exact).isdisjoint(read.keys):
        return True
    return parsed.test is not None and any(map(parsed.test, read.texts))
