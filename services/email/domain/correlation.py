"""How a provider's notification finds the message and the attempt that it is about.

The sender writes both ids twice: as tags of the call (SES returns them in event publishing) and as headers of the
message (SES returns them in identity notifications, when headers are switched on). SendGrid and Mailgun return the
variables of the call.
"""

from __future__ import annotations

from dataclasses import dataclass

MESSAGE_TAG = "mailroom-message-id"
ATTEMPT_TAG = "mailroom-attempt-id"
MESSAGE_VARIABLE = "mailroom_message_id"
ATTEMPT_VARIABLE = "mailroom_attempt_id"
MESSAGE_HEADER = "X-Mailroom-Message-Id"
ATTEMPT_HEADER = "X-Mailroom-Attempt-Id"


@dataclass(frozen=True, slots=True)
class Correlation:
    """The message, and where it is known the attempt, that a notification is about.

    `recipient`: the attempt's, in our spelling, where it was looked up.
    """

    message_id: str
    attempt_id: str | None = None
    recipient: str | None = None
