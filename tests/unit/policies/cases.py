"""The templates' policies as a table: who may do what, where, and what AWS knows of the request.

S3 asks for `s3:GetObject` where a GET or HEAD names no version and for `s3:GetObjectVersion` where it names one; for
`s3:PutObjectTagging` where an upload brings tags along (Amazon S3 User Guide, "Required permissions for Amazon S3 API
operations").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Final, NamedTuple

from services.files.domain.scans import VALIDATION_KEY
from tests.unit.policies.evaluator import Caller, Decision, Policy, Request, Value, decide
from tests.unit.policies.template import ACCOUNT, REGION, Rendered, source

KEY_ARN: Final = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/1"
COPY_KEY_ARN: Final = f"arn:aws:kms:eu-west-1:{ACCOUNT}:key/2"
DEPLOYER: Final = f"arn:aws:iam::{ACCOUNT}:role/deployer"
STRANGER: Final = "444455556666"
EVERYTHING: Final = Rendered(
    ServiceRoleTrustedService="ecs-tasks.amazonaws.com",
    ServiceRoleTrustedArn=DEPLOYER,
    WebhookUrl="https://mail.example.com/api/webhooks/ses",
    ScanMalware="true",
    ReplicaBucketArn="arn:aws:s3:::copy",
    CloudFrontPublicKeyA="-----BEGIN PUBLIC KEY-----",
    FilesKmsKeyArns=KEY_ARN,
    ReplicaKmsKeyArn=COPY_KEY_ARN,
)
PLAIN: Final = Rendered()
"""As it comes: the cluster has roles of its own, and nothing is switched on."""

_ADMINISTRATOR: Final = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
_NOTHING: Final[Policy] = {"Statement": ()}
_SERVICES: Final = {
    "cloudfront": "cloudfront.amazonaws.com",
    "config": "config.amazonaws.com",
    "ecs": "ecs-tasks.amazonaws.com",
    "events": "events.amazonaws.com",
    "guardduty": "malware-protection-plan.guardduty.amazonaws.com",
    "s3": "s3.amazonaws.com",
    "ses": "ses.amazonaws.com",
    "sns": "sns.amazonaws.com",
}


@cache
def documents(rendered: Rendered) -> dict[str, Policy]:
    """Every policy that the template makes, by the resource that holds it; a role holds who may assume it."""
    found: dict[str, Policy] = {}
    for name in source()["Resources"]:
        if rendered.has(name) and "Properties" in source()["Resources"][name]:
            properties = rendered.properties(name)
            for held in {"PolicyDocument", "AssumeRolePolicyDocument"} & properties.keys():
                found[name] = properties[held]
    return found


@cache
def _places(rendered: Rendered) -> dict[str, tuple[str, str | None]]:
    """Name → (ARN, the resource that holds its policy)."""
    files, content = rendered.arn("FilesBucket"), rendered.arn("ContentBucket")
    events, mail = f"arn:aws:events:{REGION}:{ACCOUNT}:rule", f"arn:aws:ses:{REGION}:{ACCOUNT}"
    roles = ("FilesRole", "ServiceRole", "FilesScanRole", "FilesReplicationRole")
    return {
        "object": (f"{files}/contract/2026/11/id/nonce", "FilesBucketPolicy"),
        "probe": (f"{files}/{VALIDATION_KEY}", "FilesBucketPolicy"),
        "bucket": (files, "FilesBucketPolicy"),
        "content": (f"{content}/content/auth/x", "ContentBucketPolicy"),
        "beside content": (f"{content}/x", "ContentBucketPolicy"),
        "content bucket": (content, "ContentBucketPolicy"),
        "copied": ("arn:aws:s3:::copy/contract/2026/11/id/nonce", None),
        "in our copy": (f"{rendered.arn('CopyBucket')}/contract/2026/11/id/nonce", "CopyBucketPolicy"),
        "our copy": (rendered.arn("CopyBucket"), "CopyBucketPolicy"),
        "elsewhere": ("arn:aws:s3:::elsewhere/contract/2026/11/id/nonce", None),
        "another bucket": ("arn:aws:s3:::elsewhere", None),
        "queue": (rendered.arn("FilesQueue"), "FilesQueuePolicy"),
        "dead": (rendered.arn("FilesDeadLetterQueue"), "FilesDeadLetterQueuePolicy"),
        "mail queue": (rendered.arn("NotificationsQueue"), "NotificationsQueuePolicy"),
        "mail dead": (rendered.arn("DeadLetterQueue"), "DeadLetterQueuePolicy"),
        "webhook dead": (rendered.arn("WebhookDeadLetterQueue"), "WebhookDeadLetterQueuePolicy"),
        "another topic": (f"arn:aws:sns:{REGION}:{ACCOUNT}:other", None),
        "topic": (f"arn:aws:sns:{REGION}:{ACCOUNT}:mailroom-local-notifications", "NotificationsTopicPolicy"),
        "key": (KEY_ARN, None),
        "another key": (f"{KEY_ARN}0", None),
        "copy's key": (COPY_KEY_ARN, None),
        "its rule": (f"{events}/DO-NOT-DELETE-AmazonGuardDutyMalwareProtectionS3-1", None),
        "our rule": (f"{events}/mailroom-local-file-scans", None),
        "domain": (f"{mail}:identity/mailroom.example", None),
        "another domain": (f"{mail}:identity/crm.example", None),
        "set": (f"{mail}:configuration-set/mailroom-local", None),
        "account": ("*", None),
        **{role: (rendered.arn(role), role) for role in roles},
    }


@cache
def _callers(rendered: Rendered) -> dict[str, tuple[Caller, tuple[str, ...]]]:
    """Everybody who might ask, with the names of those of their policies that the template makes."""
    made = rendered.has("FilesRole")
    files = rendered.arn("FilesRole") if made else f"arn:aws:iam::{ACCOUNT}:role/mailroom-files"
    email = rendered.arn("ServiceRole") if made else f"arn:aws:iam::{ACCOUNT}:role/mailroom-email"
    administrators = {
        "admin": f"arn:aws:iam::{ACCOUNT}:user/admin",
        "root": f"arn:aws:iam::{ACCOUNT}:root",
        "namesake": f"arn:aws:iam::{STRANGER}:role/mailroom-files",
    }
    found = {
        "files": (Caller(files), ("FilesPolicy",)),
        "email": (Caller(email), ("ServicePolicy",)),
        "both": (Caller(f"arn:aws:iam::{ACCOUNT}:role/both"), ("FilesPolicy", "ServicePolicy")),
        "deployer": (Caller(DEPLOYER), ()),
        "anybody": (Caller(), ()),
        **{name: (Caller(arn, policies=[_ADMINISTRATOR]), ()) for name, arn in administrators.items()},
        **{name: (Caller(service=service), ()) for name, service in _SERVICES.items()},
    }
    if rendered.has("FilesScanRole"):
        found["scan"] = (Caller(rendered.arn("FilesScanRole")), ("FilesScanPolicy",))
    if rendered.has("FilesReplicationRole"):
        found["copy"] = (Caller(rendered.arn("FilesReplicationRole")), ("FilesReplicationPolicy",))
    return found


class Case(NamedTuple):
    """One line of the table."""

    rendered: Rendered
    who: str
    action: str
    where: str
    context: Mapping[str, Value]
    expected: Decision

    @property
    def asked(self) -> set[str]:
        """The resources whose policies AWS looks at."""
        holder = _places(self.rendered)[self.where][1]
        return {*_callers(self.rendered)[self.who][1], *([holder] if holder else [])}

    def decided(self, policies: Mapping[str, Policy] | None = None) -> Decision:
        """What AWS says, by the template's policies or by `policies` in their place."""
        policies = documents(self.rendered) if policies is None else policies
        (caller, own), (arn, holder) = _callers(self.rendered)[self.who], _places(self.rendered)[self.where]
        attached = [*caller.policies, *(policies[name] for name in own)]
        request = Request(Caller(caller.arn, caller.service, attached), self.action, arn, self.context)
        return decide(request, policies[holder] if holder else _NOTHING, ACCOUNT)


