"""Define the error for an invalid `location`, `server_name` or regular expression."""

from __future__ import annotations


class SelectorError(ValueError):
    """A `location` or `server_name` is invalid.  `args`: the mistake, and what to write instead."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message, hint)

    def __str__(self) -> str:
        return "; ".join(map(str, self.args))
