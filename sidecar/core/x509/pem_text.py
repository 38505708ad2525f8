"""Read PEM as editors and shells of any system write it: byte order marks, UTF-16, line ends.

OpenSSL reads neither a mark before `-----BEGIN` nor UTF-16 (PowerShell's `>` and Notepad write
both), and silently goes on to the next block.
"""

from __future__ import annotations

import re

_WIDE = re.compile(rb"-\0+-")
"""Dashes as UTF-16 and UTF-32 have them."""

_MARK = rb"(?:\xef\xbb\xbf|\xff\xfe|\xfe\xff)"
_MARKS = re.compile(b"^" + _MARK + b"+", re.MULTILINE)
_JOINED = re.compile(b"^(-----END [A-Z0-9 ]+-----)" + _MARK + b"*(?=-----BEGIN )", re.MULTILINE)
"""Two blocks, of files that were put together of which the first had no last line end."""


def plain_pem(data: bytes) -> bytes:
    """Return the PEM of a file in ASCII with LF line ends, each block on lines of its own.

    The text around may change.  A NUL is removed only where the file, or a part of it, is in UTF-16
    or UTF-32.
    """
    if _WIDE.search(data):
        data = data.replace(b"\0", b"")
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    data = _JOINED.sub(rb"\1\n", data)
    return data if data.isascii() else _MARKS.sub(b"", data)
