"""The simulator as a process, called by the real AWS client, notifying through the real emulator.

One process serves all tests, which look at what it has logged since they began. A test that kills or changes it for
good has one of its own.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from email import message_from_bytes
from pathlib import Path
from typing import Any

import aioboto3
import aiohttp
import httpx
import pytest
import pytest_asyncio
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from deploy.local.endpoints import AwsEndpoints
from deploy.local.simulator.client import SimulatorClient
from deploy.local.simulator.faults import Fault
from deploy.local.simulator.wire import Request, Response, Server
from deploy.processes import aws_environment

pytestmark = [pytest.mark.usefixtures("no_services"), pytest.mark.asyncio(loop_scope="module")]

HANG = 180.0
"""Seconds that only something that hangs takes."""
RAW = b"From: a@mailroom.example\r\nTo: b@example.com\r\nSubject: hello\r\n\r\nbody https://x.example/l\r\n"


@dataclass
class Simulator:
    """One simulator process with its client, and SES's client pointed at it."""

    aws: AwsEndpoints
    folder: Path
    arguments: tuple[str, ...] = ("--max-send-rate", "0")
    stack: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)
    tag: str = field(default_factory=lambda: uuid.uuid4().hex)
    port: int = 0
    since: int = 0
    notified_since: int = 0

    async def start(self) -> None:
        command = ["-m", "deploy.local.simulator", "--port", str(self.port), "--sns-endpoint", self.aws.endpoint_url]
        command += ["--region", "us-east-1", "--state-dir", str(self.folder), "--step-ms", "5", *self.arguments]
        env = {**os.environ, **aws_environment(self.aws.endpoint_url, self.aws.access_key_id)}
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, *command, stdout=asyncio.subprocess.PIPE, stderr=None, env=env
        )
        assert self.process.stdout is not None
        line = (await asyncio.wait_for(self.process.stdout.readline(), HANG)).decode()
        assert "development and tests only" in line, line
        self.port = int(line.split("http://127.0.0.1:")[1].split(",")[0])
        self.url = f"http://127.0.0.1:{self.port}"
        self.control = await self.stack.enter_async_context(SimulatorClient(self.url))
        session = aioboto3.Session()
        self.ses: Any = await self.stack.enter_async_context(self.ses_client(HANG))
        self.sqs: Any = await self.stack.enter_async_context(
            session.client("sqs", endpoint_url=self.aws.endpoint_url, **self.keys)
        )

    @property
    def keys(self) -> dict[str, str]:
        """What a client of this account calls with."""
        return {
            "aws_access_key_id": self.aws.access_key_id,
            "aws_secret_access_key": self.aws.secret_access_key,
            "region_name": self.aws.region,
        }

    def ses_client(self, read_timeout: float) -> Any:
        """SES's own client, which calls once."""
        config = Config(
            retries={"total_max_attempts": 1}, connect_timeout=HANG, read_timeout=read_timeout, max_pool_connections=32
        )
        return aioboto3.Session().client("sesv2", endpoint_url=self.url, config=config, **self.keys)

    async def begin(self) -> None:
        """Without faults, with what is pending published, and with a tag and a place in the logs of its own."""
        await self.control.reset()
        await self.control.settings(stepMs=5)
        await self.control.quiet(HANG)
        self.tag = uuid.uuid4().hex
        self.since = await self.control.position()
        self.notified_since = await self.control.notifications_position()

    async def acceptances(self) -> list[dict[str, Any]]:
        """What was accepted since this test began."""
        return await self.control.acceptances(self.since)

    async def notifications(self) -> list[dict[str, Any]]:
        """What was notified since this test began."""
        return await self.control.notifications(self.notified_since)

    async def kill(self, name: signal.Signals) -> int:
        if self.process.returncode is None:
            self.process.send_signal(name)
        return await asyncio.wait_for(self.process.wait(), HANG)

    async def send(self, *to: str, raw: bytes = RAW, ses: Any = None, **more: Any) -> str:
        answer = await (ses or self.ses).send_email(
            FromEmailAddress="a@mailroom.example",
            Destination={"ToAddresses": list(to)},
            Content={"Raw": {"Data": raw}},
            ConfigurationSetName=self.aws.configuration_set,
            EmailTags=[{"Name": "run", "Value": self.tag}],
            **more,
        )
        return str(answer["MessageId"])

    async def heard(self, count: int, seconds: float = HANG) -> list[dict[str, Any]]:
        """Receive until `count` bodies of this run's notifications have come; deletes all that it receives."""
        found: list[dict[str, Any]] = []
        async with asyncio.timeout(seconds):
            while len(found) < count:
                answer = await self.sqs.receive_message(
                    QueueUrl=self.aws.queue_url, MaxNumberOfMessages=10, WaitTimeSeconds=1
                )
                for message in answer.get("Messages", ()):
                    await self.sqs.delete_message(QueueUrl=self.aws.queue_url, ReceiptHandle=message["ReceiptHandle"])
                    if self.tag in message["Body"]:
                        found.append(json.loads(message["Body"]))
        return found

    async def kinds(self, count: int) -> list[str]:
        return [json.loads(body["Message"])["eventType"] for body in await self.heard(count)]


