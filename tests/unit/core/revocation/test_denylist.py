"""Read denylists: what a line denies, until when, and each mistake with its place."""

from __future__ import annotations

import contextlib
import math
import tracemalloc
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.errors import PolicyError
from sidecar.core.policy.long_denylists import ENTRY_OCTETS
from sidecar.core.revocation import denylist as module
from sidecar.core.revocation.denylist import (
    MAX_DIAGNOSTICS,
    DenylistReader,
    format_entry,
    is_same,
    joined,
    one_entry,
    parse_denylist,
    read_denylist,
    read_lines,
)
from sidecar.core.revocation.status import Answer, RevocationStatus

SHA, SPKI = "ab" * 32, "cd" * 32
NOW = datetime(2026, 6, 1, 12, tzinfo=UTC).timestamp()


def ask(
    text: str, serial: int = 1, sha256: str = "0" * 64, spki: str = "0" * 64, now: float = NOW
) -> Answer | None:
    return parse_denylist(text.encode(), "deny.txt").lookup(serial, sha256, spki, now)


def mistakes(text: str | bytes) -> list[str]:
    data = text if isinstance(text, bytes) else text.encode()
    with pytest.raises(PolicyError) as caught:
        parse_denylist(data, "deny.txt")
    return [str(each) for each in caught.value.diagnostics]


# -- what a line denies


@pytest.mark.parametrize(
    "written",
    ["0A1B2C", "a1b2c", "0A:1B:2C", "0x0a1b2c", "000000000000000000000000000000000A1B2C"],
)
def test_a_serial_is_compared_as_a_number(written: str) -> None:
    """The certificate is denied with any spelling of its serial number."""
    assert ask(f"serial {written}\n", serial=0x0A1B2C) is not None
    assert ask(f"serial {written}\n", serial=0x0A1B2D) is None


@pytest.mark.parametrize("serial", [0, -1, -0x80, 2**159, 2**400 + 7, 2**1023 - 1])
def test_strange_serials_are_denied_too(serial: int) -> None:
    """Zero, negative and very long serial numbers are found as `format_entry` writes them."""
    line = format_entry("serial", f"{serial:x}")
    assert ask(line, serial=serial) is not None
    assert ask(line, serial=serial + 1) is None


@pytest.mark.parametrize(
    "shape", [str.lower, str.upper, lambda s: ":".join([s[i : i + 2] for i in range(0, 64, 2)])]
)
def test_fingerprints_deny_certificates_and_keys(shape: object) -> None:
    """`sha256` denies one certificate, or all with the key of that SHA-256, since who has 64 digits
    may have hashed either; `spki_sha256` denies keys alone."""
    assert callable(shape)
    assert ask(f"sha256 {shape(SHA)}", sha256=SHA) is not None
    assert ask(f"sha256 {shape(SHA)}", spki=SHA) is not None
    assert ask(f"sha256 {shape(SHA)}", sha256=SPKI, spki=SPKI) is None
    assert ask(f"spki_sha256 {shape(SPKI)}", spki=SPKI) is not None
    assert ask(f"spki_sha256 {shape(SPKI)}", sha256=SPKI) is None


def test_the_answer_names_line_and_reason() -> None:
    """The answer names the line and its comment, for the log."""
    text = "# header\n\nserial 1 until 2026-12-31 # alice, laptop stolen\n"
    end = datetime(2027, 1, 1, tzinfo=UTC).timestamp()
    assert ask(text) == Answer(
        RevocationStatus.REVOKED,
        "denylist deny.txt:3",
        "serial 01 until 2027-01-01T00:00:00Z # alice, laptop stolen",
        end,
    )


@pytest.mark.parametrize("text", ["", "\n\n", "# nobody\n", "   \t\r\n  # nobody", "\ufeff# x"])
def test_an_empty_list_denies_nobody(text: str) -> None:
    """Blank lines, comments, a byte order mark and CR LF are accepted."""
    assert ask(text) is None


def test_crlf_and_no_last_line_feed() -> None:
    """CR LF line ends and a missing last line feed make no difference."""
    assert ask("serial 2\r\nserial 1") is not None


