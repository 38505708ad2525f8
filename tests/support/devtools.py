"""Drive a page of a running Chromium by the Chrome DevTools Protocol."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shlex
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp
from browser import Browser

CONTRAST = """(() => {
    const light = text => {
        const [r, g, b] = text.match(/[0-9.]+/g).map(Number).map(part => {
            part /= 255;
            return part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const back = element => {
        const found = getComputedStyle(element).backgroundColor;
        return found !== "rgba(0, 0, 0, 0)" ? found : back(element.parentElement);
    };
    const texts = "h1, h2, h3, p, a, b, code, pre, th, td, dt, dd, li, span, label, button, time";
    return [...document.querySelectorAll(texts)].filter(each => each.innerText).map(element => {
        const pair = [light(getComputedStyle(element).color), light(back(element))];
        const ratio = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
        return ratio < 4.5 ? `${ratio} ${element.outerHTML.slice(0, 200)}` : "";
    }).filter(text => text);
})()"""
"""Evaluates to the texts with less contrast to what is behind them than WCAG 2.2 asks for."""

PATIENCE = 60.0


class Page:
    """One tab.  Each command waits for its answer."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = count(1)

    async def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Send one command.  Events that arrive meanwhile are dropped."""
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": params})
        while True:
            answer = await self._socket.receive_json(timeout=PATIENCE)
            if answer.get("id") == number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    async def run(self, script: str) -> Any:
        """Evaluate a script in the page; of a promise, what it becomes."""
        found = await self.send(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def open(self, url: str) -> None:
        """Go to an address, and wait until it is loaded."""
        await self.run("window.left = true")
        await self.send("Page.navigate", url=url)
        await self.until("window.left === undefined && document.readyState === 'complete'")

    async def follow(self, script: str) -> None:
        """Run a script that leads to another page, and wait until that is loaded."""
        await self.run(f"window.left = true; {script}; 0")
        await self.until("window.left === undefined && document.readyState === 'complete'")

    @property
    async def status(self) -> int:
        """The HTTP status of the page."""
        return int(await self.run("performance.getEntriesByType('navigation')[0].responseStatus"))

    @property
    async def text(self) -> str:
        """What a person reads."""
        return str(await self.run("document.body.innerText"))

    async def look(self, *, width: int, dark: bool = False, language: str = "en") -> None:
        """Set the window's width, its user's colours and its user's languages."""
        size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 600}
        await self.send("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.send("Emulation.setEmulatedMedia", features=[scheme])
        agent = (await self.send("Browser.getVersion"))["userAgent"]
        said = {"userAgent": agent, "acceptLanguage": language}
        await self.send("Emulation.setUserAgentOverride", **said)

    async def picture(self, path: Path) -> None:
        """Save the whole page as a PNG, for a person to look at."""
        taken = await self.send("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(taken["data"]))

    async def until(self, script: str) -> None:
        """Wait until a script says true."""
        end = time.monotonic() + PATIENCE
        while not await self.run(script):
            assert time.monotonic() < end, f"never true: {script}"
            await asyncio.sleep(0.05)


@asynccontextmanager
async def driven(browser: Browser, names: Mapping[str, int]) -> AsyncIterator[Page]:
    """Start the browser without a page, and yield its tab; downloads go to its home."""
    port_file = browser.home / "profile" / "DevToolsActivePort"
    port_file.unlink(missing_ok=True)  # an earlier start's
    process = subprocess.Popen(
        browser.command("about:blank", names, "--remote-debugging-port=0"),
        env={**os.environ, "HOME": str(browser.home)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        port = await _port(port_file)
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                targets = json.loads(await answer.read())
            (target,) = [each for each in targets if each["type"] == "page"]
            async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                page = Page(socket)
                await page.send(
                    "Browser.setDownloadBehavior", behavior="allow", downloadPath=str(browser.home)
                )
                yield page
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE)


async def _port(file: Path) -> int:
    """Wait for the port that Chromium has chosen."""
    end = time.monotonic() + PATIENCE
    while True:
        lines = file.read_text().splitlines() if file.exists() else []
        if len(lines) > 1:
            return int(lines[0])
        assert time.monotonic() < end, "Chromium did not start"
        await asyncio.sleep(0.05)


async def downloaded(browser: Browser, pattern: str) -> Path:
    """Wait for a file that the browser has saved."""
    end = time.monotonic() + PATIENCE
    while True:
        for found in browser.home.glob(pattern):
            return found
        there = shlex.join(each.name for each in browser.home.iterdir())
        assert time.monotonic() < end, f"no {pattern} was saved; there is: {there}"
        await asyncio.sleep(0.05)