@contextlib.asynccontextmanager
async def started(aws: AwsEndpoints, folder: Path) -> AsyncIterator[Simulator]:
    made = Simulator(aws, folder)
    await made.start()
    try:
        yield made
    finally:
        await made.stack.aclose()
        await made.kill(signal.SIGKILL)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(aws: AwsEndpoints, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Simulator]:
    async with started(aws, tmp_path_factory.mktemp("simulator")) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def simulator(shared: Simulator) -> Simulator:
    """The one of all tests, as new."""
    await shared.begin()
    return shared


@pytest_asyncio.fixture(loop_scope="module")
async def own(aws: AwsEndpoints, tmp_path: Path) -> AsyncIterator[Simulator]:
    """One that a test may kill, and that has counted and been told nothing yet."""
    async with started(aws, tmp_path / "simulator") as made:
        yield made


async def test_a_send_arrives_on_the_queue_in_an_sns_envelope(simulator: Simulator) -> None:
    provider_message_id = await simulator.send("success@example.com")
    send, delivery = await simulator.heard(2)
    assert send["Type"] == "Notification"
    assert send["TopicArn"] == simulator.aws.topic_arn
    assert {"MessageId", "Timestamp", "Message"} <= set(send)
    told = [json.loads(body["Message"]) for body in (send, delivery)]
    assert [event["eventType"] for event in told] == ["Send", "Delivery"]
    assert {event["mail"]["messageId"] for event in told} == {provider_message_id}
    assert told[0]["mail"]["tags"]["run"] == [simulator.tag]
    assert told[0]["mail"]["tags"]["ses:configuration-set"] == [simulator.aws.configuration_set]


async def test_the_order_of_many_notifications_is_kept(simulator: Simulator) -> None:
    ids = await asyncio.gather(*(simulator.send(f"click+{number}@example.com") for number in range(40)))
    events = [json.loads(body["Message"]) for body in await simulator.heard(160)]
    for provider_message_id in ids:
        mine = [event["eventType"] for event in events if event["mail"]["messageId"] == provider_message_id]
        assert mine == ["Send", "Delivery", "Open", "Click"]


