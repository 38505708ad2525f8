"""The status page in a real Chromium: hostile names, every size and colours, with and without
JavaScript."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
from browser import Browser
from daemon import Daemon
from devtools import CONTRAST, Page, driven
from pki import CA

staff, other = CA("Staff"), CA("Other")
NAMES = [
    "<script>window.pwned = 1</script>",
    "<img src=/x onerror='window.pwned=1'>",
    "</title></style></pre><svg onload=pwned=1>",
    "x" * 64,
]
hostile = [
    staff.issue(name, uri=[f"https://h/{number}/<b>"], ou=["'\"><a href=javascript:pwned=1>x"])
    for number, name in enumerate(NAMES)
]
POLICY = """\
version: 1
trust: {staff: {ca: ca.crt}}
locations:
  - {name: admin, allow: [{cn: alice}]}
  - {name: watched, allow: [{cn: alice}], mode: monitor}
"""
MISTAKE = 'version: 1\n"<script>window.pwned = 1</script><img src=x onerror=pwned=1>": 1\n'

BEFORE = """
window.violations = [];
addEventListener("securitypolicyviolation", event => violations.push(event.violatedDirective));
const slow = window.setInterval;
window.setInterval = (work, time) => slow(work, time / 20);
"""
"""Run before the page's own script: what the browser refused is noted, and time goes faster."""

FOREIGN = "document.querySelectorAll('img, iframe, object, embed, [onload], [onerror], [style]')"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One that has denied people with hostile names, and refused a hostile policy."""
    place = tmp_path_factory.mktemp("status")
    with Daemon(place, POLICY, ca_crt=staff.pem) as running, running.client() as client:
        for number, leaf in enumerate([*hostile, other.issue(NAMES[1])]):
            headers = {
                "X-Original-URI": f"/<img/src=x/onerror=pwned=1>?{number}",
                "X-Request-ID": f"{number:032x}",
                "SSL-Server-Name": "app.example.com",
            }
            client.ask("admin", leaf, headers)
            client.ask("watched", leaf, headers)
        running.write("policy.yaml", MISTAKE)
        running.until(lambda: running.has_failed(1), seconds=30)
        running.until(lambda: "CN=" in running.get("/")[1].partition("Clients seen")[2], seconds=30)
        yield running


def address(daemon: Daemon) -> str:
    return f"http://127.0.0.1:{daemon.port}/"


async def prepared(page: Page) -> None:
    """Note from now on what the browser refuses."""
    await page.send("Page.enable")
    await page.send("Page.addScriptToEvaluateOnNewDocument", source=BEFORE)


async def test_hostile_names_do_nothing_at_any_size(daemon: Daemon, tmp_path: Path) -> None:
    """On a phone and a desk, light and dark: all is text, it fits, it has contrast, and the
    browser has nothing to refuse."""
    backs = set()
    async with driven(Browser(tmp_path / "home", None), {}) as page:
        await prepared(page)
        for width, dark in product((390, 1280), (False, True)):
            await page.look(width=width, dark=dark)
            await page.open(address(daemon))
            await page.run("document.querySelectorAll('details').forEach(each => each.open = true)")
            assert await page.run("typeof pwned") == "undefined"
            assert await page.run(f"{FOREIGN}.length") == 0
            assert await page.run("document.scripts.length") == 1
            assert await page.run("document.title") == "Wrong · mtls-sidecar"
            assert await page.run("document.documentElement.scrollWidth - innerWidth") <= 0
            assert await page.run(CONTRAST) == []
            backs.add(await page.run("getComputedStyle(document.body).backgroundColor"))
            await page.picture(tmp_path / f"status-{width}-{'dark' if dark else 'light'}.png")
            assert await page.run("violations") == []
        text = await page.text
        assert all(name.replace("<", "\\<").replace(">", "\\>")[:20] in text for name in NAMES)
        assert "The last reload was refused" in text
    assert len(backs) == 2


async def test_it_refreshes_by_itself(daemon: Daemon, tmp_path: Path) -> None:
    """New denials come without a reload; what was opened stays open, what was typed stays."""
    async with driven(Browser(tmp_path / "home", None), {}) as page:
        await prepared(page)
        await page.open(address(daemon))
        await page.run("document.querySelector('details.denial summary').click()")
        opened = await page.run("document.querySelector('details[open]').id")
        await page.run("document.getElementById('q').focus(); q.value = 'half an i'; 0")
        daemon.ask("admin", staff.issue("newcomer"))
        await page.until("document.body.innerText.includes('CN=newcomer')")
        assert await page.run("document.querySelector('details[open]').id") == opened
        assert await page.run("q.value") == "half an i"
        assert await page.run("document.activeElement.id") == "q"
        assert await page.run("violations") == []


async def test_it_is_searched_without_javascript(daemon: Daemon, tmp_path: Path) -> None:
    """The form and the explanations need no script; the page comes anew by itself all the same."""
    async with driven(Browser(tmp_path / "home", None), {}) as page:
        await page.open(address(daemon))
        await page.send("Emulation.setScriptExecutionDisabled", value=True)
        await page.open(address(daemon) + "?q=" + f"{2:032x}")
        text = await page.text
        assert "</title></style>".replace("<", "\\<").replace(">", "\\>") in text
        assert "x" * 64 not in text
        await page.run("document.querySelector('summary').click()")
        assert "none of 1 matches" in await page.text
        assert await page.run("!!document.querySelector('noscript meta[http-equiv=refresh]')")


async def test_it_says_when_nobody_answers(tmp_path: Path) -> None:
    """A page that is left open does not pretend to be of now."""
    running = Daemon(tmp_path, POLICY, ca_crt=staff.pem).start()
    try:
        async with driven(Browser(tmp_path / "home", None), {}) as page:
            await prepared(page)
            await page.open(address(running))
            assert running.stop() == 0
            await page.until("document.body.innerText.includes('what is shown is old')")
    finally:
        running.stop()