# -- until


@pytest.mark.parametrize(
    ("until", "last"),
    [
        ("2026-06-30", datetime(2026, 6, 30, 23, 59, 59, 999999, tzinfo=UTC)),
        ("2026-06-30T18:00:00Z", datetime(2026, 6, 30, 17, 59, 59, 999999, tzinfo=UTC)),
        ("2026-06-30T18:00:00+02:00", datetime(2026, 6, 30, 15, 59, 59, 999999, tzinfo=UTC)),
    ],
)
def test_an_entry_ends(until: str, last: datetime) -> None:
    """A day is included completely (UTC); a time itself is excluded."""
    text = f"serial 1 until {until}"
    assert ask(text, now=last.timestamp()) is not None
    assert ask(text, now=last.timestamp() + 1e-4) is None


def test_without_an_end_it_holds_for_ever() -> None:
    """An entry without `until` never ends."""
    answer = ask("serial 1", now=1e11)
    assert answer is not None
    assert answer.until == math.inf


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_entries_the_longer_one_counts(order: int) -> None:
    """A second entry about the same certificate never shortens the first."""
    lines = ["serial 1 until 2026-01-01", "serial 1 until 2027-01-01"][::order]
    assert ask("\n".join(lines)) is not None
    assert ask("\n".join([*lines, "serial 1"]), now=1e11) is not None


def test_an_ended_serial_leaves_the_fingerprint_in_force() -> None:
    """The entries for a certificate's serial number and fingerprint are independent."""
    assert ask(f"serial 1 until 2020-01-01\nsha256 {SHA}", sha256=SHA) is not None


# -- mistakes


def test_all_mistakes_at_once_with_their_places() -> None:
    """Every mistake is reported in one run: file, line, column, and what to write instead."""
    text = (
        "serial 1\n"
        "seriall 2\n"
        "  sha256 abc\n"
        "serial\n"
        "serial 1 2\n"
        "serial 1 until\n"
        "serial 1 until tomorrow\n"
        "serial 1 until 2026-01-01 bob\n"
        "serial 1G\n"
    )
    found = mistakes(text)
    assert [each.split(" ", 1)[0] for each in found] == [
        "deny.txt:2:1:",
        "deny.txt:3:10:",
        "deny.txt:4:1:",
        "deny.txt:5:10:",
        "deny.txt:6:10:",
        "deny.txt:7:16:",
        "deny.txt:8:27:",
        "deny.txt:9:8:",
    ]
    assert "did you mean 'serial'?" in found[0]
    assert "2027-01-31" in found[5]


def test_bytes_that_are_no_text() -> None:
    """A binary file is refused at its first octet that isn't UTF-8, with one mistake."""
    assert mistakes(b"serial 1 # \xff") == ["deny.txt:1:12: not UTF-8; save the file as UTF-8"]
    assert len(mistakes(b"\xff\n" * 5000)) == MAX_DIAGNOSTICS


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    """Any bytes raise only the documented error."""
    with contextlib.suppress(PolicyError):
        parse_denylist(data, "deny.txt").lookup(1, SHA, SPKI, NOW)


# -- writing


@given(st.integers(-(2**200), 2**200), st.text(max_size=60))
def test_a_written_line_reads_back(serial: int, comment: str) -> None:
    """Any comment gives a single line that denies the same entry."""
    line = format_entry("serial", f"{serial:x}", "2026-12-31", comment)
    assert len(line.splitlines()) == 1
    denylist = parse_denylist(f"serial 7777\n{line}\n".encode(), "deny.txt")
    assert denylist.lookup(serial, SHA, SPKI, NOW) is not None


@pytest.mark.parametrize(
    ("kind", "value", "until"),
    [
        ("serial", "", ""),
        ("serial", "1 until", ""),
        ("serial", "1\nserial 2", ""),
        ("serial", "1#", ""),
        ("#", "1", ""),
        ("name", "1", ""),
        ("sha256", "12", ""),
        ("serial", "1", "soon"),
        ("serial", "1", "2026-01-01 2026-01-02"),
    ],
)
def test_only_entries_are_written(kind: str, value: str, until: str) -> None:
    """A value that would be parsed as something else is refused."""
    with pytest.raises(ValueError, match=r"\S"):
        format_entry(kind, value, until, "why")


