"""An invitation opened in a real Chromium: the file it gives, and the page that it opens."""

from __future__ import annotations

import os
from pathlib import Path

from browser import Browser
from devtools import downloaded, driven
from enrolled import Enroll
from stack import HOST, Stack
from tools import NginxBinary, nginx_binaries

SITE = "variants/enroll.conf"


async def test_from_the_link_to_the_page(tmp_path: Path) -> None:
    """The page's button saves a .p12 file; imported with the password on the page, it lets the
    browser in, and the application knows the name.  Before that it was a 401."""
    binary = next(each for each in nginx_binaries() if isinstance(each, NginxBinary))
    stack = Stack(binary, tmp_path, sites=(SITE,))
    cert, key = stack.people.invited.write(tmp_path / "enroll")
    key.chmod(0o600)
    enroll = Enroll(tmp_path / "enroll", f"issuer: {{cert: {cert}, key: {key}}}\n")
    browser = Browser(tmp_path / "home", None)
    names = {HOST: stack.ports[SITE]}
    with enroll, stack:
        os.chmod(enroll.socket, 0o666)  # nginx's workers are nobody
        invited = enroll.invite("alice", "--device", "laptop")
        async with driven(browser, names) as page:
            await page.open(f"https://{HOST}/")
            assert "401" in await page.run("document.body.innerText")
            await page.open(invited.url)
            password = await page.run("document.getElementById('password').innerText")
            form = "document.querySelector('input[value=p12]').form"
            await page.run(f"{form}.querySelector('button').click()")
            file = await downloaded(browser, "*.p12")
        browser.import_file(file, password)
        async with driven(browser, names) as page:
            await page.open(f"https://{HOST}/")
            seen = await page.run("document.body.innerText")
            await page.open(invited.url)
            again = await page.run("document.body.innerText")
    assert '["x-client-cn", "alice"]' in seen
    assert "used" in again
    assert [each["name"] for each in enroll.clients()] == ["alice"]
