"""What the sidecar uses of crossplane, which ships no types."""

from typing import Any

def parse(
    filename: str,
    onerror: Any = None,
    catch_errors: bool = True,
    ignore: tuple[str, ...] = (),
    single: bool = False,
    comments: bool = False,
    strict: bool = False,
    combine: bool = False,
    check_ctx: bool = True,
    check_args: bool = True,
) -> dict[str, Any]: ...
