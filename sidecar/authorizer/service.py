"""Run the daemon: start, serve, reload, drain, stop; read it from top to bottom."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
import time
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import uvloop

from sidecar import __version__
from sidecar.authorizer.telemetry.counters import Counts
from sidecar.authorizer.telemetry.decision_log import DecisionLog
from sidecar.authorizer.telemetry.history import History
from sidecar.authorizer.telemetry.recorder import DecisionRecorder
from sidecar.authorizer.telemetry.shadow_report import ShadowReport
from sidecar.core.config.fleet_settings import node_name
from sidecar.core.config.settings import Settings
from sidecar.core.errors import Diagnostic, PolicyError
from sidecar.core.evaluate import OcspQuestion
from sidecar.core.fleet.freshness import ALWAYS
from sidecar.core.policy.model import Policy
from sidecar.runtime.conditions import Conditions
from sidecar.runtime.descriptors import connections_with_room
from sidecar.runtime.fleet_places import FleetPlaces
from sidecar.runtime.guarded_server import Room, Server, start_server
from sidecar.runtime.listen import remove_socket
from sidecar.runtime.log_lines import log_in_thread
from sidecar.runtime.status_files import StatusFile
from sidecar.runtime.systemd import Notifier, listen_fds, watchdog_seconds

from .client_store import ClientStore
from .connection import TURN, Connection, Service
from .control import serve_control
from .crl_ends import CrlEnds
from .daemon_status import DaemonStatus
from .decision_cache import Engine
from .fleet_follower import FleetFollower
from .fleet_status import TELL_SECONDS, FleetStatus
from .health import Health
from .ocsp_answers import OcspAnswers
from .ocsp_file import OcspFile
from .ocsp_queue import OcspClient
from .policy_store import POLL_SECONDS, Reload, Store, unread_mistake
from .refusal import Refusal
from .reload_lines import ReloadLines
from .sockets import Sockets, open_sockets
from .turns import Turns

log = logging.getLogger("mtls-sidecar")

SWITCH_SECONDS = 0.0005
"""Seconds that another thread may hold the interpreter while a decision waits."""

GC_THRESHOLDS = (10_000, 20, 20)
"""Collect garbage less often than by default: a decision creates no reference cycles."""

FLUSH_SECONDS = 0.1
"""Seconds that a line of the decision log waits for others, to be written together."""

HISTORY_SECONDS = 10.0
"""How often the counts are taken for the status page's last hour."""

MORE_SECONDS = 120.0
"""How long the service manager waits for a start at which a file takes long to be read: more than
one attempt takes (`readings.START_PATIENCE`)."""

DRAIN_GRACE = 0.25
"""Seconds for which idle connections stay open at the end.

nginx may just have connected, or be about to send its next request.
"""


def serve(settings: Settings) -> None:
    """Run the daemon until SIGTERM or SIGINT.

    Without a usable policy it waits for one, and refuses requests meanwhile.  Raises `ListenError`,
    OSError and ValueError if a socket can't be used.
    """
    log_in_thread()
    limits = settings.limits
    room = connections_with_room(limits.max_connections)
    settings = replace(settings, limits=replace(limits, max_connections=room))
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.disable()  # no collections during the initial load: its objects are long-lived
    gc.set_threshold(*GC_THRESHOLDS)
    handed = listen_fds(os.environ, os.getpid())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(Daemon(settings).run(handed))


def fleet_status(settings: Settings) -> FleetStatus | None:
    """Create the fleet follower if a fleet is set.  Raises ValueError for a host without a name."""
    if settings.fleet is None:
        return None
    node = node_name(settings.fleet, socket.gethostname())
    return FleetStatus(FleetFollower(settings.fleet, node, Path(settings.state_dir)))


