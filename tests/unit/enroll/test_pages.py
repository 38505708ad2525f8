"""The pages: what fits the device comes first, and nothing in them is anybody else's."""

from __future__ import annotations

import base64
import hashlib
import html
import re
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from issuing import Issuing
from tools import need, openssl

from sidecar.enroll.certificate_profile import Identity
from sidecar.enroll.invitations import Invitation, InvitationState
from sidecar.enroll.pages import (
    HEADERS,
    invitation_page,
    message_page,
    platform_of,
    renewal_page,
    waiting_page,
    ways_for,
)
from sidecar.enroll.settings import Profile

HOSTILE = "<img src=x onerror=alert(1)>\"'&{{ 7919*7907 }}"


class Outline(HTMLParser):
    """Tags and attributes of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def values(self, name: str) -> list[str | None]:
        """The values of the fields of a name, in their order."""
        return [attrs.get("value") for _, attrs in self.tags if attrs.get("name") == name]


@pytest.fixture
def invitation(tmp_path: Path) -> tuple[Invitation, Identity]:
    found = Issuing(tmp_path)
    invited = found.issuance.find(found.invite())
    return invited, Identity("alice", "device", found.settings.profile("default"))


def page(found: tuple[Invitation, Identity], user_agent: str = "", link: str = "L") -> str:
    return invitation_page(*found, "PASSWORD", link, "app.example.com", user_agent)


@pytest.mark.parametrize(
    ("user_agent", "device", "format_"),
    [
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X)", "iphone", "mobileconfig"),
        ("Mozilla/5.0 (iPad; CPU OS 12_2 like Mac OS X)", "ipad", "mobileconfig"),
        ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) Safari/605", "mac", "mobileconfig"),
        ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10.15) Firefox/120.0", "mac", "p12"),
        ("Mozilla/5.0 (Linux; Android 14; Pixel 8)", "android", "p12"),
        ("Mozilla/5.0 (Windows NT 10.0; Win64; x64) Chrome/120", "windows", "p12"),
        ("Mozilla/5.0 (X11; Linux x86_64)", "linux", "p12"),
        ("curl/8.0", "device", "p12"),
        ("", "device", "p12"),
    ],
)
def test_what_fits_the_device_comes_first(
    invitation: tuple[Invitation, Identity], user_agent: str, device: str, format_: str
) -> None:
    """And every other kind is below; the device's name is proposed."""
    outline = Outline(page(invitation, user_agent))
    assert outline.values("format")[0] == format_
    assert set(outline.values("format")) == {"p12", "p12-legacy", "mobileconfig", "csr"}
    assert outline.values("device")[0] == device


def test_a_profile_s_formats_are_all_that_is_offered() -> None:
    """The first of them comes first, whatever the device."""
    ways = ways_for(platform_of("iPhone"), Profile(formats=("csr",)), "h")
    assert [(way.format, way.first) for way in ways] == [("csr", True)]


def test_the_page_loads_nothing_and_runs_nothing(invitation: tuple[Invitation, Identity]) -> None:
    """No script, no image, no link; the one style is what the policy's hash allows."""
    text = page(invitation)
    outline = Outline(text)
    assert {tag for tag, _ in outline.tags} & {"script", "img", "link", "iframe", "a"} == set()
    assert not [name for _, attrs in outline.tags for name in attrs if name.startswith("on")]
    assert not [1 for _, attrs in outline.tags if "style" in attrs]
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in HEADERS["Content-Security-Policy"]
    assert 'name="viewport"' in text
    assert "prefers-color-scheme: dark" in style


def test_whatever_is_filled_in_is_text(invitation: tuple[Invitation, Identity]) -> None:
    """Even a name that could not be: a page is no place to rely on another's check."""
    found, identity = invitation
    bad = replace(found, name=HOSTILE)
    profile = replace(identity, name=HOSTILE)
    texts = [
        invitation_page(bad, profile, HOSTILE, HOSTILE, HOSTILE, HOSTILE),
        renewal_page(profile, HOSTILE, HOSTILE, HOSTILE, HOSTILE, 1e9),
        waiting_page(bad),
        message_page(HOSTILE, HOSTILE, HOSTILE),
    ]
    for text in texts:
        assert "<img" not in text
        assert str(7919 * 7907) not in text
        assert not [1 for _, attrs in Outline(text).tags if "onerror" in attrs]


def test_before_an_approval_there_is_no_password(
    invitation: tuple[Invitation, Identity],
) -> None:
    """It is shown with the page on which the file can be taken."""
    found, identity = invitation
    asking = (replace(found, approve=True), identity)
    assert "PASSWORD" not in page(asking)
    approved = replace(found, approve=True, state=InvitationState.APPROVED, request_format="p12")
    text = page((approved, identity))
    assert "PASSWORD" in text
    assert Outline(text).values("format") == ["p12"]


def test_the_shell_s_lines_make_the_csr_that_is_wanted(
    invitation: tuple[Invitation, Identity], tmp_path: Path
) -> None:
    """The page's openssl line runs as it stands, and quotes the name."""
    found, identity = invitation
    name = "Zoë O'Brien"
    profile = replace(identity.profile, ou=("staff",), o="Example")
    given = replace(found, name=name), Identity(name, "device", profile)
    text = page(given, link="https://app.example.com/enroll/TOKEN")
    (lines,) = re.findall(r"<pre>(openssl.*?)</pre>", text, re.DOTALL)
    command, _, rest = html.unescape(lines).partition("\ncurl ")
    assert rest.endswith("https://app.example.com/enroll/TOKEN")
    tool = need(openssl())
    script = command.replace("openssl", str(tool.path), 1)
    subprocess.run(["sh", "-ec", script], cwd=tmp_path, env=tool.env, check=True, timeout=60)
    told = tool.run(
        "req",
        "-in",
        "client.csr",
        "-noout",
        "-subject",
        "-nameopt",
        "utf8,sep_comma_plus",
        cwd=tmp_path,
    )
    assert told.stdout.strip() == f"subject=OU=staff,O=Example,CN={name}"
