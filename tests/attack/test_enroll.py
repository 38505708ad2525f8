"""Attacks on the enrolment service: on its socket, as nginx passes them on, and on its files."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import select
import shutil
import socket
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from enrolled import Enroll, Invited, opened
from issuing import own_ca, request
from pki import CA

from sidecar.enroll.connections import MAX_HEADERS, MOST
from sidecar.enroll.issuer import KeyIssuer
from sidecar.enroll.pages import HEADERS
from sidecar.enroll.web import MAX_FIELDS


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Enroll]:
    more = "profiles: {default: {max_devices: 1000}}\n"
    with Enroll(tmp_path_factory.mktemp("enroll"), more) as found:
        yield found


def token(invited: Invited) -> str:
    return invited.path.rpartition("/")[2]


def everything_in(directory: Path) -> bytes:
    """All octets of all files below a directory."""
    return b"".join(each.read_bytes() for each in directory.rglob("*") if each.is_file())


# -- links and tokens


def test_a_token_has_128_bits_and_only_its_hash_is_stored(service: Enroll) -> None:
    """Whoever reads the database, its log or the service's log can't open a link."""
    invited = service.invite("stored")
    assert re.fullmatch("[A-Za-z0-9_-]{22}", token(invited))
    service.get(invited)
    service.post(invited)
    assert token(invited).encode() not in everything_in(service.directory)


def test_guessing_is_answered_alike_and_stopped(tmp_path: Path) -> None:
    """A guess of the right form and one of another get the same 404; then 429, with the time to
    wait, to this client alone."""
    with Enroll(tmp_path, "limits: {client: 1000, total: 10, unknown: 5}\n") as enroll:
        invited = enroll.invite("guessed")
        near = invited.path[:-1] + ("A" if invited.path[-1] != "A" else "B")
        found = [enroll.get(near), enroll.get("/enroll/nonsense"), enroll.post(near)]
        assert {each.status for each in found} == {404}
        assert len({each.body for each in found}) == 1
        answers = [enroll.get(near) for _ in range(5)]
        assert [each.status for each in answers] == [404, 404, 429, 429, 429]
        assert int(answers[-1].headers["retry-after"]) > 0
        assert enroll.get(invited).status == 429
        assert enroll.get(invited, X_Real_IP="198.51.100.1").status == 200


def test_one_client_cannot_keep_the_service_busy(tmp_path: Path) -> None:
    """Beyond its rate a client gets 429; so does everybody beyond the rate of issuing."""
    with Enroll(tmp_path, "limits: {client: 4, total: 2, unknown: 5}\n") as enroll:
        links = [enroll.invite(f"p{number}") for number in range(3)]
        assert [enroll.get(links[0]).status for _ in range(5)] == [200] * 4 + [429]
        other = {"X_Real_IP": "198.51.100.1"}
        assert [enroll.post(each, "p12", {}, **other).status for each in links] == [200, 200, 429]
        assert enroll.get(links[2], **other).status == 200


@pytest.mark.parametrize("agent", ["\x01", "x" * 9000])
def test_a_header_that_cannot_be_read_is_one_line_of_the_log(service: Enroll, agent: str) -> None:
    """nginx passes on what any stranger sends as User-Agent; no traceback, and never the link."""
    invited, before = service.invite("agent"), len(service.told)
    assert service.get(invited, User_Agent=agent).status == 400
    service.until(lambda: "a request can't be read" in service.told[before:])
    said = service.told[before:]
    assert said.count("\n") == 1
    assert said.startswith("INFO ")
    assert len(said) < 500
    assert token(invited) not in said


def test_requests_behind_one_another_take_little_memory(service: Enroll) -> None:
    """Whoever may open the socket reads no answer, and sends requests of hundreds of kilobytes: the
    connection is closed, before 32 of them are kept."""
    small = b"GET /enroll/none HTTP/1.1\r\nHost: a\r\n\r\n"
    lines = b"".join(b"X-%d: %b\r\n" % (number, b"x" * 8000) for number in range(40))
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(str(service.socket))
        peer.settimeout(10)  # where they are kept, nothing more is read
        with contextlib.suppress(ConnectionError):
            while True:
                peer.sendall(small * 10)
                peer.sendall(small[:-2] + lines + b"\r\n")


def test_a_form_without_end_takes_little_memory(service: Enroll) -> None:
    """Parts that are empty count as well, for their names: it isn't waited for its end."""
    head = (
        "POST /enroll/renew HTTP/1.1\r\nHost: a\r\nOrigin: https://app.example.com\r\n"
        f"X-Client-Fingerprint: {'a' * 64}\r\nTransfer-Encoding: chunked\r\n"
        "Content-Type: multipart/form-data; boundary=B\r\n\r\n"
    )
    part = b'--B\r\nContent-Disposition: form-data; name="%b"\r\n\r\n\r\n' % (b"x" * 4000)
    chunk = b"%x\r\n%b\r\n" % (len(part), part)
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(str(service.socket))
        peer.settimeout(60)
        peer.sendall(head.encode())
        peer.sendall(chunk * (MAX_FIELDS + 4))  # aiohttp reads ahead
        assert b"too many fields" in peer.recv(1 << 16)


