"""The error of a `location`, a `server_name` or a regular expression that can't be taken."""

from __future__ import annotations


class SelectorError(ValueError):
    """A `location` or `server_name` can't be read.  `args`: what is wrong, what to write."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message, hint)

    def __str__(self) -> str:
        return "; ".join(map(str, self.args))
