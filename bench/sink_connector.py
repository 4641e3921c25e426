"""The peer of `projection`: MongoDB's Kafka sink connector in a standalone worker of Kafka Connect, plain upserts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.ground import Program, running
from deploy.local import provision
from deploy.local.kafka import WARNINGS_TO_CONSOLE
from deploy.local.site import HOST, free_ports
from deploy.local.stack import Stack

CONNECT = ("org.apache.kafka:connect-runtime:4.3.1+org.apache.kafka:connect-json:4.3.1",)
SINK = (
    "org.mongodb.kafka:mongo-kafka-connect:2.0.1+org.mongodb:mongodb-driver-sync:4.7.2"
    "+org.mongodb:mongodb-driver-core:4.7.2+org.mongodb:bson:4.7.2",
)
NAME = "projection-peer"
GROUP = f"connect-{NAME}"
"""The consumer group whose committed offsets tell how far it is."""


@contextmanager
def sink_connector(stack: Stack, topic: str, database: str, collection: str) -> Iterator[Program]:
    """The connector running: each event is upserted into the document of its subject, newer fields over older ones."""
    folder = stack.site.data_dir("connect")
    folder.mkdir(parents=True, exist_ok=True)
    java = provision.java(stack.site.cache_dir, print)
    connect = provision.jars(stack.site.cache_dir, "connect", CONNECT, print)
    plugin = provision.jars(stack.site.cache_dir, "mongo-sink", SINK, print)
    worker, sink, logging = folder / "worker.properties", folder / "sink.properties", folder / "log4j2.properties"
    logging.write_text(WARNINGS_TO_CONSOLE)
    addresses = stack.site.addresses()
    _write(
        worker,
        {
            "bootstrap.servers": addresses.kafka_bootstrap,
            "key.converter": "org.apache.kafka.connect.storage.StringConverter",
            "value.converter": "org.apache.kafka.connect.json.JsonConverter",
            "value.converter.schemas.enable": "false",
            "offset.storage.file.filename": str(folder / "offsets"),
            "offset.flush.interval.ms": "500",
            "plugin.path": str(plugin.parent / f"{plugin.name}-plugins"),
            "plugin.discovery": "hybrid_warn",
            "listeners": f"http://{HOST}:{free_ports(1)[0]}",
            "consumer.max.poll.records": "5000",
            "consumer.auto.offset.reset": "earliest",
        },
    )
    _link(plugin)
    strategy = "com.mongodb.kafka.connect.sink"
    _write(
        sink,
        {
            "name": NAME,
            "connector.class": "com.mongodb.kafka.connect.MongoSinkConnector",
            "tasks.max": "2",
            "topics": topic,
            "connection.uri": addresses.mongo_url,
            "database": database,
            "collection": collection,
            "document.id.strategy": f"{strategy}.processor.id.strategy.PartialValueStrategy",
            "document.id.strategy.partial.value.projection.list": "subject",
            "document.id.strategy.partial.value.projection.type": "AllowList",
            "writemodel.strategy": f"{strategy}.writemodel.strategy.UpdateOneTimestampsStrategy",
        },
    )
    command: Sequence[str] = [
        str(java), "-Xmx512m", f"-Dlog4j2.configurationFile={logging}", "-cp", f"{connect}/*",
        "org.apache.kafka.connect.cli.ConnectStandalone", str(worker), str(sink),
    ]  # fmt: skip
    with running(stack, "sink-connector", command, {}) as program:
        yield program


def _write(path: Path, properties: dict[str, str]) -> None:
    path.write_text("".join(f"{name}={value}\n" for name, value in properties.items()))


def _link(plugin: Path) -> None:
    """A plugin path is a folder of folders with jars, each loaded apart from Connect's own classes."""
    path = plugin.parent / f"{plugin.name}-plugins"
    path.mkdir(exist_ok=True)
    link = path / "mongo-sink"
    if not link.exists():
        link.symlink_to(plugin)
