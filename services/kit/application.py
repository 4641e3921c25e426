"""A service's HTTP application as the settings ask for it: whom it lets in, and how much it takes."""

from collections.abc import Sequence

from fastapi import APIRouter, FastAPI

from services.kit.auth import Authenticator, KeySetVerifier, SecretVerifier, Verifier
from services.kit.clock import Clock, Ids
from services.kit.health import Health
from services.kit.http import create_app
from services.kit.jwks import KeySet
from services.kit.metrics import Metrics
from services.kit.request_limits import RequestLimits
from services.kit.settings import KitSettings
from services.kit.tracing import Tracing


def application(
    settings: KitSettings,
    clock: Clock,
    *,
    service: str,
    version: str,
    health: Health,
    metrics: Metrics,
    routers: Sequence[APIRouter],
    writes: str = "write",
    ids: Ids | None = None,
) -> FastAPI:
    """The application of a service; see `create_app`. `writes`: the class of routes that neither read nor operate, for
    the limits of callers.
    """
    return create_app(
        title=f"Mailroom: {service}",
        service=service,
        version=version,
        authenticator=_authenticator(settings, clock),
        limits=RequestLimits(settings.limits(), clock, writes=writes, service_factor=settings.limit_service_factor),
        health=health,
        metrics=metrics,
        routers=routers,
        tracing=Tracing.configured(settings.traces, service, settings.otlp_endpoint),
        ids=ids,
        body_bytes_in_flight=settings.body_bytes_in_flight,
        body_bytes_per_second=settings.body_bytes_per_second,
        clock=clock,
        cors_origins=settings.cors_origins,
        requests_in_flight=settings.requests_in_flight,
    )


def _authenticator(settings: KitSettings, clock: Clock) -> Authenticator:
    """Takes tokens of the one algorithm that `settings` fix, as bearer tokens or in the cookie they name."""
    origins = [settings.public_url, *settings.allowed_origins]
    return Authenticator(_verifier(settings, clock), cookie=settings.session_cookie, origins=origins)


def _verifier(settings: KitSettings, clock: Clock) -> Verifier:
    issuer, claims = settings.jwt_issuer, settings.token_claims()
    if settings.jwt_algorithm == "HS256":
        assert settings.jwt_secret is not None  # noqa: S101 - the settings saw to it
        return SecretVerifier(settings.jwt_secret.get_secret_value(), issuer=issuer, claims=claims)
    assert settings.jwks_url is not None  # noqa: S101 - likewise
    assert issuer is not None  # noqa: S101 - likewise
    return KeySetVerifier(KeySet(settings.jwks_url, clock=clock), issuer=issuer, claims=claims)
