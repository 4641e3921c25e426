"""A made-up log of mail for `projection`: the shape that issue 3 asks for, the same for every run of one size.

Each message has 2 to 12 events. Requested, attempted and sent lie within 2,000 records of each other; confirmed and
delivered come later by a median of 20,000 records, opens and clicks by one of 500,000. 5 % are out of order, 1 % are
repeated. Events are built from (message, number) alone, so a repetition is the same bytes.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import orjson

START = datetime(2026, 1, 1, tzinfo=UTC)
CATEGORIES = ("auth", "notification", "marketing", "system", "client-portal")
PRIORITIES = ("low", "normal", "high", "urgent")
NEAR, LATER, MUCH_LATER = 2_000, 20_000, 500_000
_STORY = (
    "email.requested",
    "email.sendAttempted",
    "email.sent",
    "email.sendConfirmed",
    "email.delivered",
    *("email.opened", "email.opened", "email.clicked", "email.opened", "email.clicked", "email.opened", "email.opened"),
)
_NUMBERS = 16  # more than a story is long: a place, a message and a number pack into one integer


def order(events: int, seed: int = 1) -> list[int]:
    """About `events` packed (place, message, number), in the order of the log."""
    rng = random.Random(seed)
    packed: list[int] = []
    message, place = 0, 0.0
    while len(packed) < events:
        length = rng.randint(2, len(_STORY))
        for number in range(length):
            at = place + _delay(rng, number)
            if rng.random() < 0.05:
                at = max(0.0, at - rng.random() * 5_000)
            packed.append(_pack(at, message, number))
            if rng.random() < 0.01:
                packed.append(_pack(at + rng.random() * 50_000, message, number))
        place += length
        message += 1
    packed.sort()
    return packed


def records(events: int, seed: int = 1) -> Iterator[tuple[bytes, bytes]]:
    """Key and value of each record of the log, in order."""
    for packed in order(events, seed):
        rest, number = divmod(packed, _NUMBERS)
        message = rest & 0xFFFF_FFFF
        yield event(message, number)


def stories(messages: int, events: int) -> Iterator[tuple[bytes, bytes]]:
    """Key and value of the first `events` events of each of some messages, one message after the other."""
    for message in range(messages):
        for number in range(events):
            yield event(message, number)


def event(message: int, number: int) -> tuple[bytes, bytes]:
    """Key and value of one event; `number` is below 12."""
    key = _key(message)
    return key.encode(), orjson.dumps(_event(key, message, number))


def _key(message: int) -> str:
    return f"0192f0c1-{message >> 16 & 0xFFFF:04x}-7d3e-9c1a-{message:012x}"


def _delay(rng: random.Random, number: int) -> float:
    """Records between the message's beginning and an event of it."""
    if number < 3:
        return number * rng.random() * NEAR / 2
    if number < 5:
        return NEAR + math.exp(rng.gauss(math.log(LATER), 0.6))
    return NEAR + math.exp(rng.gauss(math.log(MUCH_LATER), 0.9))


def _pack(at: float, message: int, number: int) -> int:
    return (int(at) << 32 | message) * _NUMBERS + number


def _event(key: str, message: int, number: int) -> dict[str, object]:
    name = _STORY[number]
    fact = name in ("email.sendConfirmed", "email.delivered", "email.opened", "email.clicked")
    time = START + timedelta(seconds=message * 0.7 + (0, 0.02, 0.3, 1, 4)[min(number, 4)] + number * 97 * (number > 4))
    return {
        "specversion": "1.0",
        "id": f"0192f0c1-{number:04x}-7d3e-8c1a-{message:012x}",
        "source": "mailroom/email",
        "type": name,
        "subject": key,
        "datacontenttype": "application/json",
        "dataversion": 1,
        "time": time.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z",
        "correlationid": key,
        "revision" if fact else "streamversion": 1 if fact else number + 1,
        "data": _data(name, key, message),
    }


def _data(name: str, key: str, message: int) -> dict[str, object]:
    recipient = f"recipient-{message % 50_000}@example.com"
    attempt = f"0192f0c1-aaaa-7d3e-8c1a-{message:012x}"
    provider: dict[str, object] = {
        "recipient": recipient,
        "provider": "ses",
        "providerMessageId": f"0100018c{message:012x}-000000",
        "attemptId": attempt,
    }
    agent = {"userAgent": "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7)", "ipAddress": "192.0.2.17"}
    match name:
        case "email.requested":
            return {
                "messageId": key,
                "to": [recipient],
                "from": "news@mailroom.example",
                "subject": f"Your order {message} is on its way",
                "category": CATEGORIES[message % 5],
                "priority": PRIORITIES[message % 4],
                "userId": f"user-{message % 997}",
                "clientId": f"client-{message % 97}",
                "tags": {"campaign": f"c-{message % 31}"},
                "expiresAt": "2026-12-31T00:00:00.000000Z",
                "content": {"ref": f"mongo:{key}", "sha256": "0" * 64, "size": 5321},
                "requestHash": "0" * 64,
            }
        case "email.sendAttempted":
            return {"attemptId": attempt, "recipient": recipient, "provider": "ses", "reason": "cheapest"}
        case "email.sent":
            cost = {"amount": 100, "currency": "USD"}
            return {**provider, "size": 5321, "cost": cost, "priceVersion": "2026-01"}
        case "email.delivered":
            return {**provider, "smtpResponse": "250 2.6.0 Message received", "processingTimeMs": 812}
        case "email.opened":
            return {**provider, **agent, "machine": message % 7 == 0}
        case "email.clicked":
            return {**provider, **agent, "link": f"https://example.com/orders/{message}", "machine": False}
        case _:
            return provider
