"""When a study is materialized by itself, and what one night may cost."""

from __future__ import annotations

import zoneinfo
from typing import Any, Literal

from dagster._utils.schedules import is_valid_cron_schedule
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class BudgetConfig(BaseModel):
    """What one nightly run may cost; what it does not reach is left for the next night."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    usd: float | None = Field(
        default=None, ge=0, description="Price of LLM calls (needs the prices in `llm`); null: any"
    )
    llm_calls: int | None = Field(default=None, ge=0, description="LLM calls sent; null: any")
    minutes: float | None = Field(
        default=None, ge=0, description="After which nothing more is begun; null: any"
    )


class NightlyConfig(BaseModel):
    """When the study is materialized by itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cron: str = Field(default="0 2 * * *", description="Cron expression of the nightly run.")
    timezone: str = Field(default="UTC", description="IANA time zone of the cron expression.")
    budget: BudgetConfig = BudgetConfig()
    switch: Literal["on", "off"] = Field(
        default="off",
        description="`on` starts the schedule by itself; `off` leaves it to the UI's switch.",
    )

    @field_validator("cron")
    @classmethod
    def _is_cron(cls, cron: str) -> str:
        if not is_valid_cron_schedule(cron):
            raise ValueError(f"{cron!r} is no cron expression; expected e.g. '0 2 * * *'")
        return cron

    @field_validator("timezone")
    @classmethod
    def _is_timezone(cls, timezone: str) -> str:
        if timezone not in zoneinfo.available_timezones():
            raise ValueError(f"{timezone!r} is no IANA time zone; expected e.g. Europe/Berlin")
        return timezone

    @model_validator(mode="before")
    @classmethod
    def _accept_yaml_booleans(cls, values: Any) -> Any:
        # YAML 1.1 reads a bare `on` or `off` as a boolean.
        if isinstance(values, dict) and isinstance(values.get("switch"), bool):
            return {**values, "switch": "on" if values["switch"] else "off"}
        return values
