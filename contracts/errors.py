"""What is raised for a record that does not speak the published language."""

from __future__ import annotations


class ContractError(ValueError):
    """A record breaks the contract: `reason` is a short stable word, `detail` says what to mend."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
