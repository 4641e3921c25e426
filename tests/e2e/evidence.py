"""Gathers the judge's evidence from a running stack, and waits until there is nothing more to come.

Reads Kafka, MongoDB, SQS and the simulator directly: what the services say of themselves is not evidence.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from pymongo import AsyncMongoClient

from contracts.topics import EMAIL_EVENTS, FILES_EVENTS, LANES, RECIPIENTS_EVENTS, TOPICS
from deploy.local.endpoints import AwsEndpoints, aws_endpoints
from deploy.local.simulator.client import SimulatorClient
from deploy.local.stack import Stack
from services.email.domain.correlation import MESSAGE_TAG
from services.kit.crypto import KeyRing
from services.kit.parking import ParkedRecord
from services.kit.parking_mongo import MongoParkingLot
from tests.e2e.judge import Decisions, Entry, Evidence, Json

PROJECTION = "email_log"
PROJECTIONS = {PROJECTION: EMAIL_EVENTS, "file": FILES_EVENTS}
"""Read model → the topic it is made of."""

STREAMS = ("messages", "recipients")
"""Collections of the email service that hold streams."""


@dataclass(frozen=True, slots=True)
class Since:
    """Where everything stood before a run: what came earlier is not its evidence."""

    offsets: Mapping[TopicPartition, int]
    acceptances: int
    notifications: int
    at: datetime


class Observer:
    """One stack as seen from outside. Use `observing`."""

    def __init__(self, stack: Stack, simulator: SimulatorClient) -> None:
        env = stack.env()
        self.stack, self.simulator = stack, simulator
        self._bootstrap = env["MAILROOM_KAFKA_BOOTSTRAP"]
        self._client: AsyncMongoClient[Json] = AsyncMongoClient(env["MAILROOM_MONGO_URL"], tz_aware=True)
        self.email = self._client[env["MAILROOM_EMAIL_DATABASE"]]
        self.files = self._client[env["MAILROOM_FILES_DATABASE"]]
        self.events = self._client[env["MAILROOM_EVENTS_DATABASE"]]
        self._ended: set[str] = set()
        self._aws: AwsEndpoints = aws_endpoints(stack)
        self._sqs: Any = self._aws.client("sqs")

    async def close(self) -> None:
        await self._client.close()
        self._sqs.close()

    # --- before and after a run ---

    async def now(self) -> Since:
        """Where everything stands."""
        async with self._consumer() as consumer:
            offsets = await _ends(consumer, [topic.name for topic in TOPICS])
        return Since(
            offsets,
            await self.simulator.position(),
            await self.simulator.notifications_position(),
            datetime.now(UTC),
        )

    async def gather(self, since: Since, message_ids: Collection[str]) -> Evidence:
        """The evidence about these messages, and about the system as a whole."""
        wanted = set(message_ids)
        acceptances = [
            each
            for each in await self.simulator.acceptances(since.acceptances)
            if each["tags"].get(MESSAGE_TAG) in wanted
        ]
        ours = {each["providerMessageId"] for each in acceptances}
        notifications = await self.simulator.notifications(since.notifications)
        keys = {message_id.encode() for message_id in wanted}
        log = [entry for entry in await self.log(EMAIL_EVENTS.name, since) if entry.key in keys]
        recipients = await self.log(RECIPIENTS_EVENTS.name, since)
        streams = await self.streams([*wanted, *{(entry.key or b"").decode() for entry in recipients}])
        name = await self.read_model()
        return Evidence(
            acceptances=acceptances,
            notifications=[each for each in notifications if each["providerMessageId"] in ours],
            log=log,
            recipients=recipients,
            documents={each["_id"]: each async for each in self.events[name].find({"_id": {"$in": list(wanted)}})},
            rows=[each async for each in self.events[f"{name}__facts"].find({"aggregate": {"$in": list(wanted)}})],
            streams=streams,
            parked=[what async for what in self.parked(since)],
            lag=await self.lag(),
            queues={name: count for name, count in (await self.queues()).items() if count},
        )

    async def settled(self, since: Since, message_ids: Collection[str], seconds: float, *, parked: int = 0) -> Evidence:
        """The evidence once there is nothing more to come: everything ended, published, translated, projected.

        The stages are looked at in the order of the data's way, so one pass in which each has nothing left is enough.
        Files of the same test may still be on their way: then the evidence is gathered again. When there is no rest
        within `seconds`, what is there by then is returned: let the judge say what is wrong.
        """
        deadline = asyncio.get_running_loop().time() + seconds
        while True:
            late = asyncio.get_running_loop().time() > deadline
            if late or not await self.unfinished(message_ids):
                evidence = await self.gather(since, message_ids)
                if late or not (evidence.lag or evidence.queues):
                    return evidence
            await asyncio.sleep(0.3)

    async def settled_deliveries(self, message_ids: Collection[str], seconds: float) -> None:
        """Wait until every delivery has ended. AssertionError after `seconds`."""
        deadline = asyncio.get_running_loop().time() + seconds
        while await self._going_on(message_ids):
            assert asyncio.get_running_loop().time() < deadline, f"deliveries have not ended within {seconds:.0f} s"
            await asyncio.sleep(0.5)

    async def none_unknown(self, message_ids: Collection[str], seconds: float) -> None:
        """Wait until no delivery has an unknown outcome. AssertionError after `seconds`."""
        deadline = asyncio.get_running_loop().time() + seconds
        while unknown := [name for name, ends in (await self._ends_of(message_ids)).items() if "unknown" in ends]:
            assert asyncio.get_running_loop().time() < deadline, f"unknown after {seconds:.0f} s: {unknown}"
            await asyncio.sleep(1)

    async def unfinished(self, message_ids: Collection[str], *, ignore_commands: bool = False) -> str:
        """The first stage with something left, "" if there is none."""
        lanes = tuple(topic.name for topic in LANES.values())
        if not ignore_commands and any(name.endswith(lanes) for name in await self.lag()):
            return "commands"
        if await self._going_on(message_ids):
            return "deliveries"
        if await self._unpublished():
            return "decisions"
        if (await self.simulator.health())["pendingNotifications"] or any((await self.queues()).values()):
            return "notifications"
        if any(not name.endswith(lanes) for name in await self.lag()):
            return "records"
        return "decisions" if await self._unpublished() else ""

    async def _going_on(self, message_ids: Collection[str]) -> bool:
        """Whether a message has no stream yet, or a delivery no end. What has ended stays so and is not read again."""
        waiting = set(message_ids) - self._ended
        for message_id, ends in (await self._ends_of(waiting)).items():
            if ends and not ends & {"open", "queued"}:
                self._ended.add(message_id)
        return not waiting <= self._ended

    async def _ends_of(self, message_ids: Collection[str]) -> dict[str, set[str]]:
        """How the deliveries of each message end that has a stream."""
        found: dict[str, set[str]] = {}
        for message_id, stream in (await self.streams(message_ids)).items():
            decisions = [Entry(0, 0, None, text.encode()) for text in stream["events"]]
            found[message_id] = set(Decisions(decisions).ends().values())
        return found

    async def _unpublished(self) -> bool:
        pending = {"pendingSince": {"$exists": True}}
        return any([await self.email[name].find_one(pending) is not None for name in STREAMS])

    # --- one place each ---

    async def log(self, topic: str, since: Since | None = None) -> list[Entry]:
        """The records of a topic that came since."""
        found: list[Entry] = []
        async with self._consumer() as consumer:
            ends = await _ends(consumer, [topic])
            starts = {each: (since.offsets.get(each, 0) if since else 0) for each in ends}
            waiting = {each for each, end in ends.items() if end > starts[each]}
            consumer.assign(list(waiting))
            for each in waiting:
                consumer.seek(each, starts[each])
            while waiting:
                for records in (await consumer.getmany(timeout_ms=1000)).values():
                    found += [Entry(each.partition, each.offset, each.key, each.value) for each in records]
                waiting = {each for each in waiting if await consumer.position(each) < ends[each]}
        return found

    async def streams(self, ids: Collection[str]) -> dict[str, Json]:
        """Stream documents by id: of messages, and of recipients."""
        query = {"_id": {"$in": list(ids)}}
        return {each["_id"]: each for name in STREAMS async for each in self.email[name].find(query)}

    async def read_model(self, name: str = PROJECTION) -> str:
        """The collection that the pointer names."""
        pointer = await self.events["projections"].find_one({"_id": name})
        assert pointer is not None, "the events service has made no generation"
        return f"{name}__g{pointer['active']}"

    async def parked(self, since: Since) -> AsyncIterator[str]:
        """Open parked records of our topics, as `service topic reason`."""
        for service, database in (("email", self.email), ("files", self.files), ("events", self.events)):
            async for each in database["parked"].find({"status": "parked"}):
                first = since.offsets.get(TopicPartition(each["topic"], each["partition"]), 0)
                if each["offset"] >= first:
                    yield f"{service} {each['topic']} {each['reason']}"

    async def parking_lots(self) -> dict[str, list[ParkedRecord]]:
        """All open parked records with their bytes, by service."""
        ring = KeyRing.from_secret(self.stack.env()["FILE_ENCRYPTION_KEY"])
        found: dict[str, list[ParkedRecord]] = {}
        for service, database in (("email", self.email), ("files", self.files), ("events", self.events)):
            lot = MongoParkingLot(database, ring)
            names = [each["_id"] async for each in database["parked"].find({"status": "parked"}, {"_id": 1})]
            shown = [await lot.show(name) for name in names]
            found[service] = [each for each in shown if each is not None]
        return found

    async def lag(self) -> dict[str, int]:
        """How far behind each consumer is, by `group topic`: only those that are."""
        behind: dict[str, int] = {}
        async with self._consumer() as consumer, self._admin() as admin:
            ends = await _ends(consumer, [topic.name for topic in TOPICS])
            for group, *_ in await admin.list_consumer_groups():
                for partition, committed in (await admin.list_consumer_group_offsets(group)).items():
                    if partition in ends and not await self._is_projector(group):
                        name = f"{group} {partition.topic}"
                        behind[name] = behind.get(name, 0) + max(0, ends[partition] - committed.offset)
        for name, topic in PROJECTIONS.items():
            active = (await self.events["projections"].find_one({"_id": name}) or {}).get("active")
            async for lease in self.events["leases"].find({"generation": f"{name}/{active}"}):
                end = ends[TopicPartition(topic.name, lease["partition"])]
                who = f"projector {topic.name}"
                behind[who] = behind.get(who, 0) + max(0, end - lease["next"])
        return {who: count for who, count in behind.items() if count}

    async def queues(self) -> dict[str, int]:
        """Messages by queue, those in flight too."""

        def ask(url: str) -> int:
            names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
            found = self._sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
            return sum(int(found.get(name, 0)) for name in names)

        urls = {
            "the queue": self._aws.queue_url,
            "the dead-letter queue": self._aws.dead_letter_queue_url,
            "the queue of files": self._aws.files_queue_url,
            "the dead-letter queue of files": self._aws.files_dead_letter_queue_url,
        }
        return {name: await asyncio.to_thread(ask, url) for name, url in urls.items()}

    async def put_on_queue(self, *bodies: str, files: bool = False) -> None:
        """Send messages to the queue of notifications, SES's or S3's, whatever they are."""
        url = self._aws.files_queue_url if files else self._aws.queue_url
        for body in bodies:
            await asyncio.to_thread(self._sqs.send_message, QueueUrl=url, MessageBody=body)

    async def groups(self) -> list[str]:
        """All consumer groups."""
        async with self._admin() as admin:
            return [group for group, *_ in await admin.list_consumer_groups()]

    async def _is_projector(self, group: str) -> bool:
        """A projector tells Kafka its positions for lag tools only, every few seconds: its leases count."""
        return group.startswith("events.")

    @asynccontextmanager
    async def _consumer(self) -> AsyncIterator[AIOKafkaConsumer]:
        consumer = AIOKafkaConsumer(bootstrap_servers=self._bootstrap, auto_offset_reset="none")
        try:
            await consumer.start()
            # Else the first question about a topic asks for its partitions, and for nothing more until a second later.
            await consumer._client.set_topics([topic.name for topic in TOPICS])
            yield consumer
        finally:
            await consumer.stop()

    @asynccontextmanager
    async def _admin(self) -> AsyncIterator[AIOKafkaAdminClient]:
        admin = AIOKafkaAdminClient(bootstrap_servers=self._bootstrap)
        try:
            await admin.start()
            yield admin
        finally:
            await admin.close()


@asynccontextmanager
async def observing(stack: Stack) -> AsyncIterator[Observer]:
    """An observer of a stack whose parts were all started."""
    async with SimulatorClient(stack.site.url("simulator")) as simulator:
        observer = Observer(stack, simulator)
        try:
            yield observer
        finally:
            await observer.close()


async def _ends(consumer: AIOKafkaConsumer, topics: Sequence[str]) -> dict[TopicPartition, int]:
    counts = {topic.name: topic.partitions for topic in TOPICS}
    found: dict[TopicPartition, int] = await consumer.end_offsets(
        [TopicPartition(name, number) for name in topics for number in range(counts[name])]
    )
    return found
