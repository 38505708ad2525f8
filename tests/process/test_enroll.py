"""From an invitation to a certificate, by the commands and the service as processes."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from enrolled import URL, Enroll, opened


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Enroll]:
    """A service for tests that don't change its settings."""
    with Enroll(tmp_path_factory.mktemp("enroll")) as found:
        yield found


def csr(name: str, key: ec.EllipticCurvePrivateKey | None = None) -> str:
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


# -- invitations


def test_invite_prints_exactly_id_url_and_expires(shared: Enroll) -> None:
    """`invite --json` is `{id, url, expires}`; without it the link and when it ends."""
    done = shared.try_run("invite", "print", "--json", "--expires", "2h")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found) == {"id", "url", "expires"}
    assert found["url"].startswith(f"{URL}/")
    text = shared.run("invite", "print")
    assert text.splitlines()[0].startswith(f"{URL}/")
    assert "the link works once" in text


def test_a_link_gives_one_certificate_once(shared: Enroll) -> None:
    """GET shows a page, POST gives the file with the page's password, and then it is 410."""
    invited = shared.invite("once", "--device", "laptop")
    page = shared.get(invited)
    assert page.status == 200
    answer = shared.post(invited)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/x-pkcs12"
    assert page.password.encode() not in answer.body
    found = opened(answer.body, page.password)
    assert found.cert is not None
    cert = found.cert.certificate
    cert.verify_directly_issued_by(shared.ca)
    assert found.additional_certs == []
    assert [shared.post(invited).status, shared.get(invited).status] == [410, 410]
    (client,) = shared.clients("once")
    assert set(client) == {
        *("name", "device", "serial", "sha256"),
        *("not_before", "not_after", "revoked", "last_seen"),
    }
    assert client["sha256"] == cert.fingerprint(hashes.SHA256()).hex()
    assert int(client["serial"], 16) == cert.serial_number
    assert (client["name"], client["device"]) == ("once", "laptop")
    assert (client["revoked"], client["last_seen"]) == (False, None)


def test_looking_changes_nothing(shared: Enroll) -> None:
    """However often previews and scanners look at a link, it is still good, with one password."""
    invited = shared.invite("looked-at")
    seen = {shared.get(invited).password for _ in range(3)}
    assert shared.ask("HEAD", invited.path).status == 200
    assert len(seen) == 1
    assert opened(shared.post(invited).body, seen.pop()).cert is not None


def test_two_at_the_same_moment_make_one_certificate(shared: Enroll) -> None:
    """Of eight requests at once one gets the certificate, and one is on record."""
    invited = shared.invite("eight")
    with ThreadPoolExecutor(8) as pool:
        found = sorted(answer.status for answer in pool.map(shared.post, [invited] * 8))
    assert found == [200, *[410] * 7]
    assert len(shared.clients("eight")) == 1


def test_a_button_pressed_twice_gives_the_file_all_the_same(shared: Enroll) -> None:
    """Where a browser gives up its first request for a second one, that gets the first's file."""
    invited = shared.invite("pressed", "--device", "phone")
    page = shared.get(invited)
    head = (
        f"POST {invited.path} HTTP/1.1\r\nHost: app.example.com\r\nContent-Length: 10\r\n"
        "Content-Type: application/x-www-form-urlencoded\r\n\r\nformat=p12"
    )
    with socket.socket(socket.AF_UNIX) as first:
        first.connect(str(shared.socket))
        first.sendall(head.encode())
    answer = shared.post(invited)
    assert answer.status == 200
    assert opened(answer.body, page.password).cert is not None
    assert shared.post(invited).status == 410
    assert len(shared.clients("pressed")) == 1


@pytest.mark.parametrize(
    "line", ["GET http://xn--a/ HTTP/1.1", "CONNECT xn--a:443 HTTP/1.1", "OPTIONS * HTTP/1.1"]
)
def test_a_request_for_no_path_is_answered(shared: Enroll, line: str) -> None:
    """Also as the second one of a connection: 400, its end, and no line in the log.  One of a URL
    whose host can't be decoded left the connection open, and a traceback."""
    told = shared.told
    heads = f"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n{line}\r\nHost: a\r\n\r\n"
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(10)
        peer.connect(str(shared.socket))
        peer.sendall(heads.encode())
        answers = peer.makefile("rb").read()
    assert [part.split()[0] for part in answers.split(b"HTTP/1.1 ")[1:]] == [b"404", b"400"]
    assert shared.told == told


