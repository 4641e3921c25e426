"""What GuardDuty's words for the end of a malware scan mean: the same in its notifications and in the tags that it sets
(Amazon GuardDuty User Guide, "S3 object scan result status and result type").
"""

from __future__ import annotations

from typing import Final

from contracts.files.values import ScanResult

VALIDATION_KEY: Final = "malware-protection-resource-validation-object"
"""What GuardDuty writes into a bucket to find out whether it may (same guide, "Create or update IAM role policy"): no
file, and no stranger's object either.
"""

SCAN_RESULTS: Final[dict[str, ScanResult]] = {
    "NO_THREATS_FOUND": "clean",
    "THREATS_FOUND": "infected",
    "UNSUPPORTED": "unsupported",
    "ACCESS_DENIED": "error",
    "FAILED": "error",
}