Context = dict[str, Value]
PLAINTEXT: Final[Context] = {"aws:SecureTransport": "false"}
SCAN: Final = "GuardDutyMalwareScanStatus"
_OURS: Final[Context] = {"AWS:SourceArn": f"arn:aws:cloudfront::{ACCOUNT}:distribution/made-FilesDistribution"}
_THEIRS: Final[Context] = {"AWS:SourceArn": f"arn:aws:cloudfront::{STRANGER}:distribution/E1"}
_SIGNED: Final[Context] = {**_OURS, "aws:Referer": "signed"}
_PUBLIC: Final[Context] = {**_OURS, "aws:Referer": "public"}


def tags(request: dict[str, str], existing: dict[str, str] | None = None) -> Context:
    """What S3 says of a request that sets tags."""
    return {
        **({"s3:RequestObjectTagKeys": tuple(request)} if request else {}),
        **{f"s3:RequestObjectTag/{name}": value for name, value in request.items()},
        **{f"s3:ExistingObjectTag/{name}": value for name, value in (existing or {}).items()},
    }


YES, NO, NEVER = Decision.ALLOWED, Decision.NOT_ALLOWED, Decision.EXPLICITLY_DENIED
"""NEVER: whatever other policies say."""
Row = tuple[str, str, str, Context, Decision]


