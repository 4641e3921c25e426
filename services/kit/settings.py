"""Settings from the environment, checked all at once when a process starts.

A service's settings are a subclass of `KitSettings` whose fields name their variable by alias and say what to
set:

    class EmailSettings(KitSettings):
        sender: str = Field(alias="AWS_SES_FROM_EMAIL", description="the verified sender, as name@domain")

What is wrong is told by variable name, everything in one `SettingsError`, and never with the value found.
A rule over several variables is a validator of the later field (`info.data` holds the earlier ones), because
pydantic runs validators of the whole model only when every field is good, and then problems would come one
after another.
"""

import difflib
import os
from collections.abc import Iterable, Mapping
from ipaddress import ip_address, ip_network
from typing import Annotated, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode

from services.kit.crypto import SHORTEST_SECRET, KeyRing
from services.kit.errors import SettingsError
from services.kit.kafka_settings import KafkaSettings
from services.kit.logs import Format, Level, get_logger
from services.kit.mongo import check_url
from services.kit.request_limits import OPERATE, READ, UNAUTHENTICATED, Limit

PREFIX = "MAILROOM_"
_CLAIMS_OF_CALLERS = frozenset({"exp", "iat", "iss", "jti", "nbf", "role", "scope", "sub"})


def _split(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _origin(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
        raise ValueError("not an origin: scheme, host and port and nothing more, for instance https://mail.example.com")
    return f"{parts.scheme}://{parts.netloc.lower()}"


def _strong(value: SecretStr) -> SecretStr:
    if len(value.get_secret_value().encode()) < SHORTEST_SECRET:
        raise ValueError(f"too short, at least {SHORTEST_SECRET} characters are needed (openssl rand -hex 32)")
    return value


def _limit(value: object) -> object:
    return Limit.parse(value) if isinstance(value, str) else value


Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
"""A list separated by commas."""

Origin = Annotated[str, AfterValidator(_origin)]
"""Scheme, host and port of a web origin, without a path."""


def _network(value: str) -> str:
    try:
        return str(ip_network(value)) if "/" in value else str(ip_address(value))
    except ValueError:
        raise ValueError("not an address or a network, for instance 10.0.0.7 or 10.0.1.0/24") from None


Networks = Annotated[tuple[Annotated[str, AfterValidator(_network)], ...], NoDecode, BeforeValidator(_split)]
"""IP addresses and networks, separated by commas. No names, and no `*`: each says whom it means."""

Origins = Annotated[tuple[Origin, ...], NoDecode, BeforeValidator(_split)]

RequestLimit = Annotated[Limit | None, NoDecode, BeforeValidator(_limit)]
"""Requests in seconds, `6000/60`; None for `off`."""

StrongSecret = Annotated[SecretStr, AfterValidator(_strong)]
"""A secret of at least 32 bytes."""

StrongSecrets = Annotated[tuple[StrongSecret, ...], NoDecode, BeforeValidator(_split)]


class KitSettings(KafkaSettings):
    """What every process needs. No secret has a default."""

    mongo_url: SecretStr = Field(
        alias="MAILROOM_MONGO_URL",
        description="MongoDB's address, for instance mongodb://127.0.0.1:27017/?replicaSet=rs0",
    )
    mongo_connections: int = Field(
        50,
        alias="MAILROOM_MONGO_CONNECTIONS",
        ge=2,
        le=1000,
        description="MongoDB connections at most for work in the background; requests have others",
    )
    public_url: Origin = Field(
        alias="MAILROOM_PUBLIC_URL", description="the origin people see, for instance https://mail.example.com"
    )
    http_host: str = Field("127.0.0.1", alias="MAILROOM_HTTP_HOST", description="the address to listen on")

    requests_in_flight: int = Field(
        64,
        alias="MAILROOM_REQUESTS_IN_FLIGHT",
        ge=1,
        le=10_000,
        description="requests that one process answers at a time; more are refused at once, with 503 and Retry-After",
    )

    trusted_proxies: Networks = Field(
        (),
        alias="MAILROOM_TRUSTED_PROXIES",
        description="addresses and networks of the gateways that say who calls (X-Forwarded-For); nobody else may",
    )

    body_bytes_in_flight: int = Field(
        60_000_000,
        alias="MAILROOM_BODY_BYTES_IN_FLIGHT",
        ge=1_500_000,
        description="bytes of request bodies that a process has in hand at once; they take four times as much memory",
    )
    body_bytes_per_second: int = Field(
        20_000,
        alias="MAILROOM_BODY_BYTES_PER_SECOND",
        ge=1,
        description="how fast a request's body must come, on average after 20 s; a slower one gets 408",
    )

    file_encryption_key: StrongSecret = Field(
        alias="FILE_ENCRYPTION_KEY", description="a secret of at least 32 characters (openssl rand -hex 32)"
    )
    old_encryption_keys: StrongSecrets = Field(
        (),
        alias="MAILROOM_OLD_ENCRYPTION_KEYS",
        description="other values of FILE_ENCRYPTION_KEY, separated by commas: former ones, and the next one",
    )

    jwt_algorithm: Literal["HS256", "RS256"] = Field(
        alias="MAILROOM_JWT_ALGORITHM", description="RS256 with MAILROOM_JWKS_URL, or HS256 with MAILROOM_JWT_SECRET"
    )
    jwt_secret: StrongSecret | None = Field(
        None, alias="MAILROOM_JWT_SECRET", description="a secret of at least 32 characters (openssl rand -hex 32)"
    )
    jwks_url: str | None = Field(
        None,
        alias="MAILROOM_JWKS_URL",
        description="the issuer's key set, for instance https://id.example.com/jwks.json",
    )
    jwt_issuer: str | None = Field(
        None, alias="MAILROOM_JWT_ISSUER", description="the only `iss` to accept; RS256 needs it"
    )
    jwt_audience: str | None = Field(
        None,
        alias="MAILROOM_JWT_AUDIENCE",
        description="the only `aud` to accept; RS256 needs this, or MAILROOM_JWT_CLAIM",
    )
    jwt_claim: str | None = Field(
        None,
        alias="MAILROOM_JWT_CLAIM",
        description=(
            "another claim that every token must hold, as name=value, for instance client_id=mailroom or azp=mailroom"
        ),
    )
    session_cookie: str | None = Field(
        None, alias="MAILROOM_SESSION_COOKIE", description="name of the cookie that may carry the token"
    )
    allowed_origins: Origins = Field(
        (), alias="MAILROOM_ALLOWED_ORIGINS", description="origins beside the public one that may act with the cookie"
    )
    cors_origins: Origins = Field(
        (), alias="MAILROOM_CORS_ORIGINS", description="origins whose pages may call the API from elsewhere"
    )

    limit_read: RequestLimit = Field(
        Limit(6000, 60),
        alias="MAILROOM_LIMIT_READ",
        description="requests in seconds that a user may read by (GET), in each process; off for no limit",
    )
    limit_operate: RequestLimit = Field(
        Limit(6000, 60), alias="MAILROOM_LIMIT_OPERATE", description="likewise, for the routes of operators"
    )
    limit_public: RequestLimit = Field(
        Limit(6000, 60),
        alias="MAILROOM_LIMIT_PUBLIC",
        description="likewise, from one address (IPv6: one /64) to routes that need no token",
    )
    limit_unauthenticated: RequestLimit = Field(
        Limit(6000, 60),
        alias="MAILROOM_LIMIT_UNAUTHENTICATED",
        description="likewise, from one address without a token that is accepted",
    )
    limit_service_factor: float = Field(
        10,
        alias="MAILROOM_LIMIT_SERVICE_FACTOR",
        gt=0,
        le=10_000,
        description="how many times as much as a user may a token of role service, which calls for many of them",
    )

    log_level: Level = Field("info", alias="MAILROOM_LOG_LEVEL", description="debug, info, warning or error")
    log_format: Format = Field("json", alias="MAILROOM_LOG_FORMAT", description="json or console")
    traces: Literal["off", "console", "otlp"] = Field(
        "off", alias="MAILROOM_TRACES", description="off, console, or otlp with OTEL_EXPORTER_OTLP_ENDPOINT"
    )
    otlp_endpoint: str | None = Field(
        None, alias="OTEL_EXPORTER_OTLP_ENDPOINT", description="the collector, for instance http://127.0.0.1:4318"
    )

    @field_validator("mongo_url")
    @classmethod
    def _mongo_url_is_one(cls, value: SecretStr) -> SecretStr:
        check_url(value.get_secret_value())
        return value

    @field_validator("jwt_secret")
    @classmethod
    def _secret_for_hs256(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if value is None and info.data.get("jwt_algorithm") == "HS256":
            raise ValueError("needed, because MAILROOM_JWT_ALGORITHM is HS256")
        return value

    @field_validator("jwks_url")
    @classmethod
    def _key_set_for_rs256(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None:
            if info.data.get("jwt_algorithm") == "RS256":
                raise ValueError("needed, because MAILROOM_JWT_ALGORITHM is RS256")
            return None
        parts = urlsplit(value)
        if parts.scheme != "https" and parts.hostname not in ("127.0.0.1", "localhost"):
            raise ValueError("must be https: whoever answers it decides who may log in")
        return value

    @field_validator("jwt_issuer")
    @classmethod
    def _issuer_for_rs256(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None and info.data.get("jwt_algorithm") == "RS256":
            raise ValueError("needed, because MAILROOM_JWT_ALGORITHM is RS256")
        return value

    @field_validator("jwt_claim")
    @classmethod
    def _claim_for_rs256(cls, value: str | None, info: ValidationInfo) -> str | None:
        """An issuer signs tokens for others with the same keys: without a claim that names us, all of them would do."""
        if value is None:
            if info.data.get("jwt_algorithm") == "RS256" and info.data.get("jwt_audience") is None:
                raise ValueError(
                    "needed, because MAILROOM_JWT_ALGORITHM is RS256 and MAILROOM_JWT_AUDIENCE is not set either"
                )
            return None
        name, equals, wanted = (part.strip() for part in value.partition("="))
        if not (equals and name and wanted):
            raise ValueError("not a claim and its value")
        if name in _CLAIMS_OF_CALLERS:
            raise ValueError(f"the claim {name} does not tell whom a token is for")
        return f"{name}={wanted}"

    @field_validator("otlp_endpoint")
    @classmethod
    def _endpoint_for_otlp(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None and info.data.get("traces") == "otlp":
            raise ValueError("needed, because MAILROOM_TRACES is otlp")
        return value

    def key_ring(self) -> KeyRing:
        """The keys derived from FILE_ENCRYPTION_KEY and its other values."""
        old = [secret.get_secret_value() for secret in self.old_encryption_keys]
        return KeyRing.from_secret(self.file_encryption_key.get_secret_value(), old)

    def token_claims(self) -> dict[str, str]:
        """What every token must hold beside the issuer's name: claims by name."""
        name, _, value = (self.jwt_claim or "").partition("=")
        return ({"aud": self.jwt_audience} if self.jwt_audience else {}) | ({name: value} if name else {})

    def limits(self) -> dict[str, Limit | None]:
        """What requests are held to, by class of routes. A service adds its own."""
        return {
            READ: self.limit_read,
            OPERATE: self.limit_operate,
            "public": self.limit_public,
            UNAUTHENTICATED: self.limit_unauthenticated,
        }

    def secret_values(self) -> list[str]:
        """The values of all secrets among the settings, for the log to leave out."""
        values = [getattr(self, name) for name in type(self).model_fields]
        flat = [item for value in values for item in (value if isinstance(value, tuple) else (value,))]
        return [item.get_secret_value() for item in flat if isinstance(item, SecretStr)]


S = TypeVar("S", bound=BaseSettings)


def load(settings: type[S], environ: Mapping[str, str] | None = None, *, others: Iterable[str] = ()) -> S:
    """Read `settings` from `environ` (the process's own unless given). An empty variable counts as not set.

    Raises SettingsError naming every variable that is missing or wrong. Warns of MAILROOM_* variables that
    nobody reads, with the name that was probably meant; `others` are the names that other processes read.
    """
    found = {name: value for name, value in (os.environ if environ is None else environ).items() if value.strip()}
    known = {str(field.alias) for field in settings.model_fields.values() if field.alias}
    _warn_of_strangers(found, known, set(others))
    try:
        return settings.model_validate({name: value for name, value in found.items() if name in known})
    except ValidationError as error:
        raise SettingsError(_problems(settings, error)) from None


def _problems(settings: type[BaseSettings], error: ValidationError) -> list[str]:
    aliases = {name: str(field.alias) for name, field in settings.model_fields.items()}
    wanted = {str(field.alias): field.description for field in settings.model_fields.values()}
    problems: dict[str, str] = {}
    for found in error.errors(include_input=False, include_url=False):
        where = str(found["loc"][0]) if found["loc"] else "settings"
        name = aliases.get(where, where)
        message = found["msg"].removeprefix("Value error, ")
        what = "is not set" if found["type"] == "missing" else _wrong(message)
        unwanted = message.startswith("set, but")
        hint = f". Set it to {wanted[name]}." if wanted.get(name) and not unwanted else "."
        problems.setdefault(name, f"{name} {what}{hint}")
    return list(problems.values())


def _warn_of_strangers(found: Mapping[str, str], known: set[str], others: set[str]) -> None:
    log = get_logger(__name__)
    for name in sorted(found):
        if name.startswith(PREFIX) and name not in known | others:
            meant = difflib.get_close_matches(name, known - found.keys(), n=1, cutoff=0.75)
            log.warning("unknown variable in the environment", variable=name, meant=meant[0] if meant else None)


def _wrong(message: str) -> str:
    return f"is {message}" if message.startswith(("needed", "set, but")) else f"is wrong: {message}"
