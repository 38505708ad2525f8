"""Render the pages.  Whatever comes from a name or a request is escaped by the templates."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import markupsafe

from sidecar.runtime.content_security import source_hash
from sidecar.runtime.page_templates import environment

from .certificate_profile import Identity
from .durations import for_people
from .invitations import Invitation
from .settings import Profile

TEMPLATES = Path(__file__).with_name("templates")
STYLE = (TEMPLATES / "style.css").read_text(encoding="utf-8")

_ENVIRONMENT = environment(TEMPLATES)
_ENVIRONMENT.globals["style"] = markupsafe.Markup(STYLE)

HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src {source_hash(STYLE)}; form-action 'self'; "
        "frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    # Not `no-referrer`: with it a browser says `Origin: null` of its own forms (Fetch, 3.2).  What
    # is left of a link in this one is its scheme and host.
    "Referrer-Policy": "strict-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Robots-Tag": "noindex",
    "Server": "mtls-sidecar",
}
"""Headers of every answer."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way to take a certificate: what it is for, and which file it gives."""

    id: str
    format: str
    title: str
    button: str
    host: str
    first: bool = False


_WAYS = (
    ("apple", "mobileconfig", "iPhone, iPad, Mac", "Take the profile"),
    ("windows", "p12", "Windows", "Take the .p12 file"),
    ("android", "p12", "Android", "Take the .p12 file"),
    ("desktop", "p12", "Linux, and Firefox everywhere", "Take the .p12 file"),
    ("old", "p12-legacy", "Older systems", "Take the old kind of .p12 file"),
    ("shell", "csr", "A key that never leaves its machine (CSR)", "Send the CSR"),
)

_PLATFORMS = (
    ("iphone", "iPhone|iPod", "apple"),
    ("ipad", "iPad", "apple"),
    ("android", "Android", "android"),
    ("mac", "Macintosh", "apple"),
    ("windows", "Windows", "windows"),
    ("linux", "Linux|X11|CrOS", "desktop"),
)


@dataclass(frozen=True, slots=True)
class Platform:
    """What a browser says that it runs on."""

    device: str
    way: str


def platform_of(user_agent: str) -> Platform:
    """Guess the platform of a User-Agent; it only orders what is offered."""
    for device, pattern, way in _PLATFORMS:
        if re.search(pattern, user_agent):
            # Firefox on a Mac doesn't use the keychain's certificates by itself.
            firefox = device in ("mac", "windows") and "Firefox/" in user_agent
            return Platform(device, "desktop" if firefox else way)
    return Platform("device", "desktop")


def ways_for(platform: Platform, profile: Profile, host: str) -> list[Way]:
    """List the ways that a profile allows, the platform's own first."""
    found = [
        Way(id_, form, title, button, host, id_ == platform.way)
        for id_, form, title, button in _WAYS
        if form in profile.formats
    ]
    if found and not any(way.first for way in found):
        first = found[0]
        found[0] = Way(first.id, first.format, first.title, first.button, host, True)
    return found


def invitation_page(
    found: Invitation, identity: Identity, password: str, link: str, host: str, user_agent: str
) -> str:
    """Render the page of an invitation that is ready, or asks for approval."""
    profile = identity.profile
    platform = platform_of(user_agent)
    ways = ways_for(platform, profile, host)
    if found.request_format:
        ways = [way for way in ways if way.format == found.request_format]
        ways = [
            Way(way.id, way.format, way.title, way.button, host, first=True) for way in ways[:1]
        ]
    return _certificate_page(
        heading=f"A certificate for {found.name}",
        name=found.name,
        host=host,
        password=password,
        ways=ways,
        device=platform.device,
        fixed_device=bool(found.device or found.request_device),
        identity=identity,
        link=link,
        expires=for_people(found.expires),
        asks_approval=found.approve and not found.ready,
    )


def renewal_page(
    identity: Identity, password: str, link: str, host: str, user_agent: str, not_after: float
) -> str:
    """Render the page of a certificate that can be renewed."""
    return _certificate_page(
        heading=f"A new certificate for {identity.name}",
        name=identity.name,
        host=host,
        password=password,
        ways=ways_for(platform_of(user_agent), identity.profile, host),
        device=identity.device,
        fixed_device=True,
        identity=identity,
        link=link,
        ends=for_people(not_after),
        renewal=True,
    )


def _certificate_page(
    *,
    heading: str,
    name: str,
    host: str,
    password: str,
    ways: Sequence[Way],
    device: str,
    fixed_device: bool,
    identity: Identity,
    link: str,
    expires: str = "",
    ends: str = "",
    asks_approval: bool = False,
    renewal: bool = False,
) -> str:
    return _ENVIRONMENT.get_template("certificate.html").render(
        heading=heading,
        name=name,
        host=host,
        password=password,
        with_password=not asks_approval and any(way.format != "csr" for way in ways),
        ways=ways,
        ways_other=any(not way.first for way in ways),
        device=device,
        fixed_device=fixed_device,
        subject=shlex.quote(openssl_subject(identity)),
        link=shlex.quote(link),
        action=link.rpartition("/")[2],
        expires=expires,
        ends=ends,
        asks_approval=asks_approval,
        renewal=renewal,
    )


def openssl_subject(identity: Identity) -> str:
    """Spell a subject for `openssl req -subj`; names hold no character that means something."""
    return "".join(
        f"/{attribute.rfc4514_attribute_name}={attribute.value!s}"
        for attribute in identity.subject()
    )


def waiting_page(found: Invitation) -> str:
    """Render the page of an invitation that waits for approval."""
    return _ENVIRONMENT.get_template("waiting.html").render(
        name=found.name, request_key=found.request_key, expires=for_people(found.expires)
    )


def message_page(heading: str, text: str, more: str = "") -> str:
    """Render a page that says one thing."""
    return _ENVIRONMENT.get_template("message.html").render(heading=heading, text=text, more=more)
