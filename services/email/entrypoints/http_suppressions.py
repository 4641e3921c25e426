"""Who must not be written to, for operators: look, suppress, lift. Scope `email:operate`.

GET    /api/suppressions?address=…          what holds for one address
GET    /api/suppressions[?cursor=…&limit=…] every recipient for whom something holds, page by page
POST   /api/suppressions                    suppress; answers after a majority has it
DELETE /api/suppressions?address=…&scope=…  lift a whole scope, here and at the provider
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Depends, Query
from pydantic import Field

from contracts.addresses import Address
from contracts.base import CommandData, Model, UtcDateTime
from contracts.email.values import PlannedTime, SingleLine
from contracts.recipients.events import Scope, SuppressionReason
from services.email.handlers import Holding, RecipientStreams, suppress, suppressions_of, unsuppress
from services.kit.answers import Refusal
from services.kit.auth import Principal, require
from services.kit.clock import Clock, Ids
from services.kit.errors import Conflict, InvalidRequest, ServiceUnavailable, TransientError
from services.kit.http import Answer, IdempotencyKey, router
from services.kit.idempotency import ConflictingBody, IdempotencyKeys, body_hash
from services.kit.logs import get_logger, shorten_address

log = get_logger(__name__)

ROUTE = "POST /api/suppressions"

Operator = Annotated[Principal, Depends(require("email:operate"))]


_CONFLICT: dict[int | str, dict[str, Any]] = {
    409: {"model": Refusal, "description": "The Idempotency-Key was used with another body"}
}


class ProviderList(Protocol):
    """The provider's own suppression list."""

    async def unsuppress(self, address: str) -> None:
        """Take an address off it; one that is not on it is fine. Raises TransientError."""
        ...


class Suppressed(Model):
    """One suppression that holds now."""

    address: str
    scope: str
    reason: SuppressionReason
    cause: str
    until: UtcDateTime | None = None


class Page(Model):
    """Suppressions that hold. `nextCursor` is absent on the last page."""

    suppressions: list[Suppressed]
    next_cursor: str | None = None


class Asked(CommandData):
    """Whose suppressions; of everybody without `address`."""

    address: Address | None = None
    cursor: Annotated[str | None, Field(max_length=128, pattern=r"^[0-9a-f]+$")] = None
    limit: Annotated[int, Field(ge=1, le=100, description="recipients on a page")] = 50


class Lifting(CommandData):
    """What to lift: an unknown parameter is refused, since a misspelt scope would lift more than was meant."""

    address: Address
    scope: Scope = "all"
    reason: Annotated[SingleLine, Field(min_length=1, max_length=500)] = "lifted by an operator"


class NewSuppression(CommandData):
    """Whom not to write to, and in which scope: `all`, `marketing` or `list:<listId>`."""

    address: Address
    scope: Scope = "all"
    reason: Annotated[SingleLine, Field(max_length=500, description="for the audit log")] | None = None
    until: PlannedTime | None = None


class Lifted(Model):
    """A scope that is lifted, here and at the provider."""

    address: str
    scope: str


def suppressions_router(
    *,
    recipients: RecipientStreams,
    provider_lists: Sequence[ProviderList],
    idempotency: IdempotencyKeys,
    clock: Clock,
    ids: Ids,
) -> APIRouter:
    """The routes above."""
    routes = router("/api/suppressions", tag="suppressions")

    @routes.get("", response_model_exclude_none=True, summary="Who is suppressed")
    async def find(asked: Annotated[Asked, Query()], _: Operator) -> Answer[Page]:
        """What holds for one address, or for everybody, page by page."""
        now = clock.now()
        if asked.address is not None:
            holding = await suppressions_of(recipients, asked.address, now)
            return Answer(data=Page(suppressions=[_shown(asked.address, each) for each in holding]))
        found, after = await recipients.suppressed(asked.cursor, asked.limit, now)
        shown = [_shown(owner, each) for owner, each in found]
        return Answer(data=Page(suppressions=shown, next_cursor=after))

    @routes.post(
        "", status_code=201, response_model_exclude_none=True, responses=_CONFLICT, summary="Suppress an address"
    )
    async def add(body: NewSuppression, caller: Operator, idempotency_key: IdempotencyKey = None) -> Answer[Page]:
        """It holds for every attempt recorded after this answer, which tells all that holds for the address then.

        The same key again does not suppress anew what was lifted meanwhile.
        """
        now = clock.now()
        if body.until is not None and body.until <= now:
            raise InvalidRequest(details=[{"field": "until", "message": "is over already"}])
        cause = ids.new()
        if idempotency_key is not None:
            reserved = await idempotency.reserve(
                caller.user_id, ROUTE, idempotency_key, body_hash(body.to_wire()), cause
            )
            if isinstance(reserved, ConflictingBody):
                raise Conflict("This Idempotency-Key was used with another body: use a new key.")
            cause = reserved.id
        await suppress(recipients, body.address, body.scope, cause=cause, now=now, actor=caller.actor, until=body.until)
        _audit("suppression.added", body.address, body.scope, caller, body.reason)
        holding = await suppressions_of(recipients, body.address, now)
        return Answer(data=Page(suppressions=[_shown(body.address, each) for each in holding]))

    @routes.delete("", summary="Lift a suppression")
    async def lift(what: Annotated[Lifting, Query()], caller: Operator) -> Answer[Lifted]:
        """Lift the whole scope. Older news of what caused it changes nothing any more; new causes suppress again."""
        await unsuppress(recipients, what.address, what.scope, reason=what.reason, actor=caller.actor)
        _audit("suppression.lifted", what.address, what.scope, caller, what.reason)
        if what.scope == "all":
            try:
                for provider in provider_lists:
                    await provider.unsuppress(what.address)
            except TransientError as error:
                log.warning("suppression.providerList", error=str(error))
                raise ServiceUnavailable(
                    "It is lifted here, but the provider's own list could not be changed: repeat."
                ) from error
        return Answer(data=Lifted(address=what.address, scope=what.scope))

    return routes


def _shown(address: str, holding: Holding) -> Suppressed:
    until: datetime | None = holding.until
    return Suppressed(address=address, scope=holding.scope, reason=holding.reason, cause=holding.cause, until=until)


def _audit(event: str, address: str, scope: str, caller: Principal, reason: str | None) -> None:
    log.info(event, recipient=shorten_address(address), scope=scope, actor=caller.actor, reason=reason)