def test_a_body_that_cannot_be_read_leaves_no_traceback(service: Enroll) -> None:
    """One whose chunks are none is a line of the log at most; one that isn't compressed as it says,
    and a peer that has gone before it is asked for its body, are none."""
    head, before = "POST /enroll/none HTTP/1.1\r\nHost: a\r\n", len(service.told)
    for line in (
        "Expect: 100-continue\r\nContent-Length: 9",
        "Content-Encoding: deflate\r\nContent-Length: 9",
        "Transfer-Encoding: chunked",
    ):
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(str(service.socket))
            peer.sendall(f"{head}{line}\r\n\r\n".encode())
            if "Expect" not in line:
                assert peer.recv(100).startswith(b"HTTP/1.1 404 ")
                peer.sendall(b"x" * 9)
    assert service.get("/enroll/none").status == 404
    assert "Traceback" not in service.told
    assert service.told[before:].count("\n") <= 1


def test_silent_connections_leave_room_for_the_service(service: Enroll) -> None:
    """Whoever may open the socket holds as many connections as there may be, and not as many as
    there are descriptors; once they are closed, the others are served."""

    def is_closed(peer: socket.socket) -> bool:
        return bool(select.select([peer], [], [], 0)[0])

    def is_served() -> bool:
        try:
            return service.get("/enroll/none").status == 404
        except ConnectionError:  # it has not seen yet that the others are closed
            return False

    with contextlib.ExitStack() as held:
        peers = []
        for _ in range(MOST + 40):
            peer = held.enter_context(socket.socket(socket.AF_UNIX))
            peer.connect(str(service.socket))
            peers.append(peer)
        service.until(lambda: sum(map(is_closed, peers)) >= 40)
        ours = peers[0]
        ours.sendall(b"GET /enroll/none HTTP/1.1\r\nHost: a\r\n\r\n")
        assert ours.recv(100).startswith(b"HTTP/1.1 404 ")
    service.until(is_served)


def test_a_request_has_few_header_lines(service: Enroll) -> None:
    """More than nginx sends is 400: half a request of many long lines would take a megabyte."""
    lines = {f"X-{number}": "x" for number in range(MAX_HEADERS)}
    assert service.get("/enroll/none").status == 404
    assert service.get("/enroll/none", **lines).status == 400


def test_who_is_refused_takes_no_room_from_others(tmp_path: Path) -> None:
    """A link with a bad CSR, or a certificate that is renewed too early, again and again."""
    profiles = "profiles: {default: {validity: 10d, renew_before: 1d}}\n"
    with Enroll(tmp_path, profiles + "limits: {client: 1000, total: 2, unknown: 5}\n") as enroll:
        header = {"X_Client_Fingerprint": issued(enroll, "early")}
        invited = enroll.invite("mallory")
        refused = [enroll.post(invited, "csr", {"csr": "x"}).status for _ in range(4)]
        early = [enroll.post("/enroll/renew", "p12", {}, **header).status for _ in range(4)]
        assert (refused, early) == ([400] * 4, [403] * 4)
        assert enroll.post(enroll.invite("bob")).status == 200


