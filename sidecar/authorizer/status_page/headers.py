"""The page's style and script, and the headers that allow these alone."""

from __future__ import annotations

from pathlib import Path

from sidecar.runtime.content_security import source_hash

TEMPLATES = Path(__file__).with_name("templates")


def _file(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


STYLE, SCRIPT = _file("style.css"), _file("refresh.js")

HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src {source_hash(STYLE)}; "
        f"script-src {source_hash(SCRIPT)}; connect-src 'self'; img-src data:; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
