"""Why no certificate is given out, in words for the holder, with HTTP's status."""

from __future__ import annotations

from .invitations import InvitationState

GONE = {
    InvitationState.USED: "This invitation was used. Ask for a new one.",
    InvitationState.CANCELLED: "This invitation was cancelled. Ask for a new one.",
    InvitationState.EXPIRED: "This invitation has ended. Ask for a new one.",
    InvitationState.ISSUING: "This invitation is being used at this moment.",
}

WAITS = "This invitation waits for approval."

REVOKED = "Your certificate is revoked."

RENEWED = "Your certificate was renewed already. Ask for a new invitation."

ENOUGH = "Your device has {} certificates that are valid. Use the last one; one has to end first."

TOO_MANY = "{} has {} devices already, which is the most. Have one of them revoked first."


class Refused(Exception):
    """No certificate is given out; the argument tells the holder why, `status` is HTTP's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