async def test_acceptances_are_logged_before_the_answer_and_survive_a_kill(own: Simulator) -> None:
    ids: list[str] = []

    async def keep_sending() -> None:
        with contextlib.suppress(BotoCoreError, ClientError):
            while True:
                ids.append(await own.send("blackhole@example.com"))

    senders = [asyncio.create_task(keep_sending()) for _ in range(16)]
    async with asyncio.timeout(HANG):
        while len(ids) < 100:  # noqa: ASYNC110 - the senders are waited for, with a limit
            await asyncio.sleep(0.01)
    await own.kill(signal.SIGKILL)
    await asyncio.gather(*senders)
    await own.start()
    logged = [entry["providerMessageId"] for entry in await own.acceptances()]
    assert set(ids) <= set(logged)
    assert len(logged) - len(ids) <= 16
    entry = (await own.acceptances())[0]
    assert entry["destination"] == ["blackhole@example.com"]
    assert entry["tags"] == {"run": own.tag}
    assert entry["answered"] == "ok"


async def test_the_same_mail_twice_is_two_acceptances(simulator: Simulator) -> None:
    await simulator.send("blackhole@example.com")
    since = await simulator.control.position()
    first, second = await simulator.send("blackhole@example.com"), await simulator.send("blackhole@example.com")
    assert [entry["providerMessageId"] for entry in await simulator.control.acceptances(since)] == [first, second]


async def test_messages_can_be_read_as_they_were_sent(simulator: Simulator) -> None:
    provider_message_id = await simulator.send("reader@example.com")
    await simulator.send("other@example.com")
    assert await simulator.control.raw(provider_message_id) == RAW
    (found,) = await simulator.control.messages(to="Reader@example.com")
    assert (found["providerMessageId"], found["subject"]) == (provider_message_id, "hello")


async def test_simple_content_is_sent_and_kept(simulator: Simulator) -> None:
    answer = await simulator.ses.send_email(
        FromEmailAddress="a@mailroom.example",
        Destination={"ToAddresses": ["b@example.com"]},
        ReplyToAddresses=["r@mailroom.example"],
        Content={"Simple": {"Subject": {"Data": "hi"}, "Body": {"Text": {"Data": "text"}}}},
    )
    message = message_from_bytes(await simulator.control.raw(answer["MessageId"]))
    assert (message["Subject"], message["To"], message["Reply-To"]) == ("hi", "b@example.com", "r@mailroom.example")


@pytest.mark.parametrize(
    ("fault", "code", "status"),
    [
        (Fault(kind="throttle"), "TooManyRequestsException", 429),
        (Fault(kind="accountSuspended"), "AccountSuspendedException", 400),
        (Fault(kind="sendingPaused"), "SendingPausedException", 400),
        (Fault(kind="refuse", code="MessageRejected"), "MessageRejected", 400),
        (Fault(kind="refuse", code="MailFromDomainNotVerifiedException"), "MailFromDomainNotVerifiedException", 400),
        (Fault(kind="serverError", status=503), "ServiceUnavailable", 503),
        (Fault(kind="serverError"), "InternalServiceErrorException", 500),
    ],
)
async def test_refusals_accept_nothing(simulator: Simulator, fault: Fault, code: str, status: int) -> None:
    await simulator.control.faults(fault)
    with pytest.raises(ClientError) as caught:
        await simulator.send("b@example.com")
    response: Any = caught.value.response
    assert (response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]) == (code, status)
    modelled = getattr(simulator.ses.exceptions, code, None) if code.endswith(("Exception", "Rejected")) else None
    if modelled is not None and status < 500:
        assert isinstance(caught.value, modelled)
    assert await simulator.acceptances() == []
    await simulator.control.faults()
    await simulator.send("b@example.com")


async def test_dropped_after_acceptance(simulator: Simulator) -> None:
    await simulator.control.faults(Fault(kind="acceptThenDrop", count=1))
    with pytest.raises(BotoCoreError) as caught:
        await simulator.send("b@example.com")
    # aiobotocore gives the same error for a refused connect; only the cause tells them apart.
    assert not isinstance(caught.value.kwargs["error"], aiohttp.ClientConnectorError)
    (entry,) = await simulator.acceptances()
    assert entry["answered"] == "acceptThenDrop"
    assert await simulator.kinds(2) == ["Send", "Delivery"]