def test_whom_another_ca_refuses_takes_no_room_from_others(tmp_path: Path) -> None:
    """A key of a kind that its command doesn't sign, again and again."""
    command = "issuer: {command: ['false']}\nlimits: {client: 1000, total: 2, unknown: 5}\n"
    with Enroll(tmp_path, command) as enroll:
        invited = enroll.invite("mallory")
        assert [enroll.post(invited).status for _ in range(4)] == [502] * 4


def test_a_link_that_was_used_tells_nothing(service: Enroll) -> None:
    """Stolen from a history or a chat it is 410: neither a name, nor the password, nor a file."""
    invited = service.invite("stolen-link")
    password = service.get(invited).password
    service.post(invited)
    for answer in (service.get(invited), service.post(invited)):
        assert answer.status == 410
        assert "stolen-link" not in answer.text
        assert password not in answer.text


# -- other sites


@pytest.mark.parametrize(
    ("origin", "site"),
    [
        ("https://evil.example", "cross-site"),
        ("https://evil.example", ""),
        ("null", "cross-site"),
        ("null", ""),
        ("https://app.example.com.evil.example", ""),
        ("http://app.example.com", ""),
        ("", "cross-site"),
        ("https://other.example.com", "same-site"),
    ],
)
def test_another_site_cannot_press_the_button(service: Enroll, origin: str, site: str) -> None:
    """403, of a link and of a renewal, and the link is still good."""
    invited = service.invite("csrf")
    headers = {"Origin": origin, "Sec_Fetch_Site": site}
    assert service.post(invited, "p12", {}, **headers).status == 403
    renewal = {**headers, "X_Client_Fingerprint": "ab" * 32}
    assert service.post("/enroll/renew", "p12", {}, **renewal).status == 403
    assert service.post(invited).status == 200


def test_every_answer_has_the_headers_that_protect_it(service: Enroll) -> None:
    """No frame, no script, no cache, no referrer: of pages, files and errors alike."""
    invited = service.invite("framed")
    found = [
        service.get(invited),
        service.post(invited),
        service.get(invited),
        service.get("/enroll/nothing"),
        service.get("/enroll/renew"),
        service.ask("DELETE", invited.path),
        service.get("/elsewhere"),
    ]
    assert [each.status for each in found] == [200, 200, 410, 404, 403, 405, 404]
    for answer in found:
        for name, value in HEADERS.items():
            assert answer.headers[name.lower()] == value, (answer.status, name)
        assert "aiohttp" not in answer.headers["server"]
    policy = found[0].headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "script" not in found[0].text


# -- names


@pytest.mark.parametrize(
    "name",
    [
        "<script>alert(1)</script>",
        "alice\r\nX-Evil: 1",
        "alice\nroot",
        'alice"; filename="evil.exe',
        "../../etc/passwd",
        "alice/CN=root",
        "alice,CN=root",
        "\u202ecod.exe",
        "alice\0",
        "a" * 65,
        "-rf",
    ],
)
def test_a_name_that_means_something_else_is_refused(service: Enroll, name: str) -> None:
    """Before it is in a certificate, a page, a header or a file name."""
    if "\0" not in name:  # no argument of a command can have one
        with pytest.raises(ValueError, match=r"name"):
            service.run("invite", "--expires=1h", "--", name)
    with contextlib.closing(sqlite3.connect(service.database)) as connection:
        query = "SELECT count(*) FROM invitations WHERE name = ?"
        assert connection.execute(query, (name,)).fetchone() == (0,)


@pytest.mark.parametrize(
    "fields",
    [
        {"device": "<script>"},
        {"device": "phone\r\nSet-Cookie: a=b"},
        {"device": "../../x"},
        {"device": "a" * 33},
        {"format": "../p12"},
        {"format": ""},
        {"name": "root"},
        {"profile": "admins"},
    ],
    ids=repr,
)
def test_a_form_can_say_nothing_else(service: Enroll, fields: dict[str, str]) -> None:
    """400, what it said is escaped, and the link is still good."""
    invited = service.invite("form")
    answer = service.post(invited, fields.get("format", "p12"), fields)
    assert answer.status == 400
    assert "<script>" not in answer.text
    assert "set-cookie" not in answer.headers
    assert service.post(invited).status == 200


