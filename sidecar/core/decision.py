"""Define a decision: allow or deny, one reason of a closed set, and the HTTP status."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from sidecar.core.x509.certificate import ClientCert


class Reason(StrEnum):
    """The reason of a decision; also the closed set of values of a metric label."""

    ALLOWED = "allowed"
    PUBLIC = "public"
    EXEMPT = "exempt"
    NO_CERTIFICATE = "no_certificate"
    VERIFY_FAILED = "verify_failed"
    MALFORMED_CERTIFICATE = "malformed_certificate"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    UNTRUSTED_ISSUER = "untrusted_issuer"
    REVOKED = "revoked"
    REVOCATION_UNKNOWN = "revocation_unknown"
    HOST_MISMATCH = "host_mismatch"
    SNI_MISMATCH = "sni_mismatch"
    DENIED_BY_RULE = "denied_by_rule"
    NOT_ALLOWED = "not_allowed"
    UNKNOWN_LOCATION = "unknown_location"
    BAD_REQUEST = "bad_request"


GRANTS = frozenset({Reason.ALLOWED, Reason.PUBLIC, Reason.EXEMPT})

ISSUED = frozenset(
    {
        Reason.ALLOWED,
        Reason.REVOKED,
        Reason.REVOCATION_UNKNOWN,
        Reason.HOST_MISMATCH,
        Reason.SNI_MISMATCH,
        Reason.DENIED_BY_RULE,
        Reason.NOT_ALLOWED,
    }
)
"""Reasons that come after the certificate was found to be issued under a trust anchor."""

_STATUS = {
    Reason.ALLOWED: 204,
    Reason.PUBLIC: 204,
    Reason.EXEMPT: 204,
    Reason.NO_CERTIFICATE: 401,
    Reason.VERIFY_FAILED: 401,
    Reason.MALFORMED_CERTIFICATE: 401,
    Reason.EXPIRED: 401,
    Reason.NOT_YET_VALID: 401,
    Reason.BAD_REQUEST: 400,
}


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a decision: its name, whether the request passed it, and what it observed."""

    name: str
    passed: bool
    saw: str


class Decision(NamedTuple):
    """The answer to nginx and the reason for it.

    `reason` is the policy's own result.  In monitor mode (`monitored`), a reason that denies is
    still answered with an allow.  `expires` is the first moment, in seconds since the epoch, at
    which the same policy could decide the same request differently (`math.inf`: never).
    """

    reason: Reason
    location: str = ""
    rule: str = ""
    roles: tuple[str, ...] = ()
    subject: ClientCert | None = None
    monitored: bool = False
    cache_seconds: int = 0
    expires: float = math.inf
    forward_cert: bool = False
    detail: str = ""

    @property
    def granted(self) -> bool:
        """Whether the policy grants the request; monitor mode is not considered."""
        return self.reason in GRANTS

    @property
    def allowed(self) -> bool:
        """Whether the answer lets the request through."""
        return self.granted or self.monitored

    @property
    def status(self) -> int:
        """The HTTP status of the answer: 204, 401, 403 or 400."""
        return 204 if self.allowed else _STATUS.get(self.reason, 403)

    @property
    def verdict(self) -> str:
        """The word `allow` or `deny`, for the log and the metric label."""
        return "allow" if self.allowed else "deny"
