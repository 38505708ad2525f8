"""Invitations and renewals through real nginx, with the shipped snippets and the real sidecar."""

from __future__ import annotations

import html
import os
import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)
from enrolled import Enroll, Invited, opened
from https import Answer
from stack import Stack
from tools import NginxBinary

SITE = "variants/enroll.conf"
FORM = {
    "Content-Type": "application/x-www-form-urlencoded",
    "Origin": "https://app.example.com",
    "Sec-Fetch-Site": "same-origin",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Dest": "document",
}


@dataclass
class Place:
    """nginx with the sidecar and the enrolment service behind it."""

    stack: Stack
    enroll: Enroll

    def open(
        self,
        path: str,
        holder: pkcs12.PKCS12KeyAndCertificates | None = None,
        headers: dict[str, str] | None = None,
        body: bytes = b"",
    ) -> Answer:
        """Open a page with the certificate of a .p12 file."""
        context = self.stack.context()
        if holder is not None:
            self._load(context, holder)
        method = "POST" if body else "GET"
        with self.stack.connect(context=context) as connection:
            return connection.get(path, method=method, headers=headers or {}, body=body)

    def _load(self, context: ssl.SSLContext, holder: pkcs12.PKCS12KeyAndCertificates) -> None:
        assert holder.cert is not None
        assert holder.key is not None
        place = self.stack.directory / "holder.pem"
        key = holder.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        place.write_bytes(holder.cert.certificate.public_bytes(Encoding.PEM) + key)
        context.load_cert_chain(place)

    def take(
        self, path: str, holder: pkcs12.PKCS12KeyAndCertificates | None = None
    ) -> pkcs12.PKCS12KeyAndCertificates:
        """Read the password on a page, and take its .p12 file."""
        page = self.open(path, holder)
        found = re.search(r'id="password">([^<]+)<', page.body)
        assert page.status == 200, page
        assert found, page.body
        answer = self.open(path, holder, FORM, urlencode({"format": "p12"}).encode())
        assert answer.status == 200, answer
        return opened(answer.octets, html.unescape(found[1]))

    def invite(self, name: str, *options: str) -> Invited:
        return self.enroll.invite(name, *options)


@pytest.fixture(scope="module")
def place(nginx_binary: NginxBinary, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    directory = tmp_path_factory.mktemp("enrolled")
    stack = Stack(nginx_binary, directory, sites=(SITE,))
    cert, key = stack.people.invited.write(directory / "enroll")
    key.chmod(0o600)
    issuer = (
        f"issuer: {{cert: {cert}, key: {key}}}\nprofiles: {{default: {{renew_before: 400d}}}}\n"
    )
    enroll = Enroll(directory / "enroll", issuer)
    with enroll:
        if os.geteuid() == 0:  # nginx's workers are nobody
            enroll.socket.chmod(0o666)
        with stack:
            yield Place(stack, enroll)


def test_a_link_lets_its_holder_in(place: Place) -> None:
    """The page, the file, and with the certificate in it the application, which knows the name."""
    invited = place.invite("carol")
    assert place.open("/").status == 401
    holder = place.take(invited.path)
    answer = place.open("/", holder)
    assert (answer.status, answer.saw("X-Client-CN")) == (200, ["carol"])
    assert place.open(invited.path).status == 410


def test_a_certificate_is_renewed_by_its_holder_alone(place: Place) -> None:
    """Behind mTLS the same name gets a new certificate; without one, with another CA's, or with
    a fingerprint that the client writes itself, nobody does."""
    old = place.take(place.invite("dave").path)
    new = place.take("/enroll/renew", old)
    assert old.cert is not None
    assert new.cert is not None
    assert new.cert.certificate.subject == old.cert.certificate.subject
    assert new.cert.certificate.serial_number != old.cert.certificate.serial_number
    assert [place.open("/", each).status for each in (old, new)] == [200, 200]
    (mine, *_) = [each for each in place.enroll.clients() if each["name"] == "dave"]
    forged = {**FORM, "X-Client-Fingerprint": mine["sha256"]}
    for spelling in ("X-Client-Fingerprint", "X_Client_Fingerprint", "x-client-fingerprint"):
        headers = {**FORM, spelling: mine["sha256"]}
        assert place.open("/enroll/renew", None, headers, b"format=p12").status == 401
    alice = place.stack.people.alice
    assert place.stack.get("/enroll/renew", cert=alice, headers=forged).status == 403
    assert place.open(f"/enroll/renew/?{mine['sha256']}", None, forged).status == 404


def test_other_sites_and_guesses_get_nothing(place: Place) -> None:
    """A form of another origin is refused before anything is made; an unknown link is a 404."""
    invited = place.invite("erin")
    foreign = {**FORM, "Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    assert place.open(invited.path, None, foreign, b"format=p12").status == 403
    assert place.open("/enroll/AAAAAAAAAAAAAAAAAAAAAA").status == 404
    assert place.open(invited.path).status == 200


def test_another_sites_page_uses_up_no_rate(place: Place) -> None:
    """Its images and frames are refused before anything is counted; a link there leads in."""
    path = place.invite("heidi").path
    said = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
    frame = {**said, "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}
    for _ in range(30):
        assert place.open("/enroll/guess", None, said).status == 403
        assert place.open(path, None, frame).status == 403
    link = {**frame, "Sec-Fetch-Dest": "document"}
    assert place.open(path, None, link).status == 200
    assert place.open(path, None, {**FORM, "Sec-Fetch-Site": "none"}).status == 200


def test_links_are_in_no_access_log(place: Place, tmp_path: Path) -> None:
    """Nor is what a client sends beyond the headers that the service reads passed on."""
    invited = place.invite("frank")
    assert place.open(invited.path, None, {"X-Real-IP": "192.0.2.99"}).status == 200
    token = invited.path.rpartition("/")[2]
    for log in place.stack.directory.rglob("*.log"):
        assert token not in log.read_text(errors="replace"), log
    assert "192.0.2.99" not in place.enroll.told


def test_links_are_in_no_error_log(place: Place) -> None:
    """Neither beyond the limit, nor with a form too large, nor while the service isn't there."""
    path = place.invite("grace").path
    assert place.open(path, None, FORM, b"x" * 70_000).status == 413
    statuses = set()
    place.enroll.stop()
    try:
        for _ in range(30):
            statuses.add(place.open(path).status)
    finally:
        place.enroll.start()
        if os.geteuid() == 0:
            place.enroll.socket.chmod(0o666)
    assert statuses == {502, 429}
    for log in place.stack.directory.rglob("*.log"):
        assert path not in log.read_text(errors="replace"), log
