"""Run an application of aiohttp so that every request is answered."""

from __future__ import annotations

from typing import Any

from aiohttp import web
from yarl import URL


class HttpRunner(web.AppRunner):
    """A runner that answers 400 to each request whose target is no path, and decompresses no body.

    aiohttp decodes the host of a URL, or of CONNECT, before any handler: one that it can't decode
    (`http://xn--a/`) ends the connection's task, which leaves a traceback, and the connection open.
    What a body becomes that is decompressed is bounded by no count of the octets that came.
    """

    def __init__(self, app: web.Application, **options: Any) -> None:
        super().__init__(app, auto_decompress=False, **options)

    async def setup(self) -> None:
        """Prepare to serve."""
        await super().setup()
        server = self.server
        assert server is not None
        make, handle = server.request_factory, server.request_handler

        def make_request(message: Any, *others: Any) -> web.BaseRequest:
            if message.url.absolute:
                message = message._replace(url=URL("/"))
            return make(message, *others)

        async def handle_request(request: web.BaseRequest) -> web.StreamResponse:
            if request.raw_path.startswith("/"):
                return await handle(request)
            refusal = web.Response(status=400, text="400 Bad Request\n")
            refusal.force_close()
            return refusal

        server.request_factory, server.request_handler = make_request, handle_request
