"""Where a partition stands after each batch."""

from hypothesis import given
from hypothesis import strategies as st

from services.kit.errors import TransientError
from services.kit.kafka.assignment import LONGEST_ASKED_PAUSE, LONGEST_PAUSE, PartitionState
from services.kit.kafka.batch import Verdict
from services.kit.kafka.records import Record, Retry

AGAIN = Retry(TransientError("later"))


def record(offset: int) -> Record:
    return Record("t", 0, offset, 0, None, b"")


def settle(state: PartitionState, verdicts: dict[int, Verdict], last: int, now: float = 1.0) -> bool:
    return state.settle([record(offset) for offset in verdicts], last, list(verdicts.values()), now)


def test_all_handled_moves_past_the_last_record_read() -> None:
    state = PartitionState(3, 3, 0.0)
    assert settle(state, {3: None, 4: None, 7: None}, last=7)
    assert (state.next, state.done, state.resume_at) == (8, set(), None)


def test_it_stands_at_the_first_record_that_is_not_handled() -> None:
    state = PartitionState(3, 3, 0.0)
    assert not settle(state, {3: None, 4: AGAIN, 5: None, 6: AGAIN, 7: None}, last=7)
    assert (state.next, state.done) == (4, {5, 7})
    assert [r.offset for r in state.fresh(record(n) for n in range(3, 9))] == [4, 6, 8]


def test_only_records_read_before_are_left_and_it_moves_past_them() -> None:
    state = PartitionState(4, 4, 0.0, done={4, 5})
    assert settle(state, {}, last=5)
    assert state.next == 6
    assert state.done == set()


def test_what_was_handled_beyond_a_shorter_read_is_remembered() -> None:
    state = PartitionState(4, 4, 0.0, done={5, 9})
    assert settle(state, {4: None}, last=5)
    assert (state.next, state.done) == (6, {9})


def test_pauses_grow_without_progress_and_begin_anew_with_it() -> None:
    state = PartitionState(0, 0, 0.0)
    pauses = []
    for _ in range(12):
        settle(state, {0: AGAIN}, last=0, now=100.0)
        pauses.append((state.resume_at or 0) - 100.0)
    assert pauses == sorted(pauses)
    assert pauses[0] < 0.2
    assert pauses[-1] == LONGEST_PAUSE
    settle(state, {0: AGAIN, 1: None}, last=1, now=100.0)
    assert (state.resume_at or 0) - 100.0 < 0.2


def test_the_pause_that_was_asked_for_is_kept_within_bounds() -> None:
    state = PartitionState(0, 0, 0.0)
    settle(state, {0: Retry(TransientError("x"), after=20)}, last=0, now=100.0)
    assert state.resume_at == 120.0
    settle(state, {0: Retry(TransientError("x"), after=1e9)}, last=0, now=100.0)
    assert state.resume_at == 100.0 + LONGEST_ASKED_PAUSE


def test_progress_is_noted_and_the_reason_to_wait_forgotten() -> None:
    state = PartitionState(0, 0, 0.0)
    settle(state, {0: AGAIN}, last=0, now=5.0)
    assert state.moved_at == 0.0
    assert state.waiting == "offset 0: TransientError: later"
    settle(state, {0: None}, last=0, now=6.0)
    assert (state.moved_at, state.waiting) == (6.0, "")


def test_the_text_of_a_foreign_error_is_not_shown() -> None:
    state = PartitionState(0, 0, 0.0)
    settle(state, {0: Retry(KeyError("anna@example.com"))}, last=0)
    assert state.waiting == "offset 0: KeyError"


@given(st.data())
def test_any_way_through_a_log_with_gaps(data: st.DataObject) -> None:
    """Never past an unhandled record, nothing handed out twice, and at the end everything handled."""
    log = sorted(data.draw(st.sets(st.integers(0, 60), min_size=1, max_size=30)))
    state = PartitionState(0, -1, 0.0)
    handled: set[int] = set()
    for step in range(200):
        size = data.draw(st.integers(1, 8))
        read = [offset for offset in log if offset >= state.next][:size]
        if not read:
            break
        fresh = state.fresh(record(offset) for offset in read)
        assert not handled & {r.offset for r in fresh}
        # the first in line gets through now and then, as it would in life
        choices = [None, AGAIN] if step % 3 else [None]
        verdicts: list[Verdict] = [data.draw(st.sampled_from(choices)) for _ in fresh]
        handled |= {r.offset for r, verdict in zip(fresh, verdicts, strict=True) if verdict is None}
        state.settle(fresh, read[-1], verdicts, float(step))
        assert all(offset in handled for offset in log if offset < state.next)
    assert handled == set(log)
