"""How templates of HTML pages are rendered; apart, so that only who renders imports jinja2."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2


def environment(
    templates: Path, finalize: Callable[[Any], Any] | None = None
) -> jinja2.Environment:
    """Templates of a directory, in which every value is escaped and an unknown name is an error.

    `finalize` is applied to each value before it is escaped.
    """
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
