"""Every fault under a steady load, in a booted container: what it takes, and what came of it.

python tests/support/faults.py     the long form, as a table (tests/booted.sh)
"""

from __future__ import annotations

import re
import sys
import tempfile
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from container import boot, in_container
from pki import CA, Leaf, now
from tools import Found, NginxBinary, faketime, nginx_binaries, systemd_nspawn

DAY = timedelta(days=1)


@dataclass(frozen=True)
class Fault:
    """What became of the load during one fault; `longest` in milliseconds."""

    name: str
    asked: int
    failed: int
    wrong: int
    again: int
    longest: int
    saw: str

    @property
    def denies(self) -> bool:
        """Whether who is let in otherwise must be denied meanwhile."""
        return self.name.startswith("denies")

    @property
    def kills(self) -> bool:
        return self.name.startswith("killed")


@dataclass
class Seen:
    """All that the script saw."""

    faults: dict[str, Fault] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)
    console: str = ""


def write_pki(directory: Path) -> None:
    """The authorities, certificates and CRLs of the load."""
    directory.mkdir()
    start, end = now() - 20 * DAY, now() + 20 * DAY
    ca, server = CA("Staff", not_before=start), CA("Server")
    leaves = {
        name: ca.issue(name, not_before=start, not_after=end)
        for name in ("alice", "bob", "carol", "dave")
    }
    for name, leaf in {**leaves, "server": server.server("app.example.com")}.items():
        (directory / f"{name}.crt").write_bytes(leaf.chain_pem)
        (directory / f"{name}.key").write_bytes(leaf.key_pem)
    (directory / "ca.crt").write_bytes(ca.pem)
    (directory / "ca.key").write_bytes(ca.key_pem)
    (directory / "server-ca.crt").write_bytes(server.pem)
    for number, (name, until) in enumerate((("ca", end), ("ended", now() - DAY), ("newer", end))):
        crl = ca.crl([leaves["bob"]], this_update=start, next_update=until, number=number + 1)
        (directory / f"{name}.crl").write_bytes(crl)
    lines = [
        _index_line(leaf, "260101000000Z" if name == "bob" else "") for name, leaf in leaves.items()
    ]
    (directory / "index.txt").write_text("".join(lines))
    (directory / "index.txt.attr").write_text("unique_subject = no\n")
    for each in directory.iterdir():
        each.chmod(0o644)


def _index_line(leaf: Leaf, revoked: str) -> str:
    """A certificate in the data base of `openssl ocsp` (openssl-ca(1))."""
    serial = f"{leaf.serial:X}"
    serial = serial.zfill(len(serial) + len(serial) % 2)
    end = leaf.cert.not_valid_after_utc
    kind = "R" if revoked else "V"
    return f"{kind}\t{end:%y%m%d%H%M%SZ}\t{revoked}\t{serial}\tunknown\t/CN={leaf.name}\n"


def run(place: Path, nspawn: Found, nginx: NginxBinary, *, full: bool) -> Seen:
    """Boot, do everything, and read what was seen."""
    write_pki(place / "pki")
    clock = faketime()
    libraries = dict(nginx.extra_env).get("LD_LIBRARY_PATH", "")
    environ = {
        "NGINX": in_container(nginx.path),
        "NGINX_LIBRARIES": ":".join(
            in_container(Path(each)) for each in libraries.split(":") if each
        ),
        "FAKETIME": in_container(clock.path) if isinstance(clock, Found) else "",
        "FULL": "1" if full else "",
    }
    console = boot(
        nspawn, place, "faults.sh", environ=environ, binds=[f"{place / 'pki'}:/pki"], timeout=1800
    )
    return _read(place / "out", console)


def _read(out: Path, console: str) -> Seen:
    seen = Seen()
    for name in ("install", "stderr", "nginx-error.log", "journal", "saw"):
        if (out / name).exists():
            console += f"\n== {name}\n{(out / name).read_text(errors='replace')[-8000:]}"
    for line in (out / "saw").read_text().splitlines() if (out / "saw").exists() else []:
        name, _, rest = line.partition("=")
        if name == "fault":
            found = re.fullmatch(
                r"(.*?) asked=(\d+) failed=(\d+) wrong=(\d+) again=(\d+) longest=(\d+) saw=(.*)",
                rest,
            )
            assert found, line
            asked, failed, wrong, again, longest = map(int, found.groups()[1:6])
            seen.faults[found[1]] = Fault(found[1], asked, failed, wrong, again, longest, found[7])
        else:
            seen.values[name] = rest
    seen.console = console
    return seen


def table(seen: Seen) -> str:
    """The faults, a line each."""
    lines = [f"{'fault':<40} {'asked':>7} {'failed':>7} {'wrong':>6} {'longest wait':>13}  saw"]
    for each in seen.faults.values():
        failed = "denied" if each.denies else str(each.failed)
        wait = f"{each.longest} ms"
        lines.append(
            f"{each.name:<40} {each.asked:>7} {failed:>7} {each.wrong:>6} {wait:>13}  {each.saw}"
        )
    return "\n".join(lines)


def main() -> int:
    """The long form."""
    nspawn = systemd_nspawn()
    nginx = next((each for each in nginx_binaries()[::-1] if isinstance(each, NginxBinary)), None)
    if not isinstance(nspawn, Found) or nginx is None:
        print(f"can't run: {nspawn}; nginx: {nginx}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as name:
        seen = run(Path(name), nspawn, nginx, full="--short" not in sys.argv)
    print(table(seen))
    print("\n".join(f"{name}: {value}" for name, value in seen.values.items()))
    bad = [each for each in seen.faults.values() if each.wrong]
    bad += [
        each for each in seen.faults.values() if each.failed and not (each.denies or each.kills)
    ]
    if seen.values.get("finished") != "yes" or bad:
        print(seen.console, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
