"""Each file of nginx-example/recipes/, as it is, on each nginx, before a stand-in application."""

from __future__ import annotations

import re
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import Any

import pytest
import yaml
from asking import Memory
from pki import Leaf
from stack import EXAMPLES, Stack, example
from tools import NginxBinary

from sidecar.commands.doctor.checks import examine
from sidecar.commands.doctor.nginx_config import read_nginx
from sidecar.core.policy.compile import compile_policy

RECIPES = sorted(f"recipes/{each.name}" for each in (EXAMPLES / "recipes").glob("*.conf"))


def policy_of(recipe: str) -> list[dict[str, Any]]:
    """The locations that a recipe's heading puts into policy.yaml."""
    found = re.search(r"(?m)^# policy\.yaml:\n((?:#   .*\n)+)", example(recipe))
    assert found, recipe
    locations = yaml.safe_load(re.sub(r"(?m)^#   ", "", found[1]))["locations"]
    assert isinstance(locations, list)
    return locations


POLICY = yaml.safe_dump(
    {
        "version": 1,
        "trust": {"staff": {"ca": "pki/staff-ca.crt", "denylist": ["denylist.txt"]}},
        "locations": [each for recipe in RECIPES for each in policy_of(recipe)],
    },
    sort_keys=False,
)


@pytest.fixture(scope="module")
def stack(nginx_binary: NginxBinary, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One nginx with all recipes, each on a port of its own."""
    place = tmp_path_factory.mktemp("recipes")
    with Stack(nginx_binary, place, sites=RECIPES, policy=POLICY) as found:
        yield found


KEPT = 401
"""What somebody without a certificate gets."""

CASES = {
    "home-assistant": {
        "/": KEPT,
        "/api/states": KEPT,
        "/api/webhook/0a1b": 200,
        "/api/webhook/../states": 400,
        "/auth/token": KEPT,
        "/manifest.json": 200,
        "/static/icons/favicon.ico": 200,
    },
    "vaultwarden": {
        "/": KEPT,
        "/api/sync": KEPT,
        "/identity/connect/token": KEPT,
        "/admin/users": KEPT,
        "/notifications/hub": KEPT,
        "/icons/example.com/icon.png": 200,
        "/webauthn-mobile-connector.html": 200,
        "/webauthn-fallback-connector.html": 200,
        "/api/sends/access/Zm9v": KEPT,
    },
    "nextcloud": {
        "/": KEPT,
        "/remote.php/dav/files/alice/": KEPT,
        "/s/Zm9vYmFy": 200,
        "/index.php/s/Zm9vYmFy/download": 200,
        "/index.php/settings": KEPT,
        "/public.php/dav/files/Zm9v/a.txt": 200,
        "/s/x/../../remote.php/dav": 400,
        "/s/x/..%2f..%2fremote.php/dav": 400,
        "/core/css/server.css": 200,
        "/dist/files_sharing-init-public.js": 200,
        "/apps/files/a.php/x.js": KEPT,
        "/apps/files/a%2ephp/x.js": KEPT,
        "/apps/files/": KEPT,
        "/.well-known/carddav": KEPT,
    },
    "immich": {
        "/": KEPT,
        "/api/assets": KEPT,
        "/api/shared-links/me?key=x": KEPT,
        "/share/Zm9v": 200,
    },
    "grafana": {
        "/": KEPT,
        "/api/dashboards/home": KEPT,
        "/api/health": 200,
        "/api/health/x": KEPT,
        "/public-dashboards/0a1b": KEPT,
    },
    "jellyfin": {"/": KEPT, "/System/Info/Public": KEPT, "/health": 200, "/socket": KEPT},
}


@pytest.mark.parametrize("name", CASES)
def test_without_a_certificate_what_is_open_is_open_and_nothing_else(
    stack: Stack, name: str
) -> None:
    """The paths that others need are answered by the application, all the rest with 401, or 400 for
    dots; with a certificate of the staff every page but the administrators' is there."""
    site, host = f"recipes/{name}.conf", f"{name}.example.com"
    got = {path: stack.get(path, host=host, site=site).status for path in CASES[name]}
    assert got == CASES[name]
    with stack.connect(cert=stack.people.bob, site=site, sni=host) as connection:
        for path, status in CASES[name].items():
            if status != 400:
                expected = 403 if path.startswith("/admin") else 200
                assert connection.get(path, host=host).status == expected, path


def test_the_browser_extension_of_bitwarden_is_told_what_changes(stack: Stack) -> None:
    """Its WebSocket, of which Chromium names the extension's origin alone, opens here only."""
    site, host = "recipes/vaultwarden.conf", "vault.example.com"
    said = {"Origin": "chrome-extension://nngceckbapebfimnlniiiahkandclblb"}
    upgrade = {**said, "Upgrade": "websocket", "Connection": "Upgrade"}
    asked = {**said, "Sec-Fetch-Site": "none"}
    for path, headers, status in (
        ("/notifications/hub?access_token=x", upgrade, 101),
        ("/api/sync", upgrade, 403),
        ("/api/sync", asked, 200),
    ):
        with stack.connect(cert=stack.people.bob, site=site, sni=host) as connection:
            assert connection.get(path, host=host, headers=headers).status == status


def test_each_recipe_has_its_cases() -> None:
    """And says when you want it, and docs/compatibility.md names it."""
    assert [f"recipes/{name}.conf" for name in sorted(CASES)] == RECIPES
    told = (EXAMPLES.parent / "docs/compatibility.md").read_text()
    for recipe in RECIPES:
        assert example(recipe).startswith("# You want: ")
        assert f"../nginx-example/{recipe}" in told


def test_doctor_and_nginx_are_silent(stack: Stack) -> None:
    """Nothing is open, locked or dear in them, and no location of the policy is left out."""
    files = {"pki/staff-ca.crt": stack.people.staff.pem, "denylist.txt": b""}
    policy = compile_policy(POLICY.encode(), "policy.yaml", Memory(files))
    findings = examine(read_nginx(stack.nginx.conf), policy)
    assert [f"{each.id} {each.what}" for each in findings] == []
    assert "[warn]" not in stack.nginx.test().stderr


@pytest.mark.parametrize("name", ["home-assistant", "vaultwarden", "immich", "grafana", "jellyfin"])
def test_websocket_passes_for_who_may(stack: Stack, name: str) -> None:
    """An upgrade to WebSocket, and to nothing else, reaches the application with the identity."""
    site = f"recipes/{name}.conf"
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Key": "bm9uY2U="}
    with stack.connect(cert=stack.people.alice, site=site) as connection:
        assert connection.get("/api/websocket", headers=upgrade).status == 101
        assert connection.read(7) == b"\x81\x05alice"
    assert stack.get("/api/websocket", site=site, headers=upgrade).status == KEPT
    h2c = {**upgrade, "Upgrade": "h2c"}
    answer = stack.get("/api/websocket", site=site, headers=h2c, cert=stack.people.alice)
    assert (answer.status, answer.saw("upgrade")) == (200, [])


@pytest.mark.parametrize(
    ("who", "name", "role"), [("alice", "alice", "Admin"), ("bob", "bob", "Viewer")]
)
def test_grafana_gets_name_and_role(stack: Stack, who: str, name: str, role: str) -> None:
    """From the certificate; what the client says of itself does not arrive, in any spelling."""
    forged = [("X-Client-CN", "admin"), ("X-Client-Role", "Admin"), ("X_Client_CN", "admin")]
    leaf: Leaf = getattr(stack.people, who)
    answer = stack.get("/", cert=leaf, site="recipes/grafana.conf", headers=forged)
    assert answer.saw("x-client-cn") == [name]
    assert answer.saw("x-client-role") == [role]
    open_ = stack.get("/api/health", site="recipes/grafana.conf", headers=forged)
    assert (open_.saw("x-client-cn"), open_.saw("x-client-role")) == ([], [])


def test_at_home_jellyfin_needs_no_certificate(stack: Stack) -> None:
    """By the address alone; who presents a certificate is judged by it."""
    before = stack.policy
    stack.edit_policy(before.replace("192.168.0.0/16", "127.0.0.0/8"))
    assert stack.get("/", site="recipes/jellyfin.conf").status == 200
    assert stack.get("/", site="recipes/jellyfin.conf", cert=stack.people.bob).status == 200
    stack.edit_policy(before)
    assert stack.get("/", site="recipes/jellyfin.conf").status == KEPT


def test_opening_a_send_is_an_edit_of_the_policy(stack: Stack) -> None:
    """`allow: public` at one location opens a Send's pages, and no other of the vault's."""
    before, site = stack.policy, "recipes/vaultwarden.conf"
    stack.edit_policy(re.sub(r"(name: vault-send\n  allow:) verified", r"\1 public", before))
    opened = ["/", "/api/sends/access/Zm9v", "/api/sends/a/access/file/b", "/app/main.js"]
    assert [stack.get(path, site=site).status for path in opened] == [200] * 4
    closed = ["/api/sync", "/api/sends", "/api/sends/a", "/admin", "/identity/connect/token"]
    assert [stack.get(path, site=site).status for path in closed] == [KEPT] * 5
    stack.edit_policy(before)


def test_a_redirect_to_https_and_acme(stack: Stack) -> None:
    """On port 80 there is the challenge of ACME and a redirect, without any question."""
    seen = []
    for path in ("/.well-known/acme-challenge/x", "/lovelace?a=b"):
        plain = HTTPConnection("127.0.0.1", stack.plain_ports["recipes/home-assistant.conf"])
        plain.request("GET", path, headers={"Host": "home.example.com"})
        answer = plain.getresponse()
        seen.append((answer.status, answer.getheader("Location")))
        plain.close()
    assert seen == [(404, None), (301, "https://home.example.com/lovelace?a=b")]
