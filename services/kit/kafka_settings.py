"""Where Kafka is, and as whom it is called: settings of every process and of every command that calls it.

The names of protocols and mechanisms are Kafka's own.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cached_property
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.kit.kafka.connection import Connection

Protocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]

SIGNER = "aws_msk_iam_sasl_signer"
"""The vendor's module that signs tokens for Amazon MSK: an extra that is not in the runtime's lock."""

SIGNER_PACKAGE = "aws-msk-iam-sasl-signer-python"

_PROTOCOL, _MECHANISM = "MAILROOM_KAFKA_SECURITY_PROTOCOL", "MAILROOM_KAFKA_SASL_MECHANISM"
_CERTIFICATE, _KEY = "MAILROOM_KAFKA_CERTIFICATE_FILE", "MAILROOM_KAFKA_KEY_FILE"


class KafkaSettings(BaseSettings):
    """Where Kafka is, and how a client is let in. Contradictions are errors: nothing that is set is ignored."""

    model_config = SettingsConfigDict(
        case_sensitive=True, env_ignore_empty=True, extra="ignore", frozen=True, validate_default=True
    )

    kafka_bootstrap: str = Field(
        alias="MAILROOM_KAFKA_BOOTSTRAP", min_length=1, description="Kafka's addresses, for instance 127.0.0.1:9092"
    )
    kafka_protocol: Protocol = Field(
        "PLAINTEXT",
        alias="MAILROOM_KAFKA_SECURITY_PROTOCOL",
        description="PLAINTEXT, SSL (TLS), SASL_PLAINTEXT or SASL_SSL (TLS and a log-in), as the listener has it",
    )
    kafka_mechanism: Mechanism | None = Field(
        None,
        alias="MAILROOM_KAFKA_SASL_MECHANISM",
        description="PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, or OAUTHBEARER for Amazon MSK with IAM",
    )
    kafka_username: str | None = Field(
        None, alias="MAILROOM_KAFKA_USERNAME", description="Kafka's user, for PLAIN and SCRAM"
    )
    kafka_password: SecretStr | None = Field(
        None, alias="MAILROOM_KAFKA_PASSWORD", description="that user's password, for PLAIN and SCRAM"
    )
    kafka_aws_region: str | None = Field(
        None, alias="MAILROOM_KAFKA_AWS_REGION", description="the region of the MSK cluster, for OAUTHBEARER"
    )
    kafka_ca_file: Path | None = Field(
        None,
        alias="MAILROOM_KAFKA_CA_FILE",
        description="a PEM file of the authorities that sign the brokers' certificates (default: the system's)",
    )
    kafka_certificate_file: Path | None = Field(
        None,
        alias="MAILROOM_KAFKA_CERTIFICATE_FILE",
        description="a PEM file with the client's certificate and its chain",
    )
    kafka_key_file: Path | None = Field(
        None,
        alias="MAILROOM_KAFKA_KEY_FILE",
        description="a PEM file with that certificate's private key, not encrypted",
    )

    kafka_replication: int | None = Field(
        None,
        alias="MAILROOM_KAFKA_REPLICATION",
        ge=1,
        description="copies of each partition, for `mailroom topics` (default: 3, or as many as there are brokers)",
    )

    @field_validator("kafka_mechanism")
    @classmethod
    def _mechanism_for_sasl(cls, value: str | None, info: ValidationInfo) -> str | None:
        protocol = info.data.get("kafka_protocol", "")
        if value is None and protocol.startswith("SASL"):
            raise ValueError(f"needed, because {_PROTOCOL} is {protocol}")
        if value is not None and protocol and not protocol.startswith("SASL"):
            raise ValueError(
                f"set, but {_PROTOCOL} is {protocol}, without a log-in: set that to SASL_SSL or unset this"
            )
        if value == "PLAIN" and protocol == "SASL_PLAINTEXT" and not _on_this_machine(info.data.get("kafka_bootstrap")):
            raise ValueError(
                f"PLAIN over SASL_PLAINTEXT shows the password to the network: set {_PROTOCOL} to SASL_SSL"
            )
        if value == "OAUTHBEARER" and protocol == "SASL_PLAINTEXT":
            raise ValueError(
                f"OAUTHBEARER over SASL_PLAINTEXT shows the token to the network: set {_PROTOCOL} to SASL_SSL"
            )
        if value == "OAUTHBEARER" and find_spec(SIGNER) is None:
            raise ValueError(
                f"OAUTHBEARER takes the package {SIGNER_PACKAGE}, which is not installed here: "
                "pip install -r requirements/msk.txt"
            )
        return value

    @field_validator("kafka_username", "kafka_password")
    @classmethod
    def _user_for_passwords(cls, value: Any, info: ValidationInfo) -> Any:
        return _used_by(value, info, ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"))

    @field_validator("kafka_aws_region")
    @classmethod
    def _region_for_tokens(cls, value: str | None, info: ValidationInfo) -> Any:
        return _used_by(value, info, ("OAUTHBEARER",))

    @field_validator("kafka_ca_file", "kafka_certificate_file", "kafka_key_file")
    @classmethod
    def _files_for_tls(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        protocol = info.data.get("kafka_protocol", "")
        if value is None:
            return None
        if protocol and not protocol.endswith("SSL"):
            better = "SASL_SSL" if protocol.startswith("SASL") else "SSL"
            raise ValueError(f"set, but {_PROTOCOL} is {protocol}, without TLS: set that to {better} or unset this")
        try:
            value.read_bytes()
        except OSError as error:
            raise ValueError(f"{value} cannot be read ({error.strerror})") from None
        return value

    @field_validator("kafka_ca_file")
    @classmethod
    def _authorities(cls, value: Path | None) -> Path | None:
        if value is not None:
            try:
                ssl.create_default_context(cafile=str(value))
            except ssl.SSLError:
                raise ValueError(f"{value} holds no certificate in PEM") from None
        return value

    @field_validator("kafka_certificate_file")
    @classmethod
    def _still_valid(cls, value: Path | None) -> Path | None:
        if value is not None:
            ends = _valid_until(value)
            if ends < datetime.now(UTC):
                raise ValueError(f"the certificate in {value} has expired on {ends:%Y-%m-%d %H:%M} UTC: renew it")
        return value

    @field_validator("kafka_key_file")
    @classmethod
    def _key_of_certificate(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if "kafka_certificate_file" not in info.data:
            return value  # told already
        certificate = info.data["kafka_certificate_file"]
        if (value is None) != (certificate is None):
            if value is None:
                raise ValueError(f"needed, because {_CERTIFICATE} is set")
            raise ValueError(f"set, but {_CERTIFICATE} is not: set both or neither")
        if value is not None:
            _load_pair(ssl.create_default_context(), certificate, value)
        return value

    @cached_property
    def kafka(self) -> Connection:
        """How Kafka is reached: the one for all clients of the process."""
        return Connection(self.kafka_bootstrap, self._security())

    def _security(self) -> dict[str, Any]:
        if self.kafka_protocol == "PLAINTEXT":
            return {}
        security: dict[str, Any] = {"security_protocol": self.kafka_protocol}
        if self.kafka_protocol.endswith("SSL"):
            context = ssl.create_default_context(cafile=None if self.kafka_ca_file is None else str(self.kafka_ca_file))
            if self.kafka_certificate_file is not None and self.kafka_key_file is not None:
                _load_pair(context, self.kafka_certificate_file, self.kafka_key_file)
            security["ssl_context"] = context
        if self.kafka_mechanism is not None:
            security["sasl_mechanism"] = self.kafka_mechanism
        if self.kafka_mechanism == "OAUTHBEARER":
            from services.kit.kafka.msk import MskTokens

            security["sasl_oauth_token_provider"] = MskTokens(self.kafka_aws_region or "")
        elif self.kafka_mechanism is not None and self.kafka_password is not None:
            security["sasl_plain_username"] = self.kafka_username
            security["sasl_plain_password"] = self.kafka_password.get_secret_value()
        return security


def _used_by(value: Any, info: ValidationInfo, mechanisms: Sequence[str]) -> Any:
    """The value, if it is set where, and only where, the mechanism is one of these."""
    if "kafka_mechanism" not in info.data:
        return value  # told already
    mechanism = info.data["kafka_mechanism"]
    if value is None and mechanism in mechanisms:
        raise ValueError(f"needed, because {_MECHANISM} is {mechanism}")
    if value is not None and mechanism not in mechanisms:
        told = "is not set" if mechanism is None else f"is {mechanism}"
        raise ValueError(f"set, but {_MECHANISM} {told}: set that to {' or '.join(mechanisms)}, or unset this")
    return value


def _on_this_machine(bootstrap: object) -> bool:
    hosts = [each.strip().rpartition(":")[0].strip("[]") for each in str(bootstrap or "").split(",")]
    return all(host == "localhost" or _is_loopback(host) for host in hosts)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _valid_until(certificate: Path) -> datetime:
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc
    except ValueError:
        raise ValueError(f"{certificate} holds no certificate in PEM") from None


def _load_pair(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    try:
        context.load_cert_chain(str(certificate), str(key), password=lambda: b"")  # else OpenSSL asks at the terminal
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ValueError(f"the key in {key} does not belong to the certificate in {certificate}") from None
        raise ValueError(f"{key} holds no private key in PEM that is not encrypted") from None