async def test_an_error_after_acceptance(simulator: Simulator) -> None:
    await simulator.control.faults(Fault(kind="acceptThenError", status=500, count=1))
    with pytest.raises(ClientError):
        await simulator.send("b@example.com")
    assert [entry["answered"] for entry in await simulator.acceptances()] == ["acceptThenError"]


async def test_dropped_before_acceptance(simulator: Simulator) -> None:
    await simulator.control.faults(Fault(kind="dropBeforeAccept", count=1))
    with pytest.raises(BotoCoreError):
        await simulator.send("b@example.com")
    assert await simulator.acceptances() == []


async def test_a_client_that_gave_up_may_have_been_heard(simulator: Simulator) -> None:
    await simulator.control.faults(Fault(kind="slow", ms=3000))
    async with simulator.ses_client(0.3) as hasty:
        with pytest.raises(BotoCoreError):
            await simulator.send("b@example.com", ses=hasty)
    async with asyncio.timeout(HANG):
        while not await simulator.acceptances():  # noqa: ASYNC110 - it happens in another process
            await asyncio.sleep(0.05)


async def test_refused_connections_come_back(simulator: Simulator) -> None:
    await simulator.send("b@example.com")
    await simulator.control.faults(Fault(kind="refuseConnections", seconds=2))
    await asyncio.sleep(0.2)
    with pytest.raises(BotoCoreError) as caught:
        await simulator.send("b@example.com")
    assert isinstance(caught.value.kwargs["error"], aiohttp.ClientConnectorError)
    async with asyncio.timeout(HANG):
        while True:
            with contextlib.suppress(BotoCoreError):
                await simulator.send("b@example.com")
                break
            await asyncio.sleep(0.1)
    assert len(await simulator.acceptances()) == 2


async def test_faulty_notifications(simulator: Simulator) -> None:
    await simulator.control.faults(
        Fault(kind="silent", match="^quiet"),
        Fault(kind="duplicate", match="^twice", copies=3),
        Fault(kind="delay", match="^late", ms=300),
    )
    late = await simulator.send("late@example.com")
    await simulator.send("quiet@example.com")
    await simulator.send("twice@example.com")
    bodies = await simulator.heard(8)
    events = [json.loads(body["Message"]) for body in bodies]
    destinations = [event["mail"]["destination"][0].partition("@")[0] for event in events]
    assert sorted(destinations) == ["late"] * 2 + ["twice"] * 6
    assert destinations[-2:] == ["late", "late"]
    assert len({body["MessageId"] for body in bodies}) == 8
    told = [entry for entry in await simulator.notifications() if entry["providerMessageId"] == late]
    assert [entry["faults"] for entry in told] == [["delay"], ["delay"]]


async def test_reordered_and_malformed_notifications(simulator: Simulator) -> None:
    await simulator.control.faults(Fault(kind="reorder", ms=200), seed=3)
    await asyncio.gather(*(simulator.send(f"click+{number}@example.com") for number in range(10)))
    kinds = await simulator.kinds(40)
    assert sorted(kinds) == sorted(["Send", "Delivery", "Open", "Click"] * 10)
    assert kinds.index("Click") < len(kinds) - 1 - kinds[::-1].index("Send")
    await simulator.control.faults(Fault(kind="malformed", how="noMail"))
    since = await simulator.control.notifications_position()
    await simulator.send("success@example.com")
    await simulator.control.quiet(HANG)
    assert [entry["faults"] for entry in await simulator.control.notifications(since)] == [["malformed"]] * 2


async def test_anything_can_be_injected(simulator: Simulator) -> None:
    await simulator.control.notify({"eventType": "Novel", "x": simulator.tag}, topic_arn=simulator.aws.topic_arn)
    await simulator.control.notify(f"not json {simulator.tag} ä&=+%", topic_arn=simulator.aws.topic_arn, copies=2)
    messages = [body["Message"] for body in await simulator.heard(3)]
    assert json.loads(messages[0])["eventType"] == "Novel"
    assert messages[1:] == [f"not json {simulator.tag} ä&=+%"] * 2


