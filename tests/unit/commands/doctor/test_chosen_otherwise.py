"""Where the sidecar chooses by URI, it names the location by which nginx serves."""

from __future__ import annotations

from pathlib import Path

import pytest
from asking import policy
from good_nginx import GOOD

from sidecar.commands.doctor.checks import examine
from sidecar.commands.doctor.nginx_config import read_nginx

ALL = "location / { auth_request /authz/site; proxy_pass http://app; }"
REST = "location / { auth_request /authz; proxy_pass http://app; }"
ANSWERING = "location ^~ /authz/ {"
ASK = "auth_request /authz; proxy_pass http://app;"
PHP = rf"location ~ \.php$ {{ {ASK} }}"
BELOW = f"location ~ ^/a/.*[.]php$ {{ {ASK} }}"
PUB = f"location ~ ^/a/pub {{ {ASK} }}"
ENTRIES = {
    "pub": 'location: "~ ^/a/pub", allow: public',
    "php": r'location: "~ \\.php$", allow: [{cn: alice}]',
    "below": 'location: "~ ^/a/.*[.]php$", allow: [{cn: alice}]',
    "img": r'location: "~* \\.(png|gif)$", allow: public',
    "a": "location: /a/, allow: verified",
    "final": "location: ^~ /a/, allow: public",
    "one": "location: = /a/x.php, allow: public",
    "rest": "location: /, allow: verified",
}


def told(lines: str, names: str, directory: Path) -> bool:
    entries = "".join(f"  - {{name: {each}, {ENTRIES[each]}}}\n" for each in names.split())
    rules = policy(f"version: 1\nlocations:\n{entries}")
    text = GOOD.replace(ALL, f"{lines} {REST}").replace(ANSWERING, "location ^~ /authz {")
    conf = directory / "nginx.conf"
    conf.write_text(text)
    return "chosen-otherwise" in {each.id for each in examine(read_nginx(conf), rules)}


@pytest.mark.parametrize(
    ("lines", "names"),
    [
        (f"location /a/ {{ {PHP} {ASK} }} {PUB}", "pub php a rest"),
        (f"location /a/ {{ {PHP} {ASK} }}", "php a rest"),
        (f"{PHP} {PUB}", "pub php rest"),
        (f"{PHP} location /a/ {{ {ASK} }}", "final php rest"),
        (f"location /a/ {{ {PHP} {ASK} }} location ~* \\.(png|gif)$ {{ {ASK} }} {PUB}",
         "img pub php a rest"),
    ],
)  # fmt: skip
def test_another_order(lines: str, names: str, tmp_path: Path) -> None:
    """Expressions within a location go first in nginx; the policy's order, or its ^~, differs."""
    assert told(lines, names, tmp_path)


@pytest.mark.parametrize(
    ("lines", "names"),
    [
        (f"location /a/ {{ {BELOW} {ASK} }} {PUB}", "below pub a rest"),
        (f"{PUB} {PHP}", "pub php rest"),
        ("", "pub php a rest"),
        (PHP, "final php rest"),
        (f"location ^~ /a/ {{ {PHP} {ASK} }} {PHP}", "final php rest"),
        (f"{PHP} location = /a/x.php {{ {ASK} }}", "one php rest"),
        (f"{PHP} {PUB.replace('auth_request /authz;', 'auth_request off;')}", "pub php rest"),
        (f"{PHP.replace('/authz;', '/authz/php;')} {PUB}", "pub php rest"),
    ],
)
def test_the_same_order(lines: str, names: str, tmp_path: Path) -> None:
    """Or a policy that is finer than nginx; what is asked by its name."""
    assert not told(lines, names, tmp_path)