def test_a_name_of_another_alphabet_is_escaped_where_it_stands(service: Enroll) -> None:
    """In the page as text, in the header not at all."""
    invited = service.invite("Zoë O'Brien", "--device", "phone")
    page = service.get(invited)
    assert "Zoë O&#39;Brien" in page.text
    answer = service.post(invited)
    assert answer.headers["content-disposition"] == 'attachment; filename="Zoe-O-Brien-phone.p12"'


TWICE = b"Content-Disposition: form-data; filename*0=a; filename*0=a"


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", b'{"format": "p12"}'),
        ("text/plain", b"format=p12"),
        ("", b"format=p12"),
        ("application/x-www-form-urlencoded", b"format=p12&format=csr"),
        ("application/x-www-form-urlencoded", b"format=p12&x=" + b"a" * 70_000),
        ("application/x-www-form-urlencoded", b"&".join(b"a%d=1" % n for n in range(5000))),
        ("application/x-www-form-urlencoded", b"format=p12&device=%ff"),
        # No client chooses a codec: punycode's takes seconds for 64 KiB.
        ("application/x-www-form-urlencoded; charset=utf-16", "format=p12".encode("utf-16")),
        ("application/x-www-form-urlencoded; charset=punycode", b"format=p12-"),
        # ... or a type that takes most of a second to parse.
        ("application/x-www-form-urlencoded" + "; a=b" * 1500, b"format=p12"),
        ("multipart/form-data", b"format=p12"),
        (
            "multipart/form-data; boundary=x",
            b"--x\r\nContent-Disposition: form-data; a*0*=b; a*0*=c",
        ),
        ("multipart/form-data; boundary=x", b"--x\r\nnonsense"),
    ],
)
def test_a_body_that_is_no_such_form_is_refused(service: Enroll, kind: str, body: bytes) -> None:
    """4xx, and the link is still good."""
    invited = service.invite("body")
    headers = {"Origin": "https://app.example.com", **({"Content-Type": kind} if kind else {})}
    assert 400 <= service.ask("POST", invited.path, headers, body).status < 500
    assert service.post(invited).status == 200
    assert "Traceback" not in service.told
    assert "warnings.warn" not in service.told


# -- CSRs


def test_a_csr_cannot_ask_for_more(service: Enroll) -> None:
    """Another name, a CA's extensions, a weak key, a broken signature: none of it gets in."""
    greedy = [
        x509.BasicConstraints(ca=True, path_length=None),
        x509.SubjectAlternativeName([x509.DNSName("bank.example.com")]),
        x509.SubjectKeyIdentifier(b"\0" * 20),
    ]
    answer = service.post(service.invite("modest"), "csr", {"csr": request("root", None, *greedy)})
    cert = x509.load_pem_x509_certificate(answer.body)
    assert cert.subject.rfc4514_string() == "CN=modest"
    kinds = {type(each.value) for each in cert.extensions}
    assert x509.SubjectAlternativeName not in kinds
    assert not cert.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    invited = service.invite("weak")
    good = request("weak")
    broken = good.replace(good.splitlines()[2], good.splitlines()[2][::-1])
    for csr in (broken, "", good * 2, "A" * 20_000, good.replace("CERTIFICATE REQUEST", "X")):
        assert service.post(invited, "csr", {"csr": csr}).status == 400
    assert service.post(invited, "csr", {"csr": good}).status == 200


# -- paths and identities


def issued(service: Enroll, name: str) -> str:
    """The fingerprint of a certificate that can be renewed."""
    invited = service.invite(name)
    assert service.post(invited).status == 200
    return str(service.clients(name)[0]["sha256"])


@pytest.fixture(scope="module")
def renewing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Enroll]:
    """A service whose certificates can be renewed at once."""
    more = "profiles: {default: {validity: 10d, renew_before: 10d, max_devices: 1000}}\n"
    with Enroll(tmp_path_factory.mktemp("renewing"), more) as found:
        yield found


