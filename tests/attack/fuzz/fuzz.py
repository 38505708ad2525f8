"""Hostile bytes for everything that reads them; what reads them is in ../fuzz_targets.py.

    python tests/attack/fuzz/fuzz.py TARGET [SECONDS | INPUTSx] [SEED]

With atheris (`.venv` has it where it has wheels) the search is guided by coverage; inputs that
reach something new stay in `.fuzz/TARGET/`, for the next run too, and one that breaks something
is left as `.fuzz/crash-…`.  Without, inputs of the corpus are mutated at random.  The first line
on stderr says which.
"""

from __future__ import annotations

import importlib
import math
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
CORPUS = HERE / "corpus"
sys.path[:0] = [str(HERE.parents[1] / "support"), str(HERE.parents[2])]

INSTRUMENTED = ["sidecar", "yaml"]


def target_of(name: str) -> Callable[[bytes], None]:
    """The target of that name; imports all that it runs."""
    found: Callable[[bytes], None] = importlib.import_module("fuzz_targets").TARGETS[name]
    return found


def corpus(target: str) -> list[bytes]:
    """The inputs to begin with."""
    return [path.read_bytes() for path in sorted((CORPUS / target).iterdir())]


def mutate(data: bytes, chance: random.Random) -> bytes:
    """A few random changes: a byte, a run cut out, doubled, or exchanged."""
    found = bytearray(data)
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(found) + 1)
        end = min(len(found), at + chance.randint(1, 16))
        what = chance.randrange(5)
        if what == 0 and at < len(found):
            found[at] = chance.randrange(256)
        elif what == 1:
            del found[at:end]
        elif what == 2:
            found[at:at] = found[at:end]
        elif what == 3:
            found[at:end] = chance.randbytes(end - at)
        else:
            found[at:at] = chance.choice((b"\0", b"\r\n", b"\xff", b"%00", b"{", b"[", b'"', b"~"))
    return bytes(found)


def by_chance(target: str, seconds: float, inputs: float, seed: int) -> int:
    """Mutate for so long, or so many; how many those were.  Raises what the target raises."""
    chance, run, known = random.Random(seed), target_of(target), corpus(target)
    end, count = time.monotonic() + seconds, 0
    for data in known:
        run(data)
    while count < inputs and time.monotonic() < end:
        data = mutate(chance.choice(known), chance)
        try:
            run(data)
        except BaseException:
            print(f"seed {seed}: {data!r}", file=sys.stderr)
            raise
        count += 1
    return count


def by_coverage(atheris: Any, target: str, seconds: float, inputs: float, seed: int) -> None:
    """Search with libFuzzer, beginning with the corpus, which stays as it is.  Ends the process."""
    with atheris.instrument_imports(include=INSTRUMENTED):
        run = target_of(target)
    found = Path(".fuzz") / target
    found.mkdir(parents=True, exist_ok=True)
    bound = f"-max_total_time={seconds:.0f}" if seconds < math.inf else f"-runs={inputs:.0f}"
    options = [bound, f"-seed={seed}", "-timeout=20", "-artifact_prefix=.fuzz/"]
    atheris.Setup([sys.argv[0], *options, str(found), str(CORPUS / target)], run)
    atheris.Fuzz()


def main() -> None:
    """Fuzz one target from the command line."""
    target, bound = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "60"
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else random.randrange(1, 2**32)
    number = float(bound.removesuffix("x"))
    seconds, inputs = (math.inf, number) if bound.endswith("x") else (max(1.0, number), math.inf)
    try:
        atheris = importlib.import_module("atheris")
    except ImportError as error:
        print(f"by chance, seed {seed}: {error}", file=sys.stderr)
        print(f"{by_chance(target, seconds, inputs, seed)} inputs", file=sys.stderr)
        return
    print(f"by coverage, seed {seed}", file=sys.stderr, flush=True)
    by_coverage(atheris, target, seconds, inputs, seed)


if __name__ == "__main__":
    main()