def _rows(where: str, service: str, *rows: tuple[str, str, Context, Decision]) -> list[Row]:
    """Rows about one place: actions separated by blanks are a row each."""
    return [
        (who, f"{service}:{action}", where, context, expected)
        for who, actions, context, expected in rows
        for action in actions.split()
    ]


# --- the bucket of files ------------------------------------------------------------------------------------------

READING: Sequence[Row] = _rows(
    "object",
    "s3",
    ("files", "GetObjectVersion", {}, YES),
    ("files", "GetObjectVersion", PLAINTEXT, NEVER),
    ("files", "GetObject", {}, NEVER),
    ("email", "GetObjectVersion", {}, YES),
    ("email", "GetObjectVersion", PLAINTEXT, NEVER),
    ("email", "GetObject", {}, NEVER),
    ("both", "GetObjectVersion", {}, NEVER),
    ("admin", "GetObjectVersion", {}, NEVER),
    ("admin", "GetObject", {}, NEVER),
    ("admin", "GetObjectVersionForReplication", {}, NEVER),
    ("root", "GetObjectVersion", {}, NEVER),
    ("anybody", "GetObjectVersion", {}, NEVER),
    ("anybody", "GetObject", {}, NEVER),
    ("anybody", "GetObjectVersion", tags({}, {"public": "true"}), NEVER),
    ("config", "GetObjectVersion", {}, NO),
    ("config", "GetObject", {}, NEVER),
)
TAGGING: Sequence[Row] = _rows(
    "object",
    "s3",
    ("files", "PutObjectVersionTagging", tags({"public": "true"}), YES),
    ("files", "PutObjectVersionTagging", tags({"public": "true"}, {SCAN: "NO_THREATS_FOUND"}), YES),
    ("files", "PutObjectVersionTagging", tags({}), YES),
    (
        "files",
        "PutObjectVersionTagging",
        tags({"public": "true", SCAN: "NO_THREATS_FOUND"}, {SCAN: "NO_THREATS_FOUND"}),
        YES,
    ),
    ("files", "PutObjectVersionTagging", tags({SCAN: "NO_THREATS_FOUND"}, {SCAN: "THREATS_FOUND"}), NEVER),
    ("files", "PutObjectVersionTagging", tags({SCAN: "NO_THREATS_FOUND"}), NEVER),
    ("files", "PutObjectTagging", tags({"public": "true"}), NEVER),
    ("files", "PutObjectTagging", tags({"Public": "true"}), NEVER),
    ("files", "PutObjectTagging", tags({SCAN: "NO_THREATS_FOUND"}), NEVER),
    ("files", "PutObjectTagging", tags({"colour": "red"}), NO),
    ("email", "PutObjectVersionTagging", tags({"colour": "red"}), NO),
    ("admin", "PutObjectVersionTagging", tags({"public": "true"}), NEVER),
    ("admin", "PutObjectVersionTagging", tags({"PUBLIC": "true"}), NEVER),
    ("admin", "PutObjectVersionTagging", tags({"verified": "true"}), NEVER),
    ("files", "PutObjectVersionTagging", tags({"verified": "true"}, {"verified": "false"}), YES),
    ("admin", "PutObjectVersionTagging", tags({"colour": "red", "public": "false"}), NEVER),
    ("admin", "PutObjectVersionTagging", tags({SCAN: "NO_THREATS_FOUND"}), NEVER),
    ("admin", "PutObjectVersionTagging", tags({"colour": "red"}), YES),
    ("admin", "PutObjectTagging", tags({SCAN: "NO_THREATS_FOUND"}), NEVER),
    ("admin", "PutObjectTagging", tags({"colour": "red"}), YES),
)
WORKING: Sequence[Row] = [
    *_rows(
        "object",
        "s3",
        ("files", "PutObject", {}, YES),
        ("files", "PutObject", PLAINTEXT, NEVER),
        ("files", "AbortMultipartUpload ListMultipartUploadParts GetObjectVersionTagging", {}, YES),
        ("files", "DeleteObject DeleteObjectVersion", {}, YES),
        ("files", "GetObjectVersionAttributes PutObjectAcl BypassGovernanceRetention ReplicateObject", {}, NO),
        ("email", "PutObject DeleteObject DeleteObjectVersion GetObjectVersionTagging", {}, NO),
        ("anybody", "PutObject", {}, NO),
        ("cloudfront", "PutObject DeleteObject", _SIGNED, NO),
    ),
    *_rows(
        "bucket",
        "s3",
        ("files", "ListBucket ListBucketVersions ListBucketMultipartUploads GetBucketVersioning", {}, YES),
        ("files", "ListBucketVersions", PLAINTEXT, NEVER),
        ("files", "PutBucketVersioning PutBucketPolicy PutLifecycleConfiguration DeleteBucket", {}, NO),
        # Without it S3 answers 403 and not 404 for a version that is gone, and a mail would wait for it for days.
        ("email", "ListBucket", {}, YES),
        ("email", "ListBucketVersions ListBucketMultipartUploads GetBucketVersioning", {}, NO),
        ("anybody", "ListBucket", {}, NO),
        ("cloudfront", "ListBucket", {}, NO),
        ("admin", "PutBucketPolicy", {}, YES),
        ("admin", "PutBucketPolicy", PLAINTEXT, NEVER),
    ),
    *_rows("elsewhere", "s3", ("files", "PutObject GetObjectVersion DeleteObjectVersion", {}, NO)),
    *_rows("content bucket", "s3", ("files", "ListBucket ListBucketVersions GetBucketVersioning", {}, NO)),
]

