"""AWS clients with every time limit and every retry written down.

Left to its defaults the client library sends one mail up to five times (dropped connection, read time-out,
500, 429), and SES has no idempotency token. So the client for sends tries exactly once; what may be repeated
without harm (SQS, S3) has bounded retries. `Any` stays at this edge: aiobotocore makes its clients at run
time.
"""

from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import aioboto3
import aiobotocore
from aiobotocore.config import AioConfig
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
)
from botocore.exceptions import (
    ConnectionError as EndpointNotReached,
)

from services.kit.errors import PermanentError, Unavailable

USER_AGENT = f"Mailroom aiobotocore/{aiobotocore.__version__}"

CONNECT_SECONDS = 2.0
"""For every service: a connection that does not stand after this will not."""

_TRANSIENT_CODES = frozenset(
    {
        "InternalError",
        "InternalFailure",
        "OverLimit",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestTimeout",
        "RequestTimeoutException",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
"""Error codes that ask for the same call again, later (AWS SDK reference guide, "Retry behavior")."""


@dataclass(frozen=True, slots=True)
class AwsAccount:
    """Where and as whom to call. `None` leaves it to AWS's standard chain (environment, profile, instance
    role).
    """

    region: str
    access_key_id: str | None = None
    secret_access_key: str | None = field(default=None, repr=False)
    endpoint_url: str | None = None
    """An emulator for all services (AWS_ENDPOINT_URL)."""
    ses_endpoint_url: str | None = None
    """One for SES alone, before `endpoint_url` (AWS_ENDPOINT_URL_SESV2)."""

    def session(self) -> Any:
        """An `aioboto3.Session` for this account; makes no call."""
        return aioboto3.Session(
            aws_access_key_id=self.access_key_id,
            aws_secret_access_key=self.secret_access_key,
            region_name=self.region,
        )


def ses_client(
    account: AwsAccount, *, call_limit: float = 10.0, connections: int = 64
) -> AbstractAsyncContextManager[Any]:
    """SES v2, to be entered with `async with`. **Never retries.** `call_limit`: seconds until a reply is
    given up.

    Of a call's CPU the library spends a sixth on putting its name together anew and a twelfth on checking types
    that mypy has checked: it is given a name, and SES judges what it gets anyway.
    """
    config = AioConfig(
        user_agent=USER_AGENT,
        parameter_validation=False,
        connect_timeout=CONNECT_SECONDS,
        read_timeout=call_limit,
        max_pool_connections=connections,
        retries={"total_max_attempts": 1},
    )
    endpoint = account.ses_endpoint_url or account.endpoint_url
    return _client(account, "sesv2", config, endpoint)


def sqs_client(
    account: AwsAccount, *, long_poll: float = 20.0, connections: int = 20
) -> AbstractAsyncContextManager[Any]:
    """SQS: three attempts; waits 10 s longer for a reply than a long poll of `long_poll` seconds lasts. Named and
    unchecked as SES's client is: two calls for every few notifications are half of what ingest costs.
    """
    config = AioConfig(
        user_agent=USER_AGENT,
        parameter_validation=False,
        connect_timeout=CONNECT_SECONDS,
        read_timeout=long_poll + 10.0,
        max_pool_connections=connections,
        retries={"total_max_attempts": 3, "mode": "standard"},
    )
    return _client(account, "sqs", config, account.endpoint_url)


def s3_client(
    account: AwsAccount, *, call_limit: float = 30.0, connections: int = 32
) -> AbstractAsyncContextManager[Any]:
    """S3: three attempts, signature version 4; on AWS with the bucket in the host name, at an emulator in the
    path.
    """
    config = AioConfig(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=call_limit,
        max_pool_connections=connections,
        retries={"total_max_attempts": 3, "mode": "standard"},
        signature_version="s3v4",
        s3={"addressing_style": "path" if account.endpoint_url else "virtual"},
    )
    return _client(account, "s3", config, account.endpoint_url)


def sns_client(account: AwsAccount, *, call_limit: float = 5.0) -> AbstractAsyncContextManager[Any]:
    """SNS, for what is rare and may be repeated: three attempts."""
    config = AioConfig(
        user_agent=USER_AGENT,
        connect_timeout=CONNECT_SECONDS,
        read_timeout=call_limit,
        max_pool_connections=1,
        retries={"total_max_attempts": 3, "mode": "standard"},
    )
    return _client(account, "sns", config, account.endpoint_url)


def is_transient(error: BaseException) -> bool:
    """Whether the same call may succeed later. Only for calls that may be repeated; a send is judged by its
    adapter.
    """
    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return error_code(error) in _TRANSIENT_CODES or status in (429, 500, 502, 503, 504)
    return isinstance(error, EndpointNotReached | HTTPClientError | TimeoutError)


def error_code(error: ClientError) -> str:
    """AWS's code of a modelled error, for instance `NoSuchKey`; "" when the reply carried none."""
    return str(error.response.get("Error", {}).get("Code", ""))


def is_from_aws(error: ClientError) -> bool:
    """Whether the service itself has answered: its replies carry its request id, those of a proxy on the way do not."""
    metadata = error.response.get("ResponseMetadata", {})
    headers = metadata.get("HTTPHeaders", {})
    return bool(metadata.get("RequestId") or headers.get("x-amzn-requestid") or headers.get("x-amz-request-id"))


@contextmanager
def foreign_errors(service: str) -> Iterator[None]:
    """Map a repeatable call's errors: Unavailable for what may work later, PermanentError `awsRefused` for
    the rest.

    Their text is AWS's code and nothing of the request. Codes that are ordinary outcomes (`NoSuchKey`) are
    for the
    caller to catch inside.
    """
    try:
        yield
    except ClientError as error:
        if is_transient(error):
            raise Unavailable(service, f"AWS answered {error_code(error) or 'an error'}") from error
        raise PermanentError("awsRefused", f"{service} answered {error_code(error)}") from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise Unavailable(service, "no credentials: set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY") from error
    except (BotoCoreError, TimeoutError) as error:
        if is_transient(error):
            raise Unavailable(service, f"cannot be reached ({type(error).__name__})") from error
        raise PermanentError("awsRefused", f"{service}: {type(error).__name__}") from error


def _client(
    account: AwsAccount, service: str, config: AioConfig, endpoint: str | None
) -> AbstractAsyncContextManager[Any]:
    client: AbstractAsyncContextManager[Any] = account.session().client(service, config=config, endpoint_url=endpoint)
    return client
