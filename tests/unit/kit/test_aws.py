"""How often a call really goes out, against a server on a real socket that behaves badly."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

from services.kit.aws import AwsAccount, error_code, foreign_errors, is_transient, s3_client, ses_client, sqs_client
from services.kit.errors import PermanentError, Unavailable

THROTTLED = b'{"__type":"TooManyRequestsException","message":"slow down"}'
MAIL = {"FromEmailAddress": "a@b.de", "Destination": {"ToAddresses": ["c@d.de"]}, "Content": {"Raw": {"Data": b"x"}}}


class BadServer:
    """Reads whole requests and answers each with `answer`: bytes, None = drop the connection, "hang" = never."""

    def __init__(self) -> None:
        self.requests = 0
        self.answer: bytes | str | None = None
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                if b"100-continue" in head:
                    writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
                await reader.readexactly(length)
                self.requests += 1
                if self.answer == "hang":
                    await asyncio.sleep(30)
                if not isinstance(self.answer, bytes):
                    return
                writer.write(self.answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()


def http(status: str, body: bytes = b"") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@pytest.fixture
async def server() -> AsyncIterator[BadServer]:
    bad = BadServer()
    listening = await asyncio.start_server(bad.serve, "127.0.0.1", 0)
    bad.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    yield bad
    listening.close()


def account(url: str) -> AwsAccount:
    return AwsAccount("eu-central-1", "key", "secret", endpoint_url=url)


@pytest.mark.parametrize(
    "answer",
    [None, http("500 Error"), http("503 Unavailable"), http("429 Slow", THROTTLED), "hang"],
    ids=["dropped", "500", "503", "429", "hangs"],
)
async def test_a_send_goes_out_exactly_once_whatever_happens(server: BadServer, answer: bytes | str | None) -> None:
    server.answer = answer
    async with ses_client(account(server.url), call_limit=0.5) as ses:
        with pytest.raises(Exception):  # noqa: B017 - which one is the adapter's business
            await ses.send_email(**MAIL)
        await asyncio.sleep(0.2)
    assert server.requests == 1


async def receive(url: str) -> None:
    async with sqs_client(account(url)) as sqs:
        with foreign_errors("the service"):
            await sqs.receive_message(QueueUrl=f"{url}/1/q")


async def read(url: str) -> None:
    async with s3_client(account(url)) as s3:
        with foreign_errors("the service"):
            await s3.get_object(Bucket="b", Key="k")


@pytest.mark.parametrize("call", [receive, read])
async def test_what_may_be_repeated_is_tried_three_times_and_then_unavailable(
    server: BadServer, call: Callable[[str], Awaitable[None]]
) -> None:
    server.answer = http("503 Unavailable")
    with pytest.raises(Unavailable, match="the service"):
        await call(server.url)
    assert server.requests == 3


async def test_nobody_there_is_unavailable() -> None:
    async with s3_client(account("http://127.0.0.1:1")) as s3:
        with pytest.raises(Unavailable, match="S3: cannot be reached"), foreign_errors("S3"):
            await s3.get_object(Bucket="b", Key="k")


def failure(code: str, status: int) -> ClientError:
    answer = {"Error": {"Code": code, "Message": "alice@example.com"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "GetObject")


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (failure("SlowDown", 503), True),
        (failure("ThrottlingException", 400), True),
        (failure("RequestTimeout", 400), True),
        (failure("InternalError", 500), True),
        (failure("", 502), True),
        (failure("NoSuchKey", 404), False),
        (failure("AccessDenied", 403), False),
        (ReadTimeoutError(endpoint_url="x"), True),
        (ValueError(), False),
    ],
)
def test_what_may_work_later(error: Exception, again: bool) -> None:
    assert is_transient(error) == again


def test_errors_carry_the_code_and_nothing_of_the_request() -> None:
    with pytest.raises(PermanentError) as caught, foreign_errors("S3"):
        raise failure("AccessDenied", 403)
    assert str(caught.value) == "awsRefused: S3 answered AccessDenied"
    assert error_code(failure("NoSuchKey", 404)) == "NoSuchKey"


def test_an_account_does_not_show_its_secret() -> None:
    assert "hush" not in repr(AwsAccount("eu-central-1", "key", "hush"))


async def test_the_simulator_of_ses_goes_before_the_emulator() -> None:
    both = AwsAccount(
        "eu-central-1", "k", "s", endpoint_url="http://127.0.0.1:1", ses_endpoint_url="http://127.0.0.1:2"
    )
    async with ses_client(both) as ses, sqs_client(both) as sqs:
        assert ses.meta.endpoint_url == "http://127.0.0.1:2"
        assert sqs.meta.endpoint_url == "http://127.0.0.1:1"


async def test_aws_itself_is_asked_with_the_bucket_in_the_name() -> None:
    async with s3_client(AwsAccount("eu-central-1", "k", "s")) as s3:
        url = await s3.generate_presigned_url("get_object", {"Bucket": "bucket", "Key": "key"}, ExpiresIn=60)
    assert url.startswith("https://bucket.s3.")
    assert "X-Amz-Algorithm=AWS4-HMAC-SHA256" in url
