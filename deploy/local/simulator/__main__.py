"""`python -m deploy.local.simulator`: run the simulator until SIGTERM. For development and tests only."""

import argparse
import asyncio
import gc
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import uvloop

from deploy.local.providers import WEBHOOK_KEYS
from deploy.local.simulator.acceptances import Acceptances
from deploy.local.simulator.account import Account
from deploy.local.simulator.admin import AdminApi, reports_of
from deploy.local.simulator.dsn import Bounces
from deploy.local.simulator.emulator import Emulator
from deploy.local.simulator.faults import Faults
from deploy.local.simulator.http_api import HttpApi
from deploy.local.simulator.journal import Journal, JournalInUse
from deploy.local.simulator.mailbox import Mailbox
from deploy.local.simulator.mailgun import Mailgun
from deploy.local.simulator.mailgun_log import MailgunSide
from deploy.local.simulator.notifier import Notifier
from deploy.local.simulator.sendgrid import SendGrid
from deploy.local.simulator.ses import SesApi
from deploy.local.simulator.smtp import SmtpServer
from deploy.local.simulator.webhooks import Webhooks
from deploy.local.simulator.wire import Request, Response, Server, json_response

_DRAIN_SECONDS = 5.0

Answering = Callable[[Request], Awaitable[Response | None]]


@dataclass(frozen=True, slots=True)
class Settings:
    """The command line. Limits count recipients, 0 means none; `keep_bytes` bounds the mail kept in memory."""

    host: str
    port: int
    sns_endpoint: str
    region: str
    state_dir: Path
    max_send_rate: float
    max_24_hour_send: float
    step_seconds: float
    verified: tuple[str, ...]
    keep_bytes: int
    seed: int
    smtp_port: int | None
    bounces_to: str | None
    webhooks: str | None
    webhook_keys: dict[str, str]


def read_arguments(arguments: list[str]) -> Settings:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.local.simulator",
        description="Stands where Amazon SES stands, for development and tests only. It sends no mail to anybody.",
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True, help="0 picks a free one")
    parser.add_argument("--sns-endpoint", required=True, help="URL of the AWS emulator")
    parser.add_argument("--region", required=True)
    parser.add_argument("--state-dir", type=Path, required=True, help="acceptances.jsonl and notifications.jsonl")
    parser.add_argument("--max-send-rate", type=float, default=14, help="recipients per second; 0 for no limit")
    parser.add_argument("--max-24-hour-send", type=float, default=0, help="recipients; 0 for no limit")
    parser.add_argument("--step-ms", type=float, default=20, help="between the notifications of one mail")
    parser.add_argument("--verified", action="append", default=[], help="address or domain that may send; repeatable")
    parser.add_argument("--keep-mb", type=int, default=64, help="mail kept in memory for tests to read")
    parser.add_argument("--seed", type=int, default=1, help="of the faults' dice")
    parser.add_argument("--smtp-port", type=int, help="take mail by SMTP too; 0 picks a free port, which is printed")
    parser.add_argument(
        "--bounces-to",
        help="Kafka, as host:port: reports of bounces by SMTP are published to email.notifications there",
    )
    parser.add_argument(
        "--webhooks",
        help="URL under which a provider's name is where it reports to, signed with the keys in "
        f"{' and '.join(WEBHOOK_KEYS.values())}; without, `PUT /_sim/webhooks/…` says so",
    )
    given = parser.parse_args(arguments)
    return Settings(
        host=given.host,
        port=given.port,
        sns_endpoint=given.sns_endpoint,
        region=given.region,
        state_dir=given.state_dir,
        max_send_rate=given.max_send_rate,
        max_24_hour_send=given.max_24_hour_send,
        step_seconds=given.step_ms / 1000,
        verified=tuple(each.lower() for each in given.verified),
        keep_bytes=given.keep_mb * 1024 * 1024,
        seed=given.seed,
        smtp_port=given.smtp_port,
        bounces_to=given.bounces_to,
        webhooks=given.webhooks,
        webhook_keys={name: os.environ[key] for name, key in WEBHOOK_KEYS.items() if os.environ.get(key)},
    )


async def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then publish what is pending for up to five seconds.

    Raises JournalInUse when another simulator has the state directory, OSError when the port is taken.
    """
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    acceptances = Journal(settings.state_dir / "acceptances.jsonl", sync=True)
    notifications = Journal(settings.state_dir / "notifications.jsonl", sync=False)
    emulator = Emulator(
        settings.sns_endpoint,
        settings.region,
        os.environ.get("AWS_ACCESS_KEY_ID", "test"),
        os.environ.get("AWS_SECRET_ACCESS_KEY", "test"),
    )
    rules = Faults(settings.seed)
    account = Account(settings.max_send_rate, settings.max_24_hour_send, settings.verified)
    mailbox = Mailbox(settings.keep_bytes)
    notifier = Notifier(emulator, rules, notifications, settings.step_seconds)
    accepted = Acceptances(acceptances, mailbox)
    ses = SesApi(
        region=settings.region,
        account=account,
        rules=rules,
        acceptances=accepted,
        notifier=notifier,
        emulator=emulator,
    )

    webhooks = Webhooks(rules, notifications)
    sendgrid = HttpApi(SendGrid(), rules, accepted, webhooks)
    mailgun = HttpApi(Mailgun(), rules, accepted, webhooks)
    for provider, key in settings.webhook_keys.items() if settings.webhooks else ():
        await webhooks.configure(*reports_of(provider, key), f"{settings.webhooks}/{provider}")
    bounces = None if settings.bounces_to is None else Bounces(settings.bounces_to, rules, notifications)
    smtp: SmtpServer | None = None
    if settings.smtp_port is not None:
        smtp = SmtpServer(
            host=settings.host,
            port=settings.smtp_port,
            folder=settings.state_dir,
            rules=rules,
            acceptances=acceptances,
            mailbox=mailbox,
            bounces=bounces,
        )

    async def answer(request: Request) -> Response | None:
        if request.path == "/healthz":
            return json_response({"status": "ok"})
        apis: dict[str, Answering] = {
            "/_sim/": admin.handle,
            "/v3/mail/": sendgrid.handle,
            "/v3/": MailgunSide(mailgun, webhooks).handle,
        }
        handle = next((each for path, each in apis.items() if request.path.startswith(path)), ses.handle)
        return await handle(request)

    server = Server(answer, settings.host, settings.port)
    admin = AdminApi(
        account=account,
        rules=rules,
        acceptances=acceptances,
        notifications=notifications,
        mailbox=mailbox,
        notifier=notifier,
        webhooks=webhooks,
        bounces=bounces,
        emulator=emulator,
        refuse=server.refuse,
        accepted=lambda: accepted.count + (smtp.accepted if smtp else 0),
    )
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    await server.start()
    gc.freeze()
    print(
        f"SES simulator (development and tests only) on http://{settings.host}:{server.port}, "
        f"notifying through {settings.sns_endpoint}",
        flush=True,
    )
    if smtp is not None:
        await smtp.start()
        print(f"SMTP on {settings.host}:{smtp.port}, certificate {smtp.certificate}", flush=True)
    await stop.wait()
    if smtp is not None:
        await smtp.stop()
    await server.stop()
    await notifier.drain(_DRAIN_SECONDS)
    await notifier.stop()
    await webhooks.stop()
    if bounces is not None:
        await bounces.stop()
    await emulator.close()
    acceptances.close()
    notifications.close()


def main() -> int:
    settings = read_arguments(sys.argv[1:])
    try:
        uvloop.run(run(settings))
    except (JournalInUse, OSError, ValueError) as error:
        print(f"simulator: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
