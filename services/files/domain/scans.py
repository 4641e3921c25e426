"""What GuardDuty's words for the end of a malware scan mean: the same in its notifications and in the tags that it sets
(Amazon GuardDuty User Guide, "S3 object scan result status and result type").
"""

from __future__ import annotations

from typing import Final

from contracts.files.values import ScanResult

SCAN_RESULTS: Final[dict[str, ScanResult]] = {
    "NO_THREATS_FOUND": "clean",
    "THREATS_FOUND": "infected",
    "UNSUPPORTED": "unsupported",
    "ACCESS_DENIED": "error",
    "FAILED": "error",
}
