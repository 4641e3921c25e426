"""The least that takes a batch of SendGrid's: read the array, one record for each event, acknowledged by all replicas.

No signature is verified, nothing is counted or told: what Mailroom does beyond this is what the ratio shows.

    python -m bench.baselines.bare_webhook PORT BOOTSTRAP TOPIC
"""

import asyncio
import sys
from typing import Any

import orjson
import uvicorn
from aiokafka import AIOKafkaProducer


class Receiver:
    """An ASGI application with one answer to everything."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._bootstrap, self._topic = bootstrap, topic
        self._producer: AIOKafkaProducer | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        if self._producer is None:
            self._producer = AIOKafkaProducer(
                bootstrap_servers=self._bootstrap,
                acks="all",
                enable_idempotence=True,
                linger_ms=5,
                max_batch_size=1 << 18,
            )
            await self._producer.start()
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        sent = [
            await self._producer.send(self._topic, orjson.dumps(event), key=event["sg_event_id"].encode())
            for event in (orjson.loads(body) if body else ())
        ]
        if sent:
            await asyncio.gather(*sent)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


if __name__ == "__main__":
    port, where, to = sys.argv[1:]
    uvicorn.run(Receiver(where, to), host="127.0.0.1", port=int(port), log_level="warning", access_log=False)
