"""Random expressions and random text, searched by the PCRE2 that nginx is linked with and here.

MTLS_SIDECAR_DIFFERENTIAL=1000000 tries a quarter as many expressions; MTLS_SIDECAR_SEED repeats.
"""

from __future__ import annotations

import random
from collections import Counter
from itertools import islice

import pcre_library
import pytest
from differential import COUNT, SEED
from random_regex import expressions, subjects

from sidecar.core.nginx.regex import SelectorError, compile_search


def compared(source: str, ignore_case: bool, dice: random.Random) -> str:
    """How one expression fared: refused here, by PCRE2, or found in the same subjects."""
    try:
        search = compile_search(source, ignore_case=ignore_case)
    except SelectorError:
        return "refused here"
    try:
        pattern = pcre_library.Pattern(source.encode(), ignore_case=ignore_case)
    except ValueError:
        return "refused by PCRE2"
    found = False
    for subject in subjects(dice, 10):
        try:
            theirs = pattern.matches(subject)
        except pcre_library.Unsure:
            return "PCRE2 gave up"
        assert (search(subject) is not None) == theirs, (source, ignore_case, subject, theirs)
        found = found or theirs
    return "found" if found else "not found"


def test_what_is_taken_means_the_same_to_pcre2() -> None:
    """Whatever is taken here, drawn from PCRE2's grammar or from random text, PCRE2 takes and finds
    in the same subjects."""
    if pcre_library.library() is None:
        pytest.skip("libpcre2-8 is not installed: apt-get install libpcre2-8-0")
    dice = random.Random(SEED)
    print(f"MTLS_SIDECAR_SEED={SEED} MTLS_SIDECAR_DIFFERENTIAL={COUNT}")
    count = COUNT // 4
    seen = Counter(
        compared(source, dice.random() < 0.4, dice) for source in islice(expressions(dice), count)
    )
    print(seen)
    assert min(seen["found"], seen["not found"], seen["refused here"]) > count // 20
    assert seen["refused by PCRE2"] < count // 20  # group names that stand twice
