"""What was accepted, whichever API took it: on disk first, then kept for tests to read."""

from datetime import UTC, datetime

import orjson

from deploy.local.simulator.events import timestamp
from deploy.local.simulator.journal import Journal
from deploy.local.simulator.mailbox import Kept, Mailbox
from deploy.local.simulator.submission import Submission


class Acceptances:
    """The judge's log and the mailbox. `count`: what was accepted since the start."""

    def __init__(self, journal: Journal, mailbox: Mailbox) -> None:
        self.count = 0
        self._journal, self._mailbox = journal, mailbox

    async def record(self, provider: str, provider_message_id: str, submission: Submission, answered: str) -> datetime:
        """Accept a mail: returns when its line is on disk. `answered`: `ok`, or the fault that spoils the answer."""
        now = datetime.now(UTC)
        entry = {
            "provider": provider,
            "providerMessageId": provider_message_id,
            "at": timestamp(now),
            "source": submission.source,
            "destination": submission.destination,
            "tags": submission.tags,
            "configurationSet": submission.configuration_set,
            "size": len(submission.raw),
            "answered": answered,
        }
        await self._journal.append(orjson.dumps(entry))
        self.count += 1
        self._mailbox.keep(Kept(provider_message_id, now, submission))
        return now
