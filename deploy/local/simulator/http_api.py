"""How a provider with a plain HTTP API takes mail: one course for all, and what differs as a `Dialect`.

The course is SES's: checks, faults, the fsynced log, reports, the answer.
"""

import asyncio
from typing import Protocol

from deploy.local.simulator import faults
from deploy.local.simulator.acceptances import Acceptances
from deploy.local.simulator.errors import ProxyRefusal, SesError
from deploy.local.simulator.faults import Fault, Faults
from deploy.local.simulator.submission import Submission
from deploy.local.simulator.webhooks import Reported, Webhooks
from deploy.local.simulator.wire import Request, Response


class Answered(Exception):
    """A request that is answered without a mail being accepted."""

    def __init__(self, response: Response) -> None:
        super().__init__(f"answered {response.status}")
        self.response = response


class Dialect(Protocol):
    """What one provider's API takes and says."""

    name: str
    operation: str
    """By which faults name a send."""

    def read(self, request: Request) -> Submission:
        """The mail of a request. Raises `Answered` for what the provider does not accept."""
        ...

    def new_id(self, submission: Submission) -> str:
        """An id as the provider gives one, as its webhooks name it."""
        ...

    def accepted(self, provider_message_id: str) -> Response:
        """The answer to a mail that was accepted."""
        ...

    def refused(self, fault: Fault) -> Response:
        """The answer of a fault that refuses: `throttle`, `accountSuspended`, `sendingPaused` or `refuse`."""
        ...

    def failed(self, status: int, message: str) -> Response:
        """An error of the provider's own."""
        ...


class HttpApi:
    """One provider's API."""

    def __init__(self, dialect: Dialect, rules: Faults, acceptances: Acceptances, webhooks: Webhooks) -> None:
        self._dialect, self._faults, self._acceptances, self._webhooks = dialect, rules, acceptances, webhooks

    async def handle(self, request: Request) -> Response | None:
        """Answer one call; None where a fault drops the connection."""
        dialect = self._dialect
        try:
            submission = dialect.read(request)
        except Answered as answered:
            return answered.response
        except SesError as error:  # of the MIME, which is read as SES's is
            return dialect.failed(400, error.message)
        destination, operation = submission.destination, dialect.operation
        if slow := self._faults.draw(faults.SLOW, operation, destination):
            await asyncio.sleep(slow.ms / 1000)
        if fault := self._faults.draw(faults.REQUEST, operation, destination):
            return self._struck(fault)
        spoiled = self._faults.draw(faults.ANSWER, operation, destination)
        late = self._faults.draw(faults.SLOW_ANSWER, operation, destination)
        planned = spoiled or late
        provider_message_id = dialect.new_id(submission)
        await self._acceptances.record(dialect.name, provider_message_id, submission, planned.kind if planned else "ok")
        self._webhooks.accepted(dialect.name, Reported(provider_message_id, submission))
        if late is not None:
            await asyncio.sleep(late.ms / 1000)
        if spoiled is None:
            return dialect.accepted(provider_message_id)
        if spoiled.kind == "acceptThenDrop":
            return None
        return dialect.failed(spoiled.status or 500, "Internal failure (the mail was accepted).")

    def _struck(self, fault: Fault) -> Response | None:
        if fault.kind == "dropBeforeAccept":
            return None
        if fault.kind == "proxyRefuses":
            return ProxyRefusal(fault.status or 403).response()
        if fault.kind == "serverError":
            return self._dialect.failed(fault.status or 500, "Simulated failure; nothing was accepted.")
        return self._dialect.refused(fault)
