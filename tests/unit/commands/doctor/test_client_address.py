"""The client's address is nobody's own word where rules ask for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from asking import policy
from good_nginx import GOOD

from sidecar.commands.doctor.checks import examine
from sidecar.commands.doctor.nginx_config import read_nginx

BY_ADDRESS = policy(
    "version: 1\nlocations:\n  - {name: site, allow: [{client_ip: 192.0.2.0/24}]}\n"
)
REAL = "set_real_ip_from 0.0.0.0/0;"
SITE, OPEN, QUESTION = (
    "location / { auth_request",
    "location /public/ { auth_request",
    "location ^~ /authz/ { internal",
)


@pytest.mark.parametrize(
    ("place", "line", "expected"),
    [
        (SITE, REAL, True),
        (QUESTION, REAL, True),
        (SITE, REAL.replace("/0", "/1"), True),
        (SITE, REAL.replace("0.0.0.0/0", "::/0"), True),
        (SITE, REAL.replace("0.0.0.0/0", "192.0.2.0/24"), False),
        (OPEN, REAL, False),
    ],
)
def test_in_a_location(place: str, line: str, expected: bool, tmp_path: Path) -> None:
    """nginx reads it before it asks, and for the question; elsewhere it changes no answer."""
    text = GOOD.replace("/authz/ {\n            internal", "/authz/ { internal")
    path = tmp_path / "nginx.conf"
    assert place in text
    path.write_text(text.replace(place, place.replace("{", f"{{ {line}")))
    told = {each.id for each in examine(read_nginx(path), BY_ADDRESS)}
    assert ("address-from-client" in told) == expected
