"""S3's and GuardDuty's notifications as AWS writes them, for tests; made by us after the shapes in its user guides."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote_plus

from tests.unit.files_service.requests import FILE, KEY

BUCKET = "mailroom-files"
VERSION = "L4kqtJlcpXroDTDmpUMLUo"
SEQUENCER = "0055AED6DCD90281E5"
REQUEST = "C3D13FE58DE4C810"
__all__ = ["BUCKET", "FILE", "KEY", "REQUEST", "SEQUENCER", "VERSION"]

SEQUENCED = ("ObjectCreated", "ObjectRemoved", "LifecycleExpiration")
"""Families whose records carry a sequencer."""

CLASSIC: dict[str, str] = {
    "ObjectCreated:Put": "file.objectCreated",
    "ObjectCreated:Post": "file.objectCreated",
    "ObjectCreated:Copy": "file.objectCreated",
    "ObjectCreated:CompleteMultipartUpload": "file.objectCreated",
    "ObjectRemoved:Delete": "file.objectRemoved",
    "ObjectRemoved:DeleteMarkerCreated": "file.deleteMarkerCreated",
    "LifecycleExpiration:Delete": "file.objectExpired",
    "LifecycleExpiration:DeleteMarkerCreated": "file.objectExpired",
    "ObjectTagging:Put": "file.objectTagged",
    "ObjectTagging:Delete": "file.objectTagged",
    "LifecycleTransition": "file.objectMoved",
    "IntelligentTiering": "file.objectMoved",
    "ObjectRestore:Completed": "file.objectMoved",
    "ObjectRestore:Delete": "file.objectMoved",
}
"""Event name → the fact that it becomes."""

NOTHING = (
    "ObjectRestore:Post",
    "ObjectAcl:Put",
    "Replication:OperationFailedReplication",
    "ReducedRedundancyLostObject",
)
"""Event names that become no fact."""

MORE: dict[str, dict[str, Any]] = {
    "LifecycleTransition": {
        "lifecycleEventData": {"transitionEventData": {"destinationStorageClass": "GLACIER"}},
    },
    "IntelligentTiering": {"intelligentTieringEventData": {"destinationAccessTier": "ARCHIVE_ACCESS"}},
    "ObjectRestore:Completed": {
        "glacierEventData": {
            "restoreEventData": {
                "lifecycleRestorationExpiryTime": "2026-12-01T00:00:00.000Z",
                "lifecycleRestoreStorageClass": "GLACIER",
            }
        },
    },
    "ObjectRestore:Delete": {
        "glacierEventData": {"restoreEventData": {"lifecycleRestoreStorageClass": "GLACIER"}},
    },
}
STORAGE: dict[str, str] = {
    "LifecycleTransition": "GLACIER",
    "IntelligentTiering": "INTELLIGENT_TIERING",
    "ObjectRestore:Completed": "GLACIER",
    "ObjectRestore:Delete": "GLACIER",
}

EVENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "ObjectCreated:Put": ("Object Created", {"reason": "PutObject"}),
    "ObjectCreated:Post": ("Object Created", {"reason": "POST Object"}),
    "ObjectCreated:Copy": ("Object Created", {"reason": "CopyObject"}),
    "ObjectCreated:CompleteMultipartUpload": ("Object Created", {"reason": "CompleteMultipartUpload"}),
    "ObjectRemoved:Delete": ("Object Deleted", {"reason": "DeleteObject", "deletion-type": "Permanently Deleted"}),
    "ObjectRemoved:DeleteMarkerCreated": (
        "Object Deleted",
        {"reason": "DeleteObject", "deletion-type": "Delete Marker Created"},
    ),
    "LifecycleExpiration:Delete": (
        "Object Deleted",
        {"reason": "Lifecycle Expiration", "deletion-type": "Permanently Deleted"},
    ),
    "LifecycleExpiration:DeleteMarkerCreated": (
        "Object Deleted",
        {"reason": "Lifecycle Expiration", "deletion-type": "Delete Marker Created"},
    ),
    "ObjectTagging:Put": ("Object Tags Added", {}),
    "ObjectTagging:Delete": ("Object Tags Deleted", {}),
    "LifecycleTransition": ("Object Storage Class Changed", {"destination-storage-class": "GLACIER"}),
    "IntelligentTiering": ("Object Access Tier Changed", {"destination-access-tier": "ARCHIVE_ACCESS"}),
    "ObjectRestore:Completed": (
        "Object Restore Completed",
        {"restore-expiry-time": "2026-12-01T00:00:00Z", "source-storage-class": "GLACIER"},
    ),
    "ObjectRestore:Delete": ("Object Restore Expired", {"source-storage-class": "GLACIER"}),
    "ObjectRestore:Post": ("Object Restore Initiated", {"source-storage-class": "GLACIER"}),
    "ObjectAcl:Put": ("Object ACL Updated", {}),
}
"""Event name → EventBridge's detail-type and what its detail has beside the object."""


