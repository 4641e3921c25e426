"""`mailroom files`: files at the terminal, and S3 held against what the service knows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from services.cli.environment import run
from services.cli.output import Json, confirm, console, print_json, refuse, say, table

if TYPE_CHECKING:
    from services.files.reconcile import Finding

app = typer.Typer(no_args_is_help=True, help="Files: upload, download, list, delete, restore, share, reconcile.")

Category = Literal["email", "document", "avatar", "contract", "invoice", "backup", "general"]
FileIds = Annotated[list[str], typer.Argument(metavar="ID...", help="Of files.")]
As = Annotated[str, typer.Option("--as", help="As this user, where MAILROOM_TOKEN is not set.")]
PAGE: Final = 100
REMEMBERED: Final = Path.home() / ".cache" / "mailroom" / "uploads"
"""Uploads in parts that are not over: each by its token."""


@app.command("upload")
def upload(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", exists=True, dir_okay=False, readable=True)],
    category: Annotated[Category, typer.Option(help="What kind of file; it says what is allowed.")] = "general",
    public: Annotated[bool, typer.Option("--public", help="For anybody.")] = False,
    tag: Annotated[list[str] | None, typer.Option(help="A tag; may be given several times.")] = None,
    client: Annotated[str | None, typer.Option(help="The client it belongs to.")] = None,
    content_type: Annotated[
        str | None, typer.Option("--type", help="The media type, where the name does not tell.")
    ] = None,
    compress: Annotated[
        bool, typer.Option("--compress/--no-compress", help="Where the category takes it, and it pays.")
    ] = True,
    user: As = "developer",
    json: Json = False,
) -> None:
    """Upload files straight to S3, and wait until each is verified. One that was broken off goes on where it was."""
    from services.cli.files_api import Wish, content_type_of

    wishes = [
        Wish(
            path,
            path.name,
            category,
            content_type or content_type_of(path.name),
            public,
            client,
            tuple(tag or ()),
            compress,
        )
        for path in paths
    ]
    done, problems = run(_upload(wishes, user, quiet=json))
    _tell(done, problems, json=json, verb="uploaded")


@app.command("download")
def download(
    file_ids: FileIds,
    into: Annotated[Path, typer.Option("--into", "-o", help="A folder; a file's name where there is one ID.")] = Path(),
    user: As = "developer",
    json: Json = False,
) -> None:
    """Download the verified version of files, decoded; what comes is held to its size and checksum."""
    if len(file_ids) > 1 and not into.is_dir():
        raise refuse(f"{into} is no folder, and {len(file_ids)} files are to go there")
    done, problems = run(_download(file_ids, into, user, many=into.is_dir(), quiet=json))
    _tell(done, problems, json=json, verb="downloaded")


@app.command("ls")
def list_files(
    category: Annotated[Category | None, typer.Option(help="Of this category.")] = None,
    status: Annotated[
        Literal["uploading", "completed", "failed", "deleted"] | None, typer.Option(help="With this status.")
    ] = None,
    tag: Annotated[str | None, typer.Option(help="With this tag.")] = None,
    q: Annotated[str | None, typer.Option("--name", help="With this in the name.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 50,
    user: As = "developer",
    json: Json = False,
) -> None:
    """The latest files first."""
    asked = {"category": category, "status": status, "tag": tag, "q": q}
    found = run(_list({name: value for name, value in asked.items() if value is not None}, limit, user))
    if json:
        print_json(found)
        return
    if not found:
        say("there are no such files")
        return
    names = ("id", "name", "category", "status", "bytes", "stored", "scan", "created")
    rows = table(*names, right=("bytes", "stored"), whole=("id",))
    for each in found:
        status_ = each["status"] + (f": {each['failure']['reason']}" if each.get("failure") else "")
        stored, whole = each.get("size"), each.get("originalSize")
        created = str(each["createdAt"])[:16].replace("T", " ")
        rows.add_row(
            each["fileId"],
            each["originalName"],
            each["category"],
            status_,
            _number(stored if whole is None else whole),
            "" if whole is None else _number(stored),
            each["scanStatus"],
            created,
        )
    console().print(rows)


@app.command("rm")
def remove(
    file_ids: FileIds,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    user: As = "developer",
    json: Json = False,
) -> None:
    """Delete files; they can be restored while their bytes are kept."""
    confirm(f"Delete {len(file_ids)} file(s)?", yes=yes)
    done, problems = run(_each(file_ids, "DELETE", "", user))
    _tell(done, problems, json=json, verb="deleted")


@app.command("restore")
def restore(file_ids: FileIds, user: As = "developer", json: Json = False) -> None:
    """Undo a deletion."""
    done, problems = run(_each(file_ids, "POST", "/restore", user))
    _tell(done, problems, json=json, verb="restored")


@app.command("share")
def share(file_ids: FileIds, user: As = "developer", json: Json = False) -> None:
    """A link to each, for a few minutes and whoever has it."""
    done, problems = run(_each(file_ids, "GET", "/download", user))
    if json:
        print_json({"links": done, "problems": problems})
    else:
        for each in done:
            say(each["url"])
    _end(problems, json=json)


@app.command("reconcile")
def reconcile(
    fix: Annotated[bool, typer.Option("--fix", help="Put right what a look can put right.")] = False,
    older: Annotated[float, typer.Option("--older-than", min=0, help="Hours; what is younger is left alone.")] = 2.0,
    json: Json = False,
) -> None:
    """Hold S3 against what the service knows, both ways. Exit status 1 when something differs and was not put right."""
    found = run(_reconcile(fix=fix, older=older, quiet=json))
    if json:
        print_json([_as_json(each) for each in found])
    elif not found:
        say("S3 holds what it should, and nothing else")
    else:
        rows = table("what", "file", "key", "why", "", whole=("what",))
        for each in found:
            rows.add_row(each.kind, each.file_id or "", each.key, each.detail, "put right" if each.mended else "")
        console().print(rows)
    if any(not each.mended for each in found):
        raise typer.Exit(1)


# --- doing it -----------------------------------------------------------------------------------------------------

Done = tuple[list[dict[str, Any]], list[str]]


async def _upload(wishes: list[Any], user: str, *, quiet: bool) -> Done:
    from services.cli.files_api import files_api
    from services.cli.files_api import upload as upload_one
    from services.kit.errors import MailroomError

    done: list[dict[str, Any]] = []
    problems: list[str] = []
    async with files_api(user) as api:
        for wish in wishes:
            try:
                done.append(await upload_one(api, wish, partial(_bar, quiet=quiet), REMEMBERED))
            except MailroomError as error:
                problems.append(f"{wish.path}: {_why(error)}")
    return done, problems


async def _download(file_ids: list[str], into: Path, user: str, *, many: bool, quiet: bool) -> Done:
    from services.cli.files_api import download as download_one
    from services.cli.files_api import files_api
    from services.kit.errors import MailroomError

    done: list[dict[str, Any]] = []
    problems: list[str] = []
    async with files_api(user) as api:
        for file_id in file_ids:
            try:
                file = await api.call("GET", f"/api/files/{file_id}")
                target = _free(into / file["fileName"]) if many else into
                with _bar(target.name, file.get("size") or 0, quiet=quiet) as moved:
                    await download_one(api, file, target, moved)
                done.append({"fileId": file_id, "path": str(target)})
            except MailroomError as error:
                problems.append(f"{file_id}: {_why(error)}")
    return done, problems


async def _list(asked: dict[str, str], limit: int, user: str) -> list[dict[str, Any]]:
    from services.cli.files_api import files_api

    found: list[dict[str, Any]] = []
    async with files_api(user) as api:
        while len(found) < limit:
            page = await api.call("GET", "/api/files", params={**asked, "limit": str(min(PAGE, limit - len(found)))})
            found += page["files"]
            if not page.get("nextCursor"):
                break
            asked = {**asked, "cursor": page["nextCursor"]}
    return found


async def _each(file_ids: list[str], method: str, path: str, user: str) -> Done:
    from services.cli.files_api import files_api
    from services.kit.errors import MailroomError

    done: list[dict[str, Any]] = []
    problems: list[str] = []
    async with files_api(user) as api:
        for file_id in file_ids:
            try:
                done.append({"fileId": file_id, **await api.call(method, f"/api/files/{file_id}{path}")})
            except MailroomError as error:
                problems.append(f"{file_id}: {_why(error)}")
    return done, problems


async def _reconcile(*, fix: bool, older: float, quiet: bool) -> list[Finding]:
    from datetime import timedelta

    from services.cli.files_service import files_service
    from services.files.reconcile import Reconciling

    async with files_service("relay") as service:
        cut_off = service.clock.now() - timedelta(hours=older)
        with _bar("looked at", None, quiet=quiet) as seen:
            work = Reconciling(service.files, cut_off, fix, lambda: seen(1))
            return [each async for each in work.run()]


# --- telling ------------------------------------------------------------------------------------------------------


def _number(count: int | None) -> str:
    return "" if count is None else f"{count:,}"


def _free(wanted: Path) -> Path:
    """The path, or one beside it where there is something already: nothing is overwritten."""
    found, n = wanted, 0
    while found.exists():
        n += 1
        found = wanted.with_name(f"{wanted.stem} ({n}){wanted.suffix}")
    return found


def _tell(done: list[dict[str, Any]], problems: list[str], *, json: bool, verb: str) -> None:
    if json:
        print_json({"files": done, "problems": problems})
    else:
        for each in done:
            say(f"{verb}: {each['fileId']}  {each.get('path') or each.get('originalName') or ''}".rstrip())
    _end(problems, json=json)


def _end(problems: list[str], *, json: bool) -> None:
    if not problems:
        return
    if not json:
        for each in problems[:-1]:
            refuse(each)
        raise refuse(problems[-1])
    raise typer.Exit(1)


def _why(error: Exception) -> str:
    return getattr(error, "detail", "") or str(error)


def _as_json(finding: Finding) -> dict[str, Any]:
    return {
        "kind": finding.kind,
        "key": finding.key,
        "fileId": finding.file_id,
        "detail": finding.detail,
        "mended": finding.mended,
    }


@contextmanager
def _bar(what: str, total: int | None, *, quiet: bool) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error; the function that counts on. `total`: bytes, None = things, nobody knows how
    many.
    """
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    text = TextColumn("{task.description}", markup=False)
    columns = (
        (text, TextColumn("{task.completed:,.0f}"))
        if total is None
        else (text, BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    )
    with Progress(*columns, console=Console(stderr=True), disable=quiet, transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda count: progress.advance(task, count)
