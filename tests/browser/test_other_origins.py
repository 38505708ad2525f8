"""A page of another site, in a real Chromium whose user has a client certificate.

The browser offers the certificate to the application whichever page makes the request.  What
reaches the application is what was let through.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from browser import Browser
from devtools import driven
from nginx import free_port
from stack import HOST, Stack
from tools import NginxBinary, nginx_binaries

EVIL = "evil.example.net"

CONF = """
worker_processes 1;
events { worker_connections 64; }
http {
    ssl_certificate pki/server.crt;
    ssl_certificate_key pki/server.key;
    ssl_client_certificate pki/client-cas.crt;
    ssl_verify_client optional;
    include snippets/mtls-sidecar.conf;
    map $http_upgrade $connection_upgrade { default upgrade; "" ""; }
    server {
        listen 443 ssl;
        server_name app.example.com;
        include snippets/authz-location.conf;
        location = /worker.js {
            default_type text/javascript;
            return 200 "onfetch = event => event.respondWith(fetch(event.request))";
        }
        location / {
            auth_request /authz/site;
            proxy_pass http://127.0.0.1:8080;
            proxy_http_version 1.1;
            include snippets/identity.conf;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
        }
    }
}
"""

POLICY = "version: 1\nlocations: [{name: site, allow: verified, same_origin: SAME}]\n"

ATTACKS = """<!doctype html><body><iframe name=frame></iframe>
<img src="https://HOST/image"><iframe src="https://HOST/frame"></iframe>
<form method=post action="https://HOST/form" target=frame><input name=amount value=1000></form>
<script>
const ends = [];
const attempt = (name, promise) => ends.push(promise.then(() => name, () => name));
document.forms[0].submit();
attempt("omit", fetch("https://HOST/omit", {credentials: "omit", mode: "no-cors"}));
attempt("read", fetch("https://HOST/read", {credentials: "omit"}));
attempt("post", fetch("https://HOST/post", {method: "POST", mode: "no-cors",
    credentials: "include", body: "x"}));
// The WebSocket comes last: Chromium offers a certificate there only to a server that it has
// shown it to before.  A slow fetch keeps the page's clock from running ahead meanwhile.
Promise.all(ends).then(() => {
    new WebSocket("wss://HOST/socket");
    return fetch("https://EVIL/slow", {mode: "no-cors"});
}).finally(() => { document.title = "tried"; });
</script>"""

ATTACKS = ATTACKS.replace("EVIL", EVIL)
OWN = ATTACKS.replace("https://HOST/", "/").replace("wss://HOST", "wss://" + HOST)

OTHER_PORT = f"""<!doctype html><body><script>
fetch("https://{HOST}/shown", {{mode: "no-cors", credentials: "include"}}).finally(() => {{
    new WebSocket("wss://{HOST}/socket");
    return fetch("/slow");
}}).finally(() => {{ document.title = "tried"; }});
</script>"""

WORKER = """navigator.serviceWorker.register("/worker.js", {scope: "/handed-on"})
.then(registration => new Promise(done => {
    const worker = registration.installing || registration.waiting || registration.active;
    const look = () => { if (worker.state === "activated") done(); };
    worker.onstatechange = look;
    look();
}))"""

TRIED = {
    "GET /image",
    "GET /frame",
    "POST /form",
    "GET /omit",
    "GET /read",
    "POST /post",
    "GET /socket",
}


class _Evil(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/slow":
            time.sleep(2)
        link = '<meta http-equiv=refresh content="0; url=https://HOST/linked">'
        form = "<form method=post action=https://HOST/handed-on></form>"
        pages = {
            "/link": link,
            "/link-to-worker": link.replace("linked", "handed-on"),
            "/form-to-worker": form + "<script>document.forms[0].submit()</script>",
            "/other-port": OTHER_PORT,
        }
        page = pages.get(self.path, ATTACKS).replace("HOST", HOST).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, format: str, *args: object) -> None:
        pass


class Visit:
    """Alice's browser, the application behind nginx and sidecar, and the other site."""

    def __init__(self, stack: Stack, browser: Browser, evil: int) -> None:
        self.stack, self.browser = stack, browser
        self.names = {HOST: stack.ports["nginx.conf"], EVIL: evil, f"{HOST}:8444": evil}

    def open(self, url: str, same_origin: str) -> tuple[str, set[str]]:
        """The page, and what reached the application."""
        policy = POLICY.replace("SAME", same_origin)
        if self.stack.policy != policy:
            self.stack.edit_policy(policy)
        self.stack.app.seen.clear()
        page = self.browser.page(url, self.names)
        return page, set(self.stack.app.seen)