# -- a file that is partly broken


def test_a_bad_line_holds_up_no_other() -> None:
    """Lines before and after an invalid one take effect, and the invalid one is reported."""
    text = f"serial 1\nserial what\nsha256 {SHA}\n" + "junk\n" * 3000 + f"spki_sha256 {SPKI}\n"
    found, said = read_denylist(text.encode(), "deny.txt")
    assert found.lookup(1, "0" * 64, "0" * 64, NOW) is not None
    assert found.lookup(2, SHA, "0" * 64, NOW) is not None
    assert found.lookup(2, "0" * 64, SPKI, NOW) is not None
    assert said[0].line == 2
    assert len(said) == MAX_DIAGNOSTICS


def test_a_comment_that_is_no_text_spoils_no_entry() -> None:
    """The mistake is reported, and the entry before the comment still denies."""
    found, said = read_denylist(b"serial 7 # M\xfcller\n", "deny.txt")
    assert found.lookup(7, "0" * 64, "0" * 64, NOW) is not None
    assert "not UTF-8" in said[0].message


def test_joined_denies_what_either_denies() -> None:
    """Of two entries with the same value, the longer one applies, from either list."""
    older = parse_denylist(b"serial 1\nserial 2 until 2026-01-01\n", "deny.txt")
    newer = parse_denylist(b"serial 2\nserial 1 until 2026-01-01\nserial 3\n", "deny.txt")
    both = joined(older, newer)
    assert all(both.lookup(n, "0" * 64, "0" * 64, NOW) for n in (1, 2, 3))


@given(st.binary(max_size=200), st.lists(st.integers(1, 99), max_size=5))
def test_whatever_stands_between_good_lines_deny(junk: bytes, serials: list[int]) -> None:
    """Any bytes on other lines leave the valid lines in force."""
    lines = [f"serial {n:x}".encode() for n in serials]
    found, _ = read_denylist((b"\n" + junk + b"\n").join(lines), "deny.txt")
    assert all(found.lookup(n, "0" * 64, "0" * 64, NOW) for n in serials)


def test_every_line_is_read_on_its_own() -> None:
    """`read_lines` returns every octet of a file, and the meaning of each line."""
    data = b"\xef\xbb\xbfserial 0A:1B\n# nobody\n\nserial ??\nsha256 " + SHA.encode()
    found = list(read_lines(data, "deny.txt"))
    assert b"".join(raw for raw, _ in found) == data
    kinds = [type(said).__name__ for _, said in found]
    assert kinds == ["DenylistEntry", "NoneType", "NoneType", "Diagnostic", "DenylistEntry"]
    assert [said.line for _, said in found if said is not None] == [1, 4, 5]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_line_ends_as_in_any_editor(end: str) -> None:
    """A comment ends with its line, also where CR alone ends it: the lines behind it deny."""
    text = end.join(["# stolen", "serial 0A # alice's", "serial 0B", "serial ??", "serial 0C"])
    found, mistakes = read_denylist(text.encode(), "deny.txt")
    assert sorted(serial for _, serial in found.entries) == [0x0A, 0x0B, 0x0C]
    assert [each.line for each in mistakes] == [4]
    lines = list(read_lines(text.encode(), "deny.txt"))
    assert "".join(raw.decode() for raw, _ in lines) == text
    assert [said.line for _, said in lines if said is not None] == [2, 3, 4, 5]


def utf16(text: str, order: str) -> bytes:
    return text.encode(f"utf-16-{order}")


