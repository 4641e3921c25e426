"""Idle and cut off look alike but for the time of the last answer."""

from __future__ import annotations

from aiokafka import TopicPartition

from services.kit.kafka.silence import Silence
from services.kit.testing import FakeClock

A, B = TopicPartition("email.events", 0), TopicPartition("email.events", 1)


class Answers:
    """A consumer as far as it matters here: when each partition's broker answered last."""

    def __init__(self) -> None:
        self.stamps: dict[TopicPartition, int] = {}

    def last_poll_timestamp(self, partition: TopicPartition) -> int | None:
        return self.stamps.get(partition)


def made() -> tuple[Silence, Answers, FakeClock]:
    answers, clock = Answers(), FakeClock()
    return Silence(answers, clock, seconds=8.0), answers, clock


def read(silence: Silence, clock: FakeClock, seconds: int, *drained: TopicPartition) -> None:
    for _ in range(seconds):
        silence.note((), drained)
        clock.move(1.0)


def test_answers_without_records_are_answers() -> None:
    silence, answers, clock = made()
    for stamp in range(60):
        answers.stamps[A] = stamp
        read(silence, clock, 1, A)
    assert silence.silent() == {}


def test_a_broker_that_answers_no_more_is_told_by_its_partitions_until_it_answers() -> None:
    silence, answers, clock = made()
    for stamp in range(20):
        answers.stamps[B] = stamp
        read(silence, clock, 1, A, B)  # A's has never answered
    assert silence.silent() == {A: 19.0}
    answers.stamps[A] = 1
    read(silence, clock, 1, A, B)
    assert silence.silent() == {}


def test_records_are_an_answer_and_a_new_assignment_begins_anew() -> None:
    for end in (lambda silence: silence.note([A], []), Silence.forget):
        silence, _, clock = made()
        read(silence, clock, 20, A)
        assert silence.silent()
        end(silence)
        assert silence.silent() == {}


def test_a_partition_that_was_not_read_for_a_while_is_given_time() -> None:
    silence, _, clock = made()
    read(silence, clock, 3, A)
    clock.move(30)  # others were read meanwhile, and what was fetched of this one lay here unread
    read(silence, clock, 3, A)
    assert silence.silent() == {}
