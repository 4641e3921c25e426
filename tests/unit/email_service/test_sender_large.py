"""Large mail is fetched apart from the turns, within a budget of bytes, and holds up no other mail."""

from __future__ import annotations

import asyncio
import gc
import weakref
from datetime import UTC, datetime
from typing import Any

import pytest

from services.email.adapters.prices import DatedPrices
from services.email.adapters.ses import SesProvider
from services.email.adapters.writing import MailWriter
from services.email.domain.capabilities import Capabilities
from services.email.domain.content import MessageContent, StoredFile
from services.email.domain.outcomes import Accepted, Rejected
from services.email.domain.unsubscribe import UnsubscribeTokens
from services.email.entrypoints import sender as sender_module
from services.email.entrypoints import sender_content, sender_files, sender_large
from services.email.entrypoints.sender import Sender
from services.email.entrypoints.sender_work import Limits
from services.email.ports import OutgoingAttempt, OutgoingMail
from services.kit.addresses import RecipientKeys
from services.kit.prices import load as load_prices
from tests.unit.email_service.fakes import Answer, Post, until
from tests.unit.email_service.files import BUCKET, key_of, upload, uploaded

LARGE = 2_000_000
TWO_AT_ONCE = Limits(bytes_in_hand=6_000_000)
"""Four fifths of it are for large ones."""


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mail that is put off comes again after 0.2 s."""
    monkeypatch.setattr(sender_module, "SHORTEST_WAIT", 0.2)
    monkeypatch.setattr(sender_large, "SHORTEST_WAIT", 0.2)
    monkeypatch.setattr(sender_content, "SHORTEST_WAIT", 0.2)
    monkeypatch.setattr(sender_files, "WAITS", (0.2,))


class Place(Post):
    """A post whose provider takes large mail only when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.open = asyncio.Event()
        self.provider.behaviour = self._wait

    async def _wait(self, attempt: OutgoingAttempt) -> Answer:
        if sum(len(data) for _, _, data in attempt.mail.files) >= LARGE:
            await self.open.wait()
        return self.provider.take(attempt)

    async def attaching(self, size: int, packed: int | None = None, **fields: Any) -> str:
        """A mail with a file of its own, of that size; `packed`: bytes of it as it is stored."""
        file_id = self.ids.new()
        said = uploaded(size)
        if packed is not None:
            said = uploaded(packed).model_copy(update={"content_encoding": "gzip", "original_size": size})
        self.files.hear(file_id, upload(file_id), said)
        self.file_bytes.stored[(BUCKET, key_of(file_id), "v1")] = b"x" * size
        named = StoredFile(filename=file_id, content_type="a/b", size=0, file_id=file_id)
        (message_id,) = await self.queue(1, MessageContent(text="see it", attachments=(named,)), **fields)
        return message_id

    async def sent(self, *message_ids: str, seconds: float = 60.0) -> None:
        async def there() -> bool:
            return set(await self.phases(message_ids)) == {"Sent"}

        await until(there, seconds)


async def test_no_more_is_fetched_than_there_is_room_for_and_all_others_go() -> None:
    post = Place()
    large = [await post.attaching(LARGE) for _ in range(6)]
    sender = post.sender(limits=TWO_AT_ONCE)
    await sender.start()
    small = [*await post.queue(30), *await post.queue(5, priority="urgent")]
    small += [await post.attaching(4) for _ in range(10)]
    await post.sent(*small)
    await asyncio.sleep(0.3)
    fetched = [size for size in map(len_of(post), post.file_bytes.reads) if size == LARGE]
    assert len(fetched) == 2
    assert 2 * LARGE <= in_hand(sender) <= TWO_AT_ONCE.bytes_in_hand
    post.open.set()
    await post.sent(*large)

    async def given_back() -> bool:
        return in_hand(sender) == 0

    await until(given_back)
    await sender.stop(3.0)
    assert len(post.provider.calls) == len(large) + len(small)


def in_hand(sender: Sender) -> int:
    found = sender.health().detail["bytesInHand"]
    assert isinstance(found, int)
    return found


def len_of(post: Place) -> Any:
    """The size of a stored file by its id."""
    sizes = {key: len(data) for (_, key, _), data in post.file_bytes.stored.items()}
    return lambda file_id: sizes[key_of(file_id)]


async def test_a_packed_file_weighs_what_it_is_once_decoded() -> None:
    post = Place()
    message_id = await post.attaching(LARGE, packed=1000)
    sender = post.sender(limits=TWO_AT_ONCE)
    await sender.start()

    async def fetched() -> bool:
        return bool(post.file_bytes.reads)

    await until(fetched)
    assert in_hand(sender) >= LARGE
    post.open.set()
    await post.sent(message_id)
    await sender.stop(3.0)


async def test_one_that_is_larger_than_the_room_goes_alone_and_in_its_order() -> None:
    post = Place()
    post.open.set()
    limits = Limits(bytes_in_hand=6_000_000, attachment_bytes=8_000_000)
    messages = [await post.attaching(size) for size in (LARGE, LARGE, 8_000_000, LARGE, LARGE)]
    sender = post.sender(limits=limits)
    await sender.start()
    await post.sent(*messages)
    await sender.stop(3.0)
    assert [len_of(post)(each) for each in post.file_bytes.reads] == [LARGE, LARGE, 8_000_000, LARGE, LARGE]


async def test_a_backlog_of_large_mail_takes_no_slot_that_small_mail_needs() -> None:
    """A sender works at 96 mails at once: these must not all be such that wait for room."""
    post = Place()
    large = [await post.attaching(LARGE) for _ in range(120)]
    sender = post.sender(limits=TWO_AT_ONCE)
    await sender.start()

    async def full() -> bool:
        return post.provider.open == 2

    await until(full)
    await post.sent(*await post.queue(20))
    post.open.set()
    await post.sent(*large)
    await sender.stop(3.0)


