"""The whole pipeline: what any logger of the process says comes out as clean JSON with its ids."""

import asyncio
import io
import logging

import pytest

from services.kit import logs
from services.kit.log_throttle import Throttle
from services.kit.testing import captured_logs

log = logs.get_logger("tests.kit")


def _fail(message: str) -> None:
    raise ValueError(message)


def test_an_event_carries_ids_service_and_fields() -> None:
    with captured_logs(service="email") as captured, logs.bind_ids("c1", "a1"):
        log.info("mail sent", provider="ses", ms=12)
    (event,) = captured.events
    assert {k: v for k, v in event.items() if k != "timestamp"} == {
        "event": "mail sent",
        "level": "info",
        "source": "tests.kit",
        "service": "email",
        "correlation_id": "c1",
        "aggregate_id": "a1",
        "provider": "ses",
        "ms": 12,
    }
    assert event["timestamp"].endswith("Z")


async def test_ids_reach_tasks_and_end_with_their_block() -> None:
    async def inner() -> None:
        log.info("inside")

    with captured_logs() as captured:
        with logs.bind_ids("c1"):
            task = asyncio.create_task(inner())
        await task
        log.info("outside")
    assert captured.named("inside")[0]["correlation_id"] == "c1"
    assert "correlation_id" not in captured.named("outside")[0]


def test_no_address_and_no_secret_by_any_way() -> None:
    with captured_logs(secrets=("hunter2-hunter2",)) as captured:
        log.warning("for alice@example.com", to=["bob@example.com"], nested={"carol@example.com": "hunter2-hunter2"})
        logging.getLogger("aiokafka.client").error("lost %s", "dave@example.com")
        logging.getLogger("py.warnings").warning("UserWarning: erin@example.com")
        try:
            _fail("frank@example.com has hunter2-hunter2")
        except ValueError:
            log.exception("bad")
            logging.getLogger("uvicorn.error").exception("worse")
    assert len(captured.events) == 5
    for word in ("alice", "bob", "carol", "dave", "erin", "frank"):
        assert f"{word}@" not in captured.text
    assert "hunter2" not in captured.text
    assert "Traceback" in captured.named("bad")[0]["exception"]
    assert captured.named("worse")[0]["source"] == "uvicorn.error"


def test_what_json_cannot_hold_is_written_all_the_same() -> None:
    with captured_logs() as captured:
        log.info("odd", big=1 << 80, surrogate="\ud800", infinite=float("inf"), thing=object())
    (event,) = captured.events
    assert (event["event"], event["big"], event["surrogate"]) == ("odd", str(1 << 80), "?")


def test_levels_hold_for_us_and_for_talkative_libraries() -> None:
    with captured_logs(level="info") as captured:
        log.debug("quiet")
        logging.getLogger("botocore.auth").info("Authorization: …")
        logging.getLogger("uvicorn.access").info("GET /unsubscribe/token")
        logging.getLogger("ours").info("heard")
    assert [event["event"] for event in captured.events] == ["heard"]


def test_console_shows_the_traceback_once_and_clean() -> None:
    out = io.StringIO()
    with captured_logs():
        logs.configure("info", "console", stream=out)
        try:
            _fail("alice@example.com")
        except ValueError:
            log.exception("bad")
    assert out.getvalue().count("Traceback") == 1
    assert "alice@" not in out.getvalue()


def test_a_logger_made_before_follows_a_later_configuration() -> None:
    early = logs.get_logger("early")
    with captured_logs() as captured:
        early.info("heard")
    assert captured.named("heard")


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_every_level_can_be_set(level: logs.Level) -> None:
    with captured_logs(level=level) as captured:
        log.error("always")
    assert captured.named("always")


def test_what_a_library_repeats_is_written_once_with_a_count() -> None:
    seconds = 0.0
    with captured_logs() as captured:
        (handler,) = logging.getLogger().handlers
        handler.filters[:] = [Throttle(10.0, lambda: seconds)]
        for node in range(500):
            logging.getLogger("aiokafka").error("Unable connect to node with id %s", node)
            logging.getLogger("aiokafka").error("Unable to update metadata")
            log.error("ours is always written")
        logging.getLogger("aiokafka").warning("Unable to update metadata")
        seconds = 10.0
        logging.getLogger("aiokafka").error("Unable connect to node with id %s", 7)
        logging.getLogger("aiokafka").error("something else")
    foreign = [each for each in captured.events if each["source"] == "aiokafka"]
    assert [(each["event"], each["level"], each.get("held_back")) for each in foreign] == [
        ("Unable connect to node with id 0", "error", None),
        ("Unable to update metadata", "error", None),
        ("Unable to update metadata", "warning", None),
        ("Unable connect to node with id 7", "error", 499),
        ("something else", "error", None),
    ]
    assert len(captured.named("ours is always written")) == 500


def test_every_configured_process_holds_back_repetitions_but_no_other_exception() -> None:
    with captured_logs() as captured:
        for failure in (ValueError("first"), KeyError("other"), ValueError("again")):
            logging.getLogger("uvicorn.error").error("Exception in ASGI application", exc_info=failure)
    assert ["first" in each["exception"] for each in captured.events] == [True, False]
