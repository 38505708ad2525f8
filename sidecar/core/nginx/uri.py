"""Normalize a request target as nginx does: `$request_uri` → `$uri`.

nginx 1.22 and 1.31 agree on every rule below (`ngx_http_parse_request_line`,
`ngx_http_parse_uri`, `ngx_http_parse_complex_uri`); tests/nginx/test_uri_and_host.py asks both.

- The path ends at the first raw `?` or `#`.
- It is percent-decoded once.  A decoded `/` or `.` counts like a raw one; a decoded `?`, `#` or
  `%` is a plain byte.  `+` stays `+`.
- `.` and `..` segments are resolved, `//` becomes `/` under `merge_slashes on`.
- Left as they are: case, `;`, `\\`, bytes above 0x7f, overlong or broken UTF-8.

Not considered: later changes of the URI by nginx.  `rewrite`, `try_files`, `index`, `error_page`
and other internal redirects change `$uri` but not `$request_uri`.
"""

from __future__ import annotations

import re

_UNSENT = re.compile(rb"[\x00-\x20\x7f]")
"""Bytes that no request target can contain: nginx answers 400, or ends the target there."""


_PATH = re.compile(rb"[^?#]*")
_UNUSUAL = re.compile(rb"%|/[/.]")
_SLASHES = re.compile(rb"(?:/|%2[Ff]){2}")


def normalize_uri(target: bytes, *, merge_slashes: bool = True) -> bytes | None:
    """Convert a raw `$request_uri` to nginx's `$uri`; return None where nginx answers 400.

    `target` is in origin form, or `?…`: the `$request_uri` of `GET http://host?…`, whose path is
    `/`.  nginx removes scheme and host from an absolute target before it sets `$request_uri`, so an
    absolute target does not come from nginx and gives None, as `*` does.
    """
    if _UNSENT.search(target):
        return None
    if target.startswith(b"?"):
        return b"/"
    if not target.startswith(b"/"):
        return None
    path = _PATH.match(target)[0]  # type: ignore[index]  # matches anything
    if not _UNUSUAL.search(path):
        return path
    decoded = _decode(path)
    return None if decoded is None else _resolve(decoded, merge_slashes)


def possible_uris(target: bytes) -> tuple[bytes | None, ...]:
    """Return `$uri` with `merge_slashes` on and off; one value if both are the same.

    nginx uses the setting of the server that the connection was opened for (SNI, else the default
    server), and chooses the answering server later by Host: the sidecar can't know the setting.
    """
    merged = normalize_uri(target)
    if not _SLASHES.search(target):
        return (merged,)
    apart = normalize_uri(target, merge_slashes=False)
    return (merged,) if merged == apart else (merged, apart)


def _decode(path: bytes) -> bytes | None:
    """Percent-decode a path once; return None for a broken escape and for `%00`."""
    if b"%" not in path:
        return path
    parts = path.split(b"%")
    try:
        decoded = [parts[0], *(_BYTES[part[:2]] + part[2:] for part in parts[1:])]
    except KeyError:
        return None
    return b"".join(decoded)


_BYTES = {
    digits.encode(): bytes([value])
    for value in range(1, 256)
    for high in {f"{value >> 4:x}", f"{value >> 4:X}"}
    for low in {f"{value & 15:x}", f"{value & 15:X}"}
    for digits in (high + low,)
}
"""Two hexadecimal digits, in any case, → the byte.  NUL is left out on purpose."""


def _resolve(path: bytes, merge_slashes: bool) -> bytes | None:
    """Resolve `.` and `..`; return None where `..` leaves the root."""
    kept: list[bytes] = []
    *segments, last = path.split(b"/")[1:]
    for segment in segments:
        if segment == b"..":
            if not kept:
                return None
            kept.pop()
        elif segment != b"." and (segment or not merge_slashes):
            kept.append(segment)
    if last == b"..":
        if not kept:
            return None
        kept.pop()
    kept.append(b"" if last in (b".", b"..") else last)
    return b"/" + b"/".join(kept)
