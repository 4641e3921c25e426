"""Invariants 3, 8 and 10: nothing received is lost, a bad record stops nobody, wire names are data."""

from __future__ import annotations

from tests.mutations.mutation import Mutation

INGEST = "services/kit/ingest.py"
FACTS = "services/kit/facts.py"
INTAKE = "services/email/entrypoints/intake.py"
WEBHOOKS = "services/email/entrypoints/http_webhooks.py"
BATCH = "services/kit/kafka/batch.py"
ASSIGNMENT = "services/kit/kafka/assignment.py"
REGISTRY = "contracts/registry.py"

_INGEST = "tests/integration/email/test_ingest.py::"
_WEBHOOKS = "tests/unit/email_service/test_http_webhooks.py::"
_TRANSLATOR = "tests/unit/email_service/test_translator.py::"
_FILES_TRANSLATOR = "tests/unit/files_service/test_translator.py::"
_INTAKE = "tests/unit/email_service/test_intake.py::"
_CONTENT = "tests/unit/email_service/test_sender_content.py::"
_FILES = "tests/unit/email_service/test_sender_files.py::"
_TEMPLATES = "tests/unit/email_service/test_templates.py::"
_BATCH = "tests/unit/kit/test_kafka_batch.py::"
_RELEASES = "tests/ports/test_releases.py::"
_RELEASED = "tests/integration/kafka/test_releases.py::"
_ASSIGNMENT = "tests/unit/kit/test_kafka_assignment.py::"
_LOOP = "tests/integration/kafka/test_loop.py::"
_RELAY = "tests/unit/kit/test_relay.py::"
_EXAMPLES = "tests/unit/contracts/test_examples.py::"
_AGGREGATES = "tests/unit/events_service/test_aggregates.py::"
_BAD_RECORDS = "tests/unit/events_service/test_bad_records.py::"

