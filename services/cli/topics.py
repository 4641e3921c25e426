"""`mailroom topics`: Kafka's topics as `contracts/topics.py` says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from services.cli.environment import kafka, run
from services.cli.output import Json, print_json, say

if TYPE_CHECKING:
    from services.kit.kafka.topics_admin import Drift

app = typer.Typer(no_args_is_help=True, help="Kafka's topics as contracts/topics.py says.")


@app.command("apply")
def apply_topics(
    replication: Annotated[int, typer.Option(help="Copies of each partition of a topic that is created.", min=1)] = 1,
    json: Json = False,
) -> None:
    """Create topics that are missing and mend settings. Harmless when all is well; partition counts never change."""
    from contracts.topics import TOPICS
    from services.kit.kafka.topics_admin import apply

    mended, left = run(apply(kafka().kafka, replication=replication))
    if json:
        print_json({"topics": len(TOPICS), "mended": _as_json(mended), "differs": _as_json(left)})
    else:
        for drift in mended:
            say(
                f"created {drift.topic}"
                if drift.what == "missing"
                else f"set {drift.topic}: {drift.what}={drift.expected}"
            )
        for drift in left:
            say(f"DIFFERS {drift}")
        if not left:
            say(f"{len(TOPICS)} topics are as contracts/topics.py says" + ("" if mended else "; nothing to do"))
    raise typer.Exit(1 if left else 0)


@app.command("verify")
def verify_topics(json: Json = False) -> None:
    """Tell where topics differ; changes nothing. Exit status 1 when one does."""
    from contracts.topics import TOPICS
    from services.kit.kafka.topics_admin import verify

    differs = run(verify(kafka().kafka))
    if json:
        print_json({"topics": len(TOPICS), "differs": _as_json(differs)})
    else:
        for drift in differs:
            say(str(drift))
        if not differs:
            say(f"{len(TOPICS)} topics are as contracts/topics.py says")
        elif any(drift.mendable for drift in differs):
            say("Run: mailroom topics apply")
    raise typer.Exit(1 if differs else 0)


def _as_json(drifts: list[Drift]) -> list[dict[str, object]]:
    return [
        {"topic": d.topic, "what": d.what, "expected": d.expected, "found": d.found, "mendable": d.mendable}
        for d in drifts
    ]
