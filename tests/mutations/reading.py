"""Invariants 4, 5, 6 and 9: what a document is, that it can explain itself, that reading is silent, the pointer."""

from __future__ import annotations

from tests.mutations.mutation import Mutation

KNOWN = "services/events/projections/known.py"
EMAIL_LOG = "services/events/projections/email_log.py"
DOCUMENTS = "services/events/adapters/mongo_documents.py"
MODELS = "services/events/adapters/mongo_read_models.py"
ROWS = "services/events/rows.py"
GENERATIONS = "services/events/generations.py"
STAGES = "services/events/stages.py"
LEASES = "services/events/leases.py"

_LOG = "tests/unit/events_service/test_email_log.py::"
_AGGREGATES = "tests/unit/events_service/test_aggregates.py::"
_ANY_ORDER = _AGGREGATES + "test_any_order_any_repetition_any_batches_give_one_result"
_ANY_CRASH = _AGGREGATES + "test_crashes_between_any_two_effects_and_rival_writers_change_nothing"
_CRASHES = "tests/integration/events/test_crashes.py::"
_LIVE = "tests/integration/events/test_live.py::test_the_read_model_is_the_pure_fold_of_the_log"
_COMPARISON = "tests/integration/events/test_comparison.py::"
_REBUILD = "tests/integration/events/test_rebuild.py::"
_STAGES = "tests/unit/events_service/test_stages.py::"
_STEPS = "tests/unit/events_service/test_rebuild_steps.py::"
_LEASES = "tests/unit/events_service/test_leases.py::"
_ANY_KILL = (
    "tests/unit/events_service/test_reading_machine.py::test_whatever_comes_between_what_is_read_is_whole_and_read_on"
)
_STORE = "tests/ports/test_generations.py::"
_ROLLED_OUT = "test_a_release_with_a_new_fold_is_rolled_out_without_a_mixed_or_a_frozen_generation"
_SILENT = "tests/unit/test_imports.py::"

