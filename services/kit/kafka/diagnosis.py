"""Why Kafka lets a client in no more, in one sentence that names the setting.

aiokafka tries all addresses again and again and tells no more than that none would do: what the broker or TLS said goes
to its log at best. So after such a failure one connection is made here, and what it meets is put into words.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    IllegalSaslStateError,
    KafkaError,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.metadata import MetadataRequest

from services.kit.errors import MailroomError, Unavailable
from services.kit.kafka.bounded import bounded
from services.kit.kafka.connection import Connection, Where, connection
from services.kit.kafka.msk import NoToken

SECONDS: Final = 4.0
"""How long the search for a reason takes at most."""

_ADDRESSES: Final = 3
_PROTOCOL: Final = "MAILROOM_KAFKA_SECURITY_PROTOCOL"
_NOT_ALLOWED: Final = (TopicAuthorizationFailedError, GroupAuthorizationFailedError, ClusterAuthorizationFailedError)
_EXPIRED, _WRONG_HOST = frozenset({10}), frozenset({62, 64})  # X509_V_ERR_… of OpenSSL
_ABOUT_OUR_CERTIFICATE: Final = ("CERTIFICATE", "UNKNOWN_CA", "HANDSHAKE_FAILURE", "ACCESS_DENIED")


async def unreachable(where: Where, failure: BaseException) -> Unavailable:
    """What to raise for this failure of a client: it says why the cluster cannot be used, and what to do."""
    told = await explained(where, failure)
    silent = told == repr(failure)
    return Unavailable("Kafka", f"{connection(where).bootstrap} does not answer: {told}" if silent else told)


async def explained(where: Where, failure: BaseException) -> str:
    """One line about a client's failure. Asks the cluster where that is no answer by itself; raises nothing."""
    told = not_allowed(failure)
    if told or isinstance(failure, MailroomError):
        return told or str(failure)
    return await why_refused(where) or repr(failure)


def not_allowed(failure: BaseException) -> str:
    """What the broker's ACLs refuse; "" where the failure is another one."""
    for each in _chain(failure):
        if isinstance(each, _NOT_ALLOWED):
            what = next((str(word) for word in each.args), "")
            kind = type(each).__name__.removesuffix("Error")
            return f"the broker refuses this user ({kind}{f': {what}' if what else ''}): see `mailroom topics acls`"
    return ""


async def why_refused(where: Where) -> str:
    """Why no connection comes about; "" when one does, or when only silence is to be had. Raises nothing."""
    to = connection(where)
    hosts = collect_hosts(to.bootstrap)[:_ADDRESSES]
    reasons = await asyncio.gather(*(_reason(to, str(host), int(port)) for host, port, _family in hosts))
    if "" in reasons:
        return ""
    away = [reason for reason in reasons if reason.startswith(_AWAY)]
    return next((reason for reason in reasons if reason not in away), away[0] if away else "")


_AWAY: Final = "no Kafka answers"


async def _reason(to: Connection, host: str, port: int) -> str:
    try:
        async with asyncio.timeout(SECONDS):
            return await _tried(to, host, port)
    except TimeoutError:
        return f"{_AWAY} at {host}:{port} within {SECONDS:g} s"


async def _tried(to: Connection, host: str, port: int) -> str:
    at = f"{host}:{port}"
    admitted = False
    try:
        client = await create_conn(host, port, client_id="mailroom-probe", **to.security)
        admitted = True
        try:
            answer = await bounded(client.send(MetadataRequest([])), SECONDS)
            if not answer.brokers and to.security.get("sasl_mechanism") == "OAUTHBEARER":
                raise SaslAuthenticationFailed  # a refused token is told in a challenge, which aiokafka takes for a yes
        finally:
            client.close()
    except Exception as failure:  # noqa: BLE001 - whatever it is, words are sought for it
        for each in _chain(failure):
            if told := _about_certificates(to, at, each) or _about_login(to, at, each):
                return told
        if isinstance(failure, socket.gaierror):
            return f"{_AWAY} to the name {host} (MAILROOM_KAFKA_BOOTSTRAP): {failure.strerror}"
        if isinstance(failure, ConnectionRefusedError):
            return f"{_AWAY} at {at} (MAILROOM_KAFKA_BOOTSTRAP): connection refused"
        return await _other_protocol(to, host, port, admitted) or f"{at} ends the connection: {failure!r}"
    return ""


