"""Templates for alternative names, and what comes out of them."""

from __future__ import annotations

import pytest

from sidecar.enroll.subject_templates import dns_name, mail_address, parse_template, uri


def test_name_and_device_are_filled_in() -> None:
    """Into DNS names, mail addresses and URIs, each as its kind wants it."""
    assert dns_name(parse_template("{device}.{name}.example.com"), "Al", "pc").value == (
        "pc.al.example.com"
    )
    assert mail_address(parse_template("{name}@example.com"), "alice", "x").value == (
        "alice@example.com"
    )
    found = uri(parse_template("spiffe://example.org/{name}/{device}"), "José /x", "pc")
    assert found.value == "spiffe://example.org/Jos%C3%A9%20%2Fx/pc"


@pytest.mark.parametrize("text", ["{user}", "{name", "{}", "a\nb", "{name!r}", "{0}"])
def test_an_unknown_field_is_refused(text: str) -> None:
    """There are two, and no format language."""
    with pytest.raises(ValueError, match=r"unknown field|in a certificate"):
        parse_template(text)


@pytest.mark.parametrize("name", ["Alice Smith", "José", "a..b", "a@b", "x" * 64])
def test_a_name_that_makes_no_dns_name_is_refused(name: str) -> None:
    """And is not changed into another one."""
    with pytest.raises(ValueError, match="not a DNS name"):
        dns_name(parse_template("{name}.example.com"), name, "pc")


@pytest.mark.parametrize("name", ["Alice Smith", "José", "a@b", "a..b", ".a", "x" * 65])
def test_a_name_that_makes_no_mail_address_is_refused(name: str) -> None:
    """A second @ or a blank would be another address."""
    with pytest.raises(ValueError, match="not a mail address"):
        mail_address(parse_template("{name}@example.com"), name, "pc")


def test_what_makes_no_uri_is_refused() -> None:
    """It needs a scheme."""
    for text in ("{name}", "spiffe:", "http://[x/{name}", "a b:{name}"):
        with pytest.raises(ValueError, match="not a URI"):
            uri(parse_template(text), "alice", "pc")


@pytest.mark.parametrize("text", ["{name}-{device}.example.com", "{device}.{name}.example.com"])
def test_two_devices_of_two_people_have_no_name_in_common(text: str) -> None:
    """What parts name and device isn't in a device's name, which its holder may choose."""
    template = parse_template(text)
    assert dns_name(template, "alice-x", "y") != dns_name(template, "alice", "y")
    for device in ("x-y", "x.y"):
        if device[1] == template.text.partition("}")[2][0]:
            with pytest.raises(ValueError, match="doesn't fit into"):
                dns_name(template, "alice", device)
        else:
            assert device in dns_name(template, "alice", device).value
    with pytest.raises(ValueError, match="nothing between"):
        parse_template("{name}{device}.example.com")
