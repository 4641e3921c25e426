"""Apache Kafka as one KRaft node that is broker and controller."""

import asyncio
import base64
import subprocess
import uuid
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient

from deploy.local import children, provision
from deploy.local.provision import Progress
from deploy.local.site import HOST, Site, StackError
from deploy.processes import KAFKA_SETTINGS

WARNINGS_TO_CONSOLE = """\
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{ISO8601} %p %c{1} %m%n
"""
"""log4j2's properties for any program of Kafka's: warnings, to standard output."""

_LOGGING = f"""{WARNINGS_TO_CONSOLE}\
logger.server.name = kafka.server.KafkaRaftServer
logger.server.level = info
"""


def command(site: Site, progress: Progress) -> list[str]:
    """Write the configuration, format the storage the first time, and say how to start the broker."""
    folder = site.data_dir("kafka")
    folder.mkdir(parents=True, exist_ok=True)
    properties = folder / "server.properties"
    properties.write_text("\n".join(f"{name}={value}" for name, value in _properties(site).items()) + "\n")
    logging = folder / "log4j2.properties"
    logging.write_text(_LOGGING)
    java = [
        str(provision.java(site.cache_dir, progress)),
        *site.kafka_options,
        f"-Dlog4j2.configurationFile={logging}",
        "-cp",
        f"{provision.kafka_jars(site.cache_dir, progress)}/*",
    ]
    if not (folder / "log" / "meta.properties").exists():
        _format(java, properties)
    return [*java, "kafka.Kafka", str(properties)]


def answers(site: Site) -> None:
    """Return if the broker serves metadata that names itself, and consumer groups; else raise.

    Asking for a group's coordinator also makes the topic that groups live in, so that nobody else meets its absence.
    """

    if not children.listens(site.ports["kafka"]):
        raise ConnectionError("nothing listens on its port yet")

    async def ask() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=site.addresses().kafka_bootstrap, request_timeout_ms=2000)
        try:
            await admin.start()
            cluster = await admin.describe_cluster()
            if not cluster["brokers"]:
                raise ConnectionError("the broker is not in its own metadata yet")
            await admin.find_coordinator("any")
        finally:
            await admin.close()

    asyncio.run(asyncio.wait_for(ask(), 5))


def _properties(site: Site) -> dict[str, str]:
    broker, controller = site.ports["kafka"], site.ports["kafka_controller"]
    return {
        **KAFKA_SETTINGS,
        "controller.quorum.voters": f"1@{HOST}:{controller}",
        "listeners": f"PLAINTEXT://{HOST}:{broker},CONTROLLER://{HOST}:{controller}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{broker}",
        "log.dirs": str(site.data_dir("kafka") / "log"),
    }


def _format(java: list[str], properties: Path) -> None:
    cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    tool = [*java, "kafka.tools.StorageTool", "format", f"--cluster-id={cluster}", "-c", str(properties)]
    done = subprocess.run(tool, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise StackError(f"Kafka's storage could not be formatted:\n{(done.stdout + done.stderr).strip()}")
