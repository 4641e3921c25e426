"""The AWS emulator as the simulator needs it: SNS to publish to, SES's configuration sets to look up.

Signed requests over one pooled aiohttp session. Not aioboto3: a batch of ten notifications costs a tenth this way.
"""

import re
import time
from collections.abc import Mapping, Sequence
from urllib.parse import quote, quote_plus

import aiohttp
import orjson
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from deploy.local.simulator.behaviours import EVENT_TYPES

_TIMEOUT = aiohttp.ClientTimeout(total=10, connect=2)
_MEMBER = re.compile(r"<member>(.*?)</member>", re.DOTALL)
_ID = re.compile(r"<Id>(.*?)</Id>")
_MESSAGE_ID = re.compile(r"<MessageId>(.*?)</MessageId>")
_CACHED_SECONDS = 30.0

Topics = dict[str, frozenset[str]]
"""Topic ARN → the event types it hears."""


class EmulatorUnavailable(Exception):
    """The emulator does not answer, or not as it should."""


class Emulator:
    """One emulator. `close` it at the end."""

    def __init__(self, endpoint: str, region: str, access_key_id: str, secret_access_key: str) -> None:
        self._endpoint = endpoint.rstrip("/")
        credentials = Credentials(access_key_id, secret_access_key)
        self._signers = {name: SigV4Auth(credentials, name, region) for name in ("sns", "ses")}
        self._session = aiohttp.ClientSession(timeout=_TIMEOUT, connector=aiohttp.TCPConnector(limit=32))
        self._topics: dict[str, tuple[float, Topics]] = {}

    async def close(self) -> None:
        await self._session.close()

    async def publish(self, topic: str, messages: Sequence[bytes]) -> list[str | None]:
        """Publish up to ten messages; the SNS message id of each, None for one that SNS refused.

        Raises EmulatorUnavailable when the whole call failed; then some may have been published.
        """
        fields = [b"Action=PublishBatch&Version=2010-03-31&TopicArn=" + quote_plus(topic).encode()]
        for number, message in enumerate(messages, 1):
            name = b"&PublishBatchRequestEntries.member.%d." % number
            fields.append(name + b"Id=%d" % number + name + b"Message=" + _form_value(message))
        form = {"content-type": "application/x-www-form-urlencoded; charset=utf-8"}
        status, body = await self.call("sns", "POST", "/", b"".join(fields), form)
        if status != 200:
            raise EmulatorUnavailable(f"SNS answers {status}: {body[:300].decode(errors='replace')}")
        ids: dict[str, str] = {}
        for member in _MEMBER.findall(body.decode()):
            entry, message_id = _ID.search(member), _MESSAGE_ID.search(member)
            if entry and message_id:
                ids[entry[1]] = message_id[1]
        return [ids.get(str(number)) for number in range(1, len(messages) + 1)]

    async def topics(self, configuration_set: str) -> Topics | None:
        """The SNS destinations of a configuration set (looked up every 30 s), None where there is no such set."""
        known = self._topics.get(configuration_set)
        if known and known[0] > time.monotonic():
            return known[1]
        path = f"/v2/email/configuration-sets/{quote(configuration_set, safe='')}/event-destinations"
        status, body = await self.call("ses", "GET", path)
        if status == 404:
            return None
        if status != 200:
            raise EmulatorUnavailable(f"SES at the emulator answers {status} for a configuration set")
        found: Topics = {}
        for destination in orjson.loads(body).get("EventDestinations") or ():
            topic = (destination.get("SnsDestination") or {}).get("TopicArn")
            if topic and destination.get("Enabled"):
                kinds = {EVENT_TYPES[name] for name in destination["MatchingEventTypes"] if name in EVENT_TYPES}
                found[topic] = found.get(topic, frozenset()) | kinds
        self._topics[configuration_set] = (time.monotonic() + _CACHED_SECONDS, found)
        return found

    def set_topics(self, configuration_set: str, topics: Topics) -> None:
        """Use these from now on, without looking them up."""
        self._topics[configuration_set] = (float("inf"), topics)

    async def call(
        self, service: str, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        """One signed request. Raises EmulatorUnavailable where nothing answers."""
        url = self._endpoint + path
        request = AWSRequest(method, url, data=body, headers=dict(headers or {}))
        self._signers[service].add_auth(request)
        try:
            async with self._session.request(method, url, data=body, headers=dict(request.headers)) as answer:
                return answer.status, await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise EmulatorUnavailable(f"the emulator does not answer: {type(error).__name__}") from error


def _form_value(value: bytes) -> bytes:
    """A form field's value with what has a meaning in a form escaped: ten times cheaper than escaping everything."""
    if not value.isascii():
        return quote_plus(value).encode()
    escaped = value.replace(b"%", b"%25").replace(b"&", b"%26").replace(b"+", b"%2B").replace(b"=", b"%3D")
    return escaped.replace(b";", b"%3B").replace(b"#", b"%23").replace(b"\n", b"%0A").replace(b" ", b"+")
