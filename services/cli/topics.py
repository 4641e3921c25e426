"""`mailroom topics`: Kafka's topics as `contracts/topics.py` says, and who may do what on them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Final

import typer

from services.cli.environment import kafka, run
from services.cli.output import Json, console, print_json, say, table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from services.kit.kafka.access import Acl
    from services.kit.kafka.topics_admin import Drift, Verified

app = typer.Typer(no_args_is_help=True, help="Kafka's topics as contracts/topics.py says, and who may do what on them.")

Replication = Annotated[
    int | None,
    typer.Option(
        help="Copies of each partition (MAILROOM_KAFKA_REPLICATION; else 3, or as many as there are brokers).", min=1
    ),
]

USUAL: Final = ("email", "files", "events", "operator", "callers")
"""What ACLs are told for unless others are named: one user for each service."""


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


@app.command("acls")
def topic_acls(
    processes: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PROCESS]...",
            help=f"A service, one of its roles (email-intake), operator or callers. Default: {' '.join(USUAL)}.",
        ),
    ] = None,
    principal: Annotated[
        list[str] | None,
        typer.Option(metavar="PROCESS=PRINCIPAL", help="Whom a process logs in as. Default: User:mailroom-PROCESS."),
    ] = None,
    commands: Annotated[bool, typer.Option("--commands", help="As commands of Kafka's own tool.")] = False,
    json: Json = False,
) -> None:
    """What each process must be allowed on Kafka. Asks no cluster: it is what the services' own tables say."""
    chosen = dict.fromkeys(processes or USUAL)
    wanted = {process: acls_of(process) for process in chosen}
    principals = _principals(chosen, principal or ())
    if json:
        print_json(
            [
                {"process": process, "principal": principals[process], **_acl_as_json(acl)}
                for process, found in wanted.items()
                for acl in found
            ]
        )
    elif commands:
        for process, found in wanted.items():
            say(f"# {process}")
            for line in as_commands(principals[process], found):
                say(line)
    else:
        rows = table("process", "principal", "resource", "name", "operations", whole=("process", "resource", "name"))
        for process, found in wanted.items():
            for acl in found:
                rows.add_row(process, principals[process], acl.resource, acl.name, " ".join(acl.operations))
        console().print(rows)


def acls_of(process: str) -> list[Acl]:
    """What a process must be allowed. Raises BadParameter for one that does not exist."""
    from contracts.topics import FILES_COMMANDS, LANES
    from services.email import kafka_access as email
    from services.events import kafka_access as events
    from services.files import kafka_access as files
    from services.kit.kafka.access import Access, acls, merged

    service, _, role = process.partition("-")
    for name, tables in (("email", email), ("files", files)):
        if service == name and (role or "all") in tables.ROLES:
            return acls(tables.access_of(role or "all"))
    if process == "events":
        return acls(events.access())
    if process == "callers":
        return acls(Access(writes=(*LANES.values(), FILES_COMMANDS)))
    if process == "operator":
        services = (acl for each in ("email", "files", "events") for acl in acls_of(each))
        return merged([*services, *_administration()])
    known = ["email", *(f"email-{each}" for each in email.ROLES), "files", *(f"files-{each}" for each in files.ROLES)]
    raise typer.BadParameter(f"no process {process}; there are {', '.join(known)}, events, operator, callers")


def _administration() -> list[Acl]:
    """What `mailroom topics` does beside all that the services do: other commands stand in for them."""
    from contracts.topics import TOPICS
    from services.kit.kafka.access import Acl

    return [Acl("topic", topic.name, ("AlterConfigs", "Create", "DescribeConfigs")) for topic in TOPICS]


def as_commands(principal: str, wanted: Iterable[Acl]) -> list[str]:
    """Commands of `kafka-acls`, one for all resources of a kind that want the same operations."""
    alike: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for acl in wanted:
        alike.setdefault((acl.resource, acl.operations), []).append(acl.name)
    began = 'kafka-acls.sh --bootstrap-server "$MAILROOM_KAFKA_BOOTSTRAP" --command-config admin.properties --add'
    return [
        " ".join(
            (
                f"{began} --allow-principal '{principal}'",
                *(f"--operation {operation}" for operation in operations),
                *(f"--{resource} {name}" for name in names),
            )
        )
        for (resource, operations), names in alike.items()
    ]


def _principals(processes: Iterable[str], given: Iterable[str]) -> Mapping[str, str]:
    found = {process: f"User:mailroom-{process}" for process in processes}
    for each in given:
        process, equals, principal = each.partition("=")
        if not equals or process not in found:
            raise typer.BadParameter(f"--principal {each}: PROCESS=PRINCIPAL with one of {', '.join(found)}")
        if not re.fullmatch(r"[A-Za-z]+:[^'\n]+", principal):
            raise typer.BadParameter(f"--principal {each}: a principal is TYPE:NAME, for instance User:mailroom-email")
        found[process] = principal
    return found


def _acl_as_json(acl: Acl) -> dict[str, object]:
    return {"resource": acl.resource, "name": acl.name, "operations": list(acl.operations)}


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
