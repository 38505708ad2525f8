"""What the sidecar uses of google-re2, which ships no types."""

from typing import AnyStr, Generic

class error(Exception): ...

class Options:
    class Encoding:
        UTF8: Options.Encoding
        LATIN1: Options.Encoding

    max_mem: int
    encoding: Options.Encoding
    posix_syntax: bool
    longest_match: bool
    log_errors: bool
    literal: bool
    never_nl: bool
    dot_nl: bool
    never_capture: bool
    case_sensitive: bool
    perl_classes: bool
    word_boundary: bool
    one_line: bool

class _Match(Generic[AnyStr]):
    def group(self, *groups: int | str) -> AnyStr | None: ...
    def groups(self) -> tuple[AnyStr | None, ...]: ...
    def groupdict(self) -> dict[str, AnyStr | None]: ...
    def span(self, group: int | str = 0) -> tuple[int, int]: ...

class _Regexp(Generic[AnyStr]):
    pattern: AnyStr
    groups: int
    programsize: int
    def search(
        self, text: str | bytes, pos: int | None = None, endpos: int | None = None
    ) -> _Match[AnyStr] | None: ...
    def match(
        self, text: str | bytes, pos: int | None = None, endpos: int | None = None
    ) -> _Match[AnyStr] | None: ...
    def fullmatch(
        self, text: str | bytes, pos: int | None = None, endpos: int | None = None
    ) -> _Match[AnyStr] | None: ...

def compile(pattern: AnyStr, options: Options | None = None) -> _Regexp[AnyStr]: ...
def escape(pattern: AnyStr) -> AnyStr: ...
