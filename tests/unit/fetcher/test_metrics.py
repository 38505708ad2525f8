"""Count the fetcher's work."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest

from sidecar.fetcher.metrics import FetchMetrics


def test_an_address_that_is_gone_has_no_gauges() -> None:
    """An address that is no longer downloaded disappears; others stay."""
    registry = CollectorRegistry()
    metrics = FetchMetrics(registry)
    for url in ("http://a.test/", "http://b.test/"):
        metrics.last_success.labels("staff", url).set(1)
        metrics.next_update.labels("staff", url).set(1)
    metrics.forget("staff", "http://a.test/")
    metrics.forget("staff", "http://never.test/")
    shown = generate_latest(registry).decode()
    assert "http://b.test/" in shown
    assert "http://a.test/" not in shown