@pytest.mark.parametrize("mark", [b"", b"\xff\xfe"])
@pytest.mark.parametrize("order", ["le", "be"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_utf16_is_a_mistake_and_every_line_denies(mark: bytes, order: str, end: str) -> None:
    """PowerShell's `>` writes UTF-16, and its `>>` appends it to a file that isn't."""
    mark = mark[::-1] if order == "be" else mark
    text = end.join(["serial 0A # Jürgen's, 上 Ċ", "", f"sha256 {SHA}", "serial 0B"]) + end
    for data in (
        mark + utf16(text, order),
        b"serial 0C # x\n" + utf16(text, order),
        mark + utf16(text, order) + b"serial 0C\n",  # as `revoke` appends
        (mark + utf16(text, order)).removesuffix(b"\0") + b"\nserial 0C",
    ):
        found, mistakes = read_denylist(data, "deny.txt")
        wanted = {("serial", 0x0A), ("serial", 0x0B), ("sha256", int(SHA, 16))}
        assert found.entries.keys() - {("serial", 0x0C)} == wanted
        assert (("serial", 0x0C) in found.entries) is (b"serial 0C" in data)
        assert any("save the file as UTF-8" in each.hint for each in mistakes)
        assert b"".join(raw for raw, _ in read_lines(data, "deny.txt")) == data


@pytest.mark.parametrize("order", ["le", "be"])
def test_files_in_utf16_that_were_joined_deny_by_every_line(order: str) -> None:
    """The second one's mark stands behind the half of a line end, in UTF-16 of this order."""
    mark = b"\xff\xfe" if order == "le" else b"\xfe\xff"
    both = [mark + utf16(f"serial {number}\r\n", order) for number in ("0A", "0B")]
    found, _ = read_denylist(b"".join(both), "deny.txt")
    assert sorted(number for _, number in found.entries) == [0x0A, 0x0B]


def test_a_mark_before_any_line_counts_for_nothing() -> None:
    """Files that were joined have one in the middle; the line behind it denies."""
    assert ask("\ufeffserial 2\n\ufeffserial 1\n") is not None


@pytest.mark.parametrize("line", [b"serial \x0001", b"\0serial 01", b"serial 01\0", b"s\0erial 01"])
def test_a_nul_is_a_mistake_and_its_line_denies(line: bytes) -> None:
    """So do the other lines."""
    data = b"serial 02\n" + line + b"\nserial 03"
    found, told = read_denylist(data, "deny.txt")
    assert sorted(number for _, number in found.entries) == [1, 2, 3]
    assert [each.line for each in told] == [2]
    assert mistakes(b"\0" * 4096)  # what a crash may leave


@pytest.mark.parametrize(("other", "same"), [("a1b", True), ("0xA1B", True), ("-a1b", False)])
def test_entries_are_the_same_in_any_spelling(other: str, same: bool) -> None:
    """`is_same` compares kind and number, with any spelling of the value."""
    assert is_same(one_entry("serial", "0A:1B"), one_entry("serial", other)) == same
    assert not is_same(one_entry("serial", SHA), one_entry("sha256", SHA))


@pytest.mark.parametrize("end", ["\x0b", "\x0c", "\x85", "\u2028", "\u2029"])
def test_what_ends_a_line_or_page_elsewhere_ends_a_comment(end: str) -> None:
    """Word processors and editors write these: an entry behind one denies, in the same line."""
    text = f"serial 1 # old{end}serial 2 # new\nserial 3\n"
    found, wrong = read_denylist(text.encode(), "deny.txt")
    assert not wrong
    assert [(each.value, each.line) for each in found.entries.values()] == [
        ("01", 1),
        ("02", 1),
        ("03", 2),
    ]
    raws = [raw for raw, _ in read_lines(text.encode(), "deny.txt")]
    assert b"".join(raws) == text.encode()
    assert len(raws) == 3


@pytest.mark.parametrize("gap", [" ", "\t", "  "])
@pytest.mark.parametrize("note", ["", "#", "# a, b", "#  a # b ", "# é"])
def test_a_usual_line_is_read_as_any_other(gap: str, note: str) -> None:
    """The fast path for long lists gives what the reader of every spelling gives."""
    value = "ab" * 32
    for kind in ("sha256", "spki_sha256"):
        usual, _ = read_denylist(f"{kind}{gap}{value}{gap}{note}".encode(), "f")
        other, _ = read_denylist(f"{kind}{gap}{value.upper()}{gap}{note}".encode(), "f")
        assert list(usual.entries.items()) == list(other.entries.items())
        assert len(usual.entries) == 1


@pytest.mark.parametrize("kept", ["front", "end", "both", "shuffled", "less"])
def test_a_line_of_the_version_before_is_not_parsed_again(
    monkeypatch: pytest.MonkeyPatch, kept: str
) -> None:
    """What is read is the same as without it, line numbers too; only a new line is parsed."""
    old = [f"serial {number:X} until 2027-01-31 # {number}\n" for number in range(10, 40)]
    old += ["# a note\n", "\n", "serial 0A\r\n", "serial 1 # a\x0bserial 2\n"]
    new = {
        "front": [*old, "serial FF\n"],
        "end": ["serial FF\n", *old],
        "both": [*old[:9], "serial FF\n", *old[9:]],
        "shuffled": [*old[20:], "serial FF\n", *old[:20]],
        "less": ["serial FF\n", *old[5:]],
    }[kept]
    reader = DenylistReader("deny.txt")
    reader.read("".join(old).encode())
    parsed = []

    def read_line(raw: bytes, *more: Any) -> Any:
        parsed.append(raw)
        return parse(raw, *more)

    parse = module._read_line
    monkeypatch.setattr(module, "_read_line", read_line)
    found, mistakes = reader.read("".join(new).encode())
    assert not mistakes
    assert parsed == [b"serial FF"]
    assert found.entries == read_denylist("".join(new).encode(), "deny.txt")[0].entries


@pytest.mark.parametrize(
    "line",
    [
        "SECRET",
        "SECRET:x:0:0",
        "serial SECRET",
        "sha256 SECRET",
        f"sha256 {'5EC2E7' * 7}",
        "spki_sha256 SECRET",
        "serial 0A SECRET",
        "serial 0A until SECRET",
        "serial 0A until 2027-01-31 SECRET",
        "\N{SNOWMAN}SECRET",
    ],
)
def test_a_mistake_does_not_tell_what_the_file_says(line: str) -> None:
    """Any file may be named as a denylist, and who asks /readyz may not read it: line, column and
    kind of the mistake are told, and no word of it."""
    (mistake,) = read_denylist(f"# one\n{line}\n".encode(), "list.txt")[1]
    assert (mistake.file, mistake.line) == ("list.txt", 2)
    assert "SECRET" not in str(mistake)
    assert "5EC2E7" not in str(mistake)
    assert "character" in mistake.message


def test_a_mistake_is_told_of_every_version() -> None:
    """Also where it is in a line that the version before had; with the line's number now."""
    reader = DenylistReader("deny.txt")
    for blank in (b"", b"", b"\n"):
        data = blank + b"serial 1\nserial\nserial 2 # M\xfcller\n"
        found, mistakes = reader.read(data)
        assert (found.entries, mistakes) == _whole(data)
        assert len(mistakes) == 2


def _whole(data: bytes) -> tuple[Any, Any]:
    found, mistakes = read_denylist(data, "deny.txt")
    return found.entries, mistakes


def test_lines_are_split_in_portions_as_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever their ends."""
    data = b"\xef\xbb\xbfserial 1\r\nserial 2\rserial 3 # a\x0bserial 4\n\nserial 5"
    data += b"\xe2\x80\xa8serial 6"
    whole = _whole(data)
    for size in range(1, len(data)):
        monkeypatch.setattr(module, "_PORTION", size)
        assert _whole(data) == whole
    assert len(whole[0]) == 6


def test_a_long_list_takes_little_memory() -> None:
    """Also while it changes, and both are held: `check` counts on it."""
    lines = [f"sha256 {number:064x} # 2026-01-01 10:00:00Z, alice, lost" for number in range(5000)]
    reader, data = DenylistReader("deny.txt"), "\n".join(lines).encode()
    longer = "\n".join(["serial 01", *lines]).encode()
    tracemalloc.start()
    try:
        first, _ = reader.read(data)
        second, _ = reader.read(longer)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(second.entries) == len(first.entries) + 1 == 5001
    assert most / 5000 < ENTRY_OCTETS
