"""A Kafka that asks for TLS, a log-in and ACLs, with a listener for each way of asking."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import CreateAclsRequest

from deploy.local.site import HOST
from services.kit.kafka.access import Acl
from services.kit.kafka.connection import Connection
from services.kit.kafka_settings import KafkaSettings
from services.kit.settings import load
from tests.integration.certificates import Authority, Pair
from tests.integration.nodes import Node, Place, place
from tests.integration.security import mongo
from tests.integration.security.mongo import SecuredMongo

PROTOCOLS = {
    "main": "SASL_SSL",
    "expired": "SASL_SSL",
    "tls": "SSL",
    "mutual": "SSL",
    "clear": "PLAINTEXT",
    "login": "SASL_PLAINTEXT",
}
"""Listener → its protocol. `expired` has a certificate that has; `mutual` asks clients for theirs."""

PASSWORD = "correct-horse"
USERS = ("admin", "email", "files", "events", "callers", "operator", "nobody")
"""All by SCRAM; `admin` may do everything, and the others what they are given."""

_KINDS = {"topic": 2, "group": 3}
_OPERATIONS = {"Read": 3, "Write": 4, "Create": 5, "DescribeConfigs": 10, "AlterConfigs": 11}
_LITERAL, _ALLOW = 3, 3


@dataclass
class SecuredKafka:
    """The cluster, by listener and user."""

    ports: Mapping[str, int]
    node: Node
    authority: Authority
    stranger: Authority
    client: Pair
    _rights: set[tuple[str, Acl]] = field(default_factory=set)

    def environ(self, listener: str = "main", user: str = "admin", **changed: Any) -> dict[str, str]:
        """The variables of a client; `changed` ones without MAILROOM_KAFKA_, None = not set."""
        protocol = PROTOCOLS[listener]
        found: dict[str, Any] = {
            "BOOTSTRAP": f"{HOST}:{self.ports[listener]}",
            "SECURITY_PROTOCOL": protocol,
            "CA_FILE": self.authority.file if protocol.endswith("SSL") else None,
        }
        if protocol.startswith("SASL"):
            found |= {"SASL_MECHANISM": "SCRAM-SHA-512", "USERNAME": user, "PASSWORD": PASSWORD}
        if listener == "mutual":
            found |= {"CERTIFICATE_FILE": self.client.certificate, "KEY_FILE": self.client.key}
        found |= changed
        return {f"MAILROOM_KAFKA_{name}": str(value) for name, value in found.items() if value is not None}

    def connection(self, listener: str = "main", user: str = "admin", **changed: Any) -> Connection:
        """The connection that those variables make."""
        return load(KafkaSettings, self.environ(listener, user, **changed)).kafka

    async def allow(self, user: str, *wanted: Acl) -> None:
        """Give a user these rights, as `kafka-acls` would."""
        admin = AIOKafkaAdminClient(**self.connection().arguments("test"))
        await admin.start()
        try:
            for acl in wanted:
                for operation in acl.operations:
                    kind, number = _KINDS[acl.resource], _OPERATIONS[operation]
                    request = CreateAclsRequest(kind, acl.name, _LITERAL, f"User:{user}", "*", number, _ALLOW)
                    answer = await admin._send_to_controller(request)
                    assert [each[0] for each in answer.creation_responses] == [0], answer
        finally:
            await admin.close()


@pytest.fixture(scope="package")
def here() -> Iterator[Place]:
    with place(20) as found:
        yield found


@pytest.fixture(scope="package")
def secured(here: Place) -> SecuredKafka:
    """One broker for all tests of this folder."""
    authority, stranger = Authority(here.folder), Authority(here.folder, "stranger")
    server = authority.signs("server")
    expired = authority.signs("expired", lasts=timedelta(hours=-1))
    ports = {name: here.ports.pop() for name in PROTOCOLS}
    controller = here.ports.pop()
    named = {name.upper(): protocol for name, protocol in PROTOCOLS.items()}
    addresses = [f"{name.upper()}://{HOST}:{port}" for name, port in ports.items()]
    settings = {
        "listeners": ",".join([*addresses, f"CONTROLLER://{HOST}:{controller}"]),
        "advertised.listeners": ",".join(addresses),
        "controller.quorum.voters": f"1@{HOST}:{controller}",
        "listener.security.protocol.map": ",".join(f"{n}:{p}" for n, p in {**named, "CONTROLLER": "PLAINTEXT"}.items()),
        "inter.broker.listener.name": "CLEAR",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS;User:admin;User:CN=client",
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(authority.file),
        "listener.name.mutual.ssl.client.auth": "required",
    }
    for name, protocol in PROTOCOLS.items():
        if protocol.endswith("SSL"):
            settings |= {
                f"listener.name.{name}.ssl.keystore.type": "PEM",
                f"listener.name.{name}.ssl.keystore.location": str((expired if name == "expired" else server).both),
            }
        if protocol.startswith("SASL"):
            settings |= {f"listener.name.{name}.{mechanism}": module for mechanism, module in _LOGINS.items()}
    scram = [
        option
        for user in USERS
        for mechanism in (("SCRAM-SHA-256", "SCRAM-SHA-512") if user == "admin" else ("SCRAM-SHA-512",))
        for option in ("--add-scram", f"{mechanism}=[name={user},password={PASSWORD}]")
    ]
    cluster = here.kafka(1, settings=settings, ports=[ports["main"]], format_options=scram)
    return SecuredKafka(ports, cluster.nodes[0], authority, stranger, authority.signs("client"))


@pytest.fixture(scope="package")
def secured_mongo(here: Place) -> SecuredMongo:
    """One server for all tests of this folder."""
    return mongo.started(here)


_MODULE = "org.apache.kafka.common.security"
_LOGINS = {
    "plain.sasl.jaas.config": f'{_MODULE}.plain.PlainLoginModule required user_plain="{PASSWORD}";',
    "scram-sha-256.sasl.jaas.config": f"{_MODULE}.scram.ScramLoginModule required;",
    "scram-sha-512.sasl.jaas.config": f"{_MODULE}.scram.ScramLoginModule required;",
    "oauthbearer.sasl.jaas.config": (
        f'{_MODULE}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";'
    ),
}
