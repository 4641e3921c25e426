"""Which provider gets a mail: properties of the choice, over any state of any providers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.email.domain.capabilities import Capabilities, unfit
from services.email.domain.routing import DAY_USED, RATE_USED, Now, Wishes, reason_of, route

NAMES = ("ses", "sendgrid", "mailgun", "smtp")

STANDINGS = st.lists(st.sampled_from(NAMES), min_size=1, unique=True).flatmap(
    lambda names: st.tuples(
        *(
            st.builds(
                Now,
                name=st.just(name),
                allowance=st.integers(0, 3),
                why_not=st.just("away"),
                paced=st.sampled_from(["", RATE_USED, DAY_USED]),
                amount=st.integers(0, 5),
            )
            for name in names
        )
    )
)
UNFIT = st.dictionaries(st.sampled_from(NAMES), st.just("too large"))
BLOCKED = st.frozensets(st.sampled_from(NAMES))
PINS = st.none() | st.sampled_from(NAMES)
WISHES = st.builds(Wishes, by=st.sampled_from(["order", "price"]))


@given(STANDINGS, UNFIT, PINS, WISHES, BLOCKED)
def test_what_is_chosen_may_have_the_mail_and_nothing_better_was_passed_over(
    standing: tuple[Now, ...], not_fit: dict[str, str], pin: str | None, wishes: Wishes, blocked: frozenset[str]
) -> None:
    found = route(standing, not_fit, pin, wishes, blocked)
    never = {*not_fit, *blocked}
    able = [each for each in standing if each.usable and each.name not in never and pin in (None, each.name)]
    if not able:
        assert found.chosen is None
    elif wishes.by == "order":
        assert found.chosen == able[0].name
    else:
        assert min(each.amount for each in able) == next(each.amount for each in able if each.name == found.chosen)
    assert route(standing, not_fit, pin, wishes, blocked) == found


@given(STANDINGS, UNFIT, PINS, WISHES, BLOCKED)
def test_every_provider_is_told_of_with_a_reason_and_a_mail_waits_for_those_that_would_carry_it(
    standing: tuple[Now, ...], not_fit: dict[str, str], pin: str | None, wishes: Wishes, blocked: frozenset[str]
) -> None:
    found = route(standing, not_fit, pin, wishes, blocked)
    assert {each.provider for each in found.considered} == {each.name for each in standing}
    assert all(each.why for each in found.considered)
    assert sum(each.why.startswith("chosen") for each in found.considered) == (found.chosen is not None)
    never = {*not_fit, *blocked}
    would = {each.name for each in standing if each.name not in never and pin in (None, each.name)}
    assert set(found.waits_for) == (set() if found.chosen else would)


def test_why_in_a_word() -> None:
    assert reason_of("ses", [], by_wish=True) == "pinned"
    assert reason_of("ses", [], by_wish=False) == "cheapest"
    assert reason_of("ses", ["ses"], by_wish=True) == "retry"
    assert reason_of("mailgun", ["mailgun", "ses"], by_wish=True) == "failover"


def test_a_pin_of_a_template_counts_before_that_of_its_category() -> None:
    wishes = Wishes({"auth": "ses", "template:welcome": "mailgun"})
    assert wishes.pinned("auth", None) == "ses"
    assert wishes.pinned("auth", "welcome") == "mailgun"
    assert wishes.pinned("auth", "2fa-code") == "ses"
    assert wishes.pinned("marketing", "news") is None


def test_what_a_provider_does_not_take_is_told_without_repeating_an_address() -> None:
    strict = Capabilities("structured", 1000, unicode_sender=False, not_in_names=";,")
    assert unfit(strict, "a@mailroom.example") is None
    assert unfit(strict, '"Doe; Jane" <jane@mailroom.example>') is not None
    why = unfit(strict, "a@mailroom.example", ['"Doe, Jane" <jane@inbox.example>'])
    assert why is not None
    assert "jane" not in why
    assert unfit(strict, "jané@mailroom.example") is not None
    assert unfit(Capabilities("mime", 1000), "jané@mailroom.example", ['"Doe, Jane" <jane@inbox.example>']) is None
