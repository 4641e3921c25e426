"""What tests ask of the simulator, under /_sim/: faults, acceptances, messages, notifications, settings."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import orjson
from pydantic import Base64Bytes, BaseModel, ConfigDict, Field, ValidationError

from deploy.local.simulator.account import Account
from deploy.local.simulator.behaviours import EVENT_TYPES
from deploy.local.simulator.dsn import Bounces
from deploy.local.simulator.emulator import Emulator, EmulatorUnavailable
from deploy.local.simulator.errors import SesError
from deploy.local.simulator.events import received
from deploy.local.simulator.faults import Fault, Faults
from deploy.local.simulator.journal import Journal
from deploy.local.simulator.mailbox import Mailbox
from deploy.local.simulator.mailgun import Mailgun
from deploy.local.simulator.mailgun_events import MailgunEvents
from deploy.local.simulator.notifier import Notifier
from deploy.local.simulator.sendgrid import SendGrid
from deploy.local.simulator.sendgrid_events import SendGridEvents
from deploy.local.simulator.webhooks import Reports, Webhooks
from deploy.local.simulator.wire import Request, Response, json_response

_Model = ConfigDict(extra="forbid")


class FaultsRequest(BaseModel):
    """The rules that replace those in force; a seed makes their dice fall the same way again."""

    model_config = _Model

    faults: list[Fault]
    seed: int | None = None


class SettingsRequest(BaseModel):
    """What to change; the rest stays."""

    model_config = _Model

    maxSendRate: float | None = Field(default=None, ge=0)  # noqa: N815 - the wire's name
    max24HourSend: float | None = Field(default=None, ge=0)  # noqa: N815
    stepMs: float | None = Field(default=None, ge=0)  # noqa: N815
    verified: list[str] | None = None


class NotifyRequest(BaseModel):
    """A notification to publish as it is: an object (encoded) or a string (raw, need not be JSON)."""

    model_config = _Model

    topicArn: str | None = None  # noqa: N815
    configurationSet: str | None = None  # noqa: N815
    notification: dict[str, Any] | str
    copies: int = Field(default=1, ge=1, le=1000)


class InboundRequest(BaseModel):
    """A mail to us: its MIME (base64) and its envelope."""

    model_config = _Model

    topicArn: str  # noqa: N815
    raw: Base64Bytes
    source: str
    recipients: list[str]


class TopicsRequest(BaseModel):
    """Where a configuration set's events go, instead of looking it up at the emulator."""

    model_config = _Model

    topicArn: str  # noqa: N815
    eventTypes: list[str] = Field(default_factory=lambda: list(EVENT_TYPES))  # noqa: N815


class WebhookRequest(BaseModel):
    """Where a provider reports to, signed with this key: SendGrid's is an EC private key in PEM, Mailgun's a string."""

    model_config = _Model

    url: str
    key: str = Field(min_length=1)


