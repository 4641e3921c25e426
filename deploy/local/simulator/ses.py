"""The SES v2 API as botocore's `sesv2` client speaks it: sending, the account, the suppression list.

What else is asked under /v2/email/ (identities, configuration sets) is passed on to the AWS emulator.
"""

import asyncio
import time
from collections.abc import Callable
from uuid import uuid4

import orjson

from deploy.local.simulator import faults
from deploy.local.simulator.acceptances import Acceptances
from deploy.local.simulator.account import Account
from deploy.local.simulator.emulator import Emulator, EmulatorUnavailable, Topics
from deploy.local.simulator.errors import ProxyRefusal, SesError, bad_request
from deploy.local.simulator.events import mail_of
from deploy.local.simulator.faults import Faults
from deploy.local.simulator.notifier import Notifier
from deploy.local.simulator.submission import Submission, read_send_email
from deploy.local.simulator.wire import Request, Response, json_response

_REGION_PREFIX = {"us-east-1": "0100", "us-west-2": "0101", "eu-west-1": "0102"}
_PAGE = 1000


class DropConnection(Exception):
    """The connection is to be reset instead of answered."""


class SesApi:
    """Accepts mail. The order in an acceptance: checks, limits, the fsynced log, then everything else."""

    def __init__(
        self,
        *,
        region: str,
        account: Account,
        rules: Faults,
        acceptances: Acceptances,
        notifier: Notifier,
        emulator: Emulator,
    ) -> None:
        self._region = region
        self._id_prefix = _REGION_PREFIX.get(region, "0107")
        self._account = account
        self._faults = rules
        self._acceptances = acceptances
        self._notifier = notifier
        self._emulator = emulator

    async def handle(self, request: Request) -> Response | None:
        """Answer one call; None where a fault drops the connection."""
        try:
            path = request.path
            if path == "/v2/email/outbound-emails" and request.method == "POST":
                return await self._send(request)
            if path == "/v2/email/account" and request.method == "GET":
                await self._strike("GetAccount", ())
                return json_response(
                    self._account.describe(
                        sending=not (self._faults.stands("sendingPaused") or self._faults.stands("accountSuspended")),
                        healthy=not self._faults.stands("accountSuspended"),
                    )
                )
            if path.startswith("/v2/email/suppression/addresses"):
                return await self._suppression(request)
            return await self._pass_on(request)
        except (SesError, ProxyRefusal) as error:
            return error.response()
        except DropConnection:
            return None
        except EmulatorUnavailable as error:
            return SesError("ServiceUnavailable", str(error)).response()

    # --- sending -----------------------------------------------------------------------------------------------------

    async def _send(self, request: Request) -> Response:
        submission = read_send_email(request.body)
        destination = submission.destination
        await self._strike("SendEmail", destination)
        self._account.check_sender(submission.source)
        topics = await self._topics(submission.configuration_set)
        self._account.take(len(destination))
        fault = self._faults.draw(faults.ANSWER, "SendEmail", destination)
        slow = self._faults.draw(faults.SLOW_ANSWER, "SendEmail", destination)
        planned = fault or slow
        answered = planned.kind if planned else "ok"
        provider_message_id = await self._accept(submission, topics, request.peer, answered)
        if slow is not None:
            await asyncio.sleep(slow.ms / 1000)
        if fault is not None and fault.kind == "acceptThenDrop":
            raise DropConnection
        if fault is not None:
            raise SesError("InternalServiceErrorException", "Internal failure (the mail was accepted).", fault.status)
        return json_response({"MessageId": provider_message_id})

    async def _accept(self, submission: Submission, topics: Topics, peer: str, answered: str) -> str:
        provider_message_id = f"{self._id_prefix}{time.time_ns() // 1_000_000:012x}-{uuid4()}-000000"
        now = await self._acceptances.record("ses", provider_message_id, submission, answered)
        if topics:
            mail = mail_of(submission, provider_message_id, now, self._region, peer)
            self._notifier.accepted(mail, self._account.on_list(submission.destination), topics)
        return provider_message_id

    async def _topics(self, configuration_set: str | None) -> Topics:
        if configuration_set is None:
            return {}
        topics = await self._emulator.topics(configuration_set)
        if topics is None:
            raise SesError("NotFoundException", f"Configuration set <{configuration_set}> does not exist.")
        return topics

    async def _strike(self, operation: str, addresses: tuple[str, ...]) -> None:
        """Suffer the faults that strike before anything is accepted."""
        if slow := self._faults.draw(faults.SLOW, operation, addresses):
            await asyncio.sleep(slow.ms / 1000)
        fault = self._faults.draw(faults.REQUEST, operation, addresses)
        if fault is None:
            return
        if fault.kind == "dropBeforeAccept":
            raise DropConnection
        if fault.kind == "proxyRefuses":
            raise ProxyRefusal(fault.status or 403)
        if fault.kind == "serverError":
            status = fault.status or 500
            code = "ServiceUnavailable" if status == 503 else "InternalServiceErrorException"
            raise SesError(code, "Simulated failure; nothing was accepted.", status)
        code, message = faults.REFUSALS.get(fault.kind, (fault.code, fault.message))
        raise SesError(code, message, fault.status)

    # --- suppression list --------------------------------------------------------------------------------------------

    async def _suppression(self, request: Request) -> Response:
        segments = request.segments()
        address = segments[4] if len(segments) == 5 else None
        body = _object(request.body) if request.method == "PUT" else {}
        named = address or body.get("EmailAddress")
        await self._strike("SuppressedDestination", (named,) if isinstance(named, str) else ())
        do: dict[tuple[str, bool], Callable[[], object]] = {
            ("GET", False): lambda: self._list(request),
            ("PUT", False): lambda: self._account.suppress(body.get("EmailAddress"), body.get("Reason")),
            ("GET", True): lambda: {"SuppressedDestination": self._account.suppression(address or "")},
            ("DELETE", True): lambda: self._account.unsuppress(address or ""),
        }
        action = do.get((request.method, address is not None))
        if action is None or len(segments) > 5:
            raise SesError("UnknownOperationException", "No such operation.", 404)
        return json_response(action() or {})

    def _list(self, request: Request) -> object:
        asked = request.parameters()
        size = int(asked.get("PageSize", _PAGE)) if asked.get("PageSize", "1").isdecimal() else 0
        if not 1 <= size <= _PAGE:
            raise bad_request(f"PageSize must be between 1 and {_PAGE}.")
        reasons = [value for name, value in request.pairs() if name == "Reason"]
        return self._account.list_suppressed(reasons, size, asked.get("NextToken"))

    async def _pass_on(self, request: Request) -> Response:
        if not request.path.startswith("/v2/email/"):
            raise SesError("UnknownOperationException", "No such operation.", 404)
        target = request.path + (f"?{request.query}" if request.query else "")
        status, body = await self._emulator.call(
            "ses", request.method, target, request.body, {"content-type": "application/json"}
        )
        if status < 400:
            return Response(status, body)
        try:
            told = orjson.loads(body)
            code = str(told.get("__type") or told.get("code") or "BadRequestException")
            message = str(told.get("message") or "")
        except (orjson.JSONDecodeError, AttributeError):
            code, message = "InternalServiceErrorException", "The emulator's answer cannot be read."
        return SesError(code, message, status).response()


def _object(body: bytes) -> dict[str, object]:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise bad_request("The request is not JSON.") from None
    if not isinstance(value, dict):
        raise bad_request("The request is not an object.")
    return value
