"""`mailroom topics`: Kafka's topics as `contracts/topics.py` says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from services.cli.environment import kafka, run
from services.cli.output import Json, print_json, say

if TYPE_CHECKING:
    from collections.abc import Iterable

    from services.kit.kafka.topics_admin import Drift, Verified

app = typer.Typer(no_args_is_help=True, help="Kafka's topics as contracts/topics.py says.")

Replication = Annotated[
    int | None,
    typer.Option(
        help="Copies of each partition (MAILROOM_KAFKA_REPLICATION; else 3, or as many as there are brokers).", min=1
    ),
]


@app.command("apply")
def apply_topics(replication: Replication = None, json: Json = False) -> None:
    """Create topics that are missing and mend settings. Harmless when all is well; partition counts never change."""
    from contracts.topics import TOPICS
    from services.kit.kafka.topics_admin import apply

    settings = kafka()
    found = run(apply(settings.kafka, replication=replication or settings.kafka_replication))
    if json:
        print_json({**_summary(found), "mended": _as_json(found.mended)})
    else:
        for drift in found.mended:
            created = f"created {drift.topic}, {found.replication} of each partition"
            say(created if drift.what == "missing" else f"set {drift.topic}: {drift.what}={drift.expected}")
        for drift in found.differs:
            say(f"DIFFERS {drift}")
        _warn(found)
        if not found.differs:
            say(f"{len(TOPICS)} topics are as contracts/topics.py says" + ("" if found.mended else "; nothing to do"))
    raise typer.Exit(1 if found.differs else 0)


@app.command("verify")
def verify_topics(replication: Replication = None, json: Json = False) -> None:
    """Tell where topics differ; changes nothing. Exit status 1 when one does."""
    from contracts.topics import TOPICS
    from services.kit.kafka.topics_admin import verify

    settings = kafka()
    found = run(verify(settings.kafka, replication=replication or settings.kafka_replication))
    if json:
        print_json(_summary(found))
    else:
        for drift in found.differs:
            say(str(drift))
        _warn(found)
        if not found.differs:
            say(f"{len(TOPICS)} topics are as contracts/topics.py says")
        elif any(drift.mendable for drift in found.differs):
            say("Run: mailroom topics apply")
    raise typer.Exit(1 if found.differs else 0)


def _warn(found: Verified) -> None:
    if found.warning:
        say(f"WARNING: {found.warning}")


def _summary(found: Verified) -> dict[str, object]:
    from contracts.topics import TOPICS

    return {
        "topics": len(TOPICS),
        "brokers": found.brokers,
        "replication": found.replication,
        "warning": found.warning or None,
        "differs": _as_json(found.differs),
    }


def _as_json(drifts: Iterable[Drift]) -> list[dict[str, object]]:
    return [
        {"topic": d.topic, "what": d.what, "expected": d.expected, "found": d.found, "mendable": d.mendable}
        for d in drifts
    ]
