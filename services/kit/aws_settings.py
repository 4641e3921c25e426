"""Where and as whom AWS is called: settings of every service that calls it."""

from __future__ import annotations

from pydantic import Field, SecretStr

from services.kit.aws import AwsAccount
from services.kit.settings import KitSettings


class AwsSettings(KitSettings):
    """The kit's settings, and AWS's own under the names that every AWS client reads."""

    region: str = Field(alias="AWS_REGION", min_length=1, description="the AWS region, for instance eu-central-1")
    access_key_id: str | None = Field(
        None, alias="AWS_ACCESS_KEY_ID", description="an access key; unset, AWS's own chain of credentials is used"
    )
    secret_access_key: SecretStr | None = Field(None, alias="AWS_SECRET_ACCESS_KEY", description="that key's secret")
    aws_endpoint: str | None = Field(None, alias="AWS_ENDPOINT_URL", description="an emulator of AWS")

    @property
    def account(self) -> AwsAccount:
        """Where and as whom AWS is called."""
        secret = None if self.secret_access_key is None else self.secret_access_key.get_secret_value()
        return AwsAccount(self.region, self.access_key_id, secret, self.aws_endpoint)