KEEPING: tuple[Mutation, ...] = (
    Mutation(
        "3a",
        "a notification is deleted from SQS though Kafka has not acknowledged it",
        INGEST,
        "            if not errors:\n",
        "            if not any(isinstance(error, PermanentError) for error in errors):\n",
        (_INGEST + "test_what_kafka_does_not_acknowledge_stays_on_the_queue",),
    ),
    Mutation(
        "3b",
        "notifications are received while nobody can take them",
        INGEST,
        "            if not self._publisher.healthy:\n",
        "            if False:\n",
        (_INGEST + "test_nothing_is_received_while_kafka_is_away",),
    ),
    Mutation(
        "3c",
        "a notification's offset is let go though its facts are not acknowledged",
        FACTS,
        '        return Park(error.reason, kind="poison", detail=error.detail)\n    return Retry(error)\n',
        '        return Park(error.reason, kind="poison", detail=error.detail)\n    return DONE\n',
        (
            _TRANSLATOR + "test_facts_that_are_not_acknowledged_come_again",
            _FILES_TRANSLATOR + "test_facts_that_are_not_acknowledged_come_again",
        ),
    ),
    Mutation(
        "3d",
        "a command's offset is let go though its append did not stand",
        INTAKE,
        "                elif not is_race(result):\n                    job.outcome = _refused(result)\n",
        "                elif not is_race(result):\n                    job.outcome = DONE\n",
        ("tests/unit/email_service/test_intake_append.py::test_an_append_that_was_refused_hands_the_command_back",),
    ),
    Mutation(
        "3e",
        "reading goes on behind a record that is not handled",
        ASSIGNMENT,
        "        self.next = first\n",
        "        self.next = last_offset + 1\n",
        (
            _ASSIGNMENT + "test_it_stands_at_the_first_record_that_is_not_handled",
            _ASSIGNMENT + "test_any_way_through_a_log_with_gaps",
        ),
    ),
    Mutation(
        "3f",
        "a record that could not be parked counts as handled",
        BATCH,
        "            for index in wanted:\n                outcomes[index] = Retry(failure)\n",
        "            for index in wanted:\n                outcomes[index] = DONE\n",
        (
            _BATCH + "test_parking_away_means_again_and_holds_the_key",
            _LOOP + "test_what_cannot_be_parked_stays_until_it_can",
        ),
    ),
    Mutation(
        "3g",
        "a batch that outlasted its partitions commits all the same",
        "services/kit/kafka/session.py",
        "            finally:\n                assignment.over.set()\n        self.assignment = None",
        "            finally:\n                pass\n        self.assignment = None",
        (
            "tests/integration/kafka/test_rebalances.py::"
            "test_a_batch_that_outlasts_the_drain_does_not_commit_after_its_partitions_went",
        ),
    ),
    Mutation(
        "3h",
        "the producer waits for one broker and not for all replicas",
        "services/kit/kafka/broker.py",
        '        acks="all",\n        enable_idempotence=True,\n',
        "        acks=1,\n",
        (
            "tests/integration/kafka/test_acknowledgement.py::test_the_producer_waits_for_all_replicas_and_is_idempotent",
        ),
    ),
    Mutation(
        "3i",
        "MongoDB may answer before a majority has it",
        "services/kit/mongo.py",
        '        w="majority",\n',
        "        w=1,\n",
        ("tests/integration/test_kit_mongo.py::test_concerns_cannot_be_weakened_by_the_url",),
    ),
    Mutation(
        "3j",
        "an event counts as published though Kafka refused it",
        "services/kit/event_store/relay.py",
        "                if error is None:\n                    run.known.acknowledged += 1\n",
        "                if True:\n                    run.known.acknowledged += 1\n",
        (_RELAY + "test_after_a_failure_nothing_later_of_that_stream_goes_out",),
    ),
    Mutation(
        "3k",
        "the projector moves its checkpoint before the documents are written",
        "services/events/projector.py",
        "        buckets = await self._aggregates.write(records, fresh=fresh)\n",
        "        await self._keeper.checkpoint({each: batch[-1].offset + 1 for each, batch in batches.items()})\n"
        "        buckets = await self._aggregates.write(records, fresh=fresh)\n",
        ("tests/integration/events/test_crashes.py::test_killed_between_any_two_effects",),
    ),
    Mutation(
        "3l",
        "a fact's offset is let go though what it means could not be written down",
        "services/email/entrypoints/settler.py",
        "                outcomes[n] = Retry(why)\n",
        "                outcomes[n] = DONE\n",
        ("tests/unit/email_service/test_settler.py::test_a_store_that_is_away_hands_the_facts_back",),
    ),
    Mutation(
        "3m",
        "a notification is deleted from SQS when Kafka has acknowledged its first record alone",
        INGEST,
        "for error in islice(results, len(items)) if",
        "for error in list(islice(results, len(items)))[:1] if",
        ("tests/unit/kit/test_ingest.py::test_a_message_stays_while_one_of_its_records_is_not",),
    ),
    Mutation(
        "3n",
        "what was decided on a file is let go though it could not be kept",
        "services/email/entrypoints/files_follower.py",
        "                outcomes[n] = Retry(why)\n",
        "                outcomes[n] = DONE\n",
        ("tests/unit/email_service/test_files_follower.py::test_a_store_that_is_away_hands_the_decisions_back",),
    ),
    Mutation(
        "3o",
        "an old decision that comes late undoes a newer one",
        "services/email/domain/files.py",
        "        if version > since.get(aspect, 0):\n",
        "        if True:\n",
        ("tests/unit/email_service/test_known_files.py::test_any_order_and_repetition_gives_the_same_file",),
    ),
    Mutation(
        "3r",
        "what an operator discards is let go though no record of it stands",
        BATCH,
        "                for index in indexes:\n                    outcomes[index] = Retry(failure)\n",
        "                for index in indexes:\n                    outcomes[index] = DONE\n",
        (_BATCH + "test_what_could_not_be_recorded_comes_again_and_holds_its_key",),
    ),
    Mutation(
        "3s",
        "what is discarded again after a crash is recorded again",
        "services/kit/releases_mongo.py",
        "            fresh = [each for each in records if each.offset not in known]\n",
        "            fresh = list(records)\n",
        (
            _RELEASES + "test_what_is_discarded_again_in_other_portions_is_not_counted_again",
            _RELEASED + "test_a_crash_between_the_record_of_a_range_and_the_commit_loses_and_doubles_nothing",
        ),
    ),
    Mutation(
        "3t",
        "an order discards what was written after it, or another producer's",
        "services/kit/releases.py",
        "        return any(\n            each.first <= record.offset < each.until\n",
        "        return bool(record) or any(\n            each.first <= record.offset < each.until\n",
        (
            _BATCH + "test_what_is_released_is_discarded_beyond_the_breaker_and_recorded",
            _BATCH + "test_good_records_are_never_released_and_other_sources_neither",
            _RELEASED + "test_an_order_ends_where_it_says_and_parks_what_is_to_be_kept",
        ),
    ),
    Mutation(
        "3u",
        "an order discards what only a bug of ours keeps from being handled",
        "services/kit/releases.py",
        '        return self.action == "discard" and kind != "bug"\n',
        '        return self.action == "discard"\n',
        (_BATCH + "test_a_flood_of_bugs_is_released_without_pauses_and_never_discarded",),
    ),
    Mutation(
        "3v",
        "a process publishes again what another one has appended",
        "services/kit/event_store/outbox.py",
        "        return [stream for name, stream in batch.items() if name not in early]\n",
        "        return list(batch.values())\n",
        (
            "tests/unit/kit/test_outbox.py::test_what_one_process_appends_the_next_one_does_not_publish_again",
            "tests/unit/kit/test_outbox.py::test_nothing_goes_out_before_what_another_process_has_still_to_publish",
        ),
    ),
    Mutation(
        "3w",
        "a mail fails when its content was sealed with a key that this process has not been given yet",
        "services/email/adapters/content.py",
        "        except KeyUnknown as error:\n            return error\n",
        "        except KeyUnknown:\n            return None\n",
        (
            "tests/integration/test_key_rotation.py::"
            "test_a_key_that_is_used_before_it_was_distributed_makes_mail_wait_and_nothing_fail",
            "tests/ports/test_content_store.py::test_old_keys_open_and_a_strange_one_may_come",
        ),
    ),
    Mutation(
        "3x",
        "a parked record that cannot be opened holds up those behind it",
        "services/kit/parking_mongo.py",
        "except (KeyUnknown, PermanentError) as error:  # it stays parked, and the others go on\n",
        "except ZeroDivisionError as error:\n",
        ("tests/ports/test_parking_lot.py::test_records_that_cannot_be_opened_hold_up_no_other",),
    ),
    Mutation(
        "3y",
        "a token of Mailgun counts as used before Kafka has its body",
        WEBHOOKS,
        "            await self._publish(provider, found)\n"
        "            if use is not None:\n"
        "                self._known(provider, use, await self._tokens.record(use))\n",
        "            if use is not None:\n"
        "                self._known(provider, use, await self._tokens.record(use))\n"
        "            await self._publish(provider, found)\n",
        (_WEBHOOKS + "test_our_own_trouble_is_503_so_that_every_provider_repeats",),
    ),
    Mutation(
        "3z",
        "a webhook is answered 200 though Kafka has not acknowledged what it brought",
        WEBHOOKS,
        "                elif error is not None:\n",
        "                elif False:\n",
        (_WEBHOOKS + "test_our_own_trouble_is_503_so_that_every_provider_repeats",),
    ),
    Mutation(
        "8a",
        "the neighbours of a bad record are parked with it",
        BATCH,
        "        return await self._isolate(records, outcomes, abort, deadline)\n",
        '        return [Park("handlerFailed", "bug", "", error=outcomes)] * len(records)\n',
        (
            _BATCH + "test_a_bug_is_traced_to_its_record_which_is_parked_with_its_stack",
            _LOOP + "test_bugs_are_parked_alone_and_the_rest_flows",
        ),
    ),
    Mutation(
        "8b",
        "a flood empties the topic into the parking lot",
        "services/kit/breaker.py",
        "        if len(self._admitted) >= self.limit:\n",
        "        if len(self._admitted) >= 10**6:\n",
        (
            "tests/unit/kit/test_breaker.py::test_the_one_failure_too_many_opens_it",
            _LOOP + "test_a_flood_opens_the_breaker_and_nothing_is_committed_past_it",
            _AGGREGATES + "test_a_flood_of_bad_records_stops_instead_of_emptying_the_topic",
        ),
    ),
    Mutation(
        "8c",
        "a new event type is refused",
        REGISTRY,
        '            data: EventData = UnknownData.model_validate(wire.get("data"))\n',
        '            raise ContractError("unknownType", "")\n            data: EventData = UnknownData()\n',
        (
            _EXAMPLES + "test_an_unknown_type_is_kept_whole",
            "tests/unit/kit/test_kafka_codec.py::test_an_unknown_type_is_kept_with_its_data",
        ),
    ),
    Mutation(
        "8d",
        "early notifications, and those of what is not ours, trip the breaker",
        "services/kit/parking.py",
        'UNCOUNTED: frozenset[ParkKind] = frozenset({"uncorrelated", "orphan"})',
        "UNCOUNTED: frozenset[ParkKind] = frozenset()",
        (_BATCH + "test_a_flood_of_parks_opens_it_too_but_early_records_do_not_count",),
    ),
    Mutation(
        "8e",
        "a fold's bug on one message stops the partition",
        "services/events/aggregates.py",
        "            return False\n        return True\n\n    def _most",
        "            raise\n        return True\n\n    def _most",
        (_AGGREGATES + "test_a_bug_of_the_fold_parks_its_record_only",),
    ),
    Mutation(
        "8f",
        "a parked record loses where it came from",
        "services/kit/parking.py",
        "return Record(self.topic, self.partition, self.offset, self.timestamp_ms, self.key, self.raw, self.headers)",
        "return Record(self.topic, 0, 0, self.timestamp_ms, self.key, self.raw, self.headers)",
        ("tests/unit/kit/test_parking_retry.py::test_an_operator_retries_one_record_in_place",),
    ),
    Mutation(
        "8g",
        "parked values lie in clear in the database",
        "services/kit/parking_mongo.py",
        'document["raw"] = None if parked.raw is None else self._seal(parked.raw, parked.id, "value")',
        'document["raw"] = parked.raw',
        ("tests/ports/test_parking_lot.py::test_values_are_not_readable_in_the_database",),
    ),
    Mutation(
        "8h",
        "one bad command is no command, and the batch is handed back",
        INTAKE,
        '        return Park(error.reason, kind="poison", detail=error.detail)\n    data = envelope.data',
        "        raise\n    data = envelope.data",
        (_INTAKE + "test_bad_commands_are_parked_and_their_neighbours_go_on",),
    ),
    Mutation(
        "8i",
        "a mail whose content cannot be had holds up the mails beside it",
        "services/email/entrypoints/sender_content.py",
        "            if work.held.message_id in errors:\n",
        "            if errors:\n",
        (_CONTENT + "test_of_those_that_are_loaded_together_only_one_without_content_waits",),
    ),
    Mutation(
        "8j",
        "a body that cannot be read fails its mail though it is stored",
        "services/email/adapters/content.py",
        "            except TransientError as error:\n                return error\n",
        "            except TransientError:\n                return None\n",
        ("tests/ports/test_content_store.py::test_each_content_is_got_by_itself",),
    ),
    Mutation(
        "8k",
        "a mail whose file is not ready holds up the mails beside it",
        "services/email/entrypoints/sender_files.py",
        "        return work in self.never or any(work in works for works in self.waiting.values())\n",
        "        return bool(self.never or self.waiting)\n",
        (_FILES + "test_of_those_that_are_loaded_together_only_one_whose_file_is_not_ready_waits",),
    ),
    Mutation(
        "8n",
        "a broken template of an operator takes the others down",
        "services/email/adapters/templates.py",
        "                broken[folder.name] = error.problems\n",
        "                raise SettingsError(error.problems) from None\n",
        (_TEMPLATES + "test_files_that_are_none_are_told_of_too",),
    ),
    Mutation(
        "8p",
        "a retry skips a generation that is being filled",
        "services/events/retrying.py",
        "_WRITTEN: Final = PROJECTED | UNFINISHED\n",
        "_WRITTEN: Final = PROJECTED | (UNFINISHED - UNFINISHED)\n",
        (_BAD_RECORDS + "test_a_retry_goes_into_a_generation_that_is_being_filled",),
    ),
    Mutation(
        "8q",
        "what was given up comes back with a build that can read it",
        "services/events/aggregates.py",
        "                if left_out:\n",
        "                if False:\n",
        (_BAD_RECORDS + "test_what_waits_or_was_given_up_is_left_out_by_a_build_that_can_read_it",),
    ),
    Mutation(
        "8r",
        "what a fold failed on before is lost for the next version too",
        "services/events/setting_aside.py",
        "        later = self._version > _FIRST_VERSION\n",
        "        later = False\n",
        (_BAD_RECORDS + "test_what_an_earlier_build_parked_is_left_out_by_its_version_and_taken_by_the_next",),
    ),
    Mutation(
        "10a",
        "a type gets another wire name",
        REGISTRY,
        '("email.sent", 60,',
        '("email.accepted", 60,',
        (
            _EXAMPLES + "test_every_published_version_has_an_example",
            _EXAMPLES + "test_the_example_decodes_and_keeps_every_field",
        ),
    ),
    Mutation(
        "10b",
        "a field gets another name on the wire",
        "contracts/email/events.py",
        "    provider_message_id: str\n    size",
        "    providers_message_id: str\n    size",
        (_EXAMPLES + "test_the_example_decodes_and_keeps_every_field",),
    ),
    Mutation(
        "10c",
        "an upcaster of the chain is left out",
        "contracts/upcasters.py",
        "    for step in range(version, current):\n",
        "    for step in range(version + 1, current):\n",
        (_EXAMPLES + "test_an_old_version_climbs_the_whole_chain",),
    ),
    Mutation(
        "10d",
        "a version is raised without an upcaster for the one before",
        REGISTRY,
        "EventType(name, rank, kind, 1, model, topic)",
        "EventType(name, rank, kind, 2, model, topic)",
        (
            _EXAMPLES + "test_every_published_version_has_an_example",
            _EXAMPLES + "test_the_example_decodes_and_keeps_every_field",
        ),
    ),
    Mutation(
        "10e",
        "a schema that was published no longer says what the models do",
        "contracts/recipients/events.py",
        "    cause: str",
        '    cause: str = ""',
        ("tests/unit/test_cli.py::test_the_published_schemas_are_what_the_models_say",),
    ),
)
