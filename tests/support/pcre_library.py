"""The PCRE2 library that Debian's nginx is linked with, asked as nginx asks it."""

from __future__ import annotations

import ctypes
import ctypes.util
from functools import cache

CASELESS = 0x00000008
NO_MATCH = -1
MATCH_LIMIT = -47


class Unsure(Exception):
    """PCRE2 gave up (its match limit): nginx answers 500."""


@cache
def library() -> ctypes.CDLL | None:
    """libpcre2-8, or None where there is none."""
    name = ctypes.util.find_library("pcre2-8")
    if name is None:
        return None
    found = ctypes.CDLL(name)
    found.pcre2_compile_8.restype = ctypes.c_void_p
    found.pcre2_match_data_create_8.restype = ctypes.c_void_p
    return found


class Pattern:
    """One compiled expression.  Raises ValueError where PCRE2 refuses it."""

    def __init__(self, source: bytes, *, ignore_case: bool) -> None:
        pcre2 = library()
        assert pcre2 is not None
        self._library = pcre2
        code, at = ctypes.c_int(), ctypes.c_size_t()
        size, options = ctypes.c_size_t(len(source)), CASELESS if ignore_case else 0
        self._code = pcre2.pcre2_compile_8(
            source, size, options, ctypes.byref(code), ctypes.byref(at), None
        )
        if not self._code:
            raise ValueError(f"PCRE2 error {code.value} at {at.value}")
        self._data = pcre2.pcre2_match_data_create_8(16, None)

    def matches(self, subject: bytes) -> bool:
        """Whether it is found anywhere.  Raises Unsure."""
        size, none = ctypes.c_size_t(len(subject)), ctypes.c_size_t(0)
        found: int = self._library.pcre2_match_8(
            ctypes.c_void_p(self._code), subject, size, none, 0, ctypes.c_void_p(self._data), None
        )
        if found < NO_MATCH:
            raise Unsure(found)
        return found != NO_MATCH

    def __del__(self) -> None:
        if getattr(self, "_code", None):
            self._library.pcre2_match_data_free_8(ctypes.c_void_p(self._data))
            self._library.pcre2_code_free_8(ctypes.c_void_p(self._code))
