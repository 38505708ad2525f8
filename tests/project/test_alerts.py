"""The alerts and the dashboard agree with the documents."""

from __future__ import annotations

import re

import yaml
from pages import ROOT, anchors, blocks
from prometheus import alerts, panels, selectors

OPERATIONS = ROOT / "docs/operations.md"


def test_each_alert_has_its_section_in_the_runbook() -> None:
    """Its annotation leads to a heading that is there, and no heading is left over."""
    for name, rule in alerts().items():
        page, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert anchor == name.lower()
        assert anchor in anchors(ROOT / page), name
    headings = re.findall(r"(?m)^### (Mtls\w+)$", OPERATIONS.read_text())
    assert sorted(headings) == sorted(alerts())


def test_each_alert_says_what_it_means() -> None:
    """A severity of two, a summary and a description."""
    for name, rule in alerts().items():
        assert rule["labels"]["severity"] in {"warning", "critical"}, name
        assert {"summary", "description"} <= rule["annotations"].keys(), name


def test_alerts_and_panels_ask_for_documented_metrics() -> None:
    """Every metric that an expression names is in docs/metrics.md."""
    known = set(re.findall(r"mtls_sidecar_\w+", (ROOT / "docs/metrics.md").read_text()))
    asked = {each for rule in alerts().values() for each in selectors(rule["expr"])}
    asked |= {each for found in panels().values() for text in found for each in selectors(text)}
    names = {re.sub(r"\{.*|_bucket.*", "", each) for each in asked} - {"up"}
    assert len(names) > 20
    assert names <= known


def test_the_jobs_are_named_as_the_alerts_want_them() -> None:
    """docs/deploy.md scrapes under names that the rules ask for."""
    [scraped] = [
        yaml.safe_load(block.text)
        for block in blocks(ROOT / "docs/deploy.md")
        if "scrape_configs" in block.text
    ]
    jobs = [each["job_name"] for each in scraped["scrape_configs"]]
    assert jobs == ["mtls-sidecar", "mtls-sidecar-fetch"]
    [wanted] = re.findall(r'job=~"([^"]*)"', alerts()["MtlsSidecarDown"]["expr"])
    assert all(re.fullmatch(wanted, job) for job in jobs)