# --- the distribution, the scan, the copy -------------------------------------------------------------------------

DISTRIBUTION: Sequence[Row] = _rows(
    "object",
    "s3",
    ("cloudfront", "GetObjectVersion", _SIGNED, YES),
    ("cloudfront", "GetObjectVersion", {**_SIGNED, **PLAINTEXT}, NEVER),
    ("cloudfront", "GetObject", _SIGNED, NEVER),
    ("cloudfront", "GetObjectVersionTagging", _SIGNED, NO),
    ("cloudfront", "GetObjectVersion", {**_THEIRS, "aws:Referer": "signed"}, NO),
    ("cloudfront", "GetObjectVersion", _OURS, NO),
    ("cloudfront", "GetObjectVersion", _PUBLIC, NO),
    ("cloudfront", "GetObjectVersion", {**_PUBLIC, **tags({}, {"public": "true"})}, YES),
    ("cloudfront", "GetObjectVersion", {**_PUBLIC, **tags({}, {"public": "false"})}, NO),
    ("cloudfront", "GetObjectVersion", {**_PUBLIC, **tags({}, {"colour": "true"})}, NO),
    ("cloudfront", "GetObjectVersion", {**_OURS, "aws:Referer": "other", **tags({}, {"public": "true"})}, NO),
    ("cloudfront", "GetObject", {**_PUBLIC, **tags({}, {"public": "true"})}, NEVER),
    ("cloudfront", "GetObjectVersionTagging", {**_PUBLIC, **tags({}, {"public": "true"})}, NO),
    ("cloudfront", "GetObjectVersion", {**_THEIRS, "aws:Referer": "public", **tags({}, {"public": "true"})}, NO),
)
_NOT_VERIFIED: Final[Context] = tags({"verified": "false"})
UPLOADING: Sequence[Row] = [
    *_rows(
        "object",
        "s3",
        ("files", "PutObjectTagging", _NOT_VERIFIED, YES),
        ("files", "PutObjectTagging", tags({"verified": "true"}), NO),
        ("files", "PutObjectTagging", tags({"verified": "false", "colour": "red"}), NO),
        ("files", "PutObjectTagging", tags({"verified": "false", "public": "true"}), NEVER),
        ("files", "PutObjectTagging", tags({}), NO),
        ("files", "PutObjectAcl", _NOT_VERIFIED, NO),
        ("email", "PutObjectTagging", _NOT_VERIFIED, NO),
    ),
    *_rows("elsewhere", "s3", ("files", "PutObjectTagging", _NOT_VERIFIED, NO)),
]
OUR_COPY: Sequence[Row] = [
    *_rows(
        "in our copy",
        "s3",
        ("admin", "GetObject GetObjectVersion", tags({}, {"verified": "true"}), YES),
        ("admin", "GetObject GetObjectVersion", {}, YES),
        ("admin", "GetObject GetObjectVersion", tags({}, {"verified": "false"}), NEVER),
        ("admin", "GetObjectVersionTagging", tags({}, {"verified": "false"}), YES),
        ("admin", "PutObject", PLAINTEXT, NEVER),
        ("files", "GetObject GetObjectVersion PutObject DeleteObjectVersion", {}, NO),
        ("anybody", "GetObject", tags({}, {"verified": "true"}), NO),
    ),
    *_rows("our copy", "s3", ("admin", "ListBucket", {}, YES), ("admin", "ListBucket", PLAINTEXT, NEVER)),
]
_MANAGED: Final[Context] = {"events:ManagedBy": "malware-protection-plan.guardduty.amazonaws.com"}
_ITS_RULE: Final = "PutRule DeleteRule PutTargets RemoveTargets"
SCANNING: Sequence[Row] = [
    *_rows(
        "object",
        "s3",
        ("scan", "GetObject GetObjectVersion GetObjectTagging GetObjectVersionTagging", {}, YES),
        ("scan", "PutObjectVersionTagging", tags({SCAN: "THREATS_FOUND", "public": "true"}, {"public": "true"}), YES),
        ("scan", "PutObjectTagging", tags({SCAN: "NO_THREATS_FOUND"}), YES),
        ("scan", "PutObject DeleteObjectVersion", {}, NO),
    ),
    *_rows("probe", "s3", ("scan", "PutObject", {}, YES), ("scan", "DeleteObject", {}, NO)),
    *_rows(
        "bucket",
        "s3",
        ("scan", "ListBucket GetBucketNotification PutBucketNotification", {}, YES),
        ("scan", "PutBucketPolicy ListBucketVersions", {}, NO),
    ),
    *_rows("content", "s3", ("scan", "GetObject GetObjectTagging PutObjectTagging PutObject", {}, NO)),
    *_rows("content bucket", "s3", ("scan", "ListBucket PutBucketNotification", {}, NO)),
    *_rows(
        "its rule",
        "events",
        ("scan", _ITS_RULE, _MANAGED, YES),
        ("scan", _ITS_RULE, {}, NO),
        ("scan", "PutRule", {"events:ManagedBy": "somebody.amazonaws.com"}, NO),
        ("scan", "DescribeRule ListTargetsByRule", {}, YES),
        ("scan", "DisableRule", _MANAGED, NO),
    ),
    *_rows("our rule", "events", ("scan", f"{_ITS_RULE} DescribeRule ListTargetsByRule", _MANAGED, NO)),
    *_rows("FilesScanRole", "sts", ("guardduty", "AssumeRole", {"aws:SourceAccount": ACCOUNT}, YES)),
    *_rows("FilesScanRole", "sts", ("guardduty", "AssumeRole", {"aws:SourceAccount": STRANGER}, NO)),
    *_rows("FilesScanRole", "sts", ("s3", "AssumeRole", {"aws:SourceAccount": ACCOUNT}, NO)),
    *_rows("FilesScanRole", "sts", ("admin", "AssumeRole", {"aws:SourceAccount": ACCOUNT}, NO)),
]
_REPLICATE: Final = "ReplicateObject ReplicateDelete ReplicateTags"
COPYING: Sequence[Row] = [
    *_rows(
        "object",
        "s3",
        ("copy", "GetObjectVersionForReplication GetObjectVersionAcl GetObjectVersionTagging", {}, YES),
        ("copy", "GetObjectVersionForReplication", PLAINTEXT, NEVER),
        ("copy", "GetObject", {}, NEVER),
        ("copy", f"GetObjectVersion PutObject DeleteObjectVersion {_REPLICATE}", {}, NO),
    ),
    *_rows(
        "bucket",
        "s3",
        ("copy", "GetReplicationConfiguration ListBucket", {}, YES),
        ("copy", "PutReplicationConfiguration", {}, NO),
    ),
    *_rows("copied", "s3", ("copy", _REPLICATE, {}, YES), ("copy", "GetObjectVersion DeleteObjectVersion", {}, NO)),
    *_rows("elsewhere", "s3", ("copy", f"{_REPLICATE} GetObjectVersionForReplication", {}, NO)),
    *_rows("content bucket", "s3", ("copy", "ListBucket", {}, NO)),
    *_rows("FilesReplicationRole", "sts", ("s3", "AssumeRole", {"aws:SourceAccount": ACCOUNT}, YES)),
    *_rows("FilesReplicationRole", "sts", ("s3", "AssumeRole", {"aws:SourceAccount": STRANGER}, NO)),
    *_rows("FilesReplicationRole", "sts", ("guardduty", "AssumeRole", {"aws:SourceAccount": ACCOUNT}, NO)),
    *_rows("FilesReplicationRole", "sts", ("admin", "AssumeRole", {"aws:SourceAccount": ACCOUNT}, NO)),
]
_THROUGH: Final[Context] = {"kms:ViaService": f"s3.{REGION}.amazonaws.com"}
_THROUGH_THERE: Final[Context] = {"kms:ViaService": "s3.eu-west-1.amazonaws.com"}
_USERS_OF_THE_KEY: Final = {
    "files": "Decrypt GenerateDataKey",
    "email": "Decrypt",
    "copy": "Decrypt",
    "scan": "Decrypt GenerateDataKey",
}
KEYS: Sequence[Row] = [
    *(
        row
        for who, actions in _USERS_OF_THE_KEY.items()
        for row in (
            *_rows("key", "kms", (who, actions, _THROUGH, YES), (who, actions, {}, NO)),
            *_rows("key", "kms", (who, actions, _THROUGH_THERE, NO), (who, "ScheduleKeyDeletion", _THROUGH, NO)),
            *_rows("another key", "kms", (who, actions, _THROUGH, NO)),
        )
    ),
    *_rows("key", "kms", ("email", "GenerateDataKey", _THROUGH, NO), ("copy", "Encrypt", _THROUGH, NO)),
    *_rows(
        "copy's key",
        "kms",
        ("copy", "Encrypt", _THROUGH_THERE, YES),
        ("copy", "Encrypt", {}, NO),
        ("copy", "Decrypt", _THROUGH_THERE, NO),
        ("files", "Decrypt", _THROUGH_THERE, NO),
    ),
]
ROLES: Sequence[Row] = [
    row
    for role in ("FilesRole", "ServiceRole")
    for row in (
        *_rows(role, "sts", ("ecs", "AssumeRole", {}, YES), ("deployer", "AssumeRole", {}, YES)),
        *_rows(role, "sts", ("admin", "AssumeRole", {}, NO), ("namesake", "AssumeRole", {}, NO)),
        *_rows(role, "sts", ("s3", "AssumeRole", {}, NO), ("anybody", "AssumeRole", {}, NO)),
    )
]
SWITCHED_OFF: Sequence[Row] = _rows(
    "object",
    "s3",
    ("cloudfront", "GetObjectVersion", _SIGNED, NO),
    ("cloudfront", "GetObjectVersion", {**_PUBLIC, **tags({}, {"public": "true"})}, NO),
    ("namesake", "GetObjectVersion", {}, NO),
    ("namesake", "PutObjectVersionTagging", tags({"public": "true"}), NO),
    ("files", "PutObjectTagging", tags({"verified": "false"}), NO),
)

