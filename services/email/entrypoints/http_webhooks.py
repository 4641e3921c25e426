"""Where providers POST their notifications: verified on the bytes that came, onto `email.notifications`, then 2xx.

    POST /api/webhooks/ses        an HTTPS subscription of the SNS topic
    POST /api/webhooks/sendgrid   the Event Webhook, up to thousands of events
    POST /api/webhooks/mailgun    one event

No token is asked for: the provider's signature is the proof. A provider that is not set up has no route (404). What an
answer makes the provider do, by its documentation:

    2xx  all of it is on Kafka, in all replicas; a crash before the answer brings it again, with the same ids
    403  proved to be forged, or too old. SNS gives it up (or to its dead-letter queue), the others repeat in vain
    406  Mailgun: its token was used for another body; the one answer but 200 after which Mailgun stops
    503  our own trouble, or what cannot be told now: all repeat

Mailgun's signature does not cover the body. So its token is recorded with the body's hash, after the body is on Kafka:
recorded before, a crash between the two would lose the body. The same again is answered 200.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Depends, Request

from contracts.base import Model
from contracts.topics import EMAIL_NOTIFICATIONS
from services.email.domain.webhooks import Forged, OneUse, Post, Subscription, Taken, Undecided
from services.email.ports import Subscriptions, UsedTokens, Webhook
from services.kit import metrics as m
from services.kit.answers import Refusal
from services.kit.auth import anybody
from services.kit.bodies import body_limit
from services.kit.errors import (
    ApiError,
    ContentTooLarge,
    Forbidden,
    PermanentError,
    RequestTimeout,
    ServiceUnavailable,
    TransientError,
)
from services.kit.http import Answer, router
from services.kit.kafka.publisher import Outgoing, Publisher
from services.kit.logs import get_logger
from services.kit.metrics import Metrics

log = get_logger(__name__)

LARGEST = 1024 * 1024
"""Bytes of a body; SendGrid's have 768 kB at most, SNS's 256 kB and what JSON escapes."""

AT_ONCE = 1000
"""Records that are given to Kafka together. What SendGrid has signed is taken however many there are: refused, it would
be repeated as it is, and lost after a day.
"""

_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {}}, "text/plain": {"schema": {"type": "string"}}},
    }
}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    406: {"model": Refusal, "description": "Mailgun alone: its token was used for another body"}
}


class Received(Model):
    """A POST that was taken. `events`: how many notifications of it are on Kafka now."""

    events: int


def webhooks_router(
    webhooks: Sequence[Webhook],
    *,
    publisher: Publisher,
    tokens: UsedTokens,
    subscriptions: Subscriptions,
    metrics: Metrics,
) -> APIRouter:
    """The routes above, of those providers alone that `webhooks` are of."""
    routes = router("/api/webhooks", tag="webhooks")
    door = _Door(publisher, tokens, subscriptions, metrics)
    for webhook in webhooks:
        _add(routes, webhook, door)
    return routes


def _add(routes: APIRouter, webhook: Webhook, door: _Door) -> None:
    @routes.post(
        f"/{webhook.provider}",
        dependencies=[Depends(anybody)],
        responses=_ANSWERS,
        openapi_extra=_BODY,
        summary=f"What {webhook.provider} reports",
    )
    @body_limit(LARGEST)
    async def take(request: Request) -> Answer[Received]:
        """For the provider, which signs what it sends. 2xx: all of it is on Kafka. 403: its signature does not fit, or
        it is too old. 503: repeat it.
        """
        post = Post.of(await _body(request), request.headers)
        return Answer(data=Received(events=await door.take(webhook, post)))


async def _body(request: Request) -> bytes:
    """What was sent. A slow line is no reason to give a notification up, as SNS would after a 408."""
    try:
        return await request.body()
    except RequestTimeout as error:
        slow = ServiceUnavailable(error.error)
        slow.headers.update(error.headers)
        raise slow from None


class _Door:
    def __init__(
        self, publisher: Publisher, tokens: UsedTokens, subscriptions: Subscriptions, metrics: Metrics
    ) -> None:
        self._publisher, self._tokens, self._subscriptions = publisher, tokens, subscriptions
        self._metrics = metrics

    async def take(self, webhook: Webhook, post: Post) -> int:
        """How many notifications of it are on Kafka now. Raises ApiError."""
        provider = webhook.provider
        found = await webhook.read(post)
        if isinstance(found, Forged):
            log.warning("webhook.forged", provider=provider, reason=found.reason)
            raise self._refused(provider, "forged", Forbidden(f"Refused: {found.detail}."))
        if isinstance(found, Undecided):
            log.warning("webhook.undecided", provider=provider, reason=found.reason, detail=found.detail)
            raise self._refused(provider, "undecided", ServiceUnavailable("It cannot be verified now: repeat later."))
        try:
            use = found.one_use
            if use is not None and self._known(provider, use, await self._tokens.body_of(use.token)):
                self._count(provider, "duplicate")
                return 0
            if found.subscription is not None:
                await self._confirm(provider, found.subscription)
            await self._publish(provider, found)
            if use is not None:
                self._known(provider, use, await self._tokens.record(use))
        except TransientError:
            self._count(provider, "unpublished")
            raise
        self._count(provider, "taken")
        return len(found.records)

    def _known(self, provider: str, use: OneUse, body_hash: str | None) -> bool:
        """Whether the token was used for this very body. Raises ApiError where it was for another."""
        if body_hash is None:
            return False
        if body_hash != use.body_hash:
            log.warning("webhook.reused", provider=provider)
            raise self._refused(provider, "reused", ApiError(406, "The token was used for another body."))
        return True

    async def _confirm(self, provider: str, subscription: Subscription) -> None:
        try:
            await self._subscriptions.confirm(subscription)
        except PermanentError as error:
            log.warning("webhook.notConfirmed", topic=subscription.topic, error=str(error))
            refused = ServiceUnavailable("The subscription cannot be confirmed now: repeat later.")
            raise self._refused(provider, "undecided", refused) from None

    async def _publish(self, provider: str, taken: Taken) -> None:
        """Returns once Kafka has all of it; a bad one keeps none of the others from it."""
        if taken.records and not self._publisher.healthy:
            away = ServiceUnavailable("Kafka is not available at the moment: repeat later.")
            raise self._refused(provider, "unpublished", away)
        headers = (("source", provider.encode()), ("via", b"https"), ("verified", taken.by.encode()))
        too_large = False
        self._metrics.inc(m.NOTIFICATIONS_RECEIVED, len(taken.records), source=f"webhook-{provider}")
        for first in range(0, len(taken.records), AT_ONCE):
            items = [
                Outgoing(EMAIL_NOTIFICATIONS.name, None if each.key is None else each.key.encode(), each.value, headers)
                for each in taken.records[first : first + AT_ONCE]
            ]
            for error in await self._publisher.publish(items):
                if isinstance(error, PermanentError):
                    log.error("webhook.unpublishable", provider=provider, error=str(error))
                    too_large = True
                elif error is not None:
                    log.warning("webhook.notPublished", provider=provider, error=type(error).__name__)
                    away = ServiceUnavailable("Nobody knows whether Kafka has all of it: repeat it.")
                    raise self._refused(provider, "unpublished", away)
        if too_large:
            raise self._refused(provider, "unpublished", ContentTooLarge("One event is too large for Kafka."))
        self._metrics.inc(m.NOTIFICATIONS_RELEASED, len(taken.records), source=f"webhook-{provider}")

    def _refused(self, provider: str, outcome: str, error: ApiError) -> ApiError:
        self._count(provider, outcome)
        return error

    def _count(self, provider: str, outcome: str) -> None:
        self._metrics.inc(m.WEBHOOKS, provider=provider, outcome=outcome)