class AdminError(Exception):
    """A request to /_sim/ that cannot be done."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


_REPORTS: dict[str, tuple[str, Callable[[str], Reports]]] = {
    SendGrid.name: (SendGrid.operation, SendGridEvents),
    Mailgun.name: (Mailgun.operation, MailgunEvents),
}


def reports_of(provider: str, key: str) -> tuple[str, str, Reports]:
    """The provider, by which faults name its sends, and its reports signed with this key.

    Raises KeyError for a provider that has no webhooks, ValueError for what is no key of its.
    """
    operation, made = _REPORTS[provider]
    return provider, operation, made(key)


_Action = Callable[[Request, list[str]], Awaitable[Response]]


class AdminApi:
    """Answers everything under /_sim/. Errors are `{"error": …}`."""

    def __init__(
        self,
        *,
        account: Account,
        rules: Faults,
        acceptances: Journal,
        notifications: Journal,
        mailbox: Mailbox,
        notifier: Notifier,
        webhooks: Webhooks,
        bounces: Bounces | None,
        emulator: Emulator,
        refuse: Callable[[float], Awaitable[None]],
        accepted: Callable[[], int],
    ) -> None:
        self._account = account
        self._faults = rules
        self._acceptances = acceptances
        self._notifications = notifications
        self._mailbox = mailbox
        self._notifier = notifier
        self._webhooks = webhooks
        self._bounces = bounces
        self._emulator = emulator
        self._refuse = refuse
        self._accepted = accepted
        self._tasks: set[asyncio.Task[None]] = set()
        self._actions: dict[tuple[str, str], _Action] = {
            ("GET", "health"): self._health,
            ("GET", "faults"): self._show_faults,
            ("PUT", "faults"): self._put_faults,
            ("DELETE", "faults"): self._clear_faults,
            ("GET", "acceptances"): self._read_acceptances,
            ("GET", "notifications"): self._read_notifications,
            ("GET", "messages"): self._messages,
            ("POST", "notify"): self._notify,
            ("POST", "inbound"): self._inbound,
            ("GET", "settings"): self._settings,
            ("PUT", "settings"): self._put_settings,
            ("PUT", "configuration-sets"): self._put_topics,
            ("PUT", "webhooks"): self._put_webhook,
            ("POST", "reset"): self._reset,
        }

    async def handle(self, request: Request) -> Response:
        segments = request.segments()[1:]
        action = self._actions.get((request.method, segments[0] if segments else ""))
        if action is None:
            return json_response({"error": "no such call"}, 404)
        try:
            return await action(request, segments[1:])
        except AdminError as error:
            return json_response({"error": str(error)}, error.status)
        except EmulatorUnavailable as error:
            return json_response({"error": str(error)}, 503)
        except (ValidationError, orjson.JSONDecodeError) as error:
            return json_response({"error": str(error)}, 400)

    async def _health(self, _: Request, __: list[str]) -> Response:
        pending, published = (self._bounces.pending, self._bounces.published) if self._bounces else (0, 0)
        return json_response(
            {
                "status": "ok",
                "accepted": self._accepted(),
                "pendingNotifications": self._notifier.pending + self._webhooks.pending + pending,
                "publishedNotifications": self._notifier.published + self._webhooks.posted + published,
                "messagesKept": len(self._mailbox),
                "faults": len(self._faults.describe()),
                "fsyncs": {
                    "count": self._acceptances.groups,
                    "seconds": round(self._acceptances.sync_seconds, 6),
                    "slowestSeconds": round(self._acceptances.slowest_sync_seconds, 6),
                },
                "positions": {"acceptances": self._acceptances.end(), "notifications": self._notifications.end()},
            }
        )

    async def _show_faults(self, _: Request, __: list[str]) -> Response:
        return json_response({"faults": self._faults.describe()})

    async def _put_faults(self, request: Request, _: list[str]) -> Response:
        asked = FaultsRequest.model_validate_json(request.body)
        closing = [fault.seconds for fault in asked.faults if fault.kind == "refuseConnections"]
        self._faults.replace((fault for fault in asked.faults if fault.kind != "refuseConnections"), asked.seed)
        if closing:
            task = asyncio.get_running_loop().create_task(self._refuse_soon(max(closing)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return json_response({"faults": self._faults.describe()})

    async def _refuse_soon(self, seconds: float) -> None:
        await asyncio.sleep(0.02)  # the answer to the request that asked for it goes out first
        await self._refuse(seconds)

    async def _clear_faults(self, _: Request, __: list[str]) -> Response:
        self._faults.replace(())
        return json_response({"faults": []})

    async def _read_acceptances(self, request: Request, _: list[str]) -> Response:
        return _page(self._acceptances, request, b"acceptances")

    async def _read_notifications(self, request: Request, _: list[str]) -> Response:
        return _page(self._notifications, request, b"notifications")

    async def _messages(self, request: Request, rest: list[str]) -> Response:
        asked = request.parameters()
        if not rest:
            raw = asked.get("raw") in ("true", "1")
            found = self._mailbox.find(asked.get("to"), _number(asked.get("limit"), 1000) or 1000)
            return json_response({"messages": [kept.describe(raw=raw) for kept in found]})
        kept = self._mailbox.get(rest[0])
        if kept is None:
            raise AdminError(404, "no such message, or no longer kept")
        if rest[1:] == ["raw"]:
            return Response(200, kept.submission.raw, b"message/rfc822")
        return json_response(kept.describe(raw=True))

    async def _notify(self, request: Request, _: list[str]) -> Response:
        asked = NotifyRequest.model_validate_json(request.body)
        topics = [asked.topicArn] if asked.topicArn else []
        if asked.configurationSet:
            topics += list(await self._emulator.topics(asked.configurationSet) or ())
        if not topics:
            raise AdminError(400, "topicArn, or the configurationSet of one, is needed")
        notification = asked.notification
        message = notification.encode() if isinstance(notification, str) else orjson.dumps(notification)
        for topic in topics:
            for _copy in range(asked.copies):
                self._notifier.inject(topic, message)
        return json_response({"queued": len(topics) * asked.copies}, 202)

    async def _inbound(self, request: Request, _: list[str]) -> Response:
        asked = InboundRequest.model_validate_json(request.body)
        try:
            message = received(asked.raw, asked.source, asked.recipients, datetime.now(UTC))
        except SesError as error:
            raise AdminError(400, str(error)) from None
        self._notifier.inject(asked.topicArn, message)
        return json_response({"queued": 1}, 202)

    async def _settings(self, _: Request, __: list[str]) -> Response:
        return json_response(
            {
                "maxSendRate": self._account.max_send_rate,
                "max24HourSend": self._account.max_24_hour_send,
                "stepMs": self._notifier.step_seconds * 1000,
                "verified": self._account.verified,
            }
        )

    async def _put_settings(self, request: Request, rest: list[str]) -> Response:
        asked = SettingsRequest.model_validate_json(request.body)
        if asked.maxSendRate is not None:
            self._account.limit_rate(asked.maxSendRate)
        if asked.max24HourSend is not None:
            self._account.max_24_hour_send = asked.max24HourSend
        if asked.stepMs is not None:
            self._notifier.step_seconds = asked.stepMs / 1000
        if asked.verified is not None:
            self._account.verified = tuple(each.lower() for each in asked.verified)
        return await self._settings(request, rest)

    async def _put_topics(self, request: Request, rest: list[str]) -> Response:
        if len(rest) != 1:
            raise AdminError(404, "name a configuration set")
        asked = TopicsRequest.model_validate_json(request.body)
        unknown = set(asked.eventTypes) - set(EVENT_TYPES)
        if unknown:
            raise AdminError(400, f"unknown event types: {', '.join(sorted(unknown))}")
        self._emulator.set_topics(rest[0], {asked.topicArn: frozenset(EVENT_TYPES[name] for name in asked.eventTypes)})
        return json_response({})

    async def _put_webhook(self, request: Request, rest: list[str]) -> Response:
        asked = WebhookRequest.model_validate_json(request.body)
        if len(rest) != 1 or rest[0] not in _REPORTS:
            raise AdminError(404, f"name one of {', '.join(_REPORTS)}")
        try:
            reports = reports_of(rest[0], asked.key)
        except ValueError as error:
            raise AdminError(400, str(error)) from None
        await self._webhooks.configure(*reports, asked.url)
        return json_response({})

    async def _reset(self, _: Request, __: list[str]) -> Response:
        """Forget faults, messages, the suppression list and pending notifications. The logs stay as they are."""
        self._faults.replace(())
        self._mailbox.clear()
        self._account.suppressed.clear()
        self._notifier.forget()
        self._webhooks.forget()
        return json_response({"acceptances": self._acceptances.end(), "notifications": self._notifications.end()})


def _page(journal: Journal, request: Request, name: bytes) -> Response:
    lines, after = journal.read(_number(request.parameters().get("since"), 0))
    return Response(200, b'{"%s":[%s],"next":%d}' % (name, b",".join(lines), after))


def _number(value: str | None, default: int) -> int:
    if value is None:
        return default
    if not value.isdecimal():
        raise AdminError(400, f"{value!r} is not a number")
    return int(value)
