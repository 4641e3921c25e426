"""What a provider takes of a mail, known before a call."""

from __future__ import annotations

import pytest

from services.email.domain.capabilities import Capabilities, unfit

ANYTHING = Capabilities("mime", 1_000)
PICKY = Capabilities("structured", 1_000, unicode_sender=False, not_in_names=";,")
SENDER = "Mailroom <no-reply@mailroom.example>"


@pytest.mark.parametrize(
    "mailbox",
    ["Ann; Bob <a@b.example>", '"Ann; Bob" <a@b.example>', "Miller, Ann <a@b.example>", '"Miller, Ann" <a@b.example>'],
)
def test_a_name_with_a_character_that_is_not_taken_is_unfit_with_quotes_or_without(mailbox: str) -> None:
    for why in (unfit(PICKY, mailbox), unfit(PICKY, SENDER, [mailbox])):
        assert why is not None
        assert "@" not in why
    assert unfit(ANYTHING, mailbox, [mailbox]) is None


@pytest.mark.parametrize(
    "mailbox", ["a@b.example", "Ann <a@b.example>", "Jörg Ü <a@b.example>", '"a,b"@x.example', 'Ann <"a,b"@x.example>']
)
def test_such_a_character_in_an_address_is_fit(mailbox: str) -> None:
    assert unfit(PICKY, mailbox, [mailbox]) is None


def test_a_senders_address_outside_ascii_is_unfit_and_a_recipients_is_not() -> None:
    assert unfit(PICKY, "Ann <jörg@b.example>") is not None
    assert unfit(PICKY, SENDER, ["jörg@b.example"]) is None
