"""The least that makes something visible: take it from the queue or the topic, upsert one document, let it go.

No envelope, no contract, no dedupe, no order, no fold: what Mailroom does beyond this is what the ratio shows.

    python -m bench.baselines.bare_receivers sqs MONGO_URL QUEUE_URL
    python -m bench.baselines.bare_receivers kafka MONGO_URL BOOTSTRAP TOPIC
"""

import json
import sys
from collections.abc import Iterable
from typing import Any

import aioboto3
import uvloop
from aiokafka import AIOKafkaConsumer
from pymongo import AsyncMongoClient, UpdateOne, WriteConcern
from pymongo.asynchronous.collection import AsyncCollection

DATABASE, COLLECTION = "bench", "seen"
Seen = tuple[str, str]
"""A message's id and the time of an event of it."""


def documents(mongo_url: str) -> AsyncCollection[dict[str, Any]]:
    """Where they are upserted, acknowledged by a majority."""
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(mongo_url)
    return client[DATABASE].get_collection(COLLECTION, write_concern=WriteConcern("majority"))


async def upsert(collection: AsyncCollection[dict[str, Any]], seen: Iterable[Seen]) -> None:
    """One bulk."""
    await collection.bulk_write(
        [UpdateOne({"_id": message}, {"$push": {"events": {"timestamp": at}}}, upsert=True) for message, at in seen],
        ordered=False,
    )


async def from_sqs(mongo_url: str, queue_url: str) -> None:
    """For ever."""
    collection = documents(mongo_url)
    async with aioboto3.Session().client("sqs") as sqs:
        print("ready", flush=True)
        while True:
            answer = await sqs.receive_message(QueueUrl=queue_url, MaxNumberOfMessages=10, WaitTimeSeconds=10)
            if messages := answer.get("Messages"):
                await upsert(collection, [_delivery(message["Body"]) for message in messages])
                entries = [{"Id": str(n), "ReceiptHandle": m["ReceiptHandle"]} for n, m in enumerate(messages)]
                await sqs.delete_message_batch(QueueUrl=queue_url, Entries=entries)


def _delivery(body: str) -> Seen:
    notification = json.loads(json.loads(body)["Message"])
    return notification["mail"]["tags"]["mailroom-message-id"][0], notification["delivery"]["timestamp"]


async def from_kafka(mongo_url: str, bootstrap: str, topic: str) -> None:
    """For ever."""
    collection = documents(mongo_url)
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=bootstrap, group_id="bench-bare", enable_auto_commit=False, auto_offset_reset="latest"
    )
    await consumer.start()
    while not consumer.assignment():
        await consumer.getmany(timeout_ms=50)
    await consumer.seek_to_end()
    for partition in consumer.assignment():
        await consumer.position(partition)
    print("ready", flush=True)
    while True:
        batches = await consumer.getmany(timeout_ms=1000)
        if batches:
            events = [json.loads(record.value or b"") for records in batches.values() for record in records]
            await upsert(collection, [(event["subject"], event["time"]) for event in events])
            await consumer.commit()


if __name__ == "__main__":
    kind, *where = sys.argv[1:]
    uvloop.run(from_sqs(*where) if kind == "sqs" else from_kafka(*where))
