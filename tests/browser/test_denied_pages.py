"""variants/denied.conf as a person sees it: a real Chromium, with certificates of every kind."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from itertools import product
from pathlib import Path

import pytest
from browser import Browser
from devtools import CONTRAST, Page, driven
from pki import Leaf, now
from stack import HOST, Stack, before_servers, example
from tools import NginxBinary, nginx_binaries

SHOP, OTHER = "shop.example.com", "other.example.com"
NO_CERTIFICATE = {
    "en": "No certificate was offered",
    "de": "Es wurde kein Zertifikat angeboten",
    "fr": "Aucun certificat n'a été présenté",
    "es": "No se ha presentado ningún certificado",
}
NOT_ALLOWED = "Your certificate is not allowed here"
ENDED = "Your certificate has ended"

SITES = f"""
server {{
    listen 443 ssl;
    server_name {SHOP} {OTHER};
    ssl_verify_client off;
    location / {{ proxy_pass http://app; }}
}}
"""
CHAT = """
    location /chat/ {
        auth_request /authz/chat;
        proxy_pass http://app;
        proxy_http_version 1.1;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection upgrade;
    }
"""
POLICY = example("policy.yaml") + "  - {name: chat, allow: verified, same_origin: false}\n"

FETCH = f"""fetch("https://{HOST}/x", {{credentials: "include"}})
    .then(answer => answer.json().then(body => `${{answer.status}} ${{body.error}}`))
    .catch(error => error.message)"""

SOCKET = f"""new Promise(end => {{
    const socket = new WebSocket("wss://{HOST}/chat/");
    socket.onopen = socket.onerror = () => end(true);
}})"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    binary = nginx_binaries()[0]
    assert isinstance(binary, NginxBinary)
    variant = example("variants/denied.conf")
    server = variant.replace("    location / {", CHAT + "\n    location / {")
    conf = "\n".join([before_servers(), server, SITES, "}"])
    with Stack(binary, tmp_path_factory.mktemp("denied"), conf=conf, policy=POLICY) as found:
        found.app.pages["/public/news"] = b"<!doctype html><p>the news"
        found.app.pages["/page"] = b"<!doctype html><p>a page"
        yield found


def window(stack: Stack, home: Path, leaf: Leaf | None) -> AbstractAsyncContextManager[Page]:
    """A browser whose user has this certificate."""
    port = stack.ports["nginx.conf"]
    return driven(Browser(home, leaf), dict.fromkeys([HOST, SHOP, OTHER], port))


async def visit(page: Page, url: str) -> tuple[int, str]:
    """The status of a page, and its first line."""
    await page.open(url)
    return await page.status, (await page.text).partition("\n")[0]


@pytest.mark.parametrize("who", ["nobody", "expired", "mallory"])
async def test_a_browser_offers_no_expired_and_no_foreign_certificate(
    stack: Stack, tmp_path: Path, who: str
) -> None:
    """Without one, with one that has ended, with one of another CA: none was offered."""
    async with window(stack, tmp_path / "home", getattr(stack.people, who, None)) as page:
        await page.look(width=390)
        assert await visit(page, f"https://{HOST}/x") == (403, NO_CERTIFICATE["en"])
        assert await visit(page, f"https://{HOST}/public/news") == (200, "the news")


async def test_the_page_is_readable_everywhere(stack: Stack, tmp_path: Path) -> None:
    """On a phone and a desk, light and dark, in each language: it fits, and has contrast."""
    looks = list(product((390, 1280), (False, True), NO_CERTIFICATE.items()))
    backs = set()
    async with window(stack, tmp_path / "home", None) as page:
        for width, dark, (language, words) in looks:
            await page.look(width=width, dark=dark, language=language)
            assert await visit(page, f"https://{HOST}/x") == (403, words)
            assert await page.run("document.documentElement.lang") == language
            assert await page.run("document.documentElement.scrollWidth <= innerWidth")
            assert await page.run("document.querySelector('code').getClientRects().length") == 1
            assert await page.run(CONTRAST) == []
            back = await page.run("getComputedStyle(document.documentElement).backgroundColor")
            backs.add((dark, back))
        assert len(backs) == 2
        assert (
            await page.run("getComputedStyle(document.querySelector('main')).maxWidth") == "640px"
        )


async def test_who_is_not_on_the_list_reads_it(stack: Stack, tmp_path: Path) -> None:
    """Bob's certificate is offered, and isn't allowed; a form that he sends ends there, too."""
    form = """document.body.innerHTML = "<form method=post action='https://app.example.com/x'>";
        document.forms[0].submit()"""
    async with window(stack, tmp_path / "home", stack.people.bob) as page:
        await page.look(width=390)
        assert await visit(page, f"https://{HOST}/x") == (403, NOT_ALLOWED)
        assert await visit(page, f"https://{HOST}/public/news") == (200, "the news")
        await page.follow(form)
        assert (await page.text).startswith(NOT_ALLOWED)


async def test_a_certificate_that_ends_while_the_browser_is_open(
    stack: Stack, tmp_path: Path
) -> None:
    """Its holder reads that it has ended: on the connection that he has, and, as the browser goes
    on offering it, after nginx was restarted; what is public stays public."""
    for seconds in (6, 12, 24, 48):  # a slow machine takes longer to come to the first visit
        end = now() + timedelta(seconds=seconds)
        alice = stack.people.staff.issue("alice", not_after=end)
        async with window(stack, tmp_path / f"home-{seconds}", alice) as page:
            await page.look(width=390)
            if (await visit(page, f"https://{HOST}/page"))[0] == 200:
                await asyncio.sleep(max(0.0, (end - now()).total_seconds()) + 1)
                assert await visit(page, f"https://{HOST}/page") == (403, ENDED)
                stack.nginx.stop()
                stack.nginx.start()
                assert await visit(page, f"https://{HOST}/public/news") == (200, "the news")
                assert await visit(page, f"https://{HOST}/page") == (403, ENDED)
                assert f"{end:%b} {end.day:2} " in await page.text
                return
    raise AssertionError("the browser never came in time")


async def test_a_script_of_another_site_reads_a_denial_only_where_it_may(
    stack: Stack, tmp_path: Path
) -> None:
    """For the origin that the operator named it is a 403 with its reason, for another a failure."""
    async with window(stack, tmp_path / "home", stack.people.bob) as page:
        await page.open(f"https://{SHOP}/page")
        assert await page.run(FETCH) == "403 other_site"
        await page.open(f"https://{OTHER}/page")
        assert await page.run(FETCH) == "Failed to fetch"


async def test_chromium_opens_no_websocket_to_a_server_that_was_not_visited(
    stack: Stack, tmp_path: Path
) -> None:
    """It offers no certificate there, and gives up; once a page was visited, it comes."""
    stack.app.seen.clear()
    async with window(stack, tmp_path / "home", stack.people.alice) as page:
        await page.open(f"https://{SHOP}/page")
        await page.run(SOCKET)
        assert "GET /chat/" not in stack.app.seen
        await page.open(f"https://{HOST}/page")
        await page.open(f"https://{SHOP}/page")
        await page.run(SOCKET)
        assert "GET /chat/" in stack.app.seen
