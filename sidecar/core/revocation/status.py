"""What a source of revocation says about one certificate: good, revoked or unknown.

It is never a bool: the policy decides what UNKNOWN means.
"""

from __future__ import annotations

import math
from enum import Enum
from typing import NamedTuple


class RevocationStatus(Enum):
    """What a source knows about a certificate."""

    GOOD = "good"
    REVOKED = "revoked"
    UNKNOWN = "unknown"


class Answer(NamedTuple):
    """What one source says about one certificate, at the moment it was asked.

    `until` is the first moment, in seconds since the epoch, at which the same source could say
    something else by the passing of time alone; `math.inf`: never.
    """

    status: RevocationStatus
    source: str
    detail: str = ""
    until: float = math.inf
