"""Run `mtls-sidecar fetch`: download CRLs and ask OCSP responders, as a process of its own.

It is the only process that opens outbound connections.  It verifies what it downloads, and `serve`
verifies it again.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Hashable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from prometheus_client import CollectorRegistry

from sidecar import __version__
from sidecar.core.config.settings import Address, Settings
from sidecar.core.errors import Diagnostic, PolicyError
from sidecar.runtime.admin_listener import serve_admin
from sidecar.runtime.crl_worker import CrlWorkers
from sidecar.runtime.guarded_server import Room, start_server
from sidecar.runtime.listen import ListenError, open_listener, remove_socket
from sidecar.runtime.log_lines import log_in_thread
from sidecar.runtime.owner import become_owner_of

from .crl_job import SUCCESSES, CrlJob
from .http_client import HttpLimits, new_session
from .metrics import FetchMetrics, admin_listener
from .ocsp_service import MAX_CONNECTIONS, MAX_USERS, OCSP_LIMITS, OUTBOUND, OcspService
from .plan import CrlSource, FetchPlan, PlanReader, kept_plan, plan_path, save_plan

log = logging.getLogger(__name__)


ADMIN_MODE = 0o660


@dataclass(frozen=True, slots=True)
class FetchOptions:
    """The options of the fetcher.

    Without `socket`, no OCSP questions are answered.  With `trusted_only`, a policy that other
    users than its owner can write is refused.
    """

    policy: Path
    state_dir: Path
    socket: Path | None = Path("/run/mtls-sidecar-fetch/fetch.sock")
    socket_mode: int = 0o660
    admin: Address = field(default_factory=Address)
    trusted_only: bool = False
    poll_seconds: float = 2.0
    limits: HttpLimits = field(default_factory=HttpLimits)
    ocsp_limits: HttpLimits = OCSP_LIMITS

    @classmethod
    def of(cls, settings: Settings) -> FetchOptions:
        """Take the options from sidecar.yaml."""
        return cls(
            policy=Path(settings.policy),
            state_dir=Path(settings.state_dir),
            socket=Path(settings.fetch_socket),
            admin=settings.fetch_admin,
            trusted_only=settings.allow_writable_policy != "true",
        )


class Fetcher:
    """Run the jobs of the current plan; an invalid policy leaves the last valid plan in place."""

    def __init__(
        self,
        options: FetchOptions,
        session: aiohttp.ClientSession,
        metrics: FetchMetrics,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.options = options
        self.plan = FetchPlan()
        self._session = session
        self._metrics = metrics
        self._clock = clock
        self._jobs: dict[CrlSource, asyncio.Task[None]] = {}
        self._workers = CrlWorkers()
        self._turns: defaultdict[Hashable, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._reader = PlanReader(options.policy, options.trusted_only)

    async def load(self) -> None:
        """Read the policy and use its plan.  Raises `PolicyError` and `OSError`."""
        try:
            self.plan = await asyncio.to_thread(self._reader.read, self.plan)
        except Exception:
            self._metrics.reloads.labels("refused").inc()
            raise
        for mistake in self.mistakes:
            log.error("%s; its trust is unchanged, other trusts are updated", mistake)
        self._metrics.reloads.labels("refused" if self.mistakes else "loaded").inc()
        self.options.state_dir.joinpath("crl").mkdir(parents=True, exist_ok=True)
        try:
            await asyncio.to_thread(save_plan, plan_path(self.options.state_dir), self.plan)
        except OSError as error:
            log.warning("the plan isn't kept for the next start: %s", error)

    async def start(self) -> PolicyError | OSError | None:
        """Load the policy; if it is invalid, use the kept plan and return the error.

        Raises `PolicyError` and `OSError` if there is no kept plan.
        """
        kept = await asyncio.to_thread(kept_plan, plan_path(self.options.state_dir))
        self.plan = kept or FetchPlan()
        try:
            await self.load()
        except (PolicyError, OSError) as error:
            if kept is None:
                raise
            log.error("policy refused, its last valid version is used: %s", error)
            return error
        return None

    def _job(self, source: CrlSource) -> CrlJob:
        options = self.options
        return CrlJob(
            source,
            options.state_dir,
            self._session,
            self._metrics,
            limits=options.limits,
            clock=self._clock,
            workers=self._workers,
            turn=self._turns[source.trust, source.server],
        )

    async def download_all(self) -> bool:
        """Download every CRL once; return whether all are present and fresh now."""
        found = await asyncio.gather(*(self._job(source).download() for source in self.plan.crls))
        return all(result in SUCCESSES for result, _ in found)

    def start_jobs(self) -> None:
        """Start the jobs new in the plan, stop those no longer in it, and leave the others."""
        places = {(source.trust, source.url) for source in self.plan.crls}
        for source in self._jobs.keys() - set(self.plan.crls):
            self._jobs.pop(source).cancel()
            if (source.trust, source.url) not in places:
                self._metrics.forget(source.trust, source.url)
        for source in self.plan.crls:
            if source not in self._jobs:
                task = asyncio.create_task(self._job(source).run())
                task.add_done_callback(_report)
                self._jobs[source] = task

    async def watch(self) -> None:
        """Read the policy again whenever it, or a file of authorities, changes; until cancelled."""
        while True:
            await asyncio.sleep(self.options.poll_seconds)
            if await asyncio.to_thread(self._reader.changed):
                await self.reload()

    async def reload(self) -> None:
        """Read the policy again; a refused one changes nothing."""
        try:
            await self.load()
        except (PolicyError, OSError) as error:
            log.error("policy refused, the last valid one stays in use: %s", error)
            return
        except Exception:  # a bug here must not stop the watching
            log.exception("the policy can't be read, the last valid one stays in use")
            return
        self.start_jobs()
        log.info("policy read: %d CRLs, %d responders", *self.plan_size)

    @property
    def mistakes(self) -> list[Diagnostic]:
        """The mistakes in the files of the policy."""
        return self._reader.mistakes

    @property
    def plan_size(self) -> tuple[int, int]:
        """The number of CRLs and of responders."""
        return len(self.plan.crls), len(self.plan.responders)

    async def stop(self) -> None:
        """Stop every job."""
        jobs = list(self._jobs.values())
        self._jobs.clear()
        for job in jobs:
            job.cancel()
        self._workers.close()
        await asyncio.gather(*jobs, return_exceptions=True)


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.critical("a job ended unexpectedly", exc_info=task.exception())


async def fetch_once(options: FetchOptions) -> int:
    """Run `fetch --once`: 0 if every CRL is present and fresh, else 1.  Raises `PolicyError`."""
    metrics = FetchMetrics(CollectorRegistry())
    async with new_session() as session:
        fetcher = Fetcher(options, session, metrics)
        refused = await fetcher.start()
        brought = await fetcher.download_all()
        if refused is not None:
            raise refused
        return 0 if brought and not fetcher.mistakes else 1


async def run_fetcher(
    options: FetchOptions,
    stop: asyncio.Event,
    *,
    registry: CollectorRegistry | None = None,
    ready: Callable[[], None] = lambda: None,
    reload: asyncio.Event | None = None,
) -> None:
    """Serve until `stop` is set.  Raises `PolicyError`, `ListenError`, `OSError` at the start.

    `ready` is called when everything listens; setting `reload` reads the policy at once.
    """
    metrics = FetchMetrics(registry or CollectorRegistry())
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(new_session())
        fetcher = Fetcher(options, session, metrics)
        await fetcher.start()
        stack.push_async_callback(fetcher.stop)
        await _serve_ocsp(stack, fetcher, metrics)
        fetcher.start_jobs()
        ready()
        log.info("mtls-sidecar %s ready: %d CRLs, %d responders", __version__, *fetcher.plan_size)
        tasks = [asyncio.create_task(fetcher.watch())]
        if options.admin:
            admin = serve_admin(admin_listener(metrics), [], options.admin, ADMIN_MODE)
            tasks.append(asyncio.create_task(admin))
        if reload is not None:
            tasks.append(asyncio.create_task(_reload_when_told(fetcher, reload)))
        await stop.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _reload_when_told(fetcher: Fetcher, told: asyncio.Event) -> None:
    while True:
        await told.wait()
        told.clear()
        await fetcher.reload()


async def _serve_ocsp(stack: AsyncExitStack, fetcher: Fetcher, metrics: FetchMetrics) -> None:
    path = fetcher.options.socket
    if path is None:
        return
    session = await stack.enter_async_context(new_session(OUTBOUND, OUTBOUND))
    service = OcspService(
        session, lambda: fetcher.plan, metrics, limits=fetcher.options.ocsp_limits
    )
    listening = open_listener(Address(path=str(path)), fetcher.options.socket_mode, "")
    stack.callback(remove_socket, str(path))
    loop = asyncio.get_running_loop()

    def connection() -> asyncio.StreamReaderProtocol:
        reader = asyncio.StreamReader(loop=loop)
        return asyncio.StreamReaderProtocol(reader, service.connected, loop=loop)

    room = Room(MAX_USERS * MAX_CONNECTIONS)
    stack.callback((await start_server(connection, listening, room)).close)


def main(
    options: FetchOptions,
    *,
    once: bool = False,
    ready: Callable[[], None] = lambda: None,
) -> int:
    """Run the fetcher; return the exit code: 0 done, 1 a download failed, 2 it can't start.

    SIGTERM and SIGINT stop it, SIGHUP reads the policy again.  The caller sets up logging.
    """
    if not once:
        log_in_thread()
    try:
        if once:
            become_owner_of(options.state_dir / "crl")
            return asyncio.run(fetch_once(options))
        asyncio.run(_until_told(options, ready))
    except PolicyError as error:
        for diagnostic in error.diagnostics:
            log.error("%s", diagnostic)
        return 2
    except (ListenError, OSError, ValueError) as error:
        log.error("can't start: %s", error)
        return 2
    return 0


async def _until_told(
    options: FetchOptions,
    ready: Callable[[], None],
) -> None:
    stop, again = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, again.set)
    await run_fetcher(options, stop, ready=ready, reload=again)
