"""Mail by SMTP to addresses that bounce: the server's report comes to the return address, and becomes a fact."""

from __future__ import annotations

from deploy.local import providers
from deploy.local.stack import Stack
from tests.e2e.judge import assert_fair
from tests.e2e.live import live
from tests.e2e.traffic import traffic

FATES = {"success": "sent", "bounce": "bounced", "softbounce": "bounced", "delay": "sent"}
"""SMTP tells nobody of a delivery: what was taken stays sent until it bounces."""


async def test_what_bounces_is_shown_so_and_suppressed_and_all_else_stays_sent(stack: Stack) -> None:
    extra = providers.service_environment(stack.site) | {"MAILROOM_PROVIDERS": "smtp"}
    async with live(stack, extra=extra) as observer, traffic(stack, 1, http_share=0.0) as load:
        since = await observer.now()
        sent: dict[str, str] = {}
        for behaviour, fate in FATES.items():
            mail = load.mail(priority="normal", recipients=1) | {"to": [f"{behaviour}+{load.run}@inbox.example"]}
            sent[await load.by_kafka(mail)] = fate
        evidence = await observer.settled(since, load.ids, 180)
        assert_fair(evidence, load.expected())
        assert {each["provider"] for each in evidence.acceptances} == {"smtp"}
        assert {name: document["status"] for name, document in evidence.documents.items()} == sent
        told = sorted(each["eventType"] for each in evidence.notifications)
        assert told == ["Bounce", "Bounce", "DeliveryDelay"]
        suppressions = [each for each in evidence.recipients if b"recipient.suppressed" in (each.value or b"")]
        assert len(suppressions) == 1, "who bounces for good is suppressed, and nobody else"
