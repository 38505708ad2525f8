"""Report every mistake of policy.yaml with its place and a hint, all at once."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from asking import mistakes, policy, site
from hypothesis import given
from hypothesis import strategies as st
from pki import CA

from sidecar.core.config.settings import Address, Settings, read_settings
from sidecar.core.errors import PolicyError
from sidecar.core.policy.compile import policy_hash
from sidecar.core.policy.spec import policy_schema, read_policy

HEAD = "version: 1\nlocations:\n"
staff = CA("Staff")


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", 0, "empty"),
        ("version: 1\n", 1, "'locations' is missing"),
        ("version: 2\nlocations: []\n", 1, "'2' is not allowed here"),
        ("version: 1\nversion: 1\nlocations: []\n", 2, "duplicate key 'version'"),
        ("version: 1\nlocatoins: []\n", 2, "unknown key 'locatoins'"),
        ("version: 1\nx: &a 1\nlocations: []\n", 2, "anchor"),
        ("version: 1\nlocations: *a\n", 2, "alias"),
        ("version: !!int 1\nlocations: []\n", 1, "tag"),
        ("version: 1\n---\nversion: 1\n", 2, "document"),
        ("version: 1\nlocations: [\n", 3, "not YAML"),
        ("version: 1\n\tlocations: []\n", 2, "not YAML"),
        ("version: 1\nlocations: \x07\n", 2, "control character"),
        (HEAD + "  - {allow: verified}\n", 3, "'name' is missing"),
        (HEAD + "  - {name: a b, allow: verified}\n", 3, "not a name"),
        (HEAD + f"  - {{name: {'a' * 65}, allow: verified}}\n", 3, "not a name"),
        (HEAD + "  - {name: a}\n  - {name: a}\n", 4, "a second location named 'a'"),
        (HEAD + "  - {name: a, allow: [{}]}\n", 3, "empty rule"),
        (HEAD + "  - {name: a, allow: [{roles: [x]}]}\n", 3, "without a condition"),
        (HEAD + "  - {name: a, allow: [{cnn: x}]}\n", 3, "unknown key 'cnn'"),
        (HEAD + "  - {name: a, allow: [{cn: '~('}]}\n", 3, "regular expression"),
        (HEAD + "  - {name: a, allow: [{any: []}]}\n", 3, "empty list of rules"),
        (HEAD + "  - {name: a, allow: [admins]}\n", 3, "undefined group 'admins'"),
        (HEAD + "  - {name: a, allow: [verified, {cn: x}]}\n", 3, "'verified' beside"),
        (HEAD + "  - {name: a, trust: [x]}\n", 3, "undefined trust 'x'"),
        (HEAD + "  - {name: a, trust: []}\n", 3, "empty list of trusts"),
        (HEAD + "  - {name: a, san_matches_host: yes}\n", 3, "'yes' is neither true nor false"),
        (HEAD + "  - {name: a, cache_seconds: 1e3}\n", 3, "'1e3' is not a number in this range"),
        (HEAD + "  - {name: a, cache_seconds: 010}\n", 3, "'010' is not a number in this range"),
        (HEAD + "  - {name: a, cache_seconds: -1}\n", 3, "not a number in this range"),
        (HEAD + "  - {name: a, mode: enforced}\n", 3, "is not allowed here"),
        (HEAD + "  - {name: a, location: admin}\n", 3, "bad location"),
        (HEAD + "  - {name: a, server_name: x}\n", 3, "without location"),
        (HEAD + "  - {name: a, location: /}\n  - {name: b, location: /}\n", 4, "twice"),
        (HEAD + "  - {name: a, allow: [{until: soon}]}\n", 3, "not a date"),
        (HEAD + "  - {name: a, allow: [{until: 2026-02-30}]}\n", 3, "not a date"),
        (HEAD + "  - {name: a, allow: [{from: '2026-01-01T00:00:00'}]}\n", 3, "not a date"),
        ("version: 1\ntrust: {a: {}}\nlocations: []\n", 2, "'ca' is missing"),
        ("version: 1\ntrust: {a: {ca: []}}\nlocations: []\n", 2, "names no ca"),
        ("version: 1\ntrust: {a: {ca: no.crt}}\nlocations: []\n", 2, "No such file"),
        ("version: 1\ntrust: {a: {ca: bad.crt}}\nlocations: []\n", 2, "no usable certificate"),
        ("version: 1\ntrust: {a: {ca: s.crt, crl: bad.crt}}\nlocations: []\n", 2, "bad.crt"),
        ("version: 1\ntrust: {a: {ca: s.crt, ocsp: x}}\nlocations: []\n", 2, "not an http"),
        ("version: 1\ngroups: {a: [b], b: [a]}\nlocations: []\n", 2, "contains itself"),
        (
            "version: 1\ngroups: {verified: [{cn: a}]}\nlocations: []\n",
            2,
            "can't be a group's name",
        ),
        ("version: 1\ngroups: {a: []}\nlocations: []\n", 2, "empty list of rules"),
        ("- version: 1\n", 1, "a list where a mapping is expected"),
    ],
)
def test_each_mistake_has_its_line(text: str, line: int, message: str) -> None:
    """A mistake is told with file and line, and what it is."""
    found = mistakes(text, bad_crt=b"hello\n", s_crt=staff.pem)
    assert any(d.line == line and message in d.message for d in found), found
    assert all(d.file == "policy.yaml" and (d.column > 0) is (d.line > 0) for d in found)


def test_all_mistakes_come_at_once() -> None:
    """Mistakes of form, references and missing files are reported together, in file order."""
    found = mistakes(
        "version: 1\nversion: 1\ntrust: {a: {ca: no.crt, chian: leaf}}\nlocations:\n"
        "  - {name: x, allow: [nogroup, {cnn: y}], trust: [zz], mode: off}\n"
        "  - {name: x, allow: [{cn: '~('}]}\n"
    )
    assert [d.line for d in found] == [2, 3, 3, 5, 5, 5, 5, 6, 6]


def test_a_key_with_nothing_behind_it_is_as_if_left_out() -> None:
    """`defaults:` and `trust:` followed only by comments are not mistakes."""
    assert mistakes("version: 1\ntrust:\ngroups:\ndefaults:\nlocations:\n") == []


def test_a_misspelt_key_is_told_the_right_one() -> None:
    """The hint is the most similar existing key."""
    [found] = mistakes(HEAD + "  - {name: a, alow: verified}\n")
    assert "'allow'" in found.hint


def test_a_mistake_in_a_denylist_has_that_files_line() -> None:
    """Mistakes in data files have the lines of those files."""
    text = "version: 1\ntrust: {a: {ca: s.crt, denylist: d.txt}}\nlocations: []\n"
    [found] = mistakes(text, s_crt=staff.pem, d_txt=b"# ok\nserial xyz\n")
    assert (found.file, found.line) == ("d.txt", 2)


def test_scalars_are_taken_as_written() -> None:
    """No YAML 1.1 booleans, octals or sexagesimals: NO is a country, 0o10 a name."""
    from asking import ask

    for word in ("NO", "on", "0777", "1:30", "1_000", "null", "1.0"):
        leaf = staff.issue(word)
        assert ask(site(f"[{{cn: {word}}}]"), leaf).allowed, word


def test_too_large_is_refused_and_deep_is_refused() -> None:
    """More than 16 MiB, or too deep nesting, is a single mistake."""
    assert "16 MiB" in mistakes(b"#" * (16 * 1024 * 1024 + 1))[0].message
    assert "nested deeper" in mistakes("a: " + "[" * 1000)[0].message
    assert "nested deeper" in mistakes("a: " + "{a: " * 1000)[0].message
    deep = "{not: " * 20 + "{cn: a}" + "}" * 20
    assert any(
        "nested deeper" in d.message for d in mistakes(HEAD + f"  - {{name: a, allow: {deep}}}\n")
    )


MINIMAL = "version: 1\nlocations:\n  - {name: a, allow: [{cn: é}]}\n"
SETTINGS = "listen: unix:/run/é.sock\npolicy: é.yaml\n"


@pytest.mark.parametrize("line_end", ["\x85", "\u2028", "\u2029"])
def test_a_line_end_that_looks_like_none_is_a_mistake(line_end: str) -> None:
    """libyaml would end the comment there, so that the rest of what looks like one counts."""
    text = f"version: 1\nlocations:\n  - name: site\n    # old:{line_end}    allow: verified\n"
    with pytest.raises(PolicyError) as caught:
        read_policy(text.encode(), "policy.yaml")
    (told,) = caught.value.diagnostics
    assert (told.line, told.column) == (4, 11)
    assert "a line end" in told.message


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        (lambda text: text.encode("utf-8-sig"), ""),
        (lambda text: text.replace("\n", "\r\n").encode(), ""),
        (lambda text: text.replace("\n", "\r").encode(), ""),
        (lambda text: text.rstrip("\n").encode(), ""),
        (lambda text: text.encode("utf-16"), "UTF-16, not UTF-8"),
        (lambda text: text.encode("utf-16-le"), "UTF-16, not UTF-8"),
        (lambda text: text.encode("utf-16-be"), "UTF-16, not UTF-8"),
        (lambda text: b"\xfe\xff" + text.encode("utf-16-be"), "UTF-16, not UTF-8"),
        (lambda text: text.replace("\n", "\n\0", 1).encode(), "a control character"),
        (lambda text: text.replace("\n", "\n\ufeff", 1).encode(), "not YAML"),
    ],
)
def test_it_is_read_as_any_editor_saves_it_or_refused(
    saved: Callable[[str], bytes], message: str
) -> None:
    """policy.yaml and sidecar.yaml: a mark and any line end; no key is lost without a word."""
    found = mistakes(saved(MINIMAL))
    assert [each.message.startswith(message) for each in found] == [True] * bool(message)
    if not message:
        assert read_policy(saved(MINIMAL), "p").locations[0].name == "a"
        assert read_settings(saved(SETTINGS), "s").policy == "é.yaml"
        return
    with pytest.raises(PolicyError, match=message):
        read_settings(saved(SETTINGS), "s")


def test_not_utf8_is_refused_with_its_place() -> None:
    """The line of the first invalid byte is reported."""
    [found] = mistakes(b"version: 1\n# caf\xe9\n")
    assert (found.line, found.column) == (2, 6)


@given(st.text(max_size=200))
def test_no_text_raises_anything_but_a_policy_error(text: str) -> None:
    """Any text is either a policy or a PolicyError."""
    mistakes(text.encode("utf-8", "surrogatepass"))


@given(st.lists(st.sampled_from("abc:[]{}-,#&*!|>'\"%@` \n\t~?"), max_size=60))
def test_no_yaml_like_text_raises_anything_else(parts: list[str]) -> None:
    """YAML indicators in any order are reported as mistakes, never raised as other exceptions."""
    mistakes("version: 1\nlocations:\n" + "".join(parts))


def test_the_hash_is_the_files_own() -> None:
    """X-Auth-Policy is what `sha256sum policy.yaml | cut -c1-12` prints."""
    assert policy_hash(b"x\n") == "73cb3858a687"
    text = "version: 1\nlocations: []\n"
    assert policy(text).hash == policy_hash(text.encode())


def test_the_schema_names_every_key() -> None:
    """The JSON Schema knows the keys that the reader knows."""
    schema = policy_schema()
    json.dumps(schema)
    location = schema["properties"]["locations"]["items"]["properties"]
    assert {"name", "allow", "deny", "trust", "mode", "san_matches_host"} <= location.keys()


def test_read_policy_refuses_what_has_a_mistake() -> None:
    """The form alone is checked before anybody relies on it."""
    with pytest.raises(PolicyError):
        read_policy(b"version: 1\nlocations: [{nam: x}]\n", "p")


def test_settings_have_defaults_and_places_for_mistakes() -> None:
    """An empty sidecar.yaml is all defaults; a mistake has its line."""
    assert read_settings(b"# nothing\n", "s") == Settings()
    assert read_settings(b"listen: 127.0.0.1:9640\n", "s").listen == Address(
        host="127.0.0.1", port=9640
    )
    assert read_settings(b"socket_mode: 0666\n", "s").socket_mode == 0o666
    assert not read_settings(b"admin: off\n", "s").admin
    with pytest.raises(PolicyError) as caught:
        read_settings(b"listen: nowhere\nlimits: {header_timeout: 0}\nfoo: 1\n", "s")
    assert [d.line for d in caught.value.diagnostics] == [1, 2, 3]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("locations: [{name: a, allow: verifed}]", "did you mean 'verified'?"),
        ("locations: [{name: a, allow: Public}]", "did you mean 'public'?"),
        ("locations: [{name: a, allow: [{CN: alice}]}]", "did you mean 'cn'?"),
        ("locations: [{Name: a, allow: verified}]", "did you mean 'name'?"),
        ("locations: [{name: a, mode: Monitor, allow: verified}]", "did you mean 'monitor'?"),
        (
            "groups: {admins: [{cn: a}]}\nlocations: [{name: a, allow: [admin]}]",
            "did you mean 'admins'?",
        ),
        ("locations: [{name: a, allow: [them]}]", "add it under groups:"),
        (
            "trust: {s: {ca: ca.crt, denylist: denylist.txt}}\nlocations: []",
            "or create an empty file: touch denylist.txt",
        ),
    ],
)
def test_a_slip_is_told_with_what_was_meant(text: str, told: str) -> None:
    """Similar keys, values and groups are suggested, in any case."""
    found = mistakes(f"version: 1\n{text}\n", ca_crt=CA("Staff").pem)
    assert any(told in str(each) for each in found), found
