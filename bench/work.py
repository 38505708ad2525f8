"""The work that everybody gets: locations, allowed names, clients, revoked serials.

1,000 locations; 10,000 allowed CNs; a CRL of 100,000; 200 different clients that are allowed, one
that isn't, one that is revoked.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from cryptography import x509
from der import der_int, der_time, tlv
from pki import CA, Leaf, now


@dataclass
class Work:
    """How much of everything there is."""

    locations: int = 1000
    names: int = 10_000
    clients: int = 200
    revoked: int = 100_000
    cache_seconds: int = 0
    ca: CA = field(default_factory=lambda: CA("Bench"))

    @cached_property
    def allowed(self) -> list[Leaf]:
        """The clients that ask."""
        return [self.ca.issue(f"user{i}", serial=(1 << 64) + i) for i in range(self.clients)]

    @cached_property
    def stranger(self) -> Leaf:
        return self.ca.issue("stranger")

    @cached_property
    def revoked_one(self) -> Leaf:
        return self.ca.issue("user1", serial=(1 << 100) + 7)

    @cached_property
    def revoked_serials(self) -> list[int]:
        return [(1 << 100) + 1 + i * 3 for i in range(self.revoked)]

    @cached_property
    def crl(self) -> bytes:
        """The CRL, DER, put together by hand: a builder would take minutes for a million."""
        small = x509.load_der_x509_crl(self.ca.crl([1], der=True)).tbs_certlist_bytes
        day = der_time(now())
        entries = tlv(0x30, *(tlv(0x30, der_int(s), day) for s in self.revoked_serials))
        body = small[4 if small[1] == 0x82 else 3 if small[1] & 0x80 else 2 :]
        at = body.index(tlv(0x02, b"\x01") + b"\x17")  # the one entry's serial number and date
        end = at + 3 + 2 + body[at + 4]
        return self.ca.sign_tbs(tlv(0x30, body[: at - 4], entries, body[end:]))

    @property
    def cns(self) -> list[str]:
        return [f"user{i}" for i in range(self.names)]

    def write(self, directory: Path) -> None:
        """The sidecar's policy and its files."""
        (directory / "ca.crt").write_bytes(self.ca.pem)
        if self.revoked:
            (directory / "crl.der").write_bytes(self.crl)
        crl = "crl: [crl.der]" if self.revoked else "revocation: off"
        lines = ["version: 1", f"trust:\n  bench: {{ca: ca.crt, {crl}}}"]
        lines += ["groups:", f"  everyone: [{{cn: {json.dumps(self.cns)}}}]", "locations:"]
        more = f", cache_seconds: {self.cache_seconds}" if self.cache_seconds else ""
        lines += [f"  - {{name: l{i}, allow: [everyone]{more}}}" for i in range(self.locations)]
        (directory / "policy.yaml").write_text("\n".join(lines) + "\n")

    def headers(self, leaf: Leaf) -> dict[str, str]:
        """What a client sends to the front nginx, which passes it on as its own variables."""
        return {
            "X-Cert": leaf.escaped.decode(),
            "X-CN": leaf.name,
            "X-Serial": f"{leaf.serial:X}",
            "X-Fingerprint": hashlib.sha1(leaf.der).hexdigest(),  # as $ssl_client_fingerprint
        }

    def wrk_script(self, path: Path) -> None:
        """A wrk script that goes through clients and locations."""
        rows = []
        for leaf in self.allowed:
            pairs = (f"[{json.dumps(k)}]={json.dumps(v)}" for k, v in self.headers(leaf).items())
            rows.append("{" + ", ".join(pairs) + "}")
        table = ",\n".join(rows)
        path.write_text(
            f"local clients = {{\n{table}\n}}\n"
            "local asked = {}\n"
            "function init(args)\n"
            "  for i = 1, 2000 do\n"
            f"    local place = '/l' .. ((i * 7919) % {self.locations}) .. '/'\n"
            "    asked[i] = wrk.format('GET', place, clients[(i % #clients) + 1])\n"
            "  end\n"
            "end\n"
            "local at = 0\n"
            "function request() at = at % 2000 + 1; return asked[at] end\n"
        )
