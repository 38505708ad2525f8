"""`destination-unasked`: COPY and MOVE write where another question is asked."""

from __future__ import annotations

from pathlib import Path

import pytest
from asking import policy
from good_nginx import GOOD

from sidecar.commands.doctor.checks import examine
from sidecar.commands.doctor.nginx_config import read_nginx

PLACES = "location /public/ { auth_request off; }"
ADMIN = "location /files/admin/ { auth_request /authz/admin; root /srv; } "
FILES = "location /files/ { auth_request /authz/site; root /srv; dav_methods PUT COPY MOVE; } "
RULES = "version: 1\nlocations:\n  - {name: site, allow: verified}\n  - {name: admin, allow: []}\n"
DENIED = "allow: verified, deny: [{method: [COPY, MOVE]}]"


def told(lines: str, directory: Path, rules: str = RULES) -> bool:
    path = directory / "nginx.conf"
    path.write_text(GOOD.replace(PLACES, lines))
    return "destination-unasked" in {e.id for e in examine(read_nginx(path), policy(rules))}


@pytest.mark.parametrize(
    "lines",
    [
        FILES + ADMIN,
        FILES.replace("/authz/site", "off") + ADMIN,
        FILES.replace("root /srv;", "alias /srv/files/;") + ADMIN,
        FILES.replace("COPY MOVE", "move") + ADMIN,
        f"root /srv; dav_methods COPY; {FILES.replace('dav_methods PUT COPY MOVE;', '')} {ADMIN}",
        FILES.replace("dav_", "limit_except GET COPY { deny all; } dav_") + ADMIN,
        FILES + ADMIN.replace("/files/admin/", r"~ ^/files/.*\.key$"),
        f"{FILES} }} server {{ listen 444 ssl; include x*; {ADMIN} ",
    ],
)
def test_it_is_told_where_another_is_asked(lines: str, tmp_path: Path) -> None:
    """The directory of another question lies in the one that COPY and MOVE write into."""
    assert told(lines, tmp_path)


@pytest.mark.parametrize(
    "lines",
    [
        FILES.replace("COPY MOVE", "DELETE") + ADMIN,
        FILES.replace("PUT COPY MOVE", "off") + ADMIN,
        FILES + ADMIN.replace("admin;", "site;"),
        FILES + ADMIN.replace("/srv", "/var/lib/other"),
        FILES.replace("dav_", "limit_except GET PUT { deny all; } dav_") + ADMIN,
        FILES.replace("root", "deny all; root") + ADMIN,
        FILES.replace("root /srv", "alias /srv/shared/") + ADMIN,
        FILES.replace("root", "proxy_pass http://dav; root") + ADMIN,
    ],
)
def test_it_isn_t_told_elsewhere(lines: str, tmp_path: Path) -> None:
    """Without both methods, or where nobody may use them, or what is written asks the same."""
    assert not told(lines, tmp_path)


def test_a_policy_that_refuses_both(tmp_path: Path) -> None:
    """A `deny` of both methods for everybody is enough; of one of them, or in monitor mode, not."""
    for rules, expected in (
        (RULES.replace("allow: verified", DENIED), False),
        (RULES.replace("allow: verified", DENIED.replace("COPY, ", "")), True),
        (RULES.replace("allow: verified", f"{DENIED}, mode: monitor"), True),
        (RULES.replace("allow: verified", DENIED.replace("}]", ", cn: bob}]")), True),
    ):
        assert told(FILES + ADMIN, tmp_path, rules) == expected
