"""The YAML language server of editors, asked as an editor asks it (LSP over its standard input)."""

from __future__ import annotations

import json
import queue
import subprocess
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

from tools import Found

DEADLINE = 60
"""Seconds to wait for one answer."""


class LanguageServer:
    """One server for the files of one directory."""

    def __init__(self, tool: Found, directory: Path) -> None:
        self.process = subprocess.Popen(
            [str(tool.path), "--stdio"],
            cwd=directory,
            env=tool.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._messages: queue.Queue[dict[str, Any]] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        self._number = 0
        self.ask("initialize", {"processId": None, "rootUri": None, "capabilities": {}})
        self._send({"method": "initialized", "params": {}})

    def __enter__(self) -> LanguageServer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        self.process.kill()
        self.process.wait()
        self._reader.join()
        self.process.stdout.close()

    def open(self, path: Path, text: str, *, has_mistakes: bool = False) -> list[dict[str, Any]]:
        """Open a file with a text; the mistakes that the server finds.

        It may look at a file twice: with `has_mistakes` the first word that names some counts.
        """
        document = {"uri": path.as_uri(), "languageId": "yaml", "version": 1, "text": text}
        self._send({"method": "textDocument/didOpen", "params": {"textDocument": document}})
        while True:
            message = self._next()
            said = message.get("params", {})
            if message.get("method") == "textDocument/publishDiagnostics" and (
                said["uri"] == document["uri"] and (said["diagnostics"] or not has_mistakes)
            ):
                found: list[dict[str, Any]] = said["diagnostics"]
                return found

    def completions(self, path: Path, line: int, column: int) -> dict[str, str]:
        """What may be written at a place, counted from 0, each with its text."""
        place = {"line": line, "character": column}
        document = {"uri": path.as_uri()}
        found = self.ask("textDocument/completion", {"textDocument": document, "position": place})
        return {each["label"]: str(each.get("documentation")) for each in found["items"]}

    def ask(self, method: str, params: dict[str, Any]) -> Any:
        """Ask, and wait for the answer."""
        self._number += 1
        number = self._number
        self._send({"id": number, "method": method, "params": params})
        while True:
            message = self._next()
            if message.get("id") == number and "method" not in message:
                return message["result"]

    def _next(self) -> dict[str, Any]:
        """The next message; a question of the server's own is answered with nothing."""
        message = self._messages.get(timeout=DEADLINE)
        if "id" in message and "method" in message:
            wanted = message.get("params", {}).get("items", [])
            self._send({"id": message["id"], "result": [None for _ in wanted]})
        return message

    def _send(self, message: dict[str, Any]) -> None:
        assert self.process.stdin
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        self.process.stdin.flush()

    def _read(self) -> None:
        assert self.process.stdout
        while head := self.process.stdout.readline():
            while self.process.stdout.readline().strip():
                pass
            length = int(head.partition(b":")[2])
            self._messages.put(json.loads(self.process.stdout.read(length)))
