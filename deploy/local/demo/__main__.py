"""Run the demo on the local stack. Exit status 1 when anything differs from what must be.

Usage: `make demo`, or `python -m deploy.local.demo [--seconds N]` on a stack that is up. It may be run again at once.
"""

from __future__ import annotations

import argparse
import asyncio
import email
import email.policy
import os
import sys
import uuid
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import httpx
from aiokafka import AIOKafkaProducer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from deploy.local.demo.cases import COMPLAINT, DELIVERED, INVALID, INVALID_FIELDS, SENT, Case, Run
from deploy.local.demo.doors import HttpDoor, KafkaDoor
from deploy.local.demo.failover import Failover, why
from deploy.local.demo.files import SCOPES as FILE_SCOPES
from deploy.local.demo.files import FileCase, FilesDoor
from deploy.local.demo.files import cases as file_cases
from deploy.local.providers import EVERY
from deploy.local.simulator.client import SimulatorClient
from deploy.local.site import ROOT, StackError, site_from_environment
from deploy.local.stack import OURS, Stack
from deploy.processes import SIMULATOR
from services.email.domain.correlation import MESSAGE_TAG
from services.kit.auth import mint_token
from services.kit.pipes import say_that_nobody_reads, until_nobody_reads

SCOPES = ("email:create", "email:read", "email:operate", "projections:operate", *FILE_SCOPES)