# --- queues -------------------------------------------------------------------------------------------------------

_TAKE: Final = "ReceiveMessage DeleteMessage ChangeMessageVisibility GetQueueAttributes"
_BUCKET_SENDS: Final[Context] = {"aws:SourceArn": PLAIN.arn("FilesBucket"), "aws:SourceAccount": ACCOUNT}
_TOPIC_SENDS: Final[Context] = {"aws:SourceArn": f"arn:aws:sns:{REGION}:{ACCOUNT}:mailroom-local-notifications"}
_RULE: Final = f"arn:aws:events:{REGION}:{ACCOUNT}:rule"
QUEUES: Sequence[Row] = [
    *_rows(
        "queue",
        "sqs",
        ("files", _TAKE, {}, YES),
        ("files", "ReceiveMessage", PLAINTEXT, NEVER),
        ("files", "SendMessage PurgeQueue", {}, NO),
        ("email", _TAKE, {}, NO),
        ("anybody", "SendMessage", {}, NO),
        ("s3", "SendMessage", _BUCKET_SENDS, YES),
        ("s3", "SendMessage", {**_BUCKET_SENDS, **PLAINTEXT}, NEVER),
        ("s3", "ReceiveMessage", _BUCKET_SENDS, NO),
        ("s3", "SendMessage", {**_BUCKET_SENDS, "aws:SourceArn": "arn:aws:s3:::other"}, NO),
        # A bucket of our name in another account, after ours was deleted.
        ("s3", "SendMessage", {**_BUCKET_SENDS, "aws:SourceAccount": STRANGER}, NO),
        ("sns", "SendMessage", _BUCKET_SENDS, NO),
    ),
    *_rows(
        "mail queue",
        "sqs",
        ("email", _TAKE, {}, YES),
        ("email", "ReceiveMessage", PLAINTEXT, NEVER),
        ("email", "SendMessage", {}, NO),
        ("files", _TAKE, {}, NO),
        ("sns", "SendMessage", _TOPIC_SENDS, YES),
        ("sns", "ReceiveMessage", _TOPIC_SENDS, NO),
        ("sns", "SendMessage", {"aws:SourceArn": f"arn:aws:sns:{REGION}:{ACCOUNT}:other"}, NO),
        ("s3", "SendMessage", _BUCKET_SENDS, NO),
    ),
    *(
        row
        for queue, sends in (("dead", _BUCKET_SENDS), ("mail dead", _TOPIC_SENDS))
        for row in _rows(
            queue,
            "sqs",
            ("files", "ReceiveMessage", {}, NO),
            ("email", "ReceiveMessage", {}, NO),
            ("s3", "SendMessage", sends, NO),
            ("sns", "SendMessage", sends, NO),
            ("admin", "ReceiveMessage", {}, YES),
            ("admin", "ReceiveMessage", PLAINTEXT, NEVER),
            ("admin", "SendMessage", PLAINTEXT, NEVER),
        )
    ),
]


