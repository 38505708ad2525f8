"""Define the revocation status of a certificate: good, revoked or unknown.

A status is never a bool: the policy decides the meaning of UNKNOWN.
"""

from __future__ import annotations

import math
from enum import Enum
from typing import NamedTuple


class RevocationStatus(Enum):
    """The status of a certificate according to one source."""

    GOOD = "good"
    REVOKED = "revoked"
    UNKNOWN = "unknown"


class Answer(NamedTuple):
    """The answer of one source about one certificate at one moment.

    `until` is the first moment, in seconds since the epoch, at which the answer of the same source
    could change by the passing of time alone; `math.inf`: never.
    """

    status: RevocationStatus
    source: str
    detail: str = ""
    until: float = math.inf
