"""The same requests to real nginx and to the sidecar: both choose the same location.

nginx answers each request with the location that it chose, its `$host`, `$request_uri` and `$uri`.
`Chooser` is then given just what the sidecar would be given, `$host` and `$request_uri`.  Where
nginx answers 400, the sidecar's answer is None.  The other way round only what `locations.py`
lists may be None.

MTLS_SIDECAR_DIFFERENTIAL=1000000 asks that many; MTLS_SIDECAR_SEED repeats a run.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from differential import (
    COUNT,
    FIXED,
    SEED,
    Block,
    Case,
    Site,
    cases,
    conf,
    random_policy,
    run,
)
from nginx import Nginx, free_port
from tools import NginxBinary


def test_host_and_uri_choose_as_nginx(nginx_binary: NginxBinary, tmp_path: Path) -> None:
    """Whatever is asked, nginx and the sidecar choose the same location."""
    dice = random.Random(SEED)
    print(f"MTLS_SIDECAR_SEED={SEED} MTLS_SIDECAR_DIFFERENTIAL={COUNT}")
    policies = [FIXED, FIXED, *(random_policy(dice) for _ in range(18))]
    sites = [Site(blocks, i % 2 == 0, free_port()) for i, blocks in enumerate(policies)]
    strict = nginx_binary.version >= (1, 31)
    seen: Counter[str] = Counter()
    with Nginx(nginx_binary, conf(sites), tmp_path):
        for site in sites:
            seen += run(site, strict, cases(site, COUNT // len(sites), dice))
    print(seen)
    assert min(seen[k] for k in ("chosen", "no location", "refused", "unsure")) > COUNT // 200


# -- regular expressions --------------------------------------------------------------------------

ATOMS = r"a b A Z 0 _ - / . é % \. \/ \- \d \D \w \W \s \S \x2f \x41 \xe9 [a-c] [^a-c] [\w-] [-a]"
ATOMS += (
    r" []a] [^]a] [a\]] [\d/] [^\W] [[:alpha:]] [[:^punct:]x] [[:word:].] [é] [à-ü] [!-/] { } ]"
)
LINES = [r"\b", r"\B", "^", "$", r"\A", r"\z"]
REPEATS = ["", "", "", "*", "+", "?", "*?", "+?", "{2}", "{0,1}", "{1,}"]


def random_regex(dice: random.Random, depth: int = 2) -> str:
    parts: list[str] = []
    for _ in range(dice.randint(1, 3)):
        if depth and dice.random() < 0.3:
            opening = dice.choice(["(", "(?:"])
            parts.append(f"{opening}{random_regex(dice, depth - 1)})" + dice.choice(REPEATS))
        elif dice.random() < 0.15:
            parts.append(dice.choice(LINES))
        else:
            atom = dice.choice(ATOMS.split(" "))
            parts.append((r"\{" if atom == "{" else atom) + dice.choice(REPEATS))
    if dice.random() < 0.2:
        parts.insert(dice.randrange(len(parts) + 1), "|")
    return "".join(parts)


def regex_cases(count: int, servers: int, dice: random.Random) -> Iterator[Case]:
    pieces = b"a b c A Z 0 _ - / . % %20 %2f %25 %c3%a9 %e9 %e0 %fc %85 %a0 %7b } ] ! x \xc3\xa9"
    for _ in range(count):
        path = b"".join(dice.choices(pieces.split(), k=dice.randint(0, 8)))
        path = re.sub(rb"%(?![0-9a-f]{2})", b"%25", path)
        yield Case(b"r%d.test" % dice.randrange(servers), b"/" + path.lstrip(b"/"))


def test_regular_expressions_mean_the_same_to_pcre(
    nginx_binary: NginxBinary, tmp_path: Path
) -> None:
    """Whatever `pcre.py` lets in, PCRE and RE2 find it in the same URIs, with `~` and `~*`."""
    dice = random.Random(SEED)
    print(f"MTLS_SIDECAR_SEED={SEED} MTLS_SIDECAR_DIFFERENTIAL={COUNT}")
    blocks: list[Block] = [(None, ["/"])]
    while len(blocks) <= 250:
        source = random_regex(dice)
        form = "~*" if source.isascii() and r"\xe9" not in source and dice.random() < 0.5 else "~"
        blocks.append((f"r{len(blocks) - 1}.test", ["/", f"{form} {source}"]))
    site = Site(blocks, True, free_port())
    with Nginx(nginx_binary, conf([site]), tmp_path):
        seen = run(site, True, regex_cases(COUNT, 250, dice))
    print(seen)
    assert seen["chosen"] > COUNT * 0.9