async def test_account_suppression_list_is_honoured(simulator: Simulator) -> None:
    await simulator.ses.put_suppressed_destination(EmailAddress="Gone+1@example.com", Reason="BOUNCE")
    found = await simulator.ses.get_suppressed_destination(EmailAddress="gone+1@example.com")
    assert found["SuppressedDestination"]["Reason"] == "BOUNCE"
    listed = await simulator.ses.list_suppressed_destinations(Reasons=["BOUNCE"], PageSize=10)
    assert [row["EmailAddress"] for row in listed["SuppressedDestinationSummaries"]] == ["Gone+1@example.com"]
    await simulator.send("gone+1@example.com")
    bounce = json.loads((await simulator.heard(2))[1]["Message"])["bounce"]
    assert bounce["bounceSubType"] == "OnAccountSuppressionList"
    await simulator.ses.delete_suppressed_destination(EmailAddress="gone+1@example.com")
    with pytest.raises(simulator.ses.exceptions.NotFoundException):
        await simulator.ses.delete_suppressed_destination(EmailAddress="gone+1@example.com")
    await simulator.send("gone+1@example.com")
    assert await simulator.kinds(2) == ["Send", "Delivery"]


async def test_the_suppression_list_can_be_out_of_reach(simulator: Simulator) -> None:
    await simulator.control.faults(Fault(kind="serverError", operation="SuppressedDestination"))
    with pytest.raises(ClientError):
        await simulator.ses.get_suppressed_destination(EmailAddress="a@example.com")
    await simulator.send("b@example.com")


async def test_rate_quota_and_verified_senders(own: Simulator) -> None:
    await own.control.settings(maxSendRate=3, max24HourSend=100)
    await own.send("a@example.com", "b@example.com", "c@example.com")
    with pytest.raises(own.ses.exceptions.TooManyRequestsException):
        await own.send("a@example.com", "b@example.com")
    quota = (await own.ses.get_account())["SendQuota"]
    assert quota == {"Max24HourSend": 100.0, "MaxSendRate": 3.0, "SentLast24Hours": 3.0}
    await own.control.settings(maxSendRate=0, verified=["other.example"])
    with pytest.raises(own.ses.exceptions.MailFromDomainNotVerifiedException):
        await own.send("a@example.com")
    assert len(await own.acceptances()) == 1


async def test_a_suspended_account_says_so(simulator: Simulator) -> None:
    assert (await simulator.ses.get_account())["SendingEnabled"] is True
    await simulator.control.faults(Fault(kind="accountSuspended"))
    account = await simulator.ses.get_account()
    assert (account["SendingEnabled"], account["EnforcementStatus"]) == (False, "SHUTDOWN")


async def test_configuration_sets_are_the_emulators(simulator: Simulator) -> None:
    name = simulator.aws.configuration_set
    assert (await simulator.ses.get_configuration_set(ConfigurationSetName=name))["ConfigurationSetName"] == name
    with pytest.raises(simulator.ses.exceptions.NotFoundException):
        await simulator.ses.send_email(
            FromEmailAddress="a@mailroom.example",
            Destination={"ToAddresses": ["b@example.com"]},
            Content={"Raw": {"Data": RAW}},
            ConfigurationSetName="no-such-set",
        )
    assert await simulator.acceptances() == []


async def test_a_configuration_set_can_be_pointed_elsewhere(own: Simulator) -> None:
    topic, name = own.aws.topic_arn, own.aws.configuration_set
    await own.control.topics(name, topic, ["BOUNCE"])
    await own.send("bounce@example.com")
    assert await own.kinds(1) == ["Bounce"]
    assert [entry["eventType"] for entry in await own.notifications()] == ["Bounce"]


