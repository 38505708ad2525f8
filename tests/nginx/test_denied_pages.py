"""variants/denied.conf: what is told to whom is turned away, on each nginx."""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

import http2
import pytest
from https import Answer
from pki import Leaf, now
from stack import EXAMPLES, HOST, Stack, before_servers, example, policy_with
from tools import NginxBinary

from sidecar.commands.doctor.checks import examine
from sidecar.commands.doctor.nginx_config import read_nginx
from sidecar.core.policy.compile import compile_policy
from sidecar.runtime.direct_sources import DirectSources

SITE = "variants/denied.conf"
STRICT, CHAINS = "strict.example.com", "chains.example.com"
PAGE = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
TITLES = {
    "en": {
        "no_certificate": "No certificate was offered",
        "expired": "Your certificate has ended",
        "not_yet_valid": "Your certificate is not valid yet",
        "refused": "Your certificate is not accepted here",
        "not_allowed": "Your certificate is not allowed here",
        "other_site": "Another site sent this request",
        "denied": "You can't go there",
    },
    "de": {
        "no_certificate": "Es wurde kein Zertifikat angeboten",
        "expired": "Ihr Zertifikat ist abgelaufen",
        "not_yet_valid": "Ihr Zertifikat ist noch nicht gültig",
        "refused": "Ihr Zertifikat wird hier nicht anerkannt",
        "not_allowed": "Ihr Zertifikat ist hier nicht zugelassen",
        "other_site": "Eine andere Website hat diese Anfrage geschickt",
        "denied": "Kein Zugang",
    },
    "fr": {
        "no_certificate": "Aucun certificat n'a été présenté",
        "expired": "Votre certificat a expiré",
        "not_yet_valid": "Votre certificat n'est pas encore valide",
        "refused": "Votre certificat n'est pas reconnu ici",
        "not_allowed": "Votre certificat n'est pas autorisé ici",
        "other_site": "Un autre site a envoyé cette requête",
        "denied": "Accès refusé",
    },
    "es": {
        "no_certificate": "No se ha presentado ningún certificado",
        "expired": "Su certificado ha caducado",
        "not_yet_valid": "Su certificado aún no es válido",
        "refused": "Su certificado no se acepta aquí",
        "not_allowed": "Su certificado no está autorizado aquí",
        "other_site": "Otro sitio ha enviado esta petición",
        "denied": "Sin acceso",
    },
}


OWN = "auth_request_set $who $upstream_http_x_client_cn; "
INTERCEPT = "proxy_intercept_errors on; "
AS_401 = "error_page 401 403 /.denied/$denied_page;"
INSIDE = "location /inside/ { internal; proxy_pass http://app; }"


def conf() -> str:
    """The example with this variant, and servers beside it that differ in one thing each."""
    around = before_servers() + "sendfile on; access_log /etc/nginx/access.log with_client;\n"
    head, _, rest = example(SITE).partition("server {\n")
    server = f"server {{\n    {INSIDE}\n{rest}".replace("listen 443 ssl", "listen 443 ssl http2")
    asks, snippet = "auth_request /authz/admin;", "include snippets/denied.conf;"
    no_ca = 'ssl_client_certificate ""; ssl_trusted_certificate ""'
    servers = [
        server,
        server.replace(HOST, f"{STRICT}; ssl_verify_client on"),
        server.replace(HOST, f"{CHAINS}; ssl_verify_client optional_no_ca; {no_ca}").replace(
            "/authz/admin", "/authz/vouched"
        ),
        server.replace(HOST, "own.example.com").replace(asks, OWN + INTERCEPT + asks),
        server.replace(HOST, "intercepts.example.com").replace(asks, INTERCEPT + asks),
        server.replace(HOST, "whole.example.com")
        .replace(asks, "")
        .replace(snippet, asks + snippet),
        server.replace(HOST, "as401.example.com").replace(snippet, f"{AS_401}\n    {snippet}"),
    ]
    return "\n".join([around, head, *servers, "}"])


