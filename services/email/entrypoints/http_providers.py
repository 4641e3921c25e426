"""Who carries mail, for operators: look, switch off and on, pin. Scope `email:operate`.

GET    /api/providers                every configured provider, and what is ordered about it
PUT    /api/providers/{name}/off     send nothing through it
DELETE /api/providers/{name}/off     let mail go through it again
PUT    /api/providers/pins/{what}    send mail of a category, or of `template:<id>`, through one alone
DELETE /api/providers/pins/{what}    through every one again
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import Field

from contracts.base import CommandData, Model
from contracts.email.values import SingleLine
from services.email.provider_orders import ProviderOrders, ProviderView, RampView
from services.kit.auth import Principal, require
from services.kit.errors import InvalidRequest, NotFound, PermanentError
from services.kit.http import Answer, router

Operator = Annotated[Principal, Depends(require("email:operate"))]
Reason = Annotated[SingleLine, Field(min_length=1, max_length=500, description="shown with the order")]


class Off(CommandData):
    """Why nothing is to go there."""

    why: Reason


class Pin(CommandData):
    """Where such mail goes, and why."""

    provider: Annotated[SingleLine, Field(min_length=1, max_length=64)]
    why: Reason


class Providers(Model):
    """The primary first; and the domains that are being warmed up."""

    providers: list[ProviderView]
    warming_up: list[RampView]


def providers_router(orders: ProviderOrders) -> APIRouter:
    """The routes above. Each answers with what holds then; senders hear of it within a second."""
    routes = router("/api/providers", tag="providers")

    async def shown() -> Answer[Providers]:
        return Answer(data=Providers(providers=await orders.show(), warming_up=await orders.warming_up()))

    @routes.get("", response_model_exclude_none=True, summary="Who carries mail")
    async def show(_: Operator) -> Answer[Providers]:
        """Every configured provider: whether it takes mail now, and what is ordered about it. Every domain that is
        being warmed up: how much of today is used.
        """
        return await shown()

    @routes.put("/{name}/off", response_model_exclude_none=True, summary="Send nothing through a provider")
    async def switch_off(name: str, body: Off, caller: Operator) -> Answer[Providers]:
        """Calls under way end; what waits goes through others, or waits. The first order stands."""
        try:
            await orders.switch_off(name, caller.actor, body.why)
        except PermanentError as error:
            raise NotFound(str(error.detail)) from error
        return await shown()

    @routes.delete("/{name}/off", response_model_exclude_none=True, summary="Let mail go through it again")
    async def switch_on(name: str, _: Operator) -> Answer[Providers]:
        """One that is not switched off is fine."""
        try:
            await orders.switch_on(name)
        except PermanentError as error:
            raise NotFound(str(error.detail)) from error
        return await shown()

    @routes.put("/pins/{what}", response_model_exclude_none=True, summary="Pin mail to a provider")
    async def pin(what: str, body: Pin, caller: Operator) -> Answer[Providers]:
        """While that provider is away, such mail waits. The last order stands."""
        try:
            await orders.pin(what, body.provider, caller.actor, body.why)
        except PermanentError as error:
            field = "provider" if error.reason == "unknownProvider" else "what"
            raise InvalidRequest(details=[{"field": field, "message": str(error.detail)}]) from error
        return await shown()

    @routes.delete("/pins/{what}", response_model_exclude_none=True, summary="Let it go through every provider")
    async def unpin(what: str, _: Operator) -> Answer[Providers]:
        """What is not pinned is fine."""
        await orders.unpin(what)
        return await shown()

    return routes