async def test_a_term_publishes_what_is_pending(own: Simulator) -> None:
    await own.control.settings(stepMs=300)
    await own.send("click@example.com")
    assert await own.kill(signal.SIGTERM) == 0
    assert await own.kinds(4) == ["Send", "Delivery", "Open", "Click"]


async def test_reset_forgets_all_but_the_logs(simulator: Simulator) -> None:
    await simulator.control.faults(Fault(kind="throttle", match="^never"))
    await simulator.ses.put_suppressed_destination(EmailAddress="a@example.com", Reason="COMPLAINT")
    await simulator.send("b@example.com")
    await simulator.control.reset()
    assert await simulator.control.messages() == []
    assert await simulator.control.shown_faults() == []
    assert (await simulator.ses.list_suppressed_destinations())["SuppressedDestinationSummaries"] == []
    assert len(await simulator.acceptances()) == 1


async def test_a_second_simulator_says_why_it_cannot_start(simulator: Simulator, tmp_path: Path) -> None:
    for port, folder, expected in ((0, simulator.folder, "--state-dir"), (simulator.port, tmp_path / "o", "in use")):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "deploy.local.simulator", "--port", str(port), "--region", "us-east-1"),
            *("--sns-endpoint", simulator.aws.endpoint_url, "--state-dir", str(folder)),
            stderr=asyncio.subprocess.PIPE,
        )
        _, errors = await asyncio.wait_for(process.communicate(), HANG)
        assert process.returncode == 1
        assert expected in errors.decode()


@dataclass
class Receiver:
    """Takes webhooks. `answers`: the statuses of the first calls; then 200."""

    answers: list[int] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    async def handle(self, request: Request) -> Response:
        self.bodies.append(request.body)
        return Response(self.answers.pop(0) if self.answers else 200)


@contextlib.asynccontextmanager
async def receiving(*answers: int) -> AsyncIterator[tuple[Receiver, str]]:
    receiver = Receiver(list(answers))
    server = Server(receiver.handle, "127.0.0.1", 0)
    await server.start()
    try:
        yield receiver, f"http://127.0.0.1:{server.port}/hook"
    finally:
        await server.stop()


async def mail_through_mailgun(simulator: Simulator, to: str) -> str:
    """The id of an accepted mail."""
    url = f"{simulator.url}/v3/mg.mailroom.example/messages.mime"
    async with httpx.AsyncClient(auth=("api", "key"), timeout=HANG) as client:
        answer = await client.post(url, data={"to": to}, files={"message": ("message.mime", RAW)})
    return str(answer.raise_for_status().json()["id"]).strip("<>")


async def test_a_webhook_is_posted_until_it_is_taken_and_the_same_each_time(simulator: Simulator) -> None:
    async with receiving(503, 404) as (receiver, url):
        await simulator.control.webhook("mailgun", url, "key")
        await simulator.control.faults(Fault(kind="silent", operation="MailgunSend", count=1))  # no `accepted`
        message_id = await mail_through_mailgun(simulator, "success@x.example")
        await simulator.control.quiet(HANG)
    assert len(receiver.bodies) == 3
    assert len(set(receiver.bodies)) == 1, "the signature is of the first call"
    event = json.loads(receiver.bodies[0])["event-data"]
    assert (event["event"], event["message"]["headers"]["message-id"]) == ("delivered", message_id)


async def test_a_406_ends_a_webhook_of_mailgun_and_faults_are_of_its_own_sends(simulator: Simulator) -> None:
    async with receiving(406) as (receiver, url):
        await simulator.control.webhook("mailgun", url, "key")
        await simulator.control.faults(
            Fault(kind="duplicate", copies=3, operation="MailgunSend", count=1), Fault(kind="silent")
        )
        await mail_through_mailgun(simulator, "success@x.example")
        await simulator.control.quiet(HANG)
    events = [json.loads(body)["event-data"]["event"] for body in receiver.bodies]
    assert events == ["accepted", "accepted", "accepted", "delivered"]
