"""Read PEM as editors and shells of any system write it: byte order marks, UTF-16, line ends.

OpenSSL reads neither a mark before `-----BEGIN` nor UTF-16 (PowerShell's `>` and Notepad write
both), and silently goes on to the next block.
"""

from __future__ import annotations

import re

_WIDE = re.compile(rb"-\0+-")
"""Dashes as UTF-16 and UTF-32 have them."""

_MARKS = re.compile(rb"^(?:\xef\xbb\xbf|\xff\xfe|\xfe\xff)+", re.MULTILINE)


def plain_pem(data: bytes) -> bytes:
    """Return the PEM of a file in ASCII with LF line ends; the text around it may change.

    A NUL is removed only where the file, or a part of it, is in UTF-16 or UTF-32.
    """
    if _WIDE.search(data):
        data = data.replace(b"\0", b"")
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return data if data.isascii() else _MARKS.sub(b"", data)
