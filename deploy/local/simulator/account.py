"""The sending account: its rate, its quota, its verified senders, its suppression list."""

import time
from collections import deque
from datetime import UTC, datetime
from typing import Any

from deploy.local.simulator.errors import SesError, bad_request
from deploy.local.simulator.mime import bare_address

UNLIMITED_RATE = 100_000.0
"""What GetAccount says where the simulator has no limit; SES knows no word for that."""

_DAY_MINUTES = 24 * 60


class Account:
    """Limits count recipients, as SES's do. A rate or quota of 0 means none."""

    def __init__(self, max_send_rate: float, max_24_hour_send: float, verified: tuple[str, ...]) -> None:
        self.limit_rate(max_send_rate)
        self.max_24_hour_send = max_24_hour_send
        self.verified = verified
        self.suppressed: dict[str, dict[str, Any]] = {}
        self._sent: deque[tuple[int, int]] = deque()
        self._sent_total = 0

    def limit_rate(self, recipients_per_second: float) -> None:
        """Change the rate; a second's worth may go out at once."""
        self.max_send_rate = recipients_per_second
        self._tokens = recipients_per_second
        self._filled_at = time.monotonic()

    def check_sender(self, source: str) -> None:
        """Raise MailFromDomainNotVerifiedException unless no list is configured or the sender is on it."""
        if not self.verified:
            return
        address = bare_address(source).lower()
        if address not in self.verified and address.rpartition("@")[2] not in self.verified:
            raise SesError("MailFromDomainNotVerifiedException", "The sender's domain is not verified.")

    def take(self, recipients: int) -> None:
        """Count `recipients` against rate and quota, or raise what SES answers where they are used up."""
        sent = self.sent_last_24_hours()
        if self.max_24_hour_send and sent + recipients > self.max_24_hour_send:
            raise SesError("LimitExceededException", "Daily message quota exceeded.")
        if self.max_send_rate:
            now = time.monotonic()
            capacity = max(self.max_send_rate, 1.0)
            self._tokens = min(capacity, self._tokens + (now - self._filled_at) * self.max_send_rate)
            self._filled_at = now
            if self._tokens < min(recipients, capacity):
                raise SesError("TooManyRequestsException", "Maximum sending rate exceeded.")
            self._tokens -= recipients
        minute = _minute()
        if self._sent and self._sent[-1][0] == minute:
            self._sent[-1] = (minute, self._sent[-1][1] + recipients)
        else:
            self._sent.append((minute, recipients))
        self._sent_total += recipients

    def sent_last_24_hours(self) -> int:
        oldest = _minute() - _DAY_MINUTES
        while self._sent and self._sent[0][0] <= oldest:
            self._sent_total -= self._sent.popleft()[1]
        return self._sent_total

    def describe(self, *, sending: bool, healthy: bool) -> dict[str, Any]:
        """GetAccount's answer."""
        return {
            "DedicatedIpAutoWarmupEnabled": False,
            "EnforcementStatus": "HEALTHY" if healthy else "SHUTDOWN",
            "ProductionAccessEnabled": True,
            "SendingEnabled": sending,
            "SendQuota": {
                "Max24HourSend": self.max_24_hour_send or -1.0,
                "MaxSendRate": self.max_send_rate or UNLIMITED_RATE,
                "SentLast24Hours": float(self.sent_last_24_hours()),
            },
            "SuppressionAttributes": {"SuppressedReasons": ["BOUNCE", "COMPLAINT"]},
        }

    # --- suppression list --------------------------------------------------------------------------------------------

    def on_list(self, destination: tuple[str, ...]) -> frozenset[str]:
        if not self.suppressed:
            return frozenset()
        return frozenset(address for address in destination if address.lower() in self.suppressed)

    def suppress(self, address: object, reason: object) -> None:
        if not isinstance(address, str) or "@" not in address:
            raise bad_request("EmailAddress is not an address.")
        if reason not in ("BOUNCE", "COMPLAINT"):
            raise bad_request("Reason must be BOUNCE or COMPLAINT.")
        now = datetime.now(UTC).timestamp()
        self.suppressed[address.lower()] = {"EmailAddress": address, "Reason": reason, "LastUpdateTime": now}

    def suppression(self, address: str) -> dict[str, Any]:
        found = self.suppressed.get(address.lower())
        if found is None:
            raise SesError("NotFoundException", "Email address does not exist on your suppression list.")
        return found

    def unsuppress(self, address: str) -> None:
        self.suppression(address)
        del self.suppressed[address.lower()]

    def list_suppressed(self, reasons: list[str], size: int, token: str | None) -> dict[str, Any]:
        """One page, by address; the token is where the next begins."""
        rows = [
            row
            for address, row in sorted(self.suppressed.items())
            if (not reasons or row["Reason"] in reasons) and (token is None or address >= token)
        ]
        page: dict[str, Any] = {"SuppressedDestinationSummaries": rows[:size]}
        if len(rows) > size:
            page["NextToken"] = rows[size]["EmailAddress"].lower()
        return page


def _minute() -> int:
    return int(time.monotonic() // 60)
