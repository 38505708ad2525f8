"""nginx-example/nginx.conf and its policy.yaml, as they are, on each nginx."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from stack import EXAMPLES, Stack, example
from tools import NginxBinary


@pytest.fixture(scope="module")
def stack(nginx_binary: NginxBinary, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(nginx_binary, tmp_path_factory.mktemp("main")) as found:
        yield found


def test_public_pages_need_no_certificate(stack: Stack) -> None:
    """A location without auth_request is open, and the sidecar isn't asked about it."""
    answer = stack.get("/public/")
    assert (answer.status, answer.saw("x-client-cn")) == (200, [])


def test_verified_pages_need_any_certificate_of_the_staff(stack: Stack) -> None:
    """`allow: verified` with `trust: [staff]`: alice and bob, not the partner, not nobody."""
    people = stack.people
    assert stack.get("/").status == 401
    assert stack.get("/", cert=people.alice).status == 200
    assert stack.get("/", cert=people.bob).status == 200
    assert stack.get("/", cert=people.partner).status == 403


def test_admin_is_for_those_on_the_list(stack: Stack) -> None:
    """An allow list by CN: alice and ops-*, not bob."""
    people = stack.people
    assert stack.get("/admin/").status == 401
    assert stack.get("/admin/", cert=people.alice).status == 200
    assert stack.get("/admin/", cert=people.staff.issue("ops-7")).status == 200
    assert stack.get("/admin/", cert=people.bob).status == 403


@pytest.mark.parametrize("path", ["..;/", "..\\", "%2561/", "..;a=b/"])
def test_what_nginx_takes_for_one_name_reaches_the_application(stack: Stack, path: str) -> None:
    """Below a public prefix nobody is asked about it, and some applications (servlet containers,
    IIS) take it for `..`.  What nginx itself takes for `..` is refused."""
    answer = stack.get(f"/public/{path}admin/").app
    assert answer is not None
    assert answer["uri"] == f"/public/{path}admin/"
    for dots in ("../", "%2e%2e/", "..%2f", ".%2E//", "%252e%252e/"):
        assert stack.get(f"/public/{dots}admin/").status == 400


GUARD = r'if ($request_uri ~* "\A(//|[^?]*(;|%5c|%25|\x5c))") { return 400; }'


def test_the_guard_against_such_names(nginx_binary: NginxBinary, tmp_path: Path) -> None:
    """The line of docs/security.md refuses them, and nothing else."""
    assert GUARD in (EXAMPLES.parent / "docs" / "security.md").read_text()
    conf = example("nginx.conf").replace("include snippets/identity.conf;", GUARD, 1)
    with Stack(nginx_binary, tmp_path, conf=conf) as stack:
        for path in ("..;/", "..\\", "%2561/", "..;a=b/", "..%5C"):
            assert stack.get(f"/public/{path}admin/").status == 400
        for path in ("/admin;x/y", "/admin;", "/;/admin/", "//public/admin/"):
            assert stack.get(path, cert=stack.people.bob).status == 400
        for path in ("", "a%20b/", "..a", "a//b", "?a=%25;\\", "%c3%a9"):
            assert stack.get(f"/public/{path}").status == 200
        assert stack.get("/admin/", cert=stack.people.alice).status == 200


def test_partners_come_with_their_own_ca_and_only_there(stack: Stack) -> None:
    """The partners' CA opens /partners/ and nothing else, also for a CN on the admins' list."""
    people = stack.people
    assert stack.get("/partners/", cert=people.partner).status == 200
    assert stack.get("/partners/", cert=people.alice).status == 403
    assert stack.get("/admin/", cert=people.partners.issue("alice")).status == 403


def test_a_customer_has_its_own_domain(stack: Stack) -> None:
    """The SAN must cover the host: acme's certificate opens acme's domain, no other's."""
    people = stack.people
    acme, other = "acme.customers.example.com", "other.customers.example.com"
    assert stack.get("/", cert=people.acme, host=acme).status == 200
    assert stack.get("/", cert=people.acme, host=other).status == 403
    assert stack.get("/", cert=people.alice, host=acme).status == 403
    assert stack.get("/", host=acme).status == 401
    assert stack.decisions("customers", "host_mismatch") >= 2


def test_a_host_other_than_the_connections_is_misdirected(stack: Stack) -> None:
    """SNI acme, Host other: nginx itself answers 421, as both servers verify certificates."""
    people = stack.people
    acme, other = "acme.customers.example.com", "other.customers.example.com"
    wildcard = people.staff.issue("all", dns=["*.customers.example.com"])
    assert stack.get("/", cert=wildcard, host=other, sni=other).status == 200
    assert stack.get("/", cert=wildcard, host=other, sni=acme).status == 421


def test_without_sni_the_sidecar_says_sni_mismatch(stack: Stack) -> None:
    """A client that sends no server name reaches the customers' server by Host alone: denied."""
    acme = "acme.customers.example.com"
    with stack.connect(cert=stack.people.acme, sni=None) as connection:
        assert connection.get("/", host=acme).status == 403
    assert stack.decisions("customers", "sni_mismatch") == 1


