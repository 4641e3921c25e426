"""What providers report: of invariant 4, reports that name an address alone and scans of links."""

from __future__ import annotations

from tests.mutations.mutation import Mutation

_DELAYED = "tests/unit/email_service/test_delayed_bounces.py::"
_SCANS = "tests/unit/events_service/test_link_scans.py::"

REPORTING: tuple[Mutation, ...] = (
    Mutation(
        "4s",
        "a bounce that names an address alone counts for one of several mails",
        "services/email/domain/delayed_bounces.py",
        "    if len(found) > 1:\n",
        "    if len(found) > 1 and not any(each.accepted for each in found):\n",
        (
            _DELAYED + "test_of_two_mails_nobody_can_tell_which_has_bounced",
            _DELAYED + "test_two_mails_that_two_weeks_of_the_calendar_hold_are_two",
            _DELAYED + "test_only_one_alone_and_accepted_is_meant",
        ),
    ),
    Mutation(
        "4t",
        "a bounce that names an address alone proves that an attempt without answer was accepted",
        "services/email/domain/delayed_bounces.py",
        "    if not found[0].accepted:\n",
        "    if False:\n",
        (
            _DELAYED + "test_an_attempt_without_answer_may_be_meant_and_proves_nothing",
            _DELAYED + "test_only_one_alone_and_accepted_is_meant",
        ),
    ),
    Mutation(
        "4u",
        "a bounce that waited in the parking lot is taken for that of a mail that went out later",
        "services/email/domain/delayed_bounces.py",
        " and begun_at.replace(microsecond=0) <= at",
        "",
        (
            _DELAYED + "test_a_bounce_that_was_parked_is_not_taken_for_one_of_a_younger_mail",
            _DELAYED + "test_mail_before_the_window_and_after_the_bounce_is_not_meant",
            _DELAYED + "test_whatever_may_be_meant_is_looked_for",
        ),
    ),
    Mutation(
        "4w",
        "which clicks are a scan depends on the order in which they were read",
        "services/events/projections/email_log.py",
        "with_scans_marked(effective(events))",
        "effective(with_scans_marked(list(events)))",
        (
            _SCANS + "test_a_click_is_a_scan_s_exactly_if_some_stretch_has_so_many_links",
            _SCANS + "test_a_retracted_click_is_none",
        ),
    ),
    Mutation(
        "9x",
        "a change of the fold takes what an earlier release made for its own",
        "services/events/projections/projection.py",
        "    earlier=(_EMAIL_LOG_V1,),\n",
        "",
        (_SCANS + "test_the_fold_before_knows_no_scans_and_is_carried_along",),
    ),
)
