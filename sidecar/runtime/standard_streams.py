"""Prepare the standard streams: closed ones (`>&-`), and those that can't encode every text."""

from __future__ import annotations

import io
import os
import sys


def open_closed_streams() -> None:
    """Open /dev/null for each standard stream that is closed.

    Otherwise the next file that the process opens gets the stream's number, and what is written
    to the stream gets into that file.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # The lowest free number is the closed stream's own.
            descriptor = os.open(os.devnull, os.O_RDWR)
            stream = os.fdopen(descriptor, mode, encoding="utf-8", closefd=False)
            setattr(sys, name, stream)


def escape_what_cannot_be_encoded() -> None:
    """Write characters that the locale's encoding lacks as escapes, instead of failing at them."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
