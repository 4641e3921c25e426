"""Settings of the events service, on top of the kit's."""

from __future__ import annotations

from pydantic import Field

from services.kit.settings import KitSettings


class EventsSettings(KitSettings):
    """Everything the events service reads from its environment."""

    http_port: int = Field(8081, alias="MAILROOM_EVENTS_PORT", ge=0, le=65535, description="the port to listen on")
    database: str = Field(
        "mailroom_events", alias="MAILROOM_EVENTS_DATABASE", min_length=1, description="its MongoDB database"
    )
    parked_per_minute: int = Field(
        100, alias="MAILROOM_EVENTS_PARKED_PER_MINUTE", ge=1, description="bad records a minute before all stops"
    )
    grace_hours: float = Field(
        24.0, alias="MAILROOM_GRACE_HOURS", gt=0, description="hours that a replaced generation is kept up to date"
    )
    rebuild_workers: int = Field(
        2, alias="MAILROOM_REBUILD_WORKERS", ge=1, le=64, description="processes that fill a new generation"
    )
    email_events_topic: str = Field(
        "email.events", alias="MAILROOM_EMAIL_EVENTS_TOPIC", min_length=1, description="the log of mail"
    )
    files_events_topic: str = Field(
        "files.events", alias="MAILROOM_FILES_EVENTS_TOPIC", min_length=1, description="the log of files"
    )
