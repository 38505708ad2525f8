"""A real Prometheus, with the rules and the dashboard of the repository."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from nginx import free_port
from tools import need, prometheus

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "deploy/prometheus/rules.yml"
DASHBOARD = ROOT / "deploy/grafana/dashboard.json"

_SELECTOR = re.compile(r"\b(?:mtls_sidecar_\w+|up)\b(?:\{[^}]*\})?")


class Prometheus:
    """A server that scrapes jobs of one target each, twice a second."""

    def __init__(self, directory: Path, jobs: dict[str, int]) -> None:
        self.port = free_port()
        self.directory = directory
        self._program = need(prometheus())
        (directory / "prometheus.yml").write_text(
            yaml.safe_dump(
                {
                    "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                    "rule_files": [str(RULES)],
                    "scrape_configs": [
                        {
                            "job_name": job,
                            "scrape_timeout": "1s",
                            "static_configs": [{"targets": [f"127.0.0.1:{port}"]}],
                        }
                        for job, port in jobs.items()
                    ],
                }
            )
        )

    @contextlib.contextmanager
    def running(self) -> Iterator[Prometheus]:
        """Run it until the block ends."""
        command = [
            str(self._program.path),
            f"--config.file={self.directory / 'prometheus.yml'}",
            f"--storage.tsdb.path={self.directory / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--log.level=warn",
        ]
        with (self.directory / "prometheus.log").open("wb") as log:
            process = subprocess.Popen(command, env=self._program.env, stdout=log, stderr=log)
        try:
            yield self
        finally:
            process.terminate()
            process.wait(30)

    def api(self, path: str, **query: str) -> Any:
        """The `data` of an answer of its HTTP API.  Raises OSError while it starts."""
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=20) as answer:
            found = json.load(answer)
        assert found["status"] == "success", found
        return found["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an expression at this moment."""
        result: list[dict[str, Any]] = self.api("query", query=expression)["result"]
        return result

    def is_up(self) -> bool:
        """Whether it answers and has scraped every target well."""
        with contextlib.suppress(OSError):
            targets = self.api("targets")["activeTargets"]
            return bool(targets) and all(each["health"] == "up" for each in targets)
        return False

    def without_data(self, expressions: set[str]) -> set[str]:
        """Those of the expressions that give no sample."""
        return {each for each in expressions if not self.query(each)}

    def wait(self, what: str, seconds: float = 60.0) -> None:
        """Wait until an expression gives a sample."""
        end = time.monotonic() + seconds
        while not self.query(what):
            assert time.monotonic() < end, f"no data: {what}"
            time.sleep(0.25)


def alerts() -> dict[str, dict[str, Any]]:
    """The rules of deploy/prometheus/rules.yml by their names."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def selectors(expression: str) -> set[str]:
    """The series that an expression is made of, as instant vectors."""
    return set(_SELECTOR.findall(expression))


def panels() -> dict[str, list[str]]:
    """The expressions of each panel of the dashboard, its variables set to everything."""
    found = {}
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        expressions = [each["expr"] for each in panel.get("targets", [])]
        found[panel["title"]] = [
            re.sub(r"\$(job|instance|location)\b", ".*", each).replace("$__rate_interval", "30s")
            for each in expressions
        ]
    return {title: expressions for title, expressions in found.items() if expressions}
