"""nginx's clock is set back while it remembers an answer of the sidecar."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest
from stack import Stack, example
from tools import NginxBinary, faketime, need, nginx_binaries

POLICY = """
version: 1
trust: {staff: {ca: pki/staff-ca.crt}}
locations: [{name: shop, trust: [staff], allow: [{cn: alice}], cache_seconds: 1}]
"""
KEPT = "env LD_PRELOAD; env FAKETIME_TIMESTAMP_FILE; env FAKETIME_NO_CACHE;\n"


def nginx_time(stack: Stack) -> datetime:
    return parsedate_to_datetime(stack.get("/").headers["date"])


@pytest.mark.parametrize("key", ["as it is", "without the minute"])
def test_an_answer_is_forgotten(tmp_path: Path, key: str) -> None:
    """An hour back, alice is no longer allowed, and nginx asks; without the minute in the key it
    lets her in for an hour."""
    # The other nginx is linked statically: nothing can be loaded before it.
    distribution = need(next(b for b in nginx_binaries() if b.name == "nginx-distribution"))
    assert isinstance(distribution, NginxBinary)
    offset = tmp_path / "offset"
    offset.write_text("+0")
    clock = {
        "LD_PRELOAD": str(need(faketime()).path),
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    binary = replace(distribution, extra_env=(*distribution.extra_env, *clock.items()))
    around = example("nginx.conf").partition("    server {\n        listen")[0]
    conf = KEPT + around + example("variants/cache.conf") + "\n}\n"
    with Stack(binary, tmp_path, conf=conf, policy=POLICY) as stack:
        if key != "as it is":
            snippet = tmp_path / "nginx" / "snippets" / "authz-location-cached.conf"
            snippet.write_text(snippet.read_text().replace("|$mtls_sidecar_minute", ""))
            stack.nginx.reload()
        assert stack.get("/", cert=stack.people.alice).status == 200
        start = nginx_time(stack)
        offset.write_text("-3600")
        stack.edit_policy(POLICY.replace("alice", "nobody"))
        stack.daemon.until(lambda: nginx_time(stack) < start)
        status = stack.get("/", cert=stack.people.alice).status
        assert status == (403 if key == "as it is" else 200)
