"""Settings of what providers charge."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field, FilePath, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from services.kit.json_settings import json_object
from services.kit.prices import SHIPPED, Prices, load

EXAMPLE: Final = '{"ses": "essentials", "sendgrid": "pro-100k"}'


def _plans(value: Any) -> Any:
    plans = json_object(value, f"provider → its plan, for instance {EXAMPLE}")
    if not all(isinstance(each, str) for each in plans.values()):
        raise ValueError(f"each provider has the name of its plan, for instance {EXAMPLE}")
    return dict(plans)


class PriceSettings(BaseSettings):
    """Which prices hold for the accounts in use."""

    model_config = SettingsConfigDict(
        case_sensitive=True, env_ignore_empty=True, extra="ignore", frozen=True, validate_default=True
    )

    prices_file: FilePath | None = Field(
        None,
        alias="MAILROOM_PRICES_FILE",
        description="a file of prices in place of the one that ships (`services/kit/prices.json` shows its form)",
    )
    plans: Annotated[dict[str, str], NoDecode, BeforeValidator(_plans)] = Field(
        default_factory=dict,
        alias="MAILROOM_PLANS",
        description=f"as JSON, providers whose account has another plan than the file of prices says: `{EXAMPLE}`",
    )

    @field_validator("plans")
    @classmethod
    def _have_prices(cls, value: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        if "prices_file" in info.data:
            load(_path(info.data["prices_file"]), value)
        return value

    @property
    def prices(self) -> Prices:
        """Read anew. Raises ValueError where the file was changed since these settings were made."""
        return load(_path(self.prices_file), self.plans)


def _path(given: Path | None) -> Path:
    return SHIPPED if given is None else given
