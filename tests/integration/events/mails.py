"""A log of many messages for tests, as the writers would publish it: in time order over all, some events repeated."""

from __future__ import annotations

import random

from contracts.base import EventData
from contracts.email import events as mail
from tests.unit.events_service.events import ANN, BOB, Log, attempted, bounced, fact, requested, sent

Entry = tuple[bytes | None, bytes | None]


def mails(count: int, seed: int = 1, *, busy_opens: int = 0) -> list[Entry]:
    """Records of `count` messages, interleaved; the first one has `busy_opens` opens more than the others."""
    rng = random.Random(seed)
    places: list[tuple[float, Entry]] = []
    for number in range(count):
        name = f"mail-{seed}-{number:05d}"
        log = Log(name)
        story: list[EventData] = [requested(ANN, BOB).model_copy(update={"message_id": name})]
        for recipient, attempt in ((ANN, "a1"), (BOB, "b1")):
            story += [attempted(attempt, recipient), sent(attempt, recipient)]
            story.append(bounced(recipient=recipient) if rng.random() < 0.1 else fact(mail.EmailDelivered, recipient))
        story += [fact(mail.EmailOpened, rng.choice([ANN, BOB])) for _ in range(rng.randint(0, 4))]
        if number == 0:
            story += [fact(mail.EmailOpened, ANN, machine=rng.random() < 0.2) for _ in range(busy_opens)]
        at = rng.random() * count
        for data in story:
            at += rng.random() * 5
            entry = (name.encode(), log.raw(data))
            places.append((at, entry))
            if rng.random() < 0.02:
                places.append((at + rng.random() * 50, entry))
    return [entry for _, entry in sorted(places, key=lambda place: place[0])]
