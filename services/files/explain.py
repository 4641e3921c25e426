"""What would a raw S3 notification become? For people at a terminal and for tests; touches nothing."""

from __future__ import annotations

from services.files.adapters.s3_notifications import S3Notifications
from services.files.entrypoints.ingest import split
from services.kit.errors import PermanentError
from services.kit.explanation import Explanation
from services.kit.notifications import read_object


def explain_s3(raw: bytes, bucket: str | None = None) -> Explanation:
    """Explain one notification: a record, `Records`, an SNS envelope or EventBridge event, or an SQS message with
    `Body`.

    Args:
        raw: JSON bytes as they came.
        bucket: the bucket that the running service would expect; None = whichever the notification names.
    """
    try:
        value = read_object(raw)
    except PermanentError as error:
        return Explanation((), f"it would be parked: {error}", refused=True)
    records = split(value if isinstance(value.get("Body"), str) else {"Body": raw.decode()})
    if not records:
        return Explanation((), "it holds no record: S3's greeting (s3:TestEvent), or an empty list")
    form, refused = S3Notifications(bucket), False
    lines: list[str] = []
    said: list[str] = []
    for n, record in enumerate(records, 1):
        which = f"record {n} of {len(records)}" if len(records) > 1 else "it"
        try:
            translation = form.translate(record.value)
        except PermanentError as error:
            said.append(f"{which} would be parked: {error}")
            refused = True
            continue
        lines.extend(fact.to_bytes().decode() for fact in translation.facts)
        if translation.why_none is not None:
            said.append(translation.why_none if len(records) == 1 else f"{which}: {translation.why_none}")
    return Explanation(tuple(lines), "; ".join(said) or None, refused)