def test_a_csr_gets_its_certificate_and_the_key_stays_where_it_is(shared: Enroll) -> None:
    """With format=csr the answer is the certificate of that key, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    invited = shared.invite("own-key", "--device", "server")
    answer = shared.post(invited, "csr", {"csr": csr("own-key", key)})
    assert answer.status == 200, answer.text
    cert = x509.load_pem_x509_certificate(answer.body)
    assert cert.public_key() == key.public_key()
    assert b"PRIVATE" not in answer.body


def test_the_certificate_is_what_rfc_5280_wants(shared: Enroll) -> None:
    """AKI, SKI, critical keyUsage and basicConstraints, clientAuth, a serial of 64 bits or more."""
    answer = shared.post(shared.invite("clean"), "csr", {"csr": csr("clean")})
    cert = x509.load_pem_x509_certificate(answer.body)
    found = {each.oid: each for each in cert.extensions}
    assert found[x509.KeyUsage.oid].critical
    assert found[x509.BasicConstraints.oid].critical
    assert found[x509.BasicConstraints.oid].value == x509.BasicConstraints(False, None)
    assert list(found[x509.ExtendedKeyUsage.oid].value) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    ski = shared.ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert found[x509.AuthorityKeyIdentifier.oid].value.key_identifier == ski.digest
    assert found[x509.SubjectKeyIdentifier.oid].value == (
        x509.SubjectKeyIdentifier.from_public_key(cert.public_key())
    )
    assert cert.serial_number.bit_length() > 64


def test_a_cancelled_invitation_is_gone(shared: Enroll) -> None:
    """`invite --cancel ID` makes its link 410, and `--list` says so."""
    invited = shared.invite("cancelled")
    assert "cancelled" in shared.run("invite", "--cancel", invited.id)
    assert (shared.get(invited).status, shared.post(invited).status) == (410, 410)
    assert shared.invitations()[invited.id]["state"] == "cancelled"
    assert "nothing to cancel" in shared.refused("invite", "--cancel", invited.id)
    assert "no invitation" in shared.refused("invite", "--cancel", "nobody")


def test_an_invitation_ends(shared: Enroll) -> None:
    """After its time a link is 410, and no certificate comes of it."""
    invited = shared.invite("late", "--expires", "1s")
    shared.until(lambda: shared.get(invited).status == 410)
    assert shared.post(invited).status == 410
    assert shared.clients("late") == []


def test_the_service_takes_its_socket_with_it(tmp_path: Path) -> None:
    """After SIGTERM the socket is gone; another service on the same one is refused meanwhile."""
    with Enroll(tmp_path) as enroll:
        other = enroll.try_run("enroll", "serve")
        assert other.returncode == 2
        assert "is served by another process" in other.stderr
    assert not enroll.socket.exists()


def test_what_keeps_the_service_from_starting_is_told(tmp_path: Path) -> None:
    """A mistake in enroll.yaml with its place, no database, no CA: one line and exit 2."""
    enroll = Enroll(tmp_path, "listne: x\n", init=False)
    assert "did you mean 'listen'?" in enroll.refused("enroll", "serve")
    enroll.configure("")
    assert "run `mtls-sidecar enroll init` first" in enroll.refused("enroll", "serve")
    enroll.run("enroll", "init")
    (enroll.state / "ca/ca.key").unlink()
    assert "ca.key: No such file" in enroll.refused("enroll", "serve")
    enroll.config.chmod(0o666)
    assert "everyone may write it" in enroll.refused("enroll", "serve")


# -- approval


def test_a_csr_waits_until_somebody_approves_it(shared: Enroll) -> None:
    """`invite --approve`: 202 first, `enroll approve` names the CSR, then its key gets one."""
    key = ec.generate_private_key(ec.SECP256R1())
    invited = shared.invite("queue", "--approve")
    first = shared.post(invited, "csr", {"csr": csr("queue", key), "device": "tablet"})
    assert first.status == 202
    assert shared.get(invited).status == 200
    assert shared.post(invited, "csr", {"csr": csr("queue", key)}).status == 409
    listed = shared.invitations()[invited.id]
    assert (listed["state"], listed["device"]) == ("waiting", "tablet")
    assert listed["csr_sha256"] in first.text
    assert shared.clients("queue") == []
    assert listed["csr_sha256"] in shared.run("enroll", "approve", invited.id)
    other = shared.post(invited, "csr", {"csr": csr("queue")})
    assert other.status == 400
    answer = shared.post(invited, "csr")
    assert answer.status == 200, answer.text
    assert x509.load_pem_x509_certificate(answer.body).public_key() == key.public_key()
    assert shared.clients("queue")[0]["device"] == "tablet"


def test_a_file_waits_for_approval_before_its_key_is_made(shared: Enroll) -> None:
    """The password is on the page only after the approval, and one press more gives the file."""
    invited = shared.invite("queue-file", "--approve")
    assert 'id="password"' not in shared.get(invited).text
    assert shared.post(invited, "p12").status == 202
    assert "isn't waiting" not in shared.run("enroll", "approve", invited.id)
    page = shared.get(invited)
    assert opened(shared.post(invited, "p12").body, page.password).cert is not None
    assert "isn't waiting" in shared.refused("enroll", "approve", invited.id)