class Demo:
    """One run: what was sent, and every difference found."""

    def __init__(self, stack: Stack, console: Console, seconds: float) -> None:
        self.stack, self.console, self.seconds = stack, console, seconds
        self.run = uuid.uuid4().hex[:8]
        self.user = f"demo-{self.run}"
        self.maker = Run(self.run, datetime.now(UTC))
        self.cases = self.maker.cases()
        self.carried: list[Case] = []
        self.files = file_cases()
        self.differences: list[str] = []
        self.since = 0

    async def play(self) -> int:
        """Send, wait, compare, rebuild, report; the exit status."""
        env = self.stack.env()
        url, secret = self.stack.site.url("gateway"), env["MAILROOM_JWT_SECRET"]
        producer = AIOKafkaProducer(bootstrap_servers=env["MAILROOM_KAFKA_BOOTSTRAP"], acks="all")
        await producer.start()
        try:
            async with httpx.AsyncClient(base_url=url, timeout=20) as client:
                http = HttpDoor(client, mint_token(secret, self.user, SCOPES))
                kafka = KafkaDoor(producer, self.user)
                async with SimulatorClient(self.stack.site.url("simulator")) as simulator:
                    self.since = await simulator.position()
                await self._send(http, kafka)
                await self._refusals(http, kafka)
                await self._wait(http)
                await self._accepted_once()
                await self._funnel(http)
                await self._failover(http, kafka)
                door = FilesDoor(client, mint_token(secret, self.user, SCOPES))
                await self._files(door)
                await self._attached(http)
        finally:
            await producer.stop()
        await self._lag()
        await self._rebuild()
        return self._report(url)

    # --- acts ----------------------------------------------------------------------------------------------------

    async def _send(self, http: HttpDoor, kafka: KafkaDoor) -> None:
        self._title(f"Sending {len(self.cases)} messages as user {self.user}, through HTTP and through Kafka")
        with self._bar("sent", len(self.cases)) as step:

            async def one(case: Case) -> None:
                door = http if case.door == "http" else kafka
                if case.suppress_first:
                    for address in case.expected:
                        await http.suppress(address)
                await door.send(case)
                if case.cancel:
                    await door.cancel(case)
                step()

            await asyncio.gather(*(one(case) for case in self.cases))

    async def _refusals(self, http: HttpDoor, kafka: KafkaDoor) -> None:
        named = await http.refuses(INVALID)
        self._must(named >= INVALID_FIELDS, f"the refusal names {sorted(named)}, not all of {sorted(INVALID_FIELDS)}")
        bad_id = str(uuid.uuid4())
        await kafka.publish("email.commands.normal", "email.send", bad_id, {**INVALID, "messageId": bad_id})
        for _ in range(100):
            code, parked = await self._cli("parked", "list", "--service", "email", "--json")
            if code == 0 and bad_id in parked:
                break
            await asyncio.sleep(0.2)
        else:
            self._must(False, "the invalid command on Kafka was not parked")
        self.console.print(
            "  invalid: HTTP answers 400 and lists every field; on Kafka it is parked, its neighbours go on"
        )

    async def _wait(self, http: HttpDoor) -> None:
        self._title("Waiting until every message has reached its true status")
        deadline = asyncio.get_running_loop().time() + self.seconds
        with self._bar("settled", len(self.cases)) as step:

            async def one(case: Case) -> None:
                while asyncio.get_running_loop().time() < deadline:
                    case.found = await http.read(f"/api/email/{case.message_id}")
                    if not _differences(case):
                        break
                    await asyncio.sleep(0.25)
                step()

            await asyncio.gather(*(one(case) for case in self.cases))
        table = Table("message", "door", "category", "priority", "expected", "found", title="Each message")
        for case in self.cases:
            problems = _differences(case)
            self.differences += [f"{case.name}: {problem}" for problem in problems]
            found = case.found.get("status", "nothing")
            colour = "red" if problems else "green"
            row = (case.name, case.door, case.body["category"], case.body["priority"], case.status)
            table.add_row(*row, f"[{colour}]{found}[/]")
        self.console.print(table)

    async def _accepted_once(self) -> None:
        """The simulator's log of acceptances is the judge: one mail a delivery, none too many, none missing."""
        async with SimulatorClient(self.stack.site.url("simulator")) as simulator:
            accepted = await simulator.acceptances(self.since)
        ours = {case.message_id for case in self.cases}
        counted: Counter[str] = Counter()
        for entry in accepted:
            message_id = entry["tags"].get(MESSAGE_TAG)
            if message_id in ours:
                counted[message_id] += 1
        for case in self.cases:
            got = counted[case.message_id]
            self._must(got == case.calls, f"{case.name}: the provider took {got} mails, not {case.calls}")
        self.console.print(f"  the provider took {sum(counted.values())} mails: one for each delivery, none twice")

    async def _funnel(self, http: HttpDoor) -> None:
        analytics = (await http.read("/api/email", limit=100))["analytics"]
        statuses = Counter(status for case in self.cases for status in case.expected.values())
        sent = sum(statuses[status] for status in (SENT, DELIVERED, "bounced", COMPLAINT))
        expected = {
            "sent": sent,
            "delivered": statuses[DELIVERED] + statuses[COMPLAINT],
            "bounced": statuses["bounced"],
            "complained": statuses[COMPLAINT],
            "failed": statuses["failed"],
            "opened": self._recipients("open", "click"),
            "clicked": self._recipients("click"),
        }
        table = Table("recipients", "expected", "found", title="The funnel of this run")
        for name, value in expected.items():
            found = analytics.get(name)
            self._must(found == value, f"funnel: {name} is {found}, not {value}")
            table.add_row(name, str(value), f"[{'green' if found == value else 'red'}]{found}[/]")
        rates = {name: value for name, value in analytics.items() if name.endswith("Rate")}
        for name, value in rates.items():
            table.add_row(name, "", "none" if value is None else f"{value:.1%}")
        self.console.print(table)

    def _recipients(self, *behaviours: str) -> int:
        return sum(address.partition("+")[0] in behaviours for case in self.cases for address in case.expected)

    async def _failover(self, http: HttpDoor, kafka: KafkaDoor) -> None:
        """SES suspends the account: mail goes on through others, and returns."""
        configured = [each["provider"] for each in (await http.read("/api/providers"))["providers"]]
        if tuple(configured) != EVERY:
            self.console.print(f"\n  no provider fails: this stack was told to send through {', '.join(configured)}")
            return
        self._title("SES suspends the account: mail goes on through the next provider")
        async with SimulatorClient(self.stack.site.url("simulator")) as simulator:
            run = Failover(self.maker, http, kafka, simulator, self.seconds)
            await run.play()
            with self._bar("settled", len(run.cases)) as step:
                await run.settle(step)
            accepted = await run.accepted()
        self.carried = run.cases
        self.differences += run.problems(accepted)
        table = Table("meanwhile", "door", "priority", "carried by", "attempts", "why", title="Who carried each mail")
        for wave in run.failing:
            for case in wave.cases:
                took = ", ".join(accepted.get(case.message_id, ["nobody"]))
                attempts = str(case.found.get("recipients", [{}])[0].get("attempts", 0))
                right = took in wave.through
                row = (wave.what, case.door, case.body["priority"], f"[{'green' if right else 'red'}]{took}[/]")
                table.add_row(*row, attempts, why(case))
            table.add_section()
        self.console.print(table)
        table = Table("after", *EVERY, title="SES takes mail again: it returns in steps")
        for wave in run.returning:
            took_by = wave.carriers(accepted)
            table.add_row(f"{wave.at:.1f} s", *(str(took_by[name] or "") for name in EVERY))
        self.console.print(table)
        self.console.print(f"  the providers took {len(run.cases)} mails: each once, by whom the tables say")

    async def _files(self, door: FilesDoor) -> None:
        self._title(f"Uploading {len(self.files)} files straight to S3, as a browser does")
        with self._bar("uploaded", len(self.files)) as step:

            async def one(case: FileCase) -> None:
                await door.play(case)
                step()

            await asyncio.gather(*(one(case) for case in self.files))
        with self._bar("settled", len(self.files)) as step:
            await asyncio.gather(*(door.settled(case, self.seconds, step) for case in self.files))
        table = Table("file", "name", "category", "bytes", "expected", "found", title="Each file")
        for case in self.files:
            problems = case.differences or await door.problems(case)
            self.differences += [f"file {case.name}: {problem}" for problem in problems]
            found = f"[{'red' if problems else 'green'}]{case.found.get('status', 'nothing')}[/]"
            size = f"{len(case.data):,}"
            table.add_row(case.name, case.file_name, case.category, size, case.status, found)
        self.console.print(table)

    async def _attached(self, http: HttpDoor) -> None:
        """A mail with a file that was uploaded: the provider gets its bytes."""
        file = next(case for case in self.files if case.name == "a form, told")
        address = f"success+{self.run}-file@inbox.example"
        body = {
            "to": address, "subject": "Your report", "textContent": "As attached.", "category": "notification",
            "attachments": [{"fileId": file.file_id}],
        }  # fmt: skip
        case = Case("a file attached by its id", "http", body, {address: DELIVERED})
        await http.send(case)
        deadline = asyncio.get_running_loop().time() + self.seconds
        while asyncio.get_running_loop().time() < deadline:
            case.found = await http.read(f"/api/email/{case.message_id}")
            if case.found.get("status") == DELIVERED:
                break
            await asyncio.sleep(0.25)
        self._must(case.found.get("status") == DELIVERED, f"{case.name}: status is {case.found.get('status')}")
        async with SimulatorClient(self.stack.site.url("simulator")) as simulator:
            found = await simulator.messages(to=address)
            raw = await simulator.raw(found[0]["providerMessageId"]) if found else b""
        mail = email.message_from_bytes(raw, policy=email.policy.default)
        got = [each.get_content() for each in mail.iter_attachments()]
        self._must(got == [file.data], f"{case.name}: the mail does not carry the file's bytes")
        self.console.print("  a mail that names a file by its id carries the bytes of its verified version")

    async def _lag(self) -> None:
        code, _ = await self._cli("lag", "--json")
        self._must(code == 0, f"`mailroom lag` ended with {code}")
        if code == 0:
            self._title("Lag")
            await self._show("lag")

    async def _rebuild(self) -> None:
        self._title("Rebuilding email_log from the log: it must change nothing")
        before = await self._documents()  # now, with no lag left: a status may stand before the last event about it
        code, _ = await self._cli("rebuild", "start", "email_log", show=True)
        self._must(code == 0, f"`mailroom rebuild start email_log` ended with {code}, for the reason told above")
        after = await self._documents()
        for case in (*self.cases, *self.carried):
            name = case.message_id
            self._must(before[name] == after[name], f"{case.name}: the rebuild changed the document")
            self._must(after[name].get("status") == case.status, f"{case.name}: {case.status} no more")

    async def _documents(self) -> dict[str, dict[str, Any]]:
        secret, url = self.stack.env()["MAILROOM_JWT_SECRET"], self.stack.site.url("gateway")
        async with httpx.AsyncClient(base_url=url, timeout=20) as client:
            http = HttpDoor(client, mint_token(secret, self.user, SCOPES))
            cases = (*self.cases, *self.carried)
            return {case.message_id: await http.read(f"/api/email/{case.message_id}") for case in cases}

    # --- telling -------------------------------------------------------------------------------------------------

    def _report(self, url: str) -> int:
        one = next(case for case in self.cases if case.name == "three recipients, three fates")
        self._title("Where to look next")
        for line in (
            f"./mailroom why email_log {one.message_id}",
            f"./mailroom why file {self.files[0].file_id}",
            "./mailroom lag",
            "./mailroom parked list --service email",
            "./mailroom templates preview welcome",
            "    ".join(f"{self.stack.site.url(name)}/docs" for name in ("email", "files", "events")),
            f"{url}/files-page/    (a page to upload from)",
            f'curl -H "Authorization: Bearer $(./mailroom token --sub {self.user} --scope email:read)" {url}/api/email',
            "make logs PART=email    make status    make down",
        ):
            self.console.print(f"  {line}", highlight=False, soft_wrap=True)
        if self.differences:
            self.console.print(f"\n[red]{len(self.differences)} differences:[/]")
            for difference in self.differences:
                self.console.print(f"  {difference}", style="red", highlight=False, soft_wrap=True)
            return 1
        carried = f", {len(self.carried)} more while SES failed and came back," if self.carried else ""
        told = f"All {len(self.cases)} messages{carried} and {len(self.files)} files are what they must be."
        self.console.print(f"\n[green]{told}[/]")
        return 0

    def _must(self, holds: bool, otherwise: str) -> None:
        if not holds:
            self.differences.append(otherwise)

    def _title(self, text: str) -> None:
        self.console.print(f"\n[bold]{text}[/]")

    def _bar(self, what: str, total: int) -> _Bar:
        return _Bar(self.console, what, total)

    async def _cli(self, *arguments: str, show: bool = False) -> tuple[int, str]:
        """Run the operator's command as an operator would."""
        pipe = None if show else asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            str(ROOT / "mailroom"),
            *arguments,
            stdout=pipe,
            stderr=None if show else asyncio.subprocess.STDOUT,
            cwd=ROOT,
        )
        out, _ = await process.communicate()
        return process.returncode or 0, (out or b"").decode()

    async def _show(self, *arguments: str) -> None:
        await self._cli(*arguments, show=True)


