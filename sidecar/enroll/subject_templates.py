"""Templates for names in a certificate: `{name}@example.com`, `spiffe://example.org/{name}`.

What comes out is checked again as a whole, since a person's name may hold characters that a DNS
name or a mail address has not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from cryptography import x509

from sidecar.core.x509.service_identity import is_dns_name


@dataclass(frozen=True, slots=True)
class Template:
    """Text with `{name}` and `{device}` in it."""

    text: str

    def fill(self, name: str, device: str) -> str:
        """Put the values in their places.

        A device with the text in it that stands between both is refused: `{name}-{device}` would be
        the same for alice's `x-y` and for the `y` of alice-x.  Raises ValueError.
        """
        between = _between(self.text)
        if any(each.lower() in device.lower() for each in between):
            raise ValueError(f"the device {device!r} doesn't fit into {self.text!r}")
        values = {"{name}": name, "{device}": device}
        return re.sub(r"\{name\}|\{device\}", lambda found: values[found[0]], self.text)


def parse_template(text: str) -> Template:
    """Parse a template.  Raises ValueError."""
    rest = re.sub(r"\{name\}|\{device\}", "", text)
    if "{" in rest or "}" in rest:
        raise ValueError(f"{text!r} has an unknown field", "write {name} or {device}")
    if not text.isprintable() or len(text) > 1000:
        raise ValueError(f"{text[:80]!r} can't be in a certificate", "write printable text")
    if "" in _between(text):
        raise ValueError(
            f"{text!r} has nothing between name and device", "write {device}.{name} or the like"
        )
    return Template(text)


def _between(text: str) -> list[str]:
    """Return what stands between name and device, at each place where one follows the other."""
    parts = re.split(r"(\{name\}|\{device\})", text)
    return [parts[at + 1] for at in range(1, len(parts) - 2, 2) if parts[at] != parts[at + 2]]


def dns_name(template: Template, name: str, device: str) -> x509.DNSName:
    """Fill in a DNS name.  Raises ValueError."""
    value = template.fill(name, device).lower()
    if not is_dns_name(value) or len(value) > 253:
        raise ValueError(f"{value!r}, from dns {template.text!r}, is not a DNS name")
    return x509.DNSName(value)


_LOCAL = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*"


def mail_address(template: Template, name: str, device: str) -> x509.RFC822Name:
    """Fill in a mail address (RFC 5321, ASCII).  Raises ValueError."""
    value = template.fill(name, device)
    local, _, host = value.rpartition("@")
    if not re.fullmatch(_LOCAL, local) or len(local) > 64 or not is_dns_name(host):
        raise ValueError(f"{value!r}, from email {template.text!r}, is not a mail address")
    return x509.RFC822Name(value)


def uri(template: Template, name: str, device: str) -> x509.UniformResourceIdentifier:
    """Fill in a URI; what is filled in is percent-encoded.  Raises ValueError."""
    value = template.fill(quote(name, safe=""), quote(device, safe=""))
    try:
        parts = urlsplit(value)
    except ValueError:
        parts = urlsplit("")
    if not re.fullmatch(r"[!-~]+", value) or not parts.scheme or not (parts.netloc or parts.path):
        raise ValueError(f"{value!r}, from uri {template.text!r}, is not a URI")
    return x509.UniformResourceIdentifier(value)