READING: tuple[Mutation, ...] = (
    Mutation(
        "4a",
        "a fold takes events in the order in which they came",
        KNOWN,
        "    ordered = sorted(events)\n    withdrawn",
        "    ordered = list(events)\n    withdrawn",
        (_LOG + "test_status_of_one_recipient",),
    ),
    Mutation(
        "4b",
        "of two readings of one id the later one wins",
        KNOWN,
        "    if (-other.revision, other.partition, other.offset) < (-one.revision, one.partition, one.offset):\n",
        "    if other.id:\n",
        (_ANY_ORDER,),
    ),
    Mutation(
        "4k",
        "a translator that was mended and run again corrects nothing",
        KNOWN,
        "    if (-other.revision, other.partition, other.offset) < (-one.revision, one.partition, one.offset):\n",
        "    if (other.partition, other.offset) < (one.partition, one.offset):\n",
        (_LOG + "test_a_higher_revision_corrects_a_fact",),
    ),
    Mutation(
        "4c",
        "a field comes from a clock",
        EMAIL_LOG,
        '    body["updatedAt"] = instant(latest)\n',
        '    body["updatedAt"] = datetime.now().astimezone()\n',
        (_ANY_ORDER, _LOG + "test_status_of_one_recipient"),
    ),
    Mutation(
        "4d",
        "a document is replaced whoever wrote it since it was read",
        MODELS,
        '    return ReplaceOne({"_id": write.id, "_rev": write.expected}, document, upsert=True)\n',
        '    return ReplaceOne({"_id": write.id}, document, upsert=True)\n',
        ("tests/ports/test_read_models.py::test_of_two_writers_of_one_document_one_loses",),
    ),
    Mutation(
        "4e",
        "a repeated fact outside a busy document is counted twice",
        ROWS,
        "        not rows\n        and not any(event.type == RETRACTED",
        "        not any(event.type == RETRACTED",
        ("tests/unit/events_service/test_rivals.py::test_a_repeated_fact_outside_the_document_counts_once",),
    ),
    Mutation(
        "4f",
        "which opens lie inline depends on which came first",
        KNOWN,
        "    facts.sort(key=_place)\n",
        "    facts.sort(key=lambda event: -event.offset)\n",
        (_AGGREGATES + "test_the_lowest_places_stay_inline_and_the_rest_is_counted",),
    ),
    Mutation(
        "4g",
        "a retracted fact still counts",
        KNOWN,
        "        return [event for event in ordered if not is_retracted(event, withdrawn)]\n",
        "        return ordered\n",
        (_LOG + "test_a_retracted_fact_is_as_if_it_had_never_been",),
    ),
    Mutation(
        "4i",
        "whoever loses to another writer gives up its events",
        "services/events/aggregates.py",
        "            todo = await self._write_once(todo, buckets)\n            if todo:\n",
        "            todo = await self._write_once(todo)\n            todo = []\n            if todo:\n",
        ("tests/unit/events_service/test_rivals.py::test_whoever_loses_the_guard_ends_in_the_union",),
    ),
    Mutation(
        "4j",
        "the statistics of a changed bucket are not marked",
        "services/events/aggregates.py",
        "        await self._models.mark_dirty(sorted(buckets))\n",
        "",
        (_ANY_CRASH, _AGGREGATES + "test_what_is_known_already_is_not_written_again_but_its_bucket_is_marked"),
    ),
    Mutation(
        "4r",
        "a report that is heard again counts twice when its stream has gone meanwhile",
        "services/email/adapters/reports.py",
        'recipient = "" if self.reported is None else normal_form(self.reported).lower()',
        "recipient = self._recipient()",
        (
            "tests/unit/email_service/test_mailgun_notifications.py::"
            "test_the_attempt_s_spelling_of_the_recipient_counts_since_mailgun_writes_small_letters",
            "tests/unit/email_service/test_sendgrid_notifications.py::"
            "test_the_attempt_s_spelling_of_the_recipient_counts",
        ),
    ),
    Mutation(
        "4p",
        "which events are shown when a fold fails depends on the batch",
        "services/events/aggregates.py",
        "shown, unseen = most_of(sorted(write.ordered, key=_origin), objection)\n",
        "shown, unseen = most_of([*item.stored.known.values(), *item.events], objection)\n",
        (
            "tests/unit/events_service/test_bad_records.py::test_an_earlier_event_that_a_later_one_keeps_from_being_shown_is_told_of_too",
        ),
    ),
    Mutation(
        "4q",
        "of documents that claim one key the one that came first shows it",
        "services/events/aggregates.py",
        "        if rivals and min(rivals) < item.id:\n",
        "        if rivals:\n",
        ("tests/unit/events_service/test_bad_records.py::test_of_two_files_that_claim_one_key_the_lower_id_shows_it",),
    ),
    Mutation(
        "5a",
        "a document forgets where its events lay",
        DOCUMENTS,
        '        "offset": [event.offset for event in ordered],\n',
        '        "offset": [0 for event in ordered],\n',
        (_LIVE,),
    ),
    Mutation(
        "5b",
        "a document keeps only what it shows",
        DOCUMENTS,
        '    document["_events"] = _events(write.ordered)\n',
        '    document["_events"] = _events(write.ordered[:3])\n',
        (_LIVE,),
    ),
    Mutation(
        "5c",
        "the events outside a busy document are not in its history",
        MODELS,
        "            if stored.has_rows:\n                async for row in",
        "            if False:\n                async for row in",
        ("tests/ports/test_read_models.py::test_every_event_of_a_busy_document_has_its_origin",),
    ),
    Mutation(
        "5d",
        "the history names another place than the log's",
        "services/events/queries.py",
        "topic, event.partition, event.offset, is_retracted",
        "topic, *event.place, is_retracted",
        (
            "tests/unit/events_service/test_history.py::test_a_corrected_fact_is_shown_with_the_origin_of_its_correction",
        ),
    ),
    Mutation(
        "6a",
        "a projection can reach MongoDB",
        "services/events/projections/statistics.py",
        "from typing import",
        "import pymongo  # noqa: F401\nfrom typing import",
        (_SILENT + "test_the_import_rules_hold",),
    ),
    Mutation(
        "6b",
        "the reading side can call a provider",
        "services/events/rebuild.py",
        "import asyncio\n",
        "import asyncio\nimport services.kit.aws  # noqa: F401\n",
        (_SILENT + "test_the_import_rules_hold",),
    ),
    Mutation(
        "6c",
        "the reading side can publish",
        "services/events/retrying.py",
        "from services.kit.kafka.records import",
        "import services.kit.kafka.publisher  # noqa: F401\nfrom services.kit.kafka.records import",
        (_SILENT + "test_the_import_rules_hold",),
    ),
    Mutation(
        "9a",
        "a swap does not ask which generation is active",
        STAGES,
        "    if active != expected:\n",
        "    if False:\n",
        (_STAGES + "test_a_swap_is_for_the_generation_that_was_expected",),
    ),
    Mutation(
        "9b",
        "a generation that differs from the live one is swapped in",
        "services/events/rebuild.py",
        "        if verdict.differing and not accept_differences:\n",
        "        if False:\n",
        (_REBUILD + "test_a_generation_that_differs_is_not_swapped_in_unless_accepted",),
    ),
    Mutation(
        "9c",
        "the generation before is not kept up to date in its grace",
        STAGES,
        'PROJECTED: Final = frozenset({"active", "grace", "catchingUp", "verified"})',
        'PROJECTED: Final = frozenset({"active", "catchingUp", "verified"})',
        (
            "tests/integration/events/test_generations.py::test_what_was_read_before_is_kept_up_to_date_and_can_be_read_again",
        ),
    ),
    Mutation(
        "9d",
        "a rollback goes to a generation that is dropped already",
        STAGES,
        '    if previous is None or previous.stage != "grace":\n',
        "    if previous is None:\n",
        (_STAGES + "test_a_roll_back_goes_to_nothing_that_is_gone",),
    ),
    Mutation(
        "9e",
        "dropping what is read is refused too late: nobody projects it any more",
        STAGES,
        '    if stage == "active":\n',
        "    if False:\n",
        (_STAGES + "test_what_is_read_is_not_given_up",),
    ),
    Mutation(
        "9h",
        "the store drops what is read",
        "services/events/adapters/mongo_generations.py",
        "        if (await self.pointer()).active == number:\n",
        "        if False:\n",
        (_STORE + "test_only_what_is_given_up_is_dropped",),
    ),
    Mutation(
        "9t",
        "what a new generation lacks is taken for what it has yet to read",
        "services/events/adapters/mongo_comparison.py",
        "    return origin is not None and origin[1] >= reached.get(origin[0], 0)\n",
        "    return True\n",
        (_COMPARISON + "test_what_lies_before_both_checkpoints_may_not_be_missing",),
    ),
    Mutation(
        "9u",
        "a document that lacks an event is taken for one in the new shape",
        "services/events/adapters/mongo_comparison.py",
        "    return bool(mine.raw == theirs.raw)\n",
        "    return True\n",
        (_COMPARISON + "test_a_new_version_is_compared_in_one_walk",),
    ),
    Mutation(
        "9f",
        "analysts go on seeing the generation before",
        GENERATIONS,
        '    await store.follow()\n    log.info("generation swapped in"',
        '    log.info("generation swapped in"',
        (_REBUILD + "test_a_rebuild_equals_live_and_takes_its_place",),
    ),
    Mutation(
        "9g",
        "a zombie moves a checkpoint that is not its any more",
        "services/events/adapters/mongo_leases.py",
        '        return {"_id": self._id(lease.partition), "owner": owner, "epoch": lease.epoch}\n',
        '        return {"_id": self._id(lease.partition)}\n',
        (_CRASHES + "test_a_zombie_moves_no_checkpoint",),
    ),
    Mutation(
        "9i",
        "whoever renews a lease renews all that bear its name, held or not",
        "services/events/adapters/mongo_leases.py",
        '            held = {"$or": [self._held(owner, lease) for lease in leases]}\n',
        '            held = {"generation": self._key, "owner": owner}\n',
        ("tests/ports/test_leases.py::test_only_what_is_named_by_its_epoch_is_renewed",),
    ),
    Mutation(
        "9j",
        "health says nothing of a partition that nobody reads",
        LEASES,
        "            if each.partition not in self.held and (not each.held or each.owner == self.owner)\n",
        "            if False\n",
        (_LEASES + "test_a_partition_without_a_reader_for_longer_than_a_lease_shows",),
    ),
    Mutation(
        "9k",
        "what is left free for the dead is left for as long as they die",
        LEASES,
        "                if lease.held or not self._is_late(lease.partition):\n",
        "                if True:\n",
        (_LEASES + "test_what_is_left_free_for_the_dead_is_taken_before_their_heartbeats_grow_old",),
    ),
    Mutation(
        "9l",
        "the pointer moves, and stages follow in a write of their own",
        "services/events/adapters/mongo_generations.py",
        '"$inc": {"changes": 1},\n                    },\n                    session=session,\n',
        '"$inc": {"changes": 1},\n                    },\n',
        (_STORE + "test_a_change_that_fails_half_way_is_not_made",),
    ),
    Mutation(
        "9m",
        "the generation before stays active beside the new one",
        STAGES,
        '        standing = _with(standing, active, "grace")\n',
        "        pass\n",
        (_STAGES + "test_only_what_is_kept_up_to_date_is_swapped_in", _ANY_KILL),
    ),
    Mutation(
        "9n",
        "a generation goes from any stage to any other",
        STAGES,
        "    if to not in FOLLOWING[generation.stage]:\n",
        "    if False:\n",
        (_STAGES + "test_a_rebuild_gets_on_by_declared_steps_only", _ANY_KILL),
    ),
    Mutation(
        "9o",
        "what a killed process of an earlier release left half done stays so",
        STAGES,
        '        elif generation.stage == "active" or (number',
        "        elif (number",
        (_STORE + "test_what_an_earlier_release_left_half_done_is_settled_by_the_pointer",),
    ),
    Mutation(
        "9p",
        "a grace that was given anew ends with the old one",
        STAGES,
        " and generation.grace_until < now\n",
        "\n",
        (
            _STAGES + "test_a_grace_ends_when_it_is_over",
            _STEPS + "test_a_grace_that_was_given_anew_is_not_ended_by_who_saw_the_old_one",
        ),
    ),
    Mutation(
        "9q",
        "what a late writer makes of a dropped generation stays",
        GENERATIONS,
        "            await store.drop(each.number)\n",
        "            pass\n",
        (_STEPS + "test_what_a_late_writer_makes_of_a_dropped_generation_is_dropped_again",),
    ),
    Mutation(
        "9r",
        "a generation is swapped in for another one than it was compared with",
        "services/events/rebuild.py",
        "                await swap(self._parts.store, number, expected=active, grace=self._grace)\n",
        "                active = (await self._parts.store.pointer()).active\n"
        "                await swap(self._parts.store, number, expected=active, grace=self._grace)\n",
        (_STEPS + "test_a_generation_is_swapped_for_the_one_that_it_was_compared_with",),
    ),
    Mutation(
        "9v",
        "a time limit that ends while MongoDB is away stops every later operation of a client (before Python 3.12)",
        "services/kit/mongo.py",
        '    vars(_module)["_async_cond_wait"] = notified',
        "    pass",
        (
            "tests/unit/kit/test_cancellation.py::"
            "test_a_time_limit_while_mongodb_is_waited_for_leaves_its_clients_lock_free",
        ),
    ),
    Mutation(
        "9s",
        "a process writes generations of other folds with its own",
        "services/events/composing.py",
        "        return self.projection if version is None else self.projection.with_fold(version)\n",
        "        return self.projection\n",
        ("tests/integration/events/test_folds.py::" + _ROLLED_OUT,),
    ),
)
