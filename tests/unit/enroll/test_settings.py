"""enroll.yaml: read as strictly as the policy, every mistake with its place."""

from __future__ import annotations

from pathlib import Path

import pytest
from issuing import YAML, settings_of

from sidecar.core.errors import PolicyError
from sidecar.enroll.settings import FORMATS, read_enroll_settings


def mistakes(text: str) -> str:
    with pytest.raises(PolicyError) as error:
        read_enroll_settings(text.encode(), "enroll.yaml")
    return "\n".join(map(str, error.value.diagnostics))


def test_one_line_is_enough(tmp_path: Path) -> None:
    """Everything but `url` has a default; paths are relative to the file."""
    found = settings_of(tmp_path)
    assert found.issuer.key_ == str(tmp_path / "ca/ca.key")
    assert found.issuer.passphrase_file == str(tmp_path / "ca/passphrase")
    assert found.profile("default").formats == FORMATS
    assert found.crl.file == str(tmp_path / "crl.pem")
    assert (found.origin, found.base_path) == ("https://app.example.com", "/enroll")
    issuer = "issuer: {cert: a.crt, key: b.key, passphrase_file: 'credential:x'}\n"
    own = settings_of(tmp_path, issuer).issuer
    assert own.cert == str(tmp_path / "a.crt")
    assert own.passphrase_file == "credential:x"


def test_every_mistake_is_told_with_its_line_and_column() -> None:
    """All of them at once, and what to write instead."""
    found = mistakes(
        "url: https://app.example.com/enroll?x=1\n"
        "listn: unix:/x\n"
        "profiles:\n"
        "  default: {validity: 1y, key_type: dsa, formats: [p13], dns: '{user}'}\n"
        "issuer: {cert: a}\n"
    )
    for place in ("1:6", "2:1", "4:23", "4:37", "4:52", "4:63", "5:9"):
        assert f"enroll.yaml:{place}: " in found, found
    assert "did you mean 'listen'?" in found


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("profiles: {}\n", "'url' is missing"),
        ("url: http://app.example.com/enroll\n", "unencrypted"),
        ("url: ftp://x\n", "not an https address"),
        ("url: https://a@b/enroll\n", "not an https address"),
        ("url: https://[x/enroll\n", "not an address"),
        ("url: https://app.example.com/a/../b\n", "dots"),
        ("url: https://app.example.com/a b\n", "more than a host"),
        (f"{YAML}socket_mode: 0666\n", "nginx alone"),
        (f"{YAML}issuer: {{cert: a, key: b, command: [c]}}\n", "only one of them"),
        (f"{YAML}issuer: {{key: b}}\n", "without cert and key"),
        (f"{YAML}issuer: {{cert: a, key: b, passphrase_file: 'credential:../x'}}\n", "credential"),
        (f"{YAML}notify: {{before: [30d]}}\n", "'command' is missing"),
        (f"{YAML}profiles: {{a b: {{}}}}\n", "is not a name"),
        (f"{YAML}default_device: a b\n", "not the name of a device"),
        (f"{YAML}url: https://other\n", "duplicate key"),
    ],
)
def test_what_is_wrong_is_refused(text: str, why: str) -> None:
    """Each with a sentence for people."""
    assert why in mistakes(text)


def test_an_unknown_profile_is_told_with_those_there_are(tmp_path: Path) -> None:
    """Whoever mistypes one sees the names."""
    with pytest.raises(ValueError, match="it has: staff, guests"):
        settings_of(tmp_path, "profiles: {staff: {}, guests: {}}\n").profile("staf")


def test_an_origin_is_written_as_browsers_do(tmp_path: Path) -> None:
    """Without the default port, with another one, and with brackets around IPv6."""
    for url, origin in (
        ("https://app.example.com:443/e", "https://app.example.com"),
        ("https://APP.example.com:8443/e/", "https://app.example.com:8443"),
        ("http://127.0.0.1:8080/e", "http://127.0.0.1:8080"),
        ("https://[2001:db8::1]/e", "https://[2001:db8::1]"),
    ):
        found = read_enroll_settings(f"url: '{url}'\n".encode(), str(tmp_path / "x"))
        assert (found.origin, found.base_path) == (origin, "/e")


def test_a_host_that_browsers_write_otherwise_is_refused() -> None:
    """They name the page by their own spelling of it, so every button would be another site's."""
    for host, hint in (
        ("bücher.example", "A-labels"),
        ("[0:0:0:0:0:0:0:1]", "write ::1"),
        ("[2001:DB8:0::1]", "write 2001:db8::1"),
        ("127.1", "in full"),
        ("0x7f.0.0.1", "in full"),
        ("app%2eexample.com", "a host name"),
    ):
        told = mistakes(f"url: https://{host}/enroll\n")
        assert "browsers write the host" in told
        assert hint in told
    for host in (
        "xn--bcher-kva.example",
        "a_b.example",
        "127.0.0.1",
        "[2001:db8::1]",
        "box",
        "a1.b2c",
    ):
        read_enroll_settings(f"url: https://{host}/enroll\n".encode(), "enroll.yaml")