@pytest.fixture(scope="module")
def visit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visit]:
    binary = nginx_binaries()[0]
    assert isinstance(binary, NginxBinary)
    place = tmp_path_factory.mktemp("origins")
    stack = Stack(binary, place / "stack", conf=CONF, policy=POLICY.replace("SAME", "true"))
    evil = ThreadingHTTPServer(("127.0.0.1", free_port()), _Evil)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*stack.people.server.server(EVIL, HOST).write(place / "evil"))
    evil.socket = context.wrap_socket(evil.socket, server_side=True)
    browser = Browser(place / "home", stack.people.alice)
    threading.Thread(target=evil.serve_forever, daemon=True).start()
    with stack:
        yield Visit(stack, browser, evil.server_port)
    evil.shutdown()
    evil.server_close()


def test_the_browser_would_do_it(visit: Visit) -> None:
    """With `same_origin: false` each of the other site's requests reaches the application."""
    page, seen = visit.open(f"https://{EVIL}/", "false")
    assert "<title>tried</title>" in page
    assert seen >= TRIED


def test_another_sites_requests_are_denied(visit: Visit) -> None:
    """Images, frames, forms, scripts and WebSockets of another site never reach it."""
    page, seen = visit.open(f"https://{EVIL}/", "true")
    assert "<title>tried</title>" in page
    assert seen <= {"GET /favicon.ico"}
    assert "same_origin" in visit.stack.decision_log


def test_the_pages_of_another_port_open_no_websocket(visit: Visit) -> None:
    """Chromium names the page that opens a WebSocket by its Origin alone; its port counts."""
    for same_origin, reached in (("false", True), ("true", False)):
        page, seen = visit.open(f"https://{HOST}:8444/other-port", same_origin)
        assert "<title>tried</title>" in page
        assert ("GET /socket" in seen) is reached


def test_a_link_leads_in_through_a_service_worker(visit: Visit) -> None:
    """An application's worker that hands navigations on gets links of other sites, and no form."""
    visit.open(f"https://{HOST}/typed", "true")
    visit.stack.app.pages["/with-worker"] = b"<!doctype html><body>"
    assert asyncio.run(_by_way_of_a_worker(visit)) == [200, 403]
    seen = visit.stack.app.seen
    assert "GET /handed-on" in seen
    assert "POST /handed-on" not in seen


async def _by_way_of_a_worker(visit: Visit) -> list[int]:
    found = []
    async with driven(visit.browser, visit.names) as page:
        await page.open(f"https://{HOST}/with-worker")
        await page.run(WORKER)
        for path in ("/link-to-worker", "/form-to-worker"):
            await page.send("Page.navigate", url=f"https://{EVIL}{path}")
            await page.until(f"location.host === '{HOST}' && document.readyState === 'complete'")
            assert await page.run("performance.getEntriesByType('navigation')[0].workerStart") > 0
            found.append(await page.status)
            await page.open("about:blank")
    return found


def test_a_link_leads_in(visit: Visit) -> None:
    """A link on another site opens the application, as its holder."""
    _, seen = visit.open(f"https://{EVIL}/link", "true")
    assert "GET /linked" in seen


def test_a_typed_address_leads_in(visit: Visit) -> None:
    """So does the address bar."""
    page, seen = visit.open(f"https://{HOST}/typed", "true")
    assert "GET /typed" in seen
    assert "alice" in page


def test_the_own_page_does_what_it_likes(visit: Visit) -> None:
    """The same requests by the application's own page all reach it."""
    visit.stack.app.pages["/own"] = OWN.encode()
    page, seen = visit.open(f"https://{HOST}/own", "true")
    assert "<title>tried</title>" in page
    assert seen >= TRIED
