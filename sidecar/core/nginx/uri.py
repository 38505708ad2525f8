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

import binascii
import re

_UNSENT = bytes((*range(0x21), 0x7F))
"""Bytes that no request target can contain: nginx answers 400, or ends the target there."""

_BROKEN_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})|%00")
_QUOTED = bytes.maketrans(b"%", b"=")
"""Map URL-encoding to quoted-printable."""


def normalize_uri(target: bytes, *, merge_slashes: bool = True) -> bytes | None:
    """Convert a raw `$request_uri` to nginx's `$uri`; return None where nginx answers 400.

    `target` is in origin form, or `?…`: the `$request_uri` of `GET http://host?…`, whose path is
    `/`.  nginx removes scheme and host from an absolute target before it sets `$request_uri`, so an
    absolute target does not come from nginx and gives None, as `*` does.
    """
    if len(target.translate(None, _UNSENT)) != len(target):
        return None
    if target.startswith(b"?"):
        return b"/"
    if not target.startswith(b"/"):
        return None
    path = target.partition(b"?")[0].partition(b"#")[0]
    if not (b"%" in path or b"//" in path or b"/." in path):
        return path
    decoded = _decode(path)
    return None if decoded is None else _resolve(decoded, merge_slashes)


def possible_uris(target: bytes) -> tuple[bytes | None, ...]:
    """Return `$uri` with `merge_slashes` on and off; one value if both are the same.

    nginx uses the setting of the server that the connection was opened for (SNI, else the default
    server), and chooses the answering server later by Host: the sidecar can't know the setting.
    """
    merged = normalize_uri(target)
    if b"//" not in target.replace(b"%2f", b"/").replace(b"%2F", b"/"):
        return (merged,)
    apart = normalize_uri(target, merge_slashes=False)
    return (merged,) if merged == apart else (merged, apart)


def _decode(path: bytes) -> bytes | None:
    """Percent-decode a path once; return None for a broken escape and for `%00`."""
    if b"%" not in path:
        return path
    if _BROKEN_ESCAPE.search(path):
        return None
    # As quoted-printable, which is decoded in C: a client can fill a target with escapes.
    return binascii.a2b_qp(path.replace(b"=", b"%3D").translate(_QUOTED))


def _resolve(path: bytes, merge_slashes: bool) -> bytes | None:
    """Resolve `.` and `..`; return None where `..` leaves the root."""
    if merge_slashes:
        path = _without(path, b"//")
    path = _without(path, b"/./")
    if path.endswith(b"/."):
        path = path[:-1]
    has_parents = b"/../" in path or path.endswith(b"/..")
    return _resolve_parents(path) if has_parents else path


def _without(path: bytes, repeated: bytes) -> bytes:
    """Replace by `/` again and again; each time it halves what a client has repeated."""
    while repeated in path:
        path = path.replace(repeated, b"/")
    return path


def _resolve_parents(path: bytes) -> bytes | None:
    """Resolve `..` in a path without `.` segments; return None where `..` leaves the root."""
    kept: list[bytes] = []
    *segments, last = path.split(b"/")[1:]
    for segment in segments:
        if segment == b"..":
            if not kept:
                return None
            kept.pop()
        else:
            kept.append(segment)
    if last == b"..":
        if not kept:
            return None
        kept.pop()
    kept.append(b"" if last == b".." else last)
    return b"/" + b"/".join(kept)