async def test_a_file_that_comes_slowly_holds_up_nobody() -> None:
    post = Place()
    post.file_bytes.hold = asyncio.Event()
    slow = [await post.attaching(4), await post.attaching(LARGE), await post.attaching(4, priority="urgent")]
    sender = post.sender()
    await sender.start()

    async def asked() -> bool:
        return len(post.file_bytes.reads) == 3

    await until(asked)
    await post.sent(*await post.queue(20), *await post.queue(5, priority="urgent"))
    assert sender.health().ready
    post.file_bytes.hold.set()
    post.open.set()
    await post.sent(*slow)
    await sender.stop(3.0)


async def test_what_waits_and_what_is_being_fetched_is_given_back_at_the_end() -> None:
    post = Place()
    post.file_bytes.hold = asyncio.Event()
    large = [await post.attaching(LARGE) for _ in range(6)]
    first = post.sender(limits=TWO_AT_ONCE)
    await first.start()

    async def asked() -> bool:
        return len(post.file_bytes.reads) == 2

    await until(asked)
    await first.stop(3.0)
    post.file_bytes.hold.set()
    post.open.set()
    second = post.sender(limits=TWO_AT_ONCE)
    await second.start()
    await post.sent(*large, seconds=5.0)  # a lease that was not given back lasts for 15 s
    await second.stop(3.0)


async def test_what_no_provider_takes_by_its_size_fails_before_any_attempt() -> None:
    post = Post()
    post.provider.capabilities = Capabilities("mime", 3)
    inline = StoredFile(filename="a.txt", content_type="text/plain", size=4, content=b"abcd")
    (message_id,) = await post.queue(1, MessageContent(text="hi", attachments=(inline,)))
    sender = post.sender()
    await sender.start()

    async def failed() -> bool:
        return await post.phases([message_id]) == ["Failed"]

    await until(failed)
    await sender.stop(3.0)
    event = (await post.store.load(message_id)).events[-1]
    assert await post.types(message_id) == ["requested", "failed"]
    assert (event.data.reason, event.data.detail) == ("invalid", "5 bytes, of 3, are too many")  # type: ignore[attr-defined]


async def test_what_was_sent_is_in_nobody_s_hands_any_more() -> None:
    """Not when the collector comes by: at once. A worker, a loop or a cache that keeps its last mail keeps 20 MB."""
    post = Place()
    post.open.set()
    alive: list[weakref.ref[OutgoingMail]] = []

    async def note(attempt: OutgoingAttempt) -> Answer:
        alive.append(weakref.ref(attempt.mail))
        post.provider.calls.clear()
        return post.provider.take(attempt)

    post.provider.behaviour = note
    sender = post.sender(limits=TWO_AT_ONCE)
    await sender.start()
    gc.disable()
    try:
        await post.sent(*[await post.attaching(LARGE) for _ in range(10)])

        async def gone() -> bool:
            return not any(each() for each in alive)

        await until(gone)
    finally:
        gc.enable()
    await sender.stop(3.0)
    assert len(alive) == 10


# --- what the adapter of SES keeps ---------------------------------------------------------------------------------


class Taking:
    """Stands where aioboto3's client stands: takes everything, and remembers how large it was."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    async def send_email(self, **call: Any) -> dict[str, str]:
        self.sizes.append(len(call["Content"]["Raw"]["Data"]))
        return {"MessageId": f"m{len(self.sizes)}"}


def ses(client: Taking, *, unsubscribe_mailto: str | None = None, **more: Any) -> SesProvider:
    return SesProvider(
        client,
        configuration_set="c",
        prices=DatedPrices(load_prices()),
        writer=MailWriter(
            keys=RecipientKeys(b"r" * 32),
            tokens=UnsubscribeTokens(b"k" * 32),
            public_url="https://mail.example.org",
            unsubscribe_mailto=unsubscribe_mailto,
        ),
        now=lambda: datetime.now(UTC),
        **more,
    )


def mail(size: int, text: str = "hi") -> OutgoingMail:
    return OutgoingMail(
        message_id="0192f0c1-2b7a-7d3e-9c1a-5b8f3e2d4f00", from_="a@mailroom.example", to=("b@inbox.example",), cc=(),
        reply_to=None, subject="s", category="notification", user_id="u", list_id=None, date=datetime.now(UTC),
        content=MessageContent(text=text), files=(("f", "a/b", b"x" * size),),
    )  # fmt: skip


async def test_what_was_made_of_a_mail_goes_with_the_mail() -> None:
    provider = ses(Taking())
    one = mail(100_000)
    alive = weakref.ref(one)
    for n in range(2):
        assert isinstance(await provider.send(OutgoingAttempt(f"a{n}", "b@inbox.example", one)), Accepted)
    del one
    gc.collect()
    assert alive() is None


async def test_ses_is_not_asked_to_take_more_than_it_takes() -> None:
    client = Taking()
    provider = ses(client, most_bytes=150_000)
    fits, just_not, far = mail(100_000), mail(110_000), mail(1_000_000)
    assert provider.cannot_carry(fits) is None
    for one in (just_not, far, mail(10, "ü" * 60_000)):
        assert "SES takes at most 150000" in str(provider.cannot_carry(one))
        answer = await provider.send(OutgoingAttempt("a", "b@inbox.example", one))
        assert isinstance(answer, Rejected)
        assert (answer.code, answer.kind) == ("invalid", "mail")
    assert client.sizes == []
    assert isinstance(await provider.send(OutgoingAttempt("a", "b@inbox.example", fits)), Accepted)
    assert client.sizes[0] <= 150_000