@pytest.mark.parametrize(
    "path",
    [
        *("/enroll//renew", "//enroll/renew", "/enroll/./renew", "/enroll/x/../renew"),
        *("/enroll/%72enew", "/enroll/renew/", "/enroll/RENEW", "/enroll/renew%00", "/renew"),
        *("/enroll/renew;x", "/enroll%2frenew", "/enroll/renew%2f", "/enroll/renew%3f"),
    ],
)
def test_only_one_path_renews(renewing: Enroll, path: str) -> None:
    """nginx asks the sidecar for /enroll/renew; what it takes for another path is none here."""
    header = {"X_Client_Fingerprint": issued(renewing, "path")}
    assert renewing.get(path, **header).status == 404
    assert renewing.post(path, "p12", {}, **header).status == 404


def test_an_identity_is_taken_from_nginx_alone(renewing: Enroll) -> None:
    """Headers that a client could send beside nginx's, twice, or in another spelling: 403."""
    good = issued(renewing, "identity")
    other = issued(renewing, "victim")
    path = "/enroll/renew"
    for headers in (
        [],
        [("X-Client-Fingerprint", "")],
        [("X-Client-Fingerprint", good), ("X-Client-Fingerprint", other)],
        [("X-Client-Fingerprint", f"{good}, {other}")],
        [("X-Client-Fingerprint", good.upper())],
        [("X-Client-Fingerprint", good[:-1])],
        [("X_Client_Fingerprint", good)],
        [("X-Client-CN", "identity"), ("X-Client-Serial", "01")],
        [("X-Client-Fingerprint", good), ("SSL-Client-Verify", "NONE")],
        [("X-Client-Fingerprint", good), ("SSL-Client-Verify", "FAILED:expired")],
        [("X-Client-Fingerprint", good), ("SSL-Client-Cert", "nonsense")],
    ):
        for method in ("GET", "POST"):
            form = ("Content-Type", "application/x-www-form-urlencoded")
            answer = renewing.ask(method, path, [*headers, form], b"format=p12")
            assert answer.status == 403, headers
    assert renewing.get(path, X_Client_Fingerprint=good).status == 200


def test_a_fingerprint_opens_no_invitation(service: Enroll) -> None:
    """On other paths the header counts nothing."""
    assert service.get("/enroll/", X_Client_Fingerprint="ab" * 32).status == 404


# -- private keys


