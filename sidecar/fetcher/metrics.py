"""Count the fetcher's work, and serve the counters on its admin listener.

Labels are a trust's name, an address from the policy (without a password) and words of closed
sets.
"""

from __future__ import annotations

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from sidecar.core.config.crl_place import shown
from sidecar.runtime.admin_listener import AdminListener, Renderer


class FetchMetrics:
    """Counters and gauges of one fetcher, in the registry given."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        per_source = ("trust", "source")
        self.fetches = Counter(
            "mtls_sidecar_fetch",  # prometheus_client adds _total
            "CRL downloads, by result",
            ("trust", "result"),
            registry=registry,
        )
        self.last_success = Gauge(
            "mtls_sidecar_fetch_last_success_timestamp_seconds",
            "Time of the last download that gave a valid CRL or confirmed the current one",
            per_source,
            registry=registry,
        )
        self.next_update = Gauge(
            "mtls_sidecar_fetch_next_update_timestamp_seconds",
            "nextUpdate of the CRL in the state directory",
            per_source,
            registry=registry,
        )
        self.size = Gauge(
            "mtls_sidecar_fetch_crl_bytes",
            "Size of the CRL in the state directory",
            per_source,
            registry=registry,
        )
        self.reloads = Counter(
            "mtls_sidecar_fetch_policy_reloads",
            "Reads of the policy, by result",
            ("result",),
            registry=registry,
        )
        self.ocsp = Counter(
            "mtls_sidecar_fetch_ocsp_queries",
            "OCSP questions of the daemon, by result",
            ("trust", "result"),
            registry=registry,
        )
        self.ocsp_seconds = Histogram(
            "mtls_sidecar_fetch_ocsp_duration_seconds",
            "Response time of OCSP responders",
            ("trust",),
            registry=registry,
            buckets=(0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10),
        )

    def forget(self, trust: str, url: str) -> None:
        """Remove the gauges of an address that the policy no longer names."""
        for gauge in (self.last_success, self.next_update, self.size):
            if (trust, shown(url)) in gauge._metrics:
                gauge.remove(trust, shown(url))


def admin_listener(metrics: FetchMetrics) -> AdminListener:
    """Create the admin listener with `/metrics` and `/livez`."""
    renderer = Renderer()

    async def show(_: web.Request) -> web.Response:
        body = await renderer.get("metrics", lambda: generate_latest(metrics.registry))
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def live(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    return AdminListener({"/metrics": show, "/livez": live})
