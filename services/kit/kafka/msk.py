"""Tokens for Amazon MSK with IAM, signed by the vendor's own package (an extra, see `KafkaSettings`)."""

from __future__ import annotations

import asyncio

from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import KafkaError


class NoToken(KafkaError):  # type: ignore[misc]  # aiokafka has no types
    """No token could be signed: AWS's chain of credentials gave none."""


class MskTokens(AbstractTokenProvider):  # type: ignore[misc]  # aiokafka has no types
    """Signs a token for each new connection, with the credentials of AWS's own chain. A token holds for 15 minutes;
    the broker closes the connection some time later, and the client opens another one.
    """

    def __init__(self, region: str) -> None:
        """`region`: the cluster's."""
        self._region = region

    async def token(self) -> str:
        """A fresh token. Raises NoToken; takes the chain's own time, which is bounded by the AWS client."""
        return await asyncio.to_thread(self._sign)

    def _sign(self) -> str:
        from aws_msk_iam_sasl_signer import MSKAuthTokenProvider

        try:
            signed, _expires_ms = MSKAuthTokenProvider.generate_auth_token(self._region)
        except Exception as error:
            why = "no AWS credentials are found" if isinstance(error, AttributeError) else type(error).__name__
            raise NoToken(
                f"no token for MSK could be signed ({why}): give the process a role or AWS_ACCESS_KEY_ID"
            ) from error
        return str(signed)