def _about_certificates(to: Connection, at: str, failure: BaseException) -> str:
    if isinstance(failure, ssl.SSLCertVerificationError):
        if failure.verify_code in _EXPIRED:
            return f"the certificate of the broker {at} has expired: renew it there"
        if failure.verify_code in _WRONG_HOST:
            return f"the certificate of the broker {at} is for another name: MAILROOM_KAFKA_BOOTSTRAP must use its own"
        why = failure.verify_message
        return (
            f"the certificate of the broker {at} is not trusted ({why}): MAILROOM_KAFKA_CA_FILE must name its "
            "authority's certificate"
        )
    if isinstance(failure, ssl.SSLError) and any(word in (failure.reason or "") for word in _ABOUT_OUR_CERTIFICATE):
        said = (failure.reason or "").removeprefix("TLSV13_").removeprefix("TLSV1_").removeprefix("SSLV3_")
        said = said.removeprefix("ALERT_").replace("_", " ").lower()
        return f"the broker {at} refuses our certificate ({said}): look at MAILROOM_KAFKA_CERTIFICATE_FILE"
    return ""


def _about_login(to: Connection, at: str, failure: BaseException) -> str:
    mechanism = to.security.get("sasl_mechanism")
    if isinstance(failure, NoToken):
        return next(str(word) for word in failure.args)
    if isinstance(failure, SaslAuthenticationFailed) and mechanism == "OAUTHBEARER":
        return (
            f"the broker {at} refuses our token: the role needs kafka-cluster:Connect, and MAILROOM_KAFKA_AWS_REGION "
            "must be the cluster's"
        )
    if isinstance(failure, SaslAuthenticationFailed):
        return f"the broker {at} refuses user or password: look at MAILROOM_KAFKA_USERNAME and MAILROOM_KAFKA_PASSWORD"
    if isinstance(failure, UnsupportedSaslMechanismError):
        return (
            f"the broker {at} does not take {mechanism}: MAILROOM_KAFKA_SASL_MECHANISM must be one that it has enabled"
        )
    if isinstance(failure, IllegalSaslStateError):
        return f"the listener {at} takes no log-in: {_PROTOCOL} must be {to.protocol.removeprefix('SASL_')}"
    return ""


async def _other_protocol(to: Connection, host: str, port: int, admitted: bool) -> str:
    """Whether the listener speaks another protocol than we do: with or without TLS, with or without a log-in."""
    at, sasl = f"{host}:{port}", to.protocol.startswith("SASL")
    if admitted and not sasl:
        wanted = "SASL_SSL" if to.protocol == "SSL" else "SASL_PLAINTEXT"
        return f"the listener {at} ends the connection of clients that do not log in: {_PROTOCOL} must be {wanted}"
    if to.protocol.endswith("SSL"):
        if await _speaks_plainly(host, port):
            plain = "SASL_PLAINTEXT" if sasl else "PLAINTEXT"
            return f"the listener {at} does not speak TLS: {_PROTOCOL} is {to.protocol}, that listener needs {plain}"
    elif await _speaks_tls(host, port):
        return f"the listener {at} speaks TLS: {_PROTOCOL} is {to.protocol}, that listener needs SSL or SASL_SSL"
    return ""


async def _speaks_plainly(host: str, port: int) -> bool:
    with suppress(KafkaError, OSError, TimeoutError):
        client = await create_conn(host, port, client_id="mailroom-probe", request_timeout_ms=2000)
        client.close()
        return True
    return False


async def _speaks_tls(host: str, port: int) -> bool:
    """Whether a TLS handshake comes about, whoever the broker is: nothing is sent over it."""
    anybody = ssl.create_default_context()
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    try:
        _reader, writer = await asyncio.open_connection(host, port, ssl=anybody)
    except ssl.SSLError as error:
        return any(word in (error.reason or "") for word in _ABOUT_OUR_CERTIFICATE)
    except OSError:
        return False
    writer.close()
    return True


def _chain(failure: BaseException) -> Iterator[BaseException]:
    """An error and those that it came from."""
    seen: list[Any] = []
    found: BaseException | None = failure
    while found is not None and found not in seen:
        seen.append(found)
        yield found
        found = found.__cause__ or found.__context__
