"""Read exemptions: comments in the configuration that accept a finding and give the reason.

    # mtls-sidecar: allow not-asked the status page shows nothing that isn't public
    location /status { … }

The comment holds for the directive behind which it stands on the same line, or else for the next
one, with what is inside of it unless that is a whole `server { }` or more; and for the block right
around it.  Before an `include` it holds for nothing: it belongs into that file.  The reason is
compulsory; of a location that nginx never asks about, which has no line here, it says the name.  An
exemption that matches nothing is a finding itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from .findings import FINDING_KINDS, Finding
from .nginx_config import COMMENT, MARKER, Block, Root

WRITE = f"# {MARKER} allow FINDING-NAME why it is meant"
_WIDE = {"server", "http", "stream", "mail", "events"}


@dataclass(slots=True)
class _Exemption:
    """One comment, and the lines of its file for which it holds."""

    file: str
    line: int
    id: str
    reason: str
    first: int
    last: int
    around: int
    used: bool = False

    def holds_for(self, finding: Finding) -> bool:
        """Whether this finding is meant."""
        return (
            finding.id == self.id
            and finding.file == self.file
            and (self.first <= finding.line <= self.last or finding.line == self.around)
            and (not finding.name or finding.name in re.findall(r"[\w-]+", self.reason))
        )


def accept(root: Root, findings: list[Finding]) -> list[Finding]:
    """The findings, those that are meant marked so, and what is wrong with the exemptions."""
    exemptions, broken = _exemptions(root)
    by_id: dict[tuple[str, str], list[_Exemption]] = {}
    for exemption in exemptions:
        by_id.setdefault((exemption.file, exemption.id), []).append(exemption)
    told = [_accepted(each, by_id.get((each.file, each.id), [])) for each in findings]
    unused = [
        Finding(
            "exemption-unused",
            each.file,
            each.line,
            f"there is no {each.id} here to be allowed",
            "remove the comment",
        )
        for each in exemptions
        if not each.used
    ]
    return sorted([*told, *broken, *unused], key=lambda f: (f.file, f.line, f.id))


def _accepted(finding: Finding, exemptions: list[_Exemption]) -> Finding:
    meant = [each for each in exemptions if each.holds_for(finding)]
    for each in meant:
        each.used = True
    return replace(finding, accepted=meant[0].reason) if meant else finding


def _exemptions(root: Root) -> tuple[list[_Exemption], list[Finding]]:
    found: dict[tuple[str, int], _Exemption] = {}
    broken: dict[tuple[str, int], Finding] = {}
    for note in root.all(COMMENT):
        place = (note.file, note.line)
        told = re.fullmatch(rf"\s*{MARKER}\s*allow\b\s*(\S*)\s*(.*)", note.args[0])
        if told is None:
            continue  # another remark
        if what := _fault(told[1], told[2]):
            broken[place] = Finding("exemption-broken", *place, what, WRITE)
        elif place not in found:  # a file that is included twice says it once
            found[place] = _Exemption(*place, told[1], told[2].strip(), *_lines(note))
    return list(found.values()), list(broken.values())


def _fault(name: str, reason: str) -> str:
    if not name:
        return "an exemption without the name of a finding"
    if name not in FINDING_KINDS:
        return f"no finding is called {name!r}"
    return "" if reason.strip() else "an exemption without a reason"


def _lines(note: Block) -> tuple[int, int, int]:
    """First and last line for which a comment holds, and the line of the block around it."""
    around = note.parent
    assert around is not None
    outer = around.line if around.file == note.file else -1
    same = [e for e in _siblings(around, note) if e.line <= note.line <= e.end]
    behind = [e for e in _siblings(around, note) if e.line > note.line]
    included = [(begin, end) for file, begin, end in around.includes if file == note.file]
    if any(begin <= note.line <= end for begin, end in included) and not same:
        return 0, -1, outer
    nearest = min((begin for begin, _ in included if begin > note.line), default=None)
    if not same and (not behind or (nearest is not None and nearest <= behind[0].line)):
        return 0, -1, outer
    following = same[-1] if same else behind[0]
    last = following.line if following.name in _WIDE else following.end
    return following.line, last, outer


def _siblings(around: Block, note: Block) -> Iterator[Block]:
    """The directives of a block that stand in the comment's own file."""
    yield from (e for e in around.inner if e.name != COMMENT and e.file == note.file)
