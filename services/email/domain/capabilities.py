"""What a provider can carry: data, known before a call. No mail is offered to a provider that must refuse it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Of one provider, for one account.

    Attributes:
        form: `mime`: it sends the bytes that we wrote. `structured`: it writes the message itself, of parts.
        most_bytes: of a message as it is handed over, attachments in base64.
        shows_others: whether a recipient sees the other addresses of To and Cc.
        reports: whether it tells by itself what became of a mail. Where it does not, an unknown outcome is settled by
            an operator, or ends as failed.
        unicode_sender: whether the sender's address may hold more than ASCII.
        not_in_names: characters that it takes in no display name.
        most_tags: how many tags (`category` is one) a mail may have; the rest would be refused.
        most_metadata_bytes: of what goes with a mail to come back in its reports; ours are two ids.
    """

    form: Literal["mime", "structured"]
    most_bytes: int
    shows_others: bool = True
    reports: bool = True
    unicode_sender: bool = True
    not_in_names: str = ""
    most_tags: int = 10
    most_metadata_bytes: int = 10_000


def unfit(can: Capabilities, sender: str, others: Iterable[str] = ()) -> str | None:
    """Why it takes no mail from `sender` to or cc these, for people; None where it may.

    Args:
        can: the provider's.
        sender: `name@domain`, or with a display name.
        others: the addresses of To, Cc and Reply-To likewise. No address is repeated in what is returned.
    """
    if not can.unicode_sender and not _split(sender)[1].isascii():
        return "its sender's address holds more than ASCII, which this provider does not take"
    for each in (sender, *others):
        wrong = [character for character in can.not_in_names if character in _split(each)[0]]
        if wrong:
            return f"a display name holds {wrong[0]!r}, which this provider does not take"
    return None


def _split(mailbox: str) -> tuple[str, str]:
    """Display name, with or without quotes, and address. RFC 5322 wants quotes around a name with a comma; names that a
    person wrote into a setting may have none, and are written with them.
    """
    name, _, address = mailbox.strip().removesuffix(">").rpartition("<")
    return name.strip(), address
