"""The alerts and the dashboard, with a real Prometheus that scrapes a real sidecar and fetcher."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from background import BackgroundServer
from daemon import ROOT, Daemon
from nginx import free_port
from pki import CA
from prometheus import DASHBOARD, RULES, Prometheus, alerts, panels, selectors
from tools import need, promtool

staff, strict = CA("Staff"), CA("Strict")
alice, bob, eve = staff.issue("alice"), staff.issue("bob"), strict.issue("eve")


class _Crls(BaseHTTPRequestHandler):
    """Gives the CRL of the staff at /crl, and nothing else."""

    def do_GET(self) -> None:
        body = staff.crl(der=True) if self.path == "/crl" else b""
        self.send_response(200 if body else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


class CrlServer(BackgroundServer):
    """Serves `_Crls` on a port of its own."""

    def __init__(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Crls)
        self.port = self._server.server_port


POLICY = """\
version: 1
trust:
  staff: {ca: ca.crt, crl: ["http://127.0.0.1:PORT/crl"], revocation: required}
  other: {ca: ca.crt, crl: ["http://127.0.0.1:PORT/none"], revocation: best_effort}
  strict: {ca: strict.crt, ocsp: "http://127.0.0.1:PORT/ocsp", revocation: required}
locations:
  - {name: site, trust: [staff], allow: [{cn: alice}]}
  - {name: watched, trust: [staff], allow: [{cn: alice}], deny: [{cn: bob}], mode: monitor}
  - {name: other, trust: [other], allow: [{cn: alice}]}
  - {name: strict, trust: [strict], allow: verified}
"""


class Scene:
    """A daemon to which everything happens, again and again, and the Prometheus that watches."""

    def __init__(self, daemon: Daemon, prometheus: Prometheus) -> None:
        self.daemon, self.prometheus = daemon, prometheus
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._happen, daemon=True)
        self.failure: BaseException | None = None

    def __enter__(self) -> Scene:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join(60)
        assert self.failure is None, self.failure

    def _happen(self) -> None:
        policy, broken = self.daemon.policy.read_text(), False
        try:
            while not self._stopped.wait(0.5):
                for location in ("site", "watched", "other"):
                    for leaf in (alice, bob, None):
                        self.daemon.ask(location, leaf)
                self.daemon.ask("strict", eve)
                self.daemon.ask("site", alice, ssl_client_verify="SUCCESS")  # twice: a bad request
                broken = not broken
                self.daemon.write("policy.yaml", "mistake" if broken else policy)
        except BaseException as error:  # noqa: BLE001 - told by the test's own thread
            self.failure = error


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    place = tmp_path_factory.mktemp("scraped")
    fetch_port = free_port()
    with ExitStack() as stack:
        crls = stack.enter_context(CrlServer())
        policy = POLICY.replace("PORT", str(crls.port))
        settings = f"fetch_admin: 127.0.0.1:{fetch_port}\nlimits: {{logged_denials: 1}}\n"
        daemon = Daemon(place, policy, settings, ca_crt=staff.pem, strict_crt=strict.pem)
        command = [sys.executable, "-m", "sidecar", "fetch", "--config", str(daemon.config)]
        with (place / "fetch.log").open("wb") as log:
            fetcher = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        stack.callback(fetcher.wait, 30)
        stack.callback(fetcher.terminate)
        daemon.start(wait=False)
        stack.callback(daemon.stop)
        daemon.until(lambda: daemon.status("/readyz") == 200, seconds=60)
        jobs = {"mtls-sidecar": daemon.port, "mtls-sidecar-fetch": fetch_port}
        prometheus = stack.enter_context(Prometheus(place, jobs).running())
        daemon.until(prometheus.is_up, seconds=60)
        yield stack.enter_context(Scene(daemon, prometheus))


def test_each_series_of_each_alert_is_there(scene: Scene) -> None:
    """No alert waits for a metric or a label value that the sidecar never has."""
    wanted = {name: selectors(rule["expr"]) for name, rule in alerts().items()}
    assert all(wanted.values())
    for series in wanted.values():
        for each in series:
            scene.prometheus.wait(each)


def test_each_panel_of_the_dashboard_shows_something(scene: Scene) -> None:
    """Every expression gives data, with the dashboard's variables set to everything."""
    assert len(panels()) > 20
    for expressions in panels().values():
        for each in expressions:
            scene.prometheus.wait(each)
    for variable in json.loads(DASHBOARD.read_text())["templating"]["list"]:
        if found := re.match(r"label_values\((.*), (\w+)\)", str(variable.get("query", {}))):
            assert scene.prometheus.query(found[1].replace("$job", ".*"))


def test_alerts_fire_where_something_is_wrong(scene: Scene) -> None:
    """Prometheus takes the rules, and those fire whose conditions hold here."""
    for name in ("ReloadRefused", "RevocationUnknown", "BadRequests"):
        scene.prometheus.wait(f'ALERTS{{alertname="MtlsSidecar{name}",alertstate="firing"}}')
    groups = scene.prometheus.api("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert {rule["name"] for rule in rules} == set(alerts())
    assert all(rule["health"] == "ok" for rule in rules), rules


def test_the_rules_pass_their_own_tests() -> None:
    """promtool: each alert fires when it should, and not before."""
    tool = need(promtool())
    for arguments in (("check", "rules", str(RULES)), ("test", "rules", "rules.test.yml")):
        done = tool.run(*arguments, cwd=RULES.parent)
        assert done.returncode == 0, done.stdout + done.stderr
    tested = (RULES.parent / "rules.test.yml").read_text()
    assert [name for name in alerts() if name not in tested] == []
