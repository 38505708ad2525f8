"""The peer that everybody writes first: an aiohttp application with the same policy."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from urllib.parse import unquote_to_bytes

from aiohttp import web
from cryptography import x509

NAMES = frozenset(json.loads(Path("names.json").read_text()))
REVOKED = frozenset(int(text, 16) for text in json.loads(Path("revoked.json").read_text()))


async def decide(request: web.Request) -> web.Response:
    """204 or 403."""
    try:
        pem = unquote_to_bytes(request.headers["SSL-Client-Cert"])
        cert = x509.load_pem_x509_certificate(pem)
    except (KeyError, ValueError):
        return web.Response(status=401)
    names = cert.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    good = request.headers.get("SSL-Client-Verify") == "SUCCESS" and bool(names)
    good = good and all(name.value in NAMES for name in names)
    return web.Response(status=204 if good and cert.serial_number not in REVOKED else 403)


app = web.Application(handler_args={"max_field_size": 65536, "max_line_size": 65536})
app.router.add_get("/authz/{location}", decide)
logging.basicConfig(level=logging.INFO, format="%(message)s")
web.run_app(app, path=sys.argv[1], print=None)