@pytest.fixture(scope="module")
def stack(nginx_binary: NginxBinary, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    policy = policy_with(["variants/optional-no-ca.conf"])
    place = tmp_path_factory.mktemp("denied")
    logs_all = "limits: {logged_denials: 0}"
    with Stack(nginx_binary, place, conf=conf(), policy=policy, settings=logs_all) as found:
        yield found


@dataclass(frozen=True)
class Case:
    """Somebody who is turned away: by which status, what nginx found, and what is told."""

    was: int
    verify: str
    told: str
    cert: Leaf | None
    host: str = HOST


def cases(stack: Stack) -> list[Case]:
    people = stack.people
    early = people.staff.issue("alice", not_before=now() + timedelta(days=1))
    start, end = now() - timedelta(days=9), now() - timedelta(days=1)
    return [
        Case(401, "NONE", "no_certificate", None),
        Case(403, "SUCCESS", "not_allowed", people.bob),
        Case(403, "SUCCESS", "not_allowed", people.partner),
        Case(495, "FAILED", "expired", people.expired),
        Case(495, "FAILED", "not_yet_valid", early),
        Case(495, "FAILED", "refused", people.mallory),
        Case(496, "NONE", "no_certificate", None, STRICT),
        Case(495, "FAILED", "expired", people.expired, STRICT),
        Case(495, "FAILED", "refused", people.mallory, STRICT),
        Case(401, "NONE", "no_certificate", None, CHAINS),
        Case(
            495,
            "FAILED",
            "expired",
            people.root.issue("x", not_before=start, not_after=end),
            CHAINS,
        ),
        Case(403, "FAILED", "refused", people.mallory, CHAINS),
    ]


NOBODY = Case(401, "NONE", "no_certificate", None)


def ask(stack: Stack, case: Case, path: str = "/", method: str = "GET", **said: str) -> Answer:
    headers = {name.replace("_", "-"): value for name, value in said.items()}
    return stack.get(path, cert=case.cert, host=case.host, method=method, headers=headers)


def number(answer: Answer) -> str:
    """The request's number on the page."""
    found = re.search("<code>([0-9a-f]{32})</code>", answer.body)
    assert found is not None, answer.body
    return found[1]


# -- what is told


@pytest.mark.parametrize("language", TITLES)
def test_the_page_says_what_happened_in_the_browsers_language(stack: Stack, language: str) -> None:
    """Each denial by nginx or the sidecar is a 403 with the page for its reason, no other's."""
    for case in cases(stack):
        for method in ("GET", "POST", "PUT"):
            answer = ask(stack, case, method=method, Accept=PAGE, Accept_Language=language)
            assert (answer.status, answer.app) == (403, None), case
            assert answer.headers["content-type"] == "text/html; charset=utf-8"
            assert f'<html lang="{language}">' in answer.body
            titles = re.findall("<h1>(.*?)</h1>", answer.body)
            assert titles == [TITLES[language][case.told]], case
            assert "<!--" not in answer.body
            assert "(none)" not in answer.body
            assert "error occurred" not in answer.body
            assert number(answer)


@pytest.mark.parametrize("language", TITLES)
def test_a_form_of_another_site_is_told_as_that(stack: Stack, language: str) -> None:
    """Alice, back from a login that returns by POST, reads nothing bad of her certificate."""
    case = Case(403, "SUCCESS", "other_site", stack.people.alice)
    said = {"Accept_Language": language, "Sec_Fetch_Site": "cross-site"}
    answer = ask(stack, case, method="POST", Accept=PAGE, **said)
    assert answer.status == 403
    assert re.findall("<h1>(.*?)</h1>", answer.body) == [TITLES[language]["other_site"]]
    told = json.loads(ask(stack, case, method="POST", Accept="*/*", **said).body)
    assert told["error"] == "other_site"
    assert "another site" in told["message"]


@pytest.mark.parametrize(
    "said",
    [
        {"Accept": "application/json"},
        {"Accept": "application/json, text/plain, */*"},
        {"Accept": "*/*", "Origin": "https://app.example.com"},
        {"Accept": "*/*"},
        {"Accept": "application/json,text/html;q=0.1"},
        {"Accept": "image/avif,image/webp,*/*"},
        {},
    ],
    ids=str,
)
def test_a_program_gets_json(stack: Stack, said: dict[str, str]) -> None:
    """Who does not name text/html first gets JSON: the reason, a message and the number."""
    for case in cases(stack):
        answer = ask(stack, case, method="POST", **said)
        assert answer.status == 403
        assert answer.headers["content-type"] == "application/json; charset=utf-8"
        found = json.loads(answer.body)
        assert (found["status"], found["error"]) == (403, case.told)
        assert found["message"].endswith(".")
        assert found["contact"] == "help@example.com"
        assert re.fullmatch("[0-9a-f]{32}", found["request_id"])


@pytest.mark.parametrize(
    ("said", "language"),
    [
        ("de", "de"),
        ("de-AT,de;q=0.9,en;q=0.8", "de"),
        ("it,fr-FR;q=0.8,de;q=0.7", "fr"),
        ("pt-BR, es;q=0.5", "es"),
        ("en-GB,de;q=0.5", "en"),
        ("ja", "en"),
        ("*", "en"),
        ("", "en"),
        ("def,eng", "en"),
        ("../de", "en"),
        (" ,  ," * 1000 + "de", "de"),
        ("fr\\..\\x", "fr"),
    ],
)
def test_the_language_is_the_first_that_there_is(stack: Stack, said: str, language: str) -> None:
    """The browser's languages in its own order; English where there is none of them."""
    answer = ask(stack, NOBODY, Accept=PAGE, Accept_Language=said)
    assert f'<html lang="{language}">' in answer.body


def test_the_end_of_a_certificate_is_told_and_where_it_is_renewed(stack: Stack) -> None:
    """To its holder, and the address also to who offered none, since his may have ended."""
    link = 'href="https://app.example.com/public/renew"'
    for case in cases(stack):
        answer = ask(stack, case, Accept=PAGE)
        assert (link in answer.body) == (case.told in ("expired", "no_certificate")), case
        if case.told == "expired":
            assert case.cert is not None
            end = case.cert.cert.not_valid_after_utc
            assert f"It was valid until {end:%b} {end.day:2} " in answer.body


def test_the_page_brings_all_it_needs(stack: Stack) -> None:
    """A strict CSP, one style by its nonce, no script, nothing from elsewhere; fit for a phone."""
    answer = ask(stack, NOBODY, Accept=PAGE)
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; ")
    nonce = re.search("style-src 'nonce-([0-9a-f]{32})';", policy)
    assert nonce is not None
    assert re.findall('<style nonce="(.*?)">:root', answer.body) == [nonce[1]]
    assert "unsafe" not in policy
    assert "<script" not in answer.body
    assert re.findall(r"(?:src|url|@import)\s*[=(]", answer.body) == []
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in answer.body
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    other = ask(stack, NOBODY, Accept=PAGE)
    assert other.headers["content-security-policy"] != policy


def test_the_number_is_in_the_log_whoever_refused(stack: Stack) -> None:
    """nginx's access log has it, with what nginx found of the certificate; the sidecar's, where it
    was asked."""
    for case in cases(stack):
        found = number(ask(stack, case, Accept=PAGE))
        stack.daemon.until(partial(in_access_log, stack, found))
        line = next(each for each in stack.nginx.access_log.splitlines() if found in each)
        assert f'"{case.verify}' in line
        if case.was in (401, 403):
            stack.daemon.until(partial(in_decision_log, stack, found))
        else:
            assert found not in stack.decision_log


def in_access_log(stack: Stack, found: str) -> bool:
    return found in stack.nginx.access_log


def in_decision_log(stack: Stack, found: str) -> bool:
    return found in stack.decision_log


# -- what stays open, and what does not


OPEN = ("/favicon.ico", "/manifest.webmanifest", "/icons/192.png", "/public/a%3Fb?c=d%2Fe")


def test_a_public_page_stays_public_to_a_bad_certificate(stack: Stack) -> None:
    """What the map names reaches the application by its own location, method, body and all."""
    for cert in (None, stack.people.bob, stack.people.expired, stack.people.mallory):
        for path in OPEN:
            answer = stack.get(path, cert=cert, method="POST", body=b"sent")
            assert answer.app, path
            assert (answer.app["method"], answer.app["uri"]) == ("POST", path)
            assert answer.app["body"] == "sent"
            assert not [name for name, _ in answer.app["headers"] if "client" in name]


def test_a_bad_certificate_opens_nothing_else(stack: Stack) -> None:
    """No method, path, or location that is internal; nor what another server has public."""
    paths = ["/", "/inside/x", "/authz/admin", "/authz", "/.denied/denied-en.html"]
    paths += ["/public/../x", "/public/%2e%2e/inside/x", "/icons/..//inside/x", "/public", "//"]
    paths += ["/favicon.ico/x", "/favicon.icox", "/Public/x", "/x?/public/", "/x%00/public/"]
    for cert in (stack.people.expired, stack.people.mallory):
        for path in paths:
            for method in ("GET", "POST", "OPTIONS"):
                answer = stack.get(path, cert=cert, method=method)
                assert (answer.status in (400, 403), answer.app) == (True, None), path
        for path in OPEN:
            assert stack.get(path, cert=cert, host=STRICT).status == 403


def test_what_is_read_in_two_ways_is_400_there_too(stack: Stack) -> None:
    """A path with dots, or an odd host, whatever the certificate."""
    paths = ("/public/x/../y", "/x/%2e%2e/public/", "/public/#", "/icons/.")
    hosts = (f"x@{HOST}", f"{HOST}.:80.", f"{HOST}:x")
    for cert in (None, stack.people.expired, stack.people.mallory):
        for path in paths:
            assert stack.get(path, cert=cert).status == 400, path
        odd = [f"GET /public/x HTTP/1.1\r\nHost: {host}\r\n\r\n" for host in hosts]
        for request in (*odd, f"GET https://{HOST}/public/x HTTP/1.1\r\nHost: victim\r\n\r\n"):
            with stack.connect(cert=cert, sni=None) as connection:
                answer = connection.raw(request.encode())
            assert (answer.status, answer.app) == (400, None), request


def test_over_http2_it_is_the_same(stack: Stack) -> None:
    """A bad certificate reads the public page, and elsewhere why it is refused."""
    for path, status in ((b"/public/x", 200), (b"/", 403), (b"/inside/x", 403)):
        asked = http2.get(path, HOST.encode(), (b"accept", PAGE.encode()))
        with stack.connect(cert=stack.people.expired, alpn=["h2"]) as connection:
            assert isinstance(connection.socket, ssl.SSLSocket)
            (reply,) = http2.ask(connection.socket, [(asked, None)])
        assert reply.status == status
        assert (b"Your certificate has ended" in reply.body) == (status == 403)


def test_the_pages_are_out_of_reach(stack: Stack) -> None:
    """/.denied/ is internal: nobody reads the pages or the other snippets there."""
    for path in ("/.denied/denied-en.html", "/.denied/identity.conf", "/.denied/"):
        assert stack.get(path, cert=stack.people.alice).status == 404


def test_the_applications_own_refusals_stay_its_own(stack: Stack) -> None:
    """Its 401 and 403 pass through as they are."""
    for status in (401, 403):
        answer = stack.get(f"/status/{status}", cert=stack.people.alice)
        assert (answer.status, answer.app is not None) == (status, True)


def test_a_location_with_auth_request_set_of_its_own(stack: Stack) -> None:
    """It has no $auth_reason, and the page says what nginx itself knows."""
    told = [
        json.loads(stack.get("/", host="own.example.com", cert=cert).body)["error"]
        for cert in (None, stack.people.expired, stack.people.mallory, stack.people.bob)
    ]
    assert told == ["no_certificate", "expired", "refused", "not_allowed"]


def test_where_the_whole_server_asks(stack: Stack) -> None:
    """`auth_request` in the server itself: the page asks nobody, and all are told the same."""
    told = [
        json.loads(stack.get("/", host="whole.example.com", cert=cert).body)["error"]
        for cert in (None, stack.people.expired, stack.people.mallory, stack.people.bob)
    ]
    assert told == ["no_certificate", "expired", "refused", "not_allowed"]
    assert stack.get("/", host="whole.example.com", cert=stack.people.alice).app


def test_intercepted_refusals_of_the_application_name_no_certificate(stack: Stack) -> None:
    """With `proxy_intercept_errors` the application's 403 becomes the page without a reason."""
    answer = stack.get("/status/403", host="intercepts.example.com", cert=stack.people.alice)
    assert (answer.status, json.loads(answer.body)["error"]) == (403, "denied")


# -- the operator's choice


def test_a_stranger_learns_no_more_than_the_operator_chose(stack: Stack) -> None:
    """With `default denied;`, no contact and no renewal, all denials but for numbers are one."""
    before = stack.nginx.conf.read_text()
    text = before.replace("default $denied_reason;", "default denied;")
    text = text.replace("default help@example.com;", 'default "";')
    stack.nginx.write(re.sub("default https://app.example.com/.*;", 'default "";', text))
    stack.nginx.reload()
    pages, data = set(), set()
    for case in cases(stack):
        answer = ask(stack, case, Accept=PAGE)
        pages.add(answer.body.replace(number(answer), "N"))
        data.add(re.sub('"[0-9a-f]{32}"', '"N"', ask(stack, case).body))
    stack.nginx.write(before)
    stack.nginx.reload()
    (page,), (program,) = pages, data
    assert "<h1>You can't go there</h1>" in page
    assert "<a " not in page
    assert json.loads(program) == {
        "status": 403,
        "error": "denied",
        "message": "No access.",
        "contact": "",
        "request_id": "N",
    }


@pytest.mark.parametrize(
    ("origin", "may"),
    [
        ("https://shop.example.com", True),
        ("https://shop.example.com.evil.example", False),
        ("https://evil.example/https://shop.example.com", False),
        ("http://shop.example.com", False),
        ("null", False),
        ("", False),
    ],
)
def test_only_an_origin_that_the_operator_names_may_read_a_denial(
    stack: Stack, origin: str, may: bool
) -> None:
    """CORS headers for it on each denial, by whomever; none for another, which is never echoed."""
    for case in cases(stack):
        headers = ask(stack, case, Origin=origin).headers
        assert headers.get("access-control-allow-origin") == (origin if may else None)
        assert headers.get("access-control-allow-credentials") == ("true" if may else None)
        assert "Origin" in headers["vary"]


def test_401_stays_401_for_who_wants_it(stack: Stack) -> None:
    """By the line that the snippet names."""
    assert f"`{AS_401}`" in example("snippets/denied.conf")
    answer = stack.get("/", host="as401.example.com")
    assert (answer.status, json.loads(answer.body)["status"]) == (401, 401)


# -- the files


def test_doctor_has_nothing_to_say_against_it(stack: Stack) -> None:
    """Not of the internal location either that is beside it here, and isn't public."""
    place = stack.daemon.policy
    sources = DirectSources(place.parent, place.parent)
    rules = compile_policy(place.read_bytes(), str(place), sources)
    found = examine(read_nginx(stack.nginx.conf), rules)
    assert {each.id for each in found} <= {"never-asked"}, found
    warnings = [line for line in stack.nginx.test().stderr.splitlines() if "[warn]" in line]
    assert [line for line in warnings if '"listen ... http2" directive' not in line] == []


def test_every_language_has_the_same_cases() -> None:
    """The files differ in their words alone: same conditions, variables and elements."""
    pages = sorted((EXAMPLES / "snippets").glob("denied-*.html"))
    assert {page.stem for page in pages} == {f"denied-{language}" for language in TITLES}
    shapes = {
        page.stem: re.findall(r"<!--#.*?-->|</?[a-z0-9]+", page.read_text()) for page in pages
    }
    for name, shape in shapes.items():
        assert shape == shapes["denied-en"], name
