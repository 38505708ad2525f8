"""The fleet's alerts and dashboard: they pass their own tests, and agree with the documents."""

from __future__ import annotations

import json
import re

import yaml
from pages import ROOT, anchors
from tools import need, promtool

RULES = ROOT / "deploy/prometheus/fleet.rules.yml"
METRIC = re.compile(r"mtls_sidecar_\w+")


def test_the_rules_pass_their_own_tests() -> None:
    """promtool: each alert fires when it should, and not before."""
    tool = need(promtool())
    for arguments in (("check", "rules", RULES.name), ("test", "rules", "fleet.rules.test.yml")):
        done = tool.run(*arguments, cwd=RULES.parent)
        assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_leads_to_its_section() -> None:
    """With a severity of two, a summary and a description; no section is left over."""
    rules = yaml.safe_load(RULES.read_text())["groups"][0]["rules"]
    for rule in rules:
        page, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert anchor == rule["alert"].lower()
        assert anchor in anchors(ROOT / page)
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert {"summary", "description"} <= rule["annotations"].keys()
    headings = re.findall(r"(?m)^### (Mtls\w+)$", (ROOT / "docs/fleet.md").read_text())
    assert sorted(headings) == sorted(rule["alert"] for rule in rules)


def test_alerts_and_panels_ask_for_documented_metrics() -> None:
    """Each is in docs/metrics.md."""
    known = set(METRIC.findall((ROOT / "docs/metrics.md").read_text()))
    board = json.loads((ROOT / "deploy/grafana/fleet.json").read_text())
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    found = {name for text in (*asked, RULES.read_text()) for name in METRIC.findall(text)}
    assert {name.removesuffix("_bucket") for name in found} <= known
    assert len(found) >= 4
