"""The Authenticator and the limits of callers that the settings ask for."""

from services.kit.auth import Authenticator, KeySetVerifier, SecretVerifier, Verifier
from services.kit.clock import Clock
from services.kit.jwks import KeySet
from services.kit.request_limits import RequestLimits
from services.kit.settings import KitSettings


def authenticator(settings: KitSettings, clock: Clock) -> Authenticator:
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


def request_limits(settings: KitSettings, clock: Clock, writes: str = "write") -> RequestLimits:
    """What callers are held to. `writes`: the class of routes that neither read nor operate."""
    return RequestLimits(settings.limits(), clock, writes=writes, service_factor=settings.limit_service_factor)
