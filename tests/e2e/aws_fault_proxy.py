"""A TCP proxy before the AWS emulator that harms calls to SQS or S3 when told to; all else passes through."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from typing import Literal

from tests.e2e.tcp_proxy import AT_ONCE, Ends, TcpProxy

Service = Literal["sqs", "s3"]
Fault = Literal["errors", "cut", "slow", "unanswered", "lies"]
"""What becomes of a call.

`errors`: it is answered with a 5xx and not passed on. `cut`: its connection is closed instead. `slow`: it is passed on
after `delay` seconds. `unanswered`: it is passed on, and its answer is thrown away. `lies` (of SQS): a deletion is
answered as done and not passed on, so that the messages come again.
"""

SQS = b"AmazonSQS."
"""In the header X-Amz-Target of each call: AWS JSON protocol 1.0."""

_REQUEST = re.compile(rb"(?:GET|PUT|POST|HEAD|DELETE) \S+ HTTP/1\.1\r\n")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_ERRORS = {
    "sqs": (
        b"500 Internal Server Error",
        b"application/x-amz-json-1.0",
        b'{"__type":"com.amazonaws.sqs#InternalError","message":"Simulated failure."}',
    ),
    "s3": (
        b"503 Slow Down",
        b"application/xml",
        b'<?xml version="1.0" encoding="UTF-8"?>\n'
        b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>",
    ),
}


class AwsFaultProxy(TcpProxy):
    """Forwards to `server_port`.

    Attributes:
        faults: which service is harmed now, and how.
        delay: seconds, of what is slow.
        passed, harmed: calls by service.
    """

    def __init__(self, server_port: int) -> None:
        super().__init__(server_port)
        self.faults: dict[Service, Fault] = {}
        self.delay = 2.0
        self.passed: Counter[Service] = Counter()
        self.harmed: Counter[Service] = Counter()

    async def relay(self, ends: Ends) -> None:
        """Harm what is to be harmed."""
        reader, writer, server_reader, server_writer = ends
        unanswered = asyncio.Event()
        answers = asyncio.create_task(_pump(server_reader, writer, unanswered))
        try:
            while data := await reader.read(AT_ONCE):
                if _REQUEST.match(data):
                    service: Service = "sqs" if SQS in data else "s3"
                    fault = self.faults.get(service)
                    if fault == "lies" and b"AmazonSQS.DeleteMessageBatch" in data:
                        self.harmed[service] += 1
                        await _lie(data, reader, writer)
                        continue
                    if fault in (None, "lies"):
                        self.passed[service] += 1
                    else:
                        self.harmed[service] += 1
                        if fault == "slow":
                            await asyncio.sleep(self.delay)
                        elif fault == "unanswered":
                            unanswered.set()
                        else:
                            if fault == "errors":
                                await _answer(writer, *_ERRORS[service], close=True)
                            return
                server_writer.write(data)
                await server_writer.drain()
        finally:
            answers.cancel()


async def _lie(data: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say that all messages are deleted."""
    head, _, body = data.partition(b"\r\n\r\n")
    length = _LENGTH.search(head)
    assert length is not None
    body += await reader.readexactly(int(length[1]) - len(body))
    ids = [{"Id": each["Id"]} for each in json.loads(body)["Entries"]]
    said = json.dumps({"Successful": ids, "Failed": []}).encode()
    await _answer(writer, b"200 OK", b"application/x-amz-json-1.0", said)


async def _answer(
    writer: asyncio.StreamWriter, status: bytes, kind: bytes, body: bytes, *, close: bool = False
) -> None:
    ending = b"Connection: close\r\n" if close else b""
    head = b"HTTP/1.1 %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n%b\r\n" % (status, kind, len(body), ending)
    writer.write(head + body)
    await writer.drain()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, unanswered: asyncio.Event) -> None:
    try:
        while (data := await reader.read(AT_ONCE)) and not unanswered.is_set():
            writer.write(data)
            await writer.drain()
        writer.close()
    except OSError:
        writer.close()