def test_a_private_key_is_in_the_file_and_nowhere_else(service: Enroll) -> None:
    """Neither in the state, nor in a temporary file, nor in the log, nor is the password."""
    invited = service.invite("secret-key")
    page = service.get(invited)
    answer = service.post(invited)
    key = opened(answer.body, page.password).key
    assert key is not None
    der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    number = key.private_numbers().private_value.to_bytes(32, "big")  # type: ignore[union-attr]  # EC
    left = everything_in(service.directory)
    for secret in (der, number, number.hex().encode(), page.password.encode(), answer.body):
        assert secret not in left
    assert service.process is not None
    for each in Path(f"/proc/{service.process.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            assert "(deleted)" not in os.readlink(each)


# -- the disk, the database, the end of the process


def test_a_full_disk_leaves_neither_half(tmp_path: Path) -> None:
    """With room for ever more of what is written: a file and a record, or 503 and neither."""
    outcomes = []
    with Enroll(tmp_path) as enroll:
        assert enroll.process is not None
        for number in range(12):
            name = f"full{number}"
            invited = enroll.invite(name)
            resource.prlimit(enroll.process.pid, resource.RLIMIT_FSIZE, (number * 8192, -1))
            answer = enroll.post(invited)
            resource.prlimit(enroll.process.pid, resource.RLIMIT_FSIZE, (-1, -1))
            outcomes.append(answer.status)
            assert answer.status in (200, 503), answer.text
            assert len(enroll.clients(name)) == (answer.status == 200)
            again = enroll.post(invited).status
            assert again == (410 if answer.status == 200 else 200), enroll.told
            assert len(enroll.clients(name)) == 1
    assert outcomes[0] == 503
    assert outcomes[-1] == 200


def issuing_slowly(tmp_path: Path, ca: KeyIssuer) -> str:
    """An issuer in enroll.yaml whose command waits until it is killed."""
    (tmp_path / "ca.crt").write_bytes(ca.certificate.public_bytes(Encoding.PEM))
    script = tmp_path / "issue.sh"
    script.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\nexec sleep 600\n")
    script.chmod(0o755)
    return f"issuer: {{command: [{script}], cert: {tmp_path}/ca.crt}}\n"


def test_a_kill_in_the_middle_leaves_neither_half(tmp_path: Path) -> None:
    """After kill -9 while the CA works: no certificate on record, the link is good, and the log
    names the key that the CA may have signed."""
    enroll = Enroll(tmp_path, issuing_slowly(tmp_path, own_ca()))
    invited = enroll.invite("killed")
    enroll.start()
    assert enroll.process is not None
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(enroll.post, invited)
        enroll.until((tmp_path / "started").exists)
        assert enroll.invitations()[invited.id]["state"] == "issuing"
        enroll.kill()
        assert waiting.exception() is not None
    enroll.configure("")
    enroll.run("enroll", "init")
    with enroll:
        assert enroll.clients() == []
        assert enroll.invitations()[invited.id]["state"] == "open"
        assert enroll.post(invited).status == 200
    assert len(enroll.clients()) == 1


def test_who_comes_second_has_a_turn_where_the_first_failed(tmp_path: Path) -> None:
    """A request that arrives while another uses the link waits: it isn't told that it was used."""
    ca = CA("Command CA")
    ca_file, key_file = ca.write(tmp_path)
    (tmp_path / "ext").write_text("extendedKeyUsage=clientAuth\n")
    script = tmp_path / "issue.sh"
    script.write_text(
        f"#!/bin/sh\ncd {tmp_path}\nif mkdir first; then\n"
        "until test -e go; do sleep 0.05; done; exit 3\nfi\n"
        f"exec openssl x509 -req -in /dev/stdin -CA '{ca_file}' -CAkey '{key_file}' -days 5 "
        "-set_serial 0x1234567890 -extfile ext\n"
    )
    script.chmod(0o755)
    with Enroll(tmp_path / "service", f"issuer: {{command: [{script}]}}\n") as enroll:
        invited = enroll.invite("second")
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(enroll.post, invited)
            enroll.until((tmp_path / "first").exists)
            second = pool.submit(enroll.post, invited)
            # It is there once the service has its connection beside the first one's.
            enroll.until(lambda: connections(enroll) >= 2)
            (tmp_path / "go").touch()
            assert (first.result().status, second.result().status) == (502, 200), enroll.told


def connections(enroll: Enroll) -> int:
    """How many connections a service has taken on its socket."""
    assert enroll.process is not None
    bound = str(enroll.socket.with_name(f".{enroll.process.pid:x}"))  # renamed since
    lines = Path("/proc/net/unix").read_text().splitlines()
    return sum(line.endswith(bound) and " 0001 03 " in line for line in lines)


def test_a_locked_database_is_waited_for_and_told(tmp_path: Path) -> None:
    """503 with Retry-After while another process holds it; then the same link works."""
    with Enroll(tmp_path) as enroll:
        invited = enroll.invite("locked")
        with contextlib.closing(sqlite3.connect(enroll.database, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            answer = enroll.post(invited)
            other.execute("ROLLBACK")
        assert (answer.status, answer.headers["retry-after"]) == (503, "60")
        assert "another process holds it" in enroll.told
        assert enroll.post(invited).status == 200


def test_a_corrupt_database_is_told_and_nothing_is_issued(tmp_path: Path) -> None:
    """While it runs 503, at the start exit 2 with what to do; the backup in its place works."""
    enroll = Enroll(tmp_path)
    invited = enroll.invite("corrupt")
    enroll.run("enroll", "backup", str(tmp_path / "backup.db"))
    with enroll:
        enroll.database.write_bytes(b"nonsense" * 10_000)
        assert enroll.post(invited).status == 503
    assert "put a backup in its place" in enroll.refused("clients")
    done = enroll.try_run("enroll", "serve")
    assert done.returncode == 2
    assert "put a backup in its place" in done.stderr
    shutil.copy(tmp_path / "backup.db", enroll.database)
    for left in ("-wal", "-shm"):
        Path(f"{enroll.database}{left}").unlink(missing_ok=True)
    with enroll:
        assert enroll.post(invited).status == 200
