"""A daemon's state for the status page, made by real decisions at moments of a test's choice."""

from __future__ import annotations

from pathlib import Path

from sidecar.authorizer.daemon_status import DaemonStatus
from sidecar.authorizer.request_cache import RenderedDecision
from sidecar.authorizer.telemetry.counters import Counts
from sidecar.authorizer.telemetry.recent_denials import RecentDenials
from sidecar.core.answer import render
from sidecar.core.evaluate import evaluate
from sidecar.core.policy.compile import compile_policy
from sidecar.core.request import AuthzRequest
from sidecar.core.seen_clients import SeenClients, Visit
from sidecar.core.x509.certificate import ClientCert
from sidecar.runtime.direct_sources import DirectSources


class Scene:
    """`status` is what the page is rendered of; `now` is the moment of the scene."""

    def __init__(self, directory: Path, policy: str, now: float) -> None:
        sources = DirectSources(directory, directory)
        self.policy = compile_policy(policy.encode(), str(directory / "policy.yaml"), sources)
        self.now = now
        self.counts = Counts(lambda: self.now)
        self.counts.reloaded(self.policy, True, now - 3600)
        self.denials = RecentDenials()
        self.seen = SeenClients(10_000)
        self.status = DaemonStatus(
            self.counts,
            self.policy,
            loaded_at=now - 3600,
            not_ready="",
            denials=self.denials.denials,
            clients=lambda: list(self.seen.by_sha256.values()),
            started=now - 86_400,
        )

    def ask(
        self,
        location: str | None,
        cert: ClientCert | None = None,
        *,
        times: int = 1,
        request: AuthzRequest | None = None,
        request_id: str = "",
        uri: str = "/",
    ) -> None:
        """Decide, and note it wherever the daemon does.  `request` has what else was asked."""
        asked = (request or AuthzRequest(location))._replace(
            location=location,
            cert=b"given" if cert is not None else b"",
            subject=cert,
            verify="SUCCESS" if cert is not None else "NONE",
            request_id=request_id,
            uri=uri.encode(),
        )
        decision = evaluate(self.policy, asked, self.now)
        head = render(decision, self.policy.hash, self.now)
        answered = RenderedDecision(decision, head, self.now, decision.expires)
        for _ in range(times):
            self.counts.record(answered, 0.0001)
            if not answered.granted:
                self.denials.note(answered, asked, self.now)
        if decision.subject is not None:
            visit = Visit(self.now, decision.verdict, str(decision.reason), decision.rule)
            self.seen.note(decision.subject, decision.location, visit)
        self.status.history.take(self.counts.decisions, self.now)