def test_what_nginx_cannot_verify_it_refuses_itself(stack: Stack) -> None:
    """Expired, or of an unknown CA: 400 before anybody is asked, on public pages too."""
    for cert in (stack.people.expired, stack.people.mallory):
        assert stack.get("/public/", cert=cert).status == 400


def test_the_auth_location_is_out_of_reach(stack: Stack) -> None:
    """Clients get 404 for /authz/…, with a certificate or without."""
    assert stack.get("/authz/admin").status == 404
    assert stack.get("/authz/", cert=stack.people.alice).status == 404


def test_the_application_learns_who_it_is_from_nobody_but_the_sidecar(stack: Stack) -> None:
    """X-Client-CN and X-Client-Role are the certificate's and the rule's; the client's are lost."""
    forged = [("X-Client-CN", "root"), ("X-Client-Role", "god"), ("Client-Cert", ":AA==:")]
    answer = stack.get("/admin/", cert=stack.people.alice, headers=forged)
    assert answer.saw("x-client-cn") == ["alice"]
    assert answer.saw("x-client-role") == ["admin"]
    assert answer.saw("x-client-fingerprint") == [stack.people.alice.sha256]
    assert answer.saw("x-client-san") == ["DNS:alice.example.com"]
    assert answer.saw("client-cert") == []
    public = stack.get("/public/", headers=forged)
    names = {name for name, _ in (public.app or {})["headers"]}
    assert not {name for name in names if "client" in name}


def test_control_headers_of_the_client_never_reach_the_sidecar(stack: Stack) -> None:
    """A client that says SSL-Client-Verify: SUCCESS is one without a certificate."""
    forged = {
        "SSL-Client-Verify": "SUCCESS",
        "SSL-Client-Cert": stack.people.alice.escaped.decode(),
    }
    assert stack.get("/admin/", headers=forged).status == 401


def test_the_body_reaches_the_application_once_and_whole(stack: Stack) -> None:
    """The sidecar is asked without the body, which then goes to the application."""
    body = b"x" * 50_000
    answer = stack.get("/admin/", cert=stack.people.alice, method="POST", body=body)
    assert answer.app is not None
    assert answer.app["body"] == body.decode()


def test_the_policy_is_edited_while_nginx_runs(stack: Stack) -> None:
    """Bob is added and let in on the connection he has; a broken edit leaves it all as it was."""
    before = stack.policy
    workers = stack.nginx.workers()
    with stack.connect(cert=stack.people.bob) as bob:
        assert bob.get("/admin/").status == 403
        stack.edit_policy(before.replace("[alice,", "[alice, bob,"))
        assert bob.get("/admin/").status == 200
        stack.edit_policy(before.replace("groups:", "gruops:"), good=False)
        assert bob.get("/admin/").status == 200
        stack.edit_policy(before)
        assert bob.get("/admin/").status == 403
    assert stack.nginx.workers() == workers


def test_a_revoked_certificate_is_out_on_the_connection_it_has(stack: Stack) -> None:
    """A CRL replaced while nginx runs counts on kept-alive connections and resumed sessions."""
    carol = stack.people.staff.issue("carol")
    context = stack.context(carol)
    with stack.connect(context=context) as connection:
        assert connection.get("/").status == 200
        session = connection.socket.session  # type: ignore[attr-defined]
        crl = stack.daemon.directory / "pki" / "staff.crl"
        crl.write_bytes(stack.people.staff.crl([carol], number=2))
        stack.daemon.until(lambda: connection.get("/").status == 403)
    with stack.connect(context=context, session=session) as resumed:
        assert resumed.socket.session_reused  # type: ignore[attr-defined]
        assert resumed.get("/").status == 403
    assert stack.get("/", cert=stack.people.alice).status == 200


def test_the_log_lines_of_both_join_by_request_id(stack: Stack) -> None:
    """The sidecar logs nginx's $request_id, which the application receives, too."""
    answer = stack.get("/admin/", cert=stack.people.alice)
    (request_id,) = answer.saw("x-request-id")
    stack.daemon.until(lambda: request_id in stack.decision_log)


def test_metrics_tell_location_and_reason(stack: Stack) -> None:
    """Prometheus finds the decisions by location and reason."""
    before = stack.decisions("admin", "not_allowed")
    stack.get("/admin/", cert=stack.people.bob)
    assert stack.decisions("admin", "not_allowed") == before + 1


def test_connections_to_the_sidecar_are_kept(stack: Stack) -> None:
    """nginx keeps its connection to the sidecar over allows and denials."""
    with stack.connect(cert=stack.people.alice) as alice, stack.connect() as nobody:
        for _ in range(10):
            assert alice.get("/admin/").status == 200
            assert nobody.get("/admin/").status == 401
    kept = stack.daemon.metric("mtls_sidecar_connections")
    assert 1 <= kept <= len(stack.nginx.workers()) * 2


def test_a_large_certificate_arrives_whole(stack: Stack) -> None:
    """20 KB of certificate: read, decided, and its holder's name handed on."""
    names = [f"host-{number:04}.some-department.example.com" for number in range(550)]
    large = stack.people.staff.issue("large", dns=names)
    assert len(large.der) > 20_000
    answer = stack.get("/", cert=large)
    assert (answer.status, answer.saw("x-client-cn")) == (200, ["large"])
