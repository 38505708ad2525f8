"""Choose the format of the metrics."""

from __future__ import annotations

import random

from sidecar.authorizer.admin import choose_format

PARTS = (
    "application/openmetrics-text", "text/plain", "*/*", "version=1.0.0", "version=0.0.4",
    "version=0.0.1", "version=", "version=1!2", "version=1.0.post3", "version=1.0.0+a7",
    "escaping=allow-utf-8", "escaping=x", "q=0.5", "=", " ", "\xff",
)  # fmt: skip


def test_a_client_chooses_one_of_two_formats_whatever_it_writes() -> None:
    """A format is rendered for all who want it; a client that could name more of them would have
    each of its requests rendered, long after it is gone."""
    chance = random.Random(1)
    kinds = set()
    for number in range(5000):
        parts = (*PARTS, f"version=1.0.{number}", f"version={number}")
        ranges = (";".join(chance.choices(parts, k=4)) for _ in range(2))
        kinds.add(choose_format(",".join(ranges))[1])
    assert len(kinds) == 2


def test_prometheus_gets_what_it_prefers() -> None:
    """OpenMetrics 1.0.0 for Prometheus of these days, text for older ones and for people."""
    new = (
        "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
        "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
    )
    old = "application/openmetrics-text; version=0.0.1,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
    for accept, kind in (
        (new, "application/openmetrics-text"),
        (
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            "application/openmetrics-text",
        ),
        ("application/openmetrics-text", "application/openmetrics-text"),
        (old, "text/plain"),
        ("text/html,*/*;q=0.8", "text/plain"),
        ("", "text/plain"),
    ):
        assert choose_format(accept)[1].partition(";")[0] == kind