class _Bar:
    """A progress bar as a context: entering gives the function that counts one."""

    def __init__(self, console: Console, what: str, total: int) -> None:
        columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=console)
        self._task = self._progress.add_task(what, total=total)

    def __enter__(self) -> Any:
        self._progress.start()
        return lambda: self._progress.advance(self._task)

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


def _differences(case: Case) -> list[str]:
    """Everything about a message that is not as it must be."""
    found = case.found
    if not found:
        return ["there is no EmailLog"]
    problems = []
    if found["status"] != case.status:
        problems.append(f"status is {found['status']}, not {case.status}")
    statuses = {recipient["address"]: recipient["status"] for recipient in found["recipients"]}
    problems += [
        f"{address.partition('+')[0]} is {statuses.get(address)}, not {status}"
        for address, status in case.expected.items()
        if statuses.get(address) != status
    ]
    missing = case.events - {event["type"] for event in found["events"]}
    if missing:
        problems.append(f"the history lacks {', '.join(sorted(missing))}")
    if case.not_before is not None:
        early = [
            event["timestamp"]
            for event in found["events"]
            if event["type"] == "attempt" and datetime.fromisoformat(event["timestamp"]) < case.not_before
        ]
        problems += [f"it was attempted at {at}, before sendAt" for at in early]
    if case.body.get("attachments") and not found.get("attachments"):
        problems.append("the attachment is not in the EmailLog")
    return problems


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m deploy.local.demo", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="how long a message may take to settle")
    args = parser.parse_args(arguments)
    stack = Stack(site_from_environment(os.environ))
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.on_broken_pipe = say_that_nobody_reads  # type: ignore[method-assign]  # it would end with status 1
    if not stack.ready([*OURS, SIMULATOR]):
        console.print("The stack is not up: run `make up` first, or `make demo`, which does.", style="red")
        return 1
    try:
        return asyncio.run(Demo(stack, console, args.seconds).play())
    except (AssertionError, httpx.HTTPError, StackError) as error:
        kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
        console.print(f"\nThe demo could not go on: {kind}{error}", style="red")
        return 1


if __name__ == "__main__":
    with until_nobody_reads():
        sys.exit(main())
