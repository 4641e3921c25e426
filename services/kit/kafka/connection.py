"""How Kafka is reached and as whom. Every client of ours takes its addresses and its security from here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NewType

ClientArguments = NewType("ClientArguments", dict[str, Any])
"""Keyword arguments of aiokafka's clients. Only `Connection.arguments` makes them."""


@dataclass(frozen=True, slots=True)
class Connection:
    """A cluster's addresses, and what a client needs to be let in.

    Attributes:
        bootstrap: `host:port[,host:port]`.
        security: aiokafka's `security_protocol`, `ssl_context` and `sasl_…` arguments; {} = neither TLS nor a log-in.
            `KafkaSettings.kafka` makes them.
    """

    bootstrap: str
    security: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def arguments(self, client_id: str, **more: Any) -> ClientArguments:
        """The arguments of a client. `client_id` is shown in the broker's logs and quotas."""
        return ClientArguments({"bootstrap_servers": self.bootstrap, "client_id": client_id, **self.security, **more})

    @property
    def protocol(self) -> str:
        """PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL."""
        return str(self.security.get("security_protocol", "PLAINTEXT"))


Where = str | Connection
"""A cluster. Addresses alone mean one that asks for neither TLS nor a log-in; services and commands pass the
`Connection` of their settings.
"""


def connection(where: Where) -> Connection:
    """The connection to a cluster."""
    return where if isinstance(where, Connection) else Connection(where)