def _scan_results(expected: Decision) -> list[Row]:
    ours: Context = {"aws:SourceArn": f"{_RULE}/mailroom-local-file-scans"}
    return _rows(
        "queue",
        "sqs",
        ("events", "SendMessage", ours, expected),
        ("events", "ReceiveMessage", ours, NO),
        ("events", "SendMessage", {"aws:SourceArn": f"{_RULE}/other"}, NO),
    )


# --- mail ---------------------------------------------------------------------------------------------------------

_SET: Final = f"arn:aws:ses:{REGION}:{ACCOUNT}:configuration-set"
_RECEIPT: Final = f"arn:aws:ses:{REGION}:{ACCOUNT}:receipt-rule-set/inbound:receipt-rule"
_PUBLISHES: Final[Context] = {"AWS:SourceAccount": ACCOUNT, "AWS:SourceArn": f"{_SET}/mailroom-local"}
_FROM_US: Final[Context] = {"ses:FromAddress": "billing@mailroom.example"}
WEBHOOK: Sequence[Row] = [
    *_rows(
        "topic",
        "sns",
        ("email", "ConfirmSubscription", {}, YES),
        ("email", "Subscribe Unsubscribe Publish SetTopicAttributes", {}, NO),
        ("files", "ConfirmSubscription", {}, NO),
        ("anybody", "ConfirmSubscription", {}, NO),
    ),
    *_rows("another topic", "sns", ("email", "ConfirmSubscription", {}, NO)),
    *_rows(
        "webhook dead",
        "sqs",
        ("sns", "SendMessage", _TOPIC_SENDS, YES),
        ("sns", "ReceiveMessage", _TOPIC_SENDS, NO),
        ("sns", "SendMessage", {"aws:SourceArn": f"arn:aws:sns:{REGION}:{ACCOUNT}:other"}, NO),
        ("ses", "SendMessage", _TOPIC_SENDS, NO),
        ("email", "SendMessage ReceiveMessage", {}, NO),
        ("admin", "ReceiveMessage", {}, YES),
        ("admin", "ReceiveMessage", PLAINTEXT, NEVER),
    ),
]
NO_WEBHOOK: Sequence[Row] = _rows("topic", "sns", ("email", "ConfirmSubscription", {}, NO))
MAIL: Sequence[Row] = [
    *_rows(
        "topic",
        "sns",
        ("ses", "Publish", _PUBLISHES, YES),
        ("ses", "Publish", {**_PUBLISHES, "AWS:SourceAccount": STRANGER}, NO),
        ("ses", "Publish", {**_PUBLISHES, "AWS:SourceArn": f"{_SET}/other"}, NO),
        ("ses", "Publish", {**_PUBLISHES, "AWS:SourceArn": f"{_RECEIPT}/mailroom-local"}, YES),
        ("ses", "Publish", {**_PUBLISHES, "AWS:SourceArn": f"{_RECEIPT}/other"}, NO),
        (
            "ses",
            "Publish",
            {"AWS:SourceAccount": STRANGER, "AWS:SourceArn": f"{_RECEIPT}/mailroom-local".replace(ACCOUNT, STRANGER)},
            NO,
        ),
        ("ses", "Subscribe", _PUBLISHES, NO),
        ("s3", "Publish", _PUBLISHES, NO),
    ),
    *(
        row
        for place in ("domain", "set")
        for row in _rows(
            place,
            "ses",
            ("email", "SendEmail SendRawEmail", _FROM_US, YES),
            ("email", "SendEmail SendRawEmail", {"ses:FromAddress": "billing@crm.example"}, NO),
            ("email", "SendBulkEmail DeleteEmailIdentity", _FROM_US, NO),
            ("files", "SendEmail", _FROM_US, NO),
        )
    ),
    *_rows("another domain", "ses", ("email", "SendEmail SendRawEmail", _FROM_US, NO)),
    *_rows(
        "account",
        "ses",
        ("email", "GetAccount GetSuppressedDestination ListSuppressedDestinations", {}, YES),
        ("email", "PutSuppressedDestination DeleteSuppressedDestination", {}, YES),
        ("email", "PutAccountDetails", {}, NO),
    ),
    *_rows(
        "content",
        "s3",
        ("email", "GetObject PutObject DeleteObject AbortMultipartUpload", {}, YES),
        ("email", "PutObjectTagging", {}, NO),
        ("email", "GetObject", PLAINTEXT, NEVER),
        ("files", "GetObject GetObjectVersion PutObject DeleteObject", {}, NO),
    ),
    *_rows("beside content", "s3", ("email", "GetObject PutObject DeleteObject GetObjectVersion", {}, NO)),
    *_rows(
        "content bucket",
        "s3",
        ("email", "ListBucket", {}, YES),
        ("email", "ListBucket", PLAINTEXT, NEVER),
        ("email", "PutBucketPolicy", {}, NO),
    ),
    *_rows("another bucket", "s3", ("email", "ListBucket", {}, NO)),
]

_ALWAYS: Final = (*READING, *TAGGING, *WORKING, *QUEUES, *MAIL, *OUR_COPY)
_SWITCHED_ON: Final = (*DISTRIBUTION, *UPLOADING, *SCANNING, *COPYING, *KEYS, *ROLES, *WEBHOOK, *_scan_results(YES))
CASES: Final = [
    *(Case(EVERYTHING, *row) for row in (*_ALWAYS, *_SWITCHED_ON)),
    *(Case(PLAIN, *row) for row in (*_ALWAYS, *SWITCHED_OFF, *NO_WEBHOOK, *_scan_results(NO))),
]


def in_words(value: object) -> str | None:
    """A case, or what it is about, for the names of tests."""
    if isinstance(value, Rendered):
        return "everything" if value is EVERYTHING else "plain"
    if isinstance(value, Case):
        known = ",".join(f"{name}={each}" for name, each in value.context.items())
        words = (in_words(value.rendered), value.who, value.action, value.where, known, value.expected.value)
        return "-".join(each for each in words if each)
    return None