def _present(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def record(
    name: str = "ObjectCreated:Post",
    *,
    bucket: str = BUCKET,
    key: str = KEY,
    version: str | None = VERSION,
    sequencer: str | None = SEQUENCER,
    request: str | None = REQUEST,
    time: str | None = "2026-11-29T10:00:08.123Z",
) -> dict[str, Any]:
    """One of S3's `Records`."""
    created = name.startswith("ObjectCreated")
    found = _present(
        key=quote_plus(key, safe="/"),
        size=48213 if created else None,
        eTag="9b2cf535f27731c974343645a3985328" if created else None,
        versionId=version,
        sequencer=sequencer if name.startswith(SEQUENCED) else None,
    )
    return {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": "eu-central-1",
        **_present(eventTime=time),
        "eventName": name,
        "userIdentity": {"principalId": "AWS:EXAMPLE"},
        "requestParameters": {"sourceIPAddress": "192.0.2.1"},
        "responseElements": _present(**{"x-amz-request-id": request, "x-amz-id-2": "FMyUVURIY8"}),
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "files",
            "bucket": {
                "name": bucket,
                "ownerIdentity": {"principalId": "A3NL1KOZZKExample"},
                "arn": f"arn:aws:s3:::{bucket}",
            },
            "object": found,
        },
        **MORE.get(name, {}),
    }


def event(
    name: str = "ObjectCreated:Post",
    *,
    bucket: str = BUCKET,
    key: str = KEY,
    version: str | None = VERSION,
    sequencer: str | None = SEQUENCER,
    request: str | None = REQUEST,
    time: str | None = "2026-11-29T10:00:08Z",
) -> dict[str, Any]:
    """The EventBridge event of the same happening."""
    kind, more = EVENTS[name]
    created = name.startswith("ObjectCreated")
    found = _present(
        **{
            "key": key,
            "size": 48213 if created else None,
            "etag": "9b2cf535f27731c974343645a3985328" if created else None,
            "version-id": version,
            "sequencer": sequencer if name.startswith(SEQUENCED) else None,
        }
    )
    return {
        "version": "0",
        "id": "17793124-05d4-b198-2fde-7ededc63b103",
        "detail-type": kind,
        "source": "aws.s3",
        "account": "111122223333",
        **_present(time=time),
        "region": "eu-central-1",
        "resources": [f"arn:aws:s3:::{bucket}"],
        "detail": {
            "version": "0",
            "bucket": {"name": bucket},
            "object": found,
            **_present(**{"request-id": request}),
            "requester": "111122223333",
            "source-ip-address": "192.0.2.1",
            **more,
        },
    }


def scan(
    status: str = "NO_THREATS_FOUND",
    *,
    bucket: str = BUCKET,
    key: str = KEY,
    version: str | None = VERSION,
    time: str | None = "2026-11-29T10:00:14Z",
    threats: list[str] | None = None,
    reasons: list[str] | None = None,
) -> dict[str, Any]:
    """GuardDuty's EventBridge event of an object's scan."""
    completed = status in ("NO_THREATS_FOUND", "THREATS_FOUND")
    return {
        "version": "0",
        "id": "72c7d362-737a-6dce-fc78-9e27a0171419",
        "detail-type": "GuardDuty Malware Protection Object Scan Result",
        "source": "aws.guardduty",
        "account": "111122223333",
        **_present(time=time),
        "region": "eu-central-1",
        "resources": ["arn:aws:guardduty:eu-central-1:111122223333:malware-protection-plan/b4c7f464ab3a4EXAMPLE"],
        "detail": {
            "schemaVersion": "1.0",
            "scanStatus": "COMPLETED" if completed else "FAILED" if status == "FAILED" else "SKIPPED",
            "resourceType": "S3_OBJECT",
            "s3ObjectDetails": {
                "bucketName": bucket,
                "objectKey": key,
                "eTag": "9b2cf535f27731c974343645a3985328",
                "versionId": version,
                "s3Throttled": False,
            },
            "scanResultDetails": {
                "scanResultStatus": status,
                "threats": None if threats is None else [{"name": each} for each in threats],
                "statusReasons": reasons,
            },
        },
    }


TEST_EVENT = {
    "Service": "Amazon S3",
    "Event": "s3:TestEvent",
    "Time": "2026-11-29T09:00:00.000Z",
    "Bucket": BUCKET,
    "RequestId": "5582815E1AEA5ADF",
    "HostId": "8cLeGAmw098X5cv4Zkwcmo8vvZa3eH3eKxsPzbB9wrR",
}
"""S3's greeting to a queue that it may write to."""


def sns(value: Any, **changes: Any) -> dict[str, Any]:
    """The SNS envelope as it lies on SQS."""
    return {
        "Type": "Notification",
        "MessageId": "sns-1",
        "TopicArn": "arn:aws:sns:eu-central-1:111122223333:files",
        "Subject": "Amazon S3 Notification",
        "Message": value if isinstance(value, str) else json.dumps(value) + "\n",
        "Timestamp": "2026-11-29T10:00:09.250Z",
        **changes,
    }


def message(body: Any, message_id: str = "sqs-1") -> dict[str, Any]:
    """The SQS message as it is received."""
    return {
        "MessageId": message_id,
        "ReceiptHandle": "handle",
        "Body": body if isinstance(body, str) else json.dumps(body),
        "Attributes": {"SentTimestamp": "1796292009250", "ApproximateReceiveCount": "2"},
    }
