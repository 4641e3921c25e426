"""Invariants 1, 2 and 7: who may call, what silence means, whom nobody writes to."""

from __future__ import annotations

from tests.mutations.mutation import Mutation

CALLS = "services/email/entrypoints/sender_calls.py"
PLAN = "services/email/entrypoints/sender_plan.py"
SENDER = "services/email/entrypoints/sender.py"
DECISIONS = "services/email/domain/decisions.py"
MESSAGE = "services/email/domain/message.py"
SES = "services/email/adapters/ses.py"
SMTP = "services/email/adapters/smtp.py"
DAILY = "services/kit/daily_mongo.py"
STREAMS = "services/kit/event_store/documents.py"
APPEND = "services/kit/event_store/mongo_append.py"

_SENDER = "tests/unit/email_service/test_sender.py::"
_CRASHES = "tests/unit/email_service/test_sender_crashes.py::"
_SENDING = "tests/unit/email_service/test_decide_sending.py::"
_TWICE = "tests/unit/email_service/test_decide_never_twice.py::TestSending::runTest"
_TWICE_MORE = "tests/unit/email_service/test_decide_never_twice.py::TestSendingOnceMore::runTest"
_RESEND = "tests/unit/email_service/test_decide_resend.py::"
_SETTLING = "tests/unit/email_service/test_decide_settling.py::"
_RECIPIENT = "tests/unit/email_service/test_decide_recipient.py::"
_ANSWERS = "tests/unit/email_service/test_ses_answers.py::"
_PARTS = "tests/unit/email_service/test_sender_parts.py::"
_PROVIDER = "tests/ports/test_mail_provider.py::"
_SMTP = "tests/ports/test_mail_provider_smtp.py::"
_STORE = "tests/ports/test_event_store.py::"
_LICENCE = "tests/unit/email_service/test_sender_licence.py::"
_RECORD = "tests/unit/email_service/test_sender_record.py::"
_DAILY = "tests/unit/email_service/test_sender_daily.py::"
_ROUTER = "tests/unit/email_service/test_router_properties.py::"
_COUNTS = "tests/ports/test_daily_counts.py::"
_BY_MAIL = "tests/unit/email_service/test_unsubscribe_mail.py::"
_SUPPRESSED = "tests/unit/email_service/test_sender_suppression.py::"