class Daemon:
    """The parts of one daemon and their connections."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.counts = Counts()
        self.notifier = Notifier(os.environ)
        self.history = History()
        self.shadow_report = ShadowReport(self.counts)
        self.decisions = DecisionLog(
            settings.decision_log,
            settings.log_format,
            settings.decision_log_file,
            settings.limits.logged_denials,
        )
        self.conditions = Conditions()
        self.reload_lines = ReloadLines()
        self.health: Health | None = None
        self.clients = ClientStore(Path(settings.state_dir), settings.limits.seen_clients)
        self.recorder = DecisionRecorder(self.counts, self.decisions, self.clients.note)
        self.fleet = fleet_status(settings)
        self.counts.fleet = self.fleet
        self.store = Store(
            Path(settings.policy),
            Path(settings.state_dir),
            trusted_only=settings.allow_writable_policy != "true",
            changed=self._reloaded,
            fleet=self.fleet.follower if self.fleet is not None else None,
        )
        client = OcspClient(Path(settings.fetch_socket))
        self.answers = OcspAnswers(client, changed=lambda _: self.service.engine.forget())
        self.ocsp_file = OcspFile(Path(settings.state_dir), self.answers)
        self.problems: tuple[str, ...] = ()
        self.loaded_at = 0.0
        self._room = Room(settings.limits.max_connections)
        self._serving = False
        self._failed: list[BaseException] = []
        self._fleet_news = asyncio.Event()
        self._admin: asyncio.Task[None] | None = None

    async def run(self, handed: dict[str, list[socket.socket]]) -> None:
        """Start, serve until a stop signal, shut down.

        `handed` are the sockets of the service manager, by name.
        """
        self._stopped = asyncio.Event()
        self._listen_to_signals(asyncio.get_running_loop(), self._stopped)
        first = await self._first_load(self._stopped, handed)
        if first is None:
            return
        self._put_into_service(first)
        sockets = open_sockets(self.settings, handed)
        servers = await self._listen(sockets)
        self._tell_ready(first.policy)
        tasks = self._start_background_tasks(handed)
        try:
            await self._stopped.wait()
        finally:
            await self._shut_down(servers, tasks, sockets)
        if self._failed:
            raise self._failed[0]

    # -- start

    def _put_into_service(self, first: Reload) -> None:
        """Prepare for serving with the first policy."""
        self.service = Service(self._engine(first.policy), self.recorder, self.settings.limits)
        self.service.ask = self._ask
        self.service.turns = Turns(asyncio.get_running_loop().call_soon)
        self.service.left = TURN
        self.health = Health(self.service, self.decisions, self.conditions)
        self._serving = True
        self.ocsp_file.load(first.policy.trusts)
        self.counts.connections = lambda: len(self.service.connections)
        self.counts.ocsp_answers = lambda: len(self.answers)
        self.counts.ocsp_failures = self.answers.failures
        self.counts.log_dropped = lambda: self.decisions.dropped
        self.counts.log_summarized = lambda: self.decisions.summaries.total
        self.counts.refused_connections = lambda: self.service.refused
        self._reloaded(first)
        gc.collect()
        gc.freeze()  # the policy's objects are long-lived: later collections skip them
        gc.enable()

    async def _listen(self, sockets: Sockets) -> list[Server]:
        return [
            await start_server(lambda: Connection(self.service), listener, self._room)
            for listener in sockets.authz
        ]

    def _tell_ready(self, policy: Policy) -> None:
        self.notifier.ready(self._status_line())
        log.info(
            "mtls-sidecar %s serving %s, policy %s", __version__, self.settings.listen, policy.hash
        )

    def _start_background_tasks(
        self, handed: dict[str, list[socket.socket]]
    ) -> list[asyncio.Task[None]]:
        """Start the tasks that run beside the connections.  A failed task stops the daemon."""
        control = serve_control(
            Path(self.settings.state_dir),
            Path(self.settings.policy),
            lambda: self.service.engine.policy,
            self.store.kept,
        )
        tasks = [
            asyncio.create_task(each)
            for each in (
                self.store.watch(),
                self._sweep(),
                self._flush(),
                self._watchdog(),
                CrlEnds().watch(lambda: self.service.engine.policy),
                control,
                self.answers.keep_fresh(),
                self.ocsp_file.keep(lambda: self.service.engine.policy.trusts),
                self.clients.keep(self.recorder.settle),
                self._tell_fleet(),
            )
        ]
        tasks.append(self._admin or self._start_admin(handed))
        for task in tasks:
            task.add_done_callback(self._stop_on_failure)
        return tasks

    def _stop_on_failure(self, task: asyncio.Task[None]) -> None:
        """Stop the whole daemon after a failed task: the service manager starts it again."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed.append(error)
            self._stopped.set()

    async def _first_load(
        self, stopped: asyncio.Event, handed: dict[str, list[socket.socket]]
    ) -> Reload | None:
        """Load the policy; while that fails, report the reason and retry.  None: stopped."""
        stopping = asyncio.create_task(stopped.wait())
        told: tuple[Diagnostic, ...] = ()
        refusal = Refusal(self._room)
        while not stopped.is_set():
            loading = asyncio.create_task(asyncio.to_thread(self._load_first))
            await asyncio.wait({loading, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not loading.done():
                break
            try:
                first = loading.result()
                await refusal.close()
                return first
            except PolicyError as error:
                if not told:
                    await refusal.start(handed.get("authz", []))
                if error.diagnostics != told:
                    told = error.diagnostics
                    self._tell_waiting(told)
            gc.enable()
            self._admin = self._admin or self._start_admin(handed)
            while not stopping.done() and not await asyncio.to_thread(self._is_load_due):
                if self.store.is_reading:
                    # Ended by its manager, it would begin anew, and never end.
                    self.notifier.extend(MORE_SECONDS)
                await asyncio.wait({stopping}, timeout=POLL_SECONDS)
        await refusal.close()
        if self._admin is not None:
            self._admin.cancel()
            await asyncio.wait({self._admin})
        await self.store.close()
        return None

    def _load_first(self) -> Reload:
        """Load the policy, once what an earlier process kept can be read.  Raises `PolicyError`."""
        error = self.ocsp_file.read()
        if error is not None:
            raise PolicyError([unread_mistake(self.ocsp_file.path, error)])
        return self.store.load()

    def _is_load_due(self) -> bool:
        return self.ocsp_file.is_unread or self.store.moved()

    def _start_admin(self, handed: dict[str, list[socket.socket]]) -> asyncio.Task[None]:
        return asyncio.create_task(self._serve_admin(handed.get("admin", [])))

    def _tell_waiting(self, told: tuple[Diagnostic, ...]) -> None:
        """Report why no policy is in force yet."""
        self.problems = tuple(map(str, told))
        lines = PolicyError(told)
        log.error("no policy is in force, nothing is served until this is mended:\n%s", lines)
        self.notifier.status(f"no policy is in force: {self.problems[0]}")
        self._tell_status()

    def _listen_to_signals(self, loop: asyncio.AbstractEventLoop, stopped: asyncio.Event) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopped.set)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)

    def _hang_up(self) -> None:
        """Handle SIGHUP: reopen the decision log and reload the policy."""
        if not self._serving:  # the first load retries all the time
            return
        self.notifier.reloading()
        try:
            self.decisions.reopen()
        except OSError as error:
            log.error("the decision log can't be reopened: %s", error)
        self._reloading = asyncio.create_task(self.store.reload())

    async def _serve_admin(self, handed: list[socket.socket]) -> None:
        """Serve metrics until cancelled.  The import runs in a thread, so decisions don't wait."""
        settings = self.settings
        module = await asyncio.to_thread(import_module, ".admin", __package__)
        self.status = DaemonStatus(
            self.counts,
            standing=lambda: self.conditions.standing,
            history=self.history,
            denials=self.recorder.denials.denials,
            clients=self.clients.clients,
            ocsp=self.answers,
        )
        self._tell_status()
        listener = module.admin_listener(self.status, settings.admin_hosts)
        await module.serve_admin(
            listener, handed, settings.admin, settings.socket_mode, settings.socket_group
        )

    # -- the policy

    def _engine(self, policy: Policy) -> Engine:
        return Engine(
            policy,
            entries=self.settings.limits.cache_entries,
            answers=self.answers,
            freshness=ALWAYS if self.fleet is None else self.fleet.follower.freshness(),
        )

    def _reloaded(self, result: Reload) -> None:
        """Swap the policy, and count and log the result of a reload."""
        if result.policy is not self.service.engine.policy:
            self.service.engine = self._engine(result.policy)
        self._look_at_fleet()
        self.counts.reloaded(result.policy, result.ok, result.at)
        self.counts.crl_backwards += result.backwards
        self.problems = tuple(map(str, result.diagnostics))
        if result.ok:
            self.loaded_at = result.at
        self.reload_lines.tell(result)
        if self.health is not None:
            self.health.taken(result.policy, result.at)
        self.notifier.ready(self._status_line())
        self._tell_status()

    # -- the fleet

    def _look_at_fleet(self) -> None:
        """Take over how fresh what the fleet says is, and note what is in force by now."""
        if self.fleet is None:
            return
        engine, fresh = self.service.engine, self.fleet.follower.freshness()
        was_stale = engine.freshness.until <= time.time()
        engine.freshness = fresh
        if was_stale != (fresh.until <= time.time()):
            engine.forget()
        self.conditions.report("fleet", self.fleet.warning())
        if self.fleet.note(time.time()):
            self._fleet_news.set()

    async def _tell_fleet(self) -> None:
        """Tell the agent what is in force, whenever that changes; until cancelled."""
        fleet = self.fleet
        if fleet is None:
            await asyncio.Event().wait()
            return
        file = StatusFile(FleetPlaces(Path(self.settings.state_dir)).status)
        try:
            while True:
                await self._write_fleet_status(fleet, file)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._fleet_news.wait(), TELL_SECONDS)
                self._fleet_news.clear()
        finally:
            file.close()

    async def _write_fleet_status(self, fleet: FleetStatus, file: StatusFile) -> None:
        self.recorder.settle()
        data = fleet.as_json(self.service.engine.policy.hash, self.counts.decisions)
        try:
            await asyncio.to_thread(file.write, data)
            self.conditions.report("fleet status", "")
        except OSError as error:
            self.conditions.report("fleet status", f"can't be written: {error.strerror}")

    status: DaemonStatus | None = None

    def _tell_status(self) -> None:
        status = self.status
        if status is None:
            return
        status.problems = self.problems
        if not self._serving:
            status.not_ready = "; ".join(["no policy is in force", *self.problems[:10]])
            return
        status.policy = self.service.engine.policy
        status.loaded_at = self.loaded_at
        status.not_ready = "draining" if self.service.draining else ""

    def _status_line(self) -> str:
        state = "last reload refused, " if self.problems else ""
        return f"{state}policy {self.service.engine.policy.hash} in force"

    # -- decisions

    async def _ask(self, questions: list[OcspQuestion], deadline: float) -> None:
        """Wait for the missing OCSP answers of a decision."""
        trusts = self.service.engine.policy.trusts
        asked = (
            self.answers.ensure(q, trusts[q.trust].clock_tolerance, deadline)
            for q in questions
            if q.trust in trusts
        )
        await asyncio.gather(*asked)

    # -- background tasks

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(1)
            self.service.sweep(time.monotonic())
            self.shadow_report.look(time.monotonic())
            self._look_at_fleet()
            if self.health is not None:
                self.health.look(time.time())

    async def _flush(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            self.recorder.log()
            self.decisions.flush()

    async def _keep_history(self) -> None:
        while True:
            self.recorder.settle()
            await asyncio.to_thread(self.history.take, self.counts.decisions, time.time())
            await asyncio.sleep(HISTORY_SECONDS)

    async def _watchdog(self) -> None:
        seconds = watchdog_seconds(os.environ, os.getpid())
        while seconds:
            self.notifier.alive()
            await asyncio.sleep(seconds / 3)

    # -- stop

    async def _shut_down(
        self, servers: list[Server], tasks: list[asyncio.Task[None]], sockets: Sockets
    ) -> None:
        """Stop listening, finish open requests, end the tasks, and save the state.

        The listeners close first: with sockets of the service manager, new connections then wait
        for the next process.
        """
        self.notifier.stopping()
        for server in servers:
            server.close()
        await self._drain()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.store.close()
        for path in sockets.made:
            remove_socket(path)
        self.ocsp_file.save()
        self.recorder.settle()
        self.clients.save()
        self.decisions.close()
        log.info("stopped")

    async def _drain(self) -> None:
        """Wait for open requests, within the drain timeout."""
        self.service.draining = True
        self._tell_status()
        await asyncio.sleep(DRAIN_GRACE)
        self.service.drain()
        deadline = time.monotonic() + self.settings.limits.drain_timeout
        while self.service.connections and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        for connection in self.service.connections:
            connection.abort()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)
