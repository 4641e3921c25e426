"""Mail is kept for tests to read, and memory stays bounded."""

from datetime import UTC, datetime

from deploy.local.simulator import mime
from deploy.local.simulator.mailbox import Kept, Mailbox
from deploy.local.simulator.submission import Submission


def kept(number: int, size: int = 10_000) -> Kept:
    raw = b"From: a@x.example\r\nSubject: s\r\n\r\n" + b"x" * size
    submission = Submission("a@x.example", (f"r{number % 2}@x.example",), None, {}, raw, mime.parse(raw))
    return Kept(f"id-{number}", datetime.now(UTC), submission)


def test_the_oldest_goes_first() -> None:
    mailbox = Mailbox(limit=65_000)
    for number in range(20):
        mailbox.keep(kept(number))
    assert [each.provider_message_id for each in mailbox.find(None, 100)] == [f"id-{n}" for n in range(16, 20)]
    assert mailbox.get("id-15") is None


def test_one_mail_is_always_kept() -> None:
    mailbox = Mailbox(limit=1)
    mailbox.keep(kept(1))
    mailbox.keep(kept(2))
    assert [each.provider_message_id for each in mailbox.find(None, 100)] == ["id-2"]


def test_the_newest_to_a_recipient() -> None:
    mailbox = Mailbox(limit=10_000_000)
    for number in range(6):
        mailbox.keep(kept(number))
    assert [each.provider_message_id for each in mailbox.find("R1@x.example", 2)] == ["id-3", "id-5"]
    mailbox.clear()
    assert mailbox.find(None, 100) == []