SENDING: tuple[Mutation, ...] = (
    Mutation(
        "1a",
        "a delivery that is open or unknown is licensed again",
        DECISIONS,
        "if len(set(wanted)) != len(wanted) or not set(wanted) <= set(allowed):",
        "if len(set(wanted)) != len(wanted):",
        (_SENDING + "test_a_queued_delivery_is_licensed_once",),
    ),
    Mutation(
        "1b",
        "MongoDB takes an append whatever the stream's version is",
        STREAMS,
        'return UpdateOne({"_id": before.stream_id, "version": before.version}, update, upsert=True)',
        'return UpdateOne({"_id": before.stream_id}, update, upsert=True)',
        (_STORE + "TestAppending::test_of_two_on_one_version_one_wins",),
    ),
    Mutation(
        "1c",
        "an append without answer counts as confirmed though its attempt is not in the stream",
        PLAN,
        "if attempts and isinstance(result, AppendOutcomeUnknown) and _stands(held, attempts):",
        "if attempts and isinstance(result, AppendOutcomeUnknown):",
        (_SENDER + "test_appends_without_answer_lose_and_double_nothing",),
    ),
    Mutation(
        "1d",
        "a call is made though its licence has lapsed",
        CALLS,
        "if began - wave.begun >= self._limits.licence:",
        "if began - wave.begun >= 1000 * self._limits.licence:",
        (_CRASHES + "test_a_licence_that_lapsed_is_not_used_and_closed",),
    ),
    Mutation(
        "1e",
        "a licence counts from the confirmation of its append and not from its beginning",
        PLAN,
        "        results = await self._streams.append([*steps, *(step for _, step in failing)])\n",
        "        results = await self._streams.append([*steps, *(step for _, step in failing)])\n"
        "        begun = self._clock.monotonic()\n",
        (_LICENCE + "test_a_licence_counts_from_the_beginning_of_its_append",),
    ),
    Mutation(
        "1f",
        "a licence found by reading back counts from the reading",
        PLAN,
        "self._confirmed(work, attempts, begun, turn)\n                    continue",
        "self._confirmed(work, attempts, self._clock.monotonic(), turn)\n                    continue",
        (_LICENCE + "test_a_licence_counts_from_the_beginning_of_its_append",),
    ),
    Mutation(
        "1g",
        "a lapsed licence is left open instead of being closed by its holder",
        CALLS,
        'return NotCalled("the licence had lapsed")',
        'return Unknown("the licence had lapsed")',
        (_CRASHES + "test_a_licence_that_lapsed_is_not_used_and_closed",),
    ),
    Mutation(
        "1h",
        "an attempt whose append turned up late is not closed by its holder",
        SENDER,
        "if self._planner.ghosts and isinstance(state, Message):",
        "if False and isinstance(state, Message):",
        (_LICENCE + "test_an_attempt_that_turns_up_late_is_closed_by_its_holder",),
    ),
    Mutation(
        "1i",
        "an attempt is recorded without a rate token",
        PLAN,
        "return grant.granted\n",
        "return wanted\n",
        (_SENDER + "test_rate_tokens_are_had_before_an_attempt_is_recorded",),
    ),
    Mutation(
        "1j",
        "more attempts are open than the process has places for",
        PLAN,
        "room = min(free if urgent or free == 1 else free - URGENT_PLACES, open_to)\n",
        "room, self._places.limit = open_to, 1000\n",
        (_LICENCE + "test_no_more_attempts_are_recorded_than_there_are_places",),
    ),
    Mutation(
        "1k",
        "a lost answer is read back from what no majority has acknowledged",
        "services/kit/mongo.py",
        'readConcernLevel="majority"',
        'readConcernLevel="local"',
        ("tests/integration/test_kit_mongo.py::test_concerns_cannot_be_weakened_by_the_url",),
    ),
    Mutation(
        "1l",
        "an append that got no answer is taken for appended without reading back",
        APPEND,
        "            return _open(items, type(error).__name__)\n",
        "            codes, acknowledged = {}, True\n",
        ("tests/integration/test_event_store_mongo.py::TestLostAnswers::test_another_writer_in_between_is_a_conflict",),
    ),
    Mutation(
        "1m",
        "what was decided stands for a stream that has grown on",
        "services/email/streams.py",
        "hold(result.stream) if has_grown(append, result) else Held(result.stream, state)",
        "Held(result.stream, state)",
        (_RECORD + "test_what_is_read_back_and_has_grown_is_held_as_it_stands",),
    ),
    Mutation(
        "1n",
        "recipients are attempted whom a limit of the day does not leave",
        PLAN,
        "        _share(picks, granted)\n",
        "        _share(picks, wanted)\n",
        (
            _DAILY + "test_what_is_over_the_ramp_waits_and_other_mail_goes_past_it",
            _DAILY + "test_when_a_provider_s_day_is_used_up_mail_goes_to_the_next_and_says_why",
            _ROUTER + "test_plans_reach_each_limit",
        ),
    ),
    Mutation(
        "1o",
        "MongoDB counts more recipients than the day leaves",
        DAILY,
        '{"$max": [0, {"$min": [wanted, self._left(wanted, limit)]}]}',
        "wanted",
        (
            _COUNTS + "test_many_at_once_are_granted_the_limit_and_no_more",
            "tests/integration/test_sender_daily.py::"
            "test_two_processes_together_keep_to_the_ramp_and_to_the_provider_s_day",
        ),
    ),
    Mutation(
        "1p",
        "recipients are given back to the day whatever came of their attempts",
        "services/email/entrypoints/sender_daily.py",
        "sum(isinstance(outcome, Rejected | NotCalled) for outcome in wave.outcomes.values())",
        "len(wave.outcomes)",
        (_DAILY + "test_silence_counts",),
    ),
    Mutation(
        "1q",
        "what was counted yesterday is given back to today",
        DAILY,
        '{"_id": key, "day": day.isoformat()}',
        '{"_id": key}',
        (_COUNTS + "test_a_new_day_begins_with_nothing_used_and_takes_back_nothing_of_the_day_before",),
    ),
    Mutation(
        "1r",
        "a limit of the day is that of the process's clock and not of the store's",
        DAILY,
        '{"case": {"$eq": ["$day", day.isoformat()]}, "then": left}',
        '{"case": day == today, "then": left}',
        (_COUNTS + "test_the_limit_is_that_of_the_store_s_day_whatever_a_process_s_clock_says",),
    ),
    Mutation(
        "2a",
        "an unknown attempt may be sent again",
        MESSAGE,
        "    return OutcomeUnknown(who, attempts, spent, min(known), again)\n",
        "    return Queued(who, time, attempts, spent)\n",
        (
            _SENDING + "test_silence_is_never_sent_again",
            _SENDER + "test_silence_is_recorded_and_never_repeated",
            _TWICE,
        ),
    ),
    Mutation(
        "2b",
        "a 5xx of SES counts as a refusal",
        SES,
        "    elif status >= 500 or status < 400:\n",
        "    elif status < 400:\n",
        (_PROVIDER + "test_no_clear_answer_is_unknown_and_called_once",),
    ),
    Mutation(
        "2c",
        "any lost connection counts as one that never stood",
        SES,
        "if isinstance(error, EndpointConnectionError | SSLError) and isinstance(cause, aiohttp.ClientConnectorError):",
        "if isinstance(error, EndpointConnectionError | SSLError):",
        (_PROVIDER + "test_no_clear_answer_is_unknown_and_called_once",),
    ),
    Mutation(
        "2d",
        "the client library repeats a send by itself",
        "services/kit/aws.py",
        '        retries={"total_max_attempts": 1},\n',
        "",
        ("tests/unit/kit/test_aws.py::test_a_send_goes_out_exactly_once_whatever_happens",),
    ),
    Mutation(
        "2e",
        "a call that outlasts its time limit counts as not made",
        CALLS,
        'outcome = Unknown(f"no answer within {self._limits.call:g} s")',
        'outcome = NotCalled(f"no answer within {self._limits.call:g} s")',
        (_SENDER + "test_a_call_beyond_its_time_limit_is_unknown",),
    ),
    Mutation(
        "2f",
        "a call that is cut off at the end of the process counts as not made",
        CALLS,
        'self._answer(wave, planned, Unknown("the call was cancelled"))',
        'self._answer(wave, planned, NotCalled("the call was cancelled"))',
        (_SENDER + "test_stopping_cuts_off_calls_that_take_too_long_as_unknown",),
    ),
    Mutation(
        "2g",
        "an operator may settle an attempt whose call may still be under way",
        DECISIONS,
        "    if attempt.begun_at + policy.call_window > now:\n",
        "    if attempt.begun_at > now:\n",
        (
            "tests/unit/email_service/test_settler.py::test_an_operator_lists_and_settles_unknown_attempts",
            _SETTLING + "test_an_operator_settles_only_after_the_call_must_be_over_and_only_the_unknown",
        ),
    ),
    Mutation(
        "2h",
        "a late no brings back a delivery that had ended as unknown",
        MESSAGE,
        "    if not isinstance(delivery, Open | OutcomeUnknown) or attempts == ",
        "    if not isinstance(delivery, Open | OutcomeUnknown | Failed) or attempts == ",
        (_SENDING + "test_a_late_no_makes_an_unknown_delivery_queued_again_but_not_a_failed_one",),
    ),
    Mutation(
        "2i",
        "a late no undoes a proof of acceptance",
        MESSAGE,
        "    if not isinstance(delivery, Open | OutcomeUnknown) or attempts == ",
        "    if not isinstance(delivery, Open | OutcomeUnknown | Sent) or attempts == ",
        (_SETTLING + "test_the_caller_s_late_answer_never_undoes_a_proof",),
    ),
    Mutation(
        "2j",
        "a fact does not settle the attempt it is about",
        DECISIONS,
        "    if delivery is None or attempt.accepted or (isinstance(delivery, Sent) and not attempt.unanswered):\n",
        "    if delivery is None or attempt.unknown_since:\n",
        ("tests/unit/email_service/test_settler.py::test_a_fact_settles_an_attempt_without_answer_once",),
    ),
    Mutation(
        "2s",
        "a connection that SMTP loses after the dot counts as a refusal",
        SMTP,
        'return Unknown(f"the connection was lost after the message ({type(error).__name__})")',
        'return Rejected("connectionLost", f"the connection was lost ({type(error).__name__})", "throttle")',
        (_SMTP + "test_no_clear_answer_to_the_dot_is_unknown_and_sent_once",),
    ),
    Mutation(
        "2t",
        "an answer to the dot that contradicts itself counts by its last line",
        "services/email/adapters/smtp_replies.py",
        "if found is None or (code and found[1] != code):",
        "if found is None:",
        (
            "tests/unit/email_service/test_smtp_replies.py::test_what_is_no_reply_is_told_from_one",
            _SMTP + "test_no_clear_answer_to_the_dot_is_unknown_and_sent_once",
        ),
    ),
    Mutation(
        "2k",
        "an unknown attempt stays unknown for ever",
        DECISIONS,
        '            drafts.append(_failed(delivery.recipient, "outcomeUnknown"))\n',
        "            pass\n",
        (_SENDING + "test_an_unknown_attempt_ends_as_failed",),
    ),
    Mutation(
        "2l",
        "a 4xx of a proxy counts as a refusal, whatever it says",
        SES,
        "    elif status in REFUSED_ON_THE_WAY:\n",
        "    elif status < 500:\n",
        (_ANSWERS + "test_any_other_4xx_that_is_not_from_ses_is_unknown",),
    ),
    Mutation(
        "2m",
        "an answer that nobody knows fails the mail",
        SES,
        "    elif code in MAIL_REFUSALS:\n",
        "    elif code not in THROTTLES:\n",
        (
            _ANSWERS + "test_a_refusal_of_ses_that_is_in_no_list_is_charged_to_the_mail_as_a_throttle",
            _ANSWERS + "test_a_proxy_that_passes_nothing_on_is_a_refusal_of_the_way",
        ),
    ),
    Mutation(
        "2n",
        "a refusal that every mail meets is charged to each of them",
        "services/email/domain/circuit.py",
        'return replace(outcome, kind="account", unlisted=False)',
        "return outcome",
        (
            _PARTS + "test_an_unlisted_refusal_is_the_account_s_once_several_mails_met_it",
            _SENDER + "test_an_answer_that_nobody_knows_burns_no_backlog",
        ),
    ),
    Mutation(
        "2o",
        "an outage of minutes ends whoever writes answers down",
        "services/kit/event_store/mongo.py",
        "            results = [away for _ in appends]\n",
        "            raise away\n",
        (
            "tests/unit/kit/test_event_store_away.py::test_an_append_is_answered_however_long_the_store_is_away",
            "tests/integration/test_sender_streams.py::"
            "test_answers_are_written_down_after_an_outage_that_outlasts_what_is_known_of_the_server_s_time",
        ),
    ),
    Mutation(
        "2p",
        "answers wait for a stream that cannot be read here",
        "services/email/entrypoints/sender_record.py",
        "                self._give_up(wave, dict(wave.unrecorded), held)\n",
        "                await asyncio.Event().wait()\n",
        (_RECORD + "test_a_stream_that_became_unreadable_holds_up_no_other_answer",),
    ),
    Mutation(
        "2q",
        "an answer that cannot be written down yet holds up the others",
        "services/email/entrypoints/sender_record.py",
        "            self._pending[wave] = None\n\n    async def _reloaded",
        "            self._pending[wave] = None\n            await asyncio.sleep(600)\n\n    async def _reloaded",
        (_RECORD + "test_an_answer_that_cannot_be_written_down_yet_holds_up_no_other",),
    ),
    Mutation(
        "2r",
        "an append of a bulk that MongoDB refuses for a full disk is given up for good",
        "services/kit/event_store/mongo_append.py",
        "        elif code in OF_THE_DOCUMENT:\n",
        "        elif code is not None and code not in GUARD_FAILED:\n",
        (
            "tests/unit/kit/test_event_store_away.py::"
            "test_one_append_of_a_bulk_that_the_server_refuses_may_work_once_it_is_mended",
        ),
    ),
    Mutation(
        "2u",
        "any lost connection to SendGrid or Mailgun counts as one that never stood",
        "services/email/adapters/http_outcomes.py",
        "    except NEVER_LEFT as error:\n",
        "    except httpx.TransportError as error:\n",
        (
            "tests/unit/email_service/test_http_outcomes.py::"
            "test_whatever_may_come_after_the_request_was_read_is_unknown",
        ),
    ),
    Mutation(
        "2v",
        "a 4xx that is not from SendGrid counts as its refusal",
        "services/email/adapters/sendgrid.py",
        "    if errors is None:\n",
        "    if errors is None and status in REFUSED_ON_THE_WAY:\n",
        ("tests/unit/email_service/test_sendgrid_answers.py::test_any_other_4xx_that_is_not_from_sendgrid_is_unknown",),
    ),
    Mutation(
        "2w",
        "mail of an unknown outcome is sent once more though nobody asked for that",
        MESSAGE,
        "    if state.cancelled or request.category not in policy.resend or delivery.not_before is None:\n",
        "    if state.cancelled or delivery.not_before is None:\n",
        (_RESEND + "test_it_is_held_unless_its_category_was_named_and_it_is_in_time", _TWICE),
    ),
    Mutation(
        "2x",
        "mail of an unknown outcome is sent once more again and again",
        MESSAGE,
        "    if any(attempt.resend and not attempt.refused for attempt in delivery.attempts):\n",
        "    if False:\n",
        (_RESEND + "test_once_is_all", _TWICE_MORE),
    ),
    Mutation(
        "2y",
        "a provider that may have taken a mail gets it once more",
        DECISIONS,
        "        if planned.provider in blocked(delivery):\n",
        "        if False:\n",
        (_RESEND + "test_the_provider_that_may_have_it_gets_it_no_second_time",),
    ),
    Mutation(
        "2z",
        "mail is sent once more while the first call may be under way",
        MESSAGE,
        "    at = max(delivery.since + wait, delivery.not_before, over)\n",
        "    at = max(delivery.since + wait, delivery.not_before)\n",
        (_RESEND + "test_no_call_may_be_under_way",),
    ),
    Mutation(
        "2za",
        "what refuses the second attempt ends a mail that the first may have brought",
        DECISIONS,
        "    if unknown:\n        end = None",
        "    if unknown and not attempt.resend:\n        end = None",
        (_RESEND + "test_what_is_refused_for_good_leaves_it_unknown_and_no_more",),
    ),
    Mutation(
        "7a",
        "suppressions are not looked at before an attempt is recorded",
        PLAN,
        "            picks, suppressed = await self._judged(picks, turn)\n",
        "            suppressed: list[dict[str, SuppressionReason]] = [{} for _ in picks]\n",
        (
            _SENDER + "test_the_suppressed_fail_and_the_others_are_sent",
            _SENDER + "test_nothing_is_sent_while_suppressions_cannot_be_read",
        ),
    ),
    Mutation(
        "7b",
        "what was looked up once is believed from then on",
        "services/email/adapters/suppressions.py",
        "        streams = await self._streams.load_many(set(key_of.values()))\n",
        "        streams = self.__dict__.setdefault('seen', await self._streams.load_many(set(key_of.values())))\n",
        (_SUPPRESSED + "test_a_suppression_counts_until_the_very_step_that_records_the_attempt",),
    ),
    Mutation(
        "7c",
        "a recipient whose stream cannot be read is written to",
        "services/email/adapters/suppressions.py",
        "                unreadable.add(key)\n",
        "",
        (
            _SUPPRESSED + "test_a_recipient_who_cannot_be_read_is_waited_for_alone",
            _SUPPRESSED + "test_more_who_cannot_be_read_than_a_wave_has_hold_up_no_other_recipient",
        ),
    ),
    Mutation(
        "7p",
        "whom one provider does not write to because of a list of its own, others go on writing to",
        "services/email/entrypoints/settler.py",
        ' "email.rejected",',
        "",
        (
            "tests/unit/email_service/test_settler.py::"
            "test_whom_a_provider_does_not_write_to_any_more_no_provider_writes_to",
        ),
    ),
    Mutation(
        "7d",
        "capitals make another recipient",
        "services/kit/addresses.py",
        ".lower()",
        "",
        (
            "tests/unit/kit/test_addresses.py::test_all_spellings_have_one_key",
            _SUPPRESSED + "test_any_spelling_is_the_same_recipient",
        ),
    ),
    Mutation(
        "7e",
        "marketing is not stopped by a scope of all",
        "services/email/domain/recipient.py",
        "        scopes = [ALL]\n        if category",
        '        scopes = [ALL] if category != "marketing" else []\n        if category',
        (_SUPPRESSED + "test_each_scope_stops_what_it_is_about",),
    ),
    Mutation(
        "7f",
        "a complaint suppresses nobody",
        "services/email/domain/recipient.py",
        "    if isinstance(data, EmailComplained):\n        return ",
        "    if isinstance(data, EmailComplained) and data.complaint_sub_type:\n        return ",
        (
            _RECIPIENT + "test_what_a_fact_means",
            "tests/unit/email_service/test_settler.py::"
            "test_bounces_complaints_and_unsubscribes_suppress_and_a_withdrawal_lifts",
        ),
    ),
    Mutation(
        "7g",
        "who was freed once can never be suppressed again",
        "services/email/domain/recipient.py",
        "    return happened_at is not None and lifted_at is not None and happened_at <= lifted_at\n",
        "    return happened_at is not None and lifted_at is not None\n",
        (_RECIPIENT + "test_an_old_bounce_heard_again_does_not_undo_an_operator",),
    ),
    Mutation(
        "7h",
        "an unsubscribe is dropped beside a suppression that ends",
        "services/email/domain/recipient.py",
        "return any(each.until is None for each in self.active.get(scope, ()))",
        "return any(self.active.get(scope, ()))",
        (_RECIPIENT + "test_an_unsubscribe_outlives_a_suppression_that_ends",),
    ),
    Mutation(
        "7i",
        "an operator's word is held against a lift by the clock of the process that heard it",
        "services/email/domain/recipient.py",
        'happened_at = None if command.reason == "manual" else command.happened_at',
        "happened_at = command.happened_at",
        (
            _RECIPIENT + "test_what_is_said_after_a_lift_stands_whatever_the_clocks_say",
            "tests/unit/email_service/test_settler.py::test_what_a_process_that_is_behind_is_told_after_a_lift_stands",
        ),
    ),
    Mutation(
        "7j",
        "who unsubscribes is held against a lift by the clock of the process that heard it",
        "services/email/handlers.py",
        "replace(command, happened_at=None)",
        "command",
        ("tests/unit/email_service/test_settler.py::test_what_a_process_that_is_behind_is_told_after_a_lift_stands",),
    ),
    Mutation(
        "7k",
        "one recipient who cannot be read stops all mail",
        "services/email/adapters/suppressions.py",
        "                unreadable.add(key)\n",
        "                raise\n",
        (
            _SUPPRESSED + "test_a_recipient_who_cannot_be_read_is_waited_for_alone",
            "tests/integration/test_sender_streams.py::test_one_stream_that_cannot_be_read_holds_up_nothing_else",
        ),
    ),
    Mutation(
        "7l",
        "a recipient who cannot be read is asked for again in every turn",
        PLAN,
        "                turn.leave(work, RECIPIENT_SECONDS)\n",
        "                turn.leave(work, 0.0)\n",
        (_SUPPRESSED + "test_a_recipient_who_cannot_be_read_is_waited_for_alone",),
    ),
    Mutation(
        "7m",
        "a token that was not signed here unsubscribes",
        "services/email/domain/unsubscribe.py",
        "if not any(hmac.compare_digest(_mac(key, body), mac) for key in self._keys):",
        "if not mac:",
        (_BY_MAIL + "test_without_a_valid_token_nothing_happens_and_nothing_is_parked",),
    ),
    Mutation(
        "7n",
        "who leaves by mail is not heard",
        "services/email/entrypoints/translator.py",
        "            if mail is not None:\n",
        "            if mail is not None and not mail.subject:\n",
        (_BY_MAIL + "test_a_mail_with_the_token_is_an_unsubscribe_once_whoever_sent_it",),
    ),
    Mutation(
        "7o",
        "an address is offered that nobody reads",
        "services/email/adapters/writing.py",
        "return (one_click,) if self._mailto is None else (one_click, mailto_url(self._mailto, token))",
        "return (one_click, mailto_url(self._mailto or mail.from_, token))",
        (_BY_MAIL + "test_an_address_is_offered_where_there_is_one_with_the_token_of_the_page",),
    ),
)
