"""Who may do what with files: the template's policies, rendered and asked, case by case.

S3 asks for `s3:GetObject` where a GET or HEAD names no version and for `s3:GetObjectVersion` where it names one; for
`s3:PutObjectTagging` where an upload brings tags along (Amazon S3 User Guide, "Required permissions for Amazon S3 API
operations").
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Final

import pytest

from tests.unit.policies.evaluator import Caller, Decision, Request, UnknownElement, Value, decide
from tests.unit.policies.template import ACCOUNT, Rendered

PUBLIC_KEY: Final = "-----BEGIN PUBLIC KEY-----"
KEY_ARN: Final = f"arn:aws:kms:eu-central-1:{ACCOUNT}:key/1"
EVERYTHING: Final = Rendered(
    ServiceRoleTrustedService="ecs-tasks.amazonaws.com",
    ScanMalware="true",
    ReplicaBucketArn="arn:aws:s3:::copy",
    CloudFrontPublicKey=PUBLIC_KEY,
    FilesKmsKeyArns=KEY_ARN,
    ReplicaKmsKeyArn="arn:aws:kms:eu-west-1:111122223333:key/2",
)
PLAIN: Final = Rendered()
"""As it comes: the cluster has roles of its own, and nothing is switched on."""

ADMINISTRATOR: Final = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}


def managed(rendered: Rendered, logical: str) -> dict[str, Any]:
    document: dict[str, Any] = rendered.properties(logical)["PolicyDocument"]
    return document


def callers(rendered: Rendered) -> dict[str, Caller]:
    """Everybody who might ask."""
    files, email = managed(rendered, "FilesPolicy"), managed(rendered, "ServicePolicy")
    made = rendered.has("FilesRole")
    names = {
        "files": rendered.arn("FilesRole") if made else f"arn:aws:iam::{ACCOUNT}:role/mailroom-files",
        "email": rendered.arn("ServiceRole") if made else f"arn:aws:iam::{ACCOUNT}:role/mailroom-email",
    }
    found = {
        "files": Caller(names["files"], policies=[files]),
        "email": Caller(names["email"], policies=[email]),
        "both": Caller(f"arn:aws:iam::{ACCOUNT}:role/both", policies=[files, email]),
        "admin": Caller(f"arn:aws:iam::{ACCOUNT}:user/admin", policies=[ADMINISTRATOR]),
        "root": Caller(f"arn:aws:iam::{ACCOUNT}:root", policies=[ADMINISTRATOR]),
        "namesake": Caller("arn:aws:iam::444455556666:role/mailroom-files", policies=[ADMINISTRATOR]),
        "anybody": Caller(),
        "cloudfront": Caller(service="cloudfront.amazonaws.com"),
        "config": Caller(service="config.amazonaws.com"),
    }
    for name, role, policy in (
        ("scan", "FilesScanRole", "FilesScanPolicy"),
        ("copy", "FilesReplicationRole", "FilesReplicationPolicy"),
    ):
        if rendered.has(role):
            found[name] = Caller(rendered.arn(role), policies=[managed(rendered, policy)])
    return found


def ask(
    rendered: Rendered,
    who: str,
    action: str,
    context: dict[str, Value],
    bucket: dict[str, Any] | None = None,
    resource: str | None = None,
) -> Decision:
    policy = managed(rendered, "FilesBucketPolicy") if bucket is None else bucket
    where = resource or f"{rendered.arn('FilesBucket')}/contract/2026/11/id/nonce"
    return decide(Request(callers(rendered)[who], f"s3:{action}", where, context), policy, ACCOUNT)


OURS: Final[dict[str, Value]] = {"AWS:SourceArn": f"arn:aws:cloudfront::{ACCOUNT}:distribution/made-FilesDistribution"}
THEIRS: Final[dict[str, Value]] = {"AWS:SourceArn": "arn:aws:cloudfront::444455556666:distribution/E1"}
SIGNED: Final[dict[str, Value]] = {**OURS, "aws:Referer": "signed"}
PUBLIC: Final[dict[str, Value]] = {**OURS, "aws:Referer": "public"}
PLAINTEXT: Final[dict[str, Value]] = {"aws:SecureTransport": "false"}
SCAN: Final = "GuardDutyMalwareScanStatus"


def tags(request: dict[str, str], existing: dict[str, str] | None = None) -> dict[str, Value]:
    """What S3 says of a request that sets tags."""
    return {
        **({"s3:RequestObjectTagKeys": tuple(request)} if request else {}),
        **{f"s3:RequestObjectTag/{name}": value for name, value in request.items()},
        **{f"s3:ExistingObjectTag/{name}": value for name, value in (existing or {}).items()},
    }


YES, NO, NEVER = Decision.ALLOWED, Decision.NOT_ALLOWED, Decision.EXPLICITLY_DENIED
"""NEVER: whatever other policies say."""
Row = tuple[str, str, dict[str, Value], Decision]

READING: Sequence[Row] = (
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
)
TAGGING: Sequence[Row] = (
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
    ("admin", "PutObjectVersionTagging", tags({"colour": "red", "public": "false"}), NEVER),
    ("admin", "PutObjectVersionTagging", tags({SCAN: "NO_THREATS_FOUND"}), NEVER),
    ("admin", "PutObjectVersionTagging", tags({"colour": "red"}), YES),
    ("admin", "PutObjectTagging", tags({SCAN: "NO_THREATS_FOUND"}), NEVER),
    ("admin", "PutObjectTagging", tags({"colour": "red"}), YES),
)
WORKING: Sequence[Row] = (
    ("files", "PutObject", {}, YES),
    ("files", "PutObject", PLAINTEXT, NEVER),
    ("files", "AbortMultipartUpload", {}, YES),
    ("files", "ListMultipartUploadParts", {}, YES),
    ("files", "DeleteObject", {}, YES),
    ("files", "DeleteObjectVersion", {}, YES),
    ("files", "GetObjectVersionTagging", {}, YES),
    ("files", "GetObjectVersionAttributes", {}, YES),
    ("files", "PutObjectAcl", {}, NO),
    ("files", "BypassGovernanceRetention", {}, NO),
    ("email", "PutObject", {}, NO),
    ("email", "DeleteObject", {}, NO),
    ("email", "DeleteObjectVersion", {}, NO),
    ("email", "GetObjectVersionTagging", {}, NO),
    ("anybody", "PutObject", {}, NO),
    ("cloudfront", "PutObject", SIGNED, NO),
    ("cloudfront", "DeleteObject", SIGNED, NO),
)
SWITCHED_ON: Sequence[Row] = (
    ("cloudfront", "GetObjectVersion", SIGNED, YES),
    ("cloudfront", "GetObjectVersion", {**SIGNED, **PLAINTEXT}, NEVER),
    ("cloudfront", "GetObject", SIGNED, NEVER),
    ("cloudfront", "GetObjectVersion", {**THEIRS, "aws:Referer": "signed"}, NO),
    ("cloudfront", "GetObjectVersion", OURS, NO),
    ("cloudfront", "GetObjectVersion", PUBLIC, NO),
    ("cloudfront", "GetObjectVersion", {**PUBLIC, **tags({}, {"public": "true"})}, YES),
    ("cloudfront", "GetObjectVersion", {**PUBLIC, **tags({}, {"public": "false"})}, NO),
    ("cloudfront", "GetObjectVersion", {**PUBLIC, **tags({}, {"colour": "true"})}, NO),
    ("cloudfront", "GetObject", {**PUBLIC, **tags({}, {"public": "true"})}, NEVER),
    ("cloudfront", "GetObjectVersion", {**THEIRS, "aws:Referer": "public", **tags({}, {"public": "true"})}, NO),
    ("scan", "GetObject", {}, YES),
    ("scan", "GetObjectVersion", {}, YES),
    ("scan", "PutObjectVersionTagging", tags({SCAN: "THREATS_FOUND", "public": "true"}, {"public": "true"}), YES),
    ("scan", "PutObjectTagging", tags({SCAN: "NO_THREATS_FOUND"}), YES),
    ("scan", "DeleteObjectVersion", {}, NO),
    ("copy", "GetObjectVersionForReplication", {}, YES),
    ("copy", "GetObjectVersionForReplication", PLAINTEXT, NEVER),
    ("copy", "GetObjectVersion", {}, NO),
    ("copy", "GetObject", {}, NEVER),
    ("copy", "PutObject", {}, NO),
)
SWITCHED_OFF: Sequence[Row] = (
    ("cloudfront", "GetObjectVersion", SIGNED, NO),
    ("cloudfront", "GetObjectVersion", {**PUBLIC, **tags({}, {"public": "true"})}, NO),
    ("namesake", "GetObjectVersion", {}, NO),
    ("namesake", "PutObjectVersionTagging", tags({"public": "true"}), NO),
)

ROWS = [
    *((EVERYTHING, *row) for row in (*READING, *TAGGING, *WORKING, *SWITCHED_ON)),
    *((PLAIN, *row) for row in (*READING, *TAGGING, *WORKING, *SWITCHED_OFF)),
]


def ids(value: object) -> str | None:
    if isinstance(value, Rendered):
        return "everything" if value is EVERYTHING else "plain"
    if isinstance(value, Decision):
        return value.value
    if isinstance(value, dict):
        return ",".join(f"{name}={each}" for name, each in value.items()) or "-"
    return None


@pytest.mark.parametrize(("rendered", "who", "action", "context", "expected"), ROWS, ids=ids)
def test_objects(rendered: Rendered, who: str, action: str, context: dict[str, Value], expected: Decision) -> None:
    assert ask(rendered, who, action, context) is expected


@pytest.mark.parametrize("rendered", [EVERYTHING, PLAIN], ids=ids)
def test_every_statement_of_the_bucket_policy_makes_a_difference(rendered: Rendered) -> None:
    whole = managed(rendered, "FilesBucketPolicy")
    for index, statement in enumerate(whole["Statement"]):
        without = copy.deepcopy(whole)
        del without["Statement"][index]
        changed = [
            row[1:4] for row in ROWS if row[0] is rendered and ask(rendered, *row[1:4], bucket=without) is not row[4]
        ]
        assert changed, statement["Sid"]


@pytest.mark.parametrize(
    ("who", "action", "expected"),
    [
        ("files", "ListBucketVersions", YES),
        ("files", "ListBucketMultipartUploads", YES),
        ("files", "GetBucketVersioning", YES),
        ("files", "PutBucketVersioning", NO),
        ("files", "PutBucketPolicy", NO),
        ("files", "PutLifecycleConfiguration", NO),
        ("files", "DeleteBucket", NO),
        # Without it S3 answers 403 and not 404 for a version that is gone, and a mail would wait for it for days.
        ("email", "ListBucket", YES),
        ("email", "ListBucketVersions", NO),
        ("email", "ListBucketMultipartUploads", NO),
        ("email", "GetBucketVersioning", NO),
        ("anybody", "ListBucket", NO),
        ("cloudfront", "ListBucket", NO),
        ("admin", "PutBucketPolicy", YES),
    ],
)
def test_the_bucket(who: str, action: str, expected: Decision) -> None:
    assert ask(EVERYTHING, who, action, {}, resource=EVERYTHING.arn("FilesBucket")) is expected


def test_the_files_service_has_no_business_in_the_bucket_of_mail_and_the_email_service_none_with_files_queue() -> None:
    content = f"{EVERYTHING.arn('ContentBucket')}/content/auth/x"
    nothing: dict[str, Any] = {"Statement": []}
    for action in ("GetObject", "GetObjectVersion", "PutObject", "DeleteObject"):
        assert ask(EVERYTHING, "files", action, {}, nothing, content) is NO
    assert ask(EVERYTHING, "email", "GetObject", {}, nothing, content) is YES
    queues = {"files": EVERYTHING.arn("FilesQueue"), "email": EVERYTHING.arn("NotificationsQueue")}
    for who in queues:
        for owner, queue in queues.items():
            request = Request(callers(EVERYTHING)[who], "sqs:ReceiveMessage", queue)
            assert decide(request, nothing, ACCOUNT) is (YES if who == owner else NO)


@pytest.mark.parametrize(
    ("service", "context", "expected"),
    [
        ("s3.amazonaws.com", {"aws:SourceArn": EVERYTHING.arn("FilesBucket"), "aws:SourceAccount": ACCOUNT}, YES),
        ("s3.amazonaws.com", {"aws:SourceArn": "arn:aws:s3:::other", "aws:SourceAccount": ACCOUNT}, NO),
        # A bucket of our name in another account, after ours was deleted.
        ("s3.amazonaws.com", {"aws:SourceArn": EVERYTHING.arn("FilesBucket"), "aws:SourceAccount": "4" * 12}, NO),
        (
            "events.amazonaws.com",
            {"aws:SourceArn": f"arn:aws:events:eu-central-1:{ACCOUNT}:rule/mailroom-local-file-scans"},
            YES,
        ),
        ("events.amazonaws.com", {"aws:SourceArn": f"arn:aws:events:eu-central-1:{ACCOUNT}:rule/other"}, NO),
        ("sns.amazonaws.com", {"aws:SourceArn": EVERYTHING.arn("FilesBucket")}, NO),
    ],
)
def test_who_sends_to_the_queue(service: str, context: dict[str, Value], expected: Decision) -> None:
    def said(rendered: Rendered, more: dict[str, Value]) -> Decision:
        queue, policy = rendered.arn("FilesQueue"), managed(rendered, "FilesQueuePolicy")
        request = Request(Caller(service=service), "sqs:SendMessage", queue, context | more)
        return decide(request, policy, ACCOUNT)

    assert said(EVERYTHING, {}) is expected
    assert said(EVERYTHING, PLAINTEXT) is NEVER
    if service == "events.amazonaws.com":
        assert said(PLAIN, {}) is NO


@pytest.mark.parametrize(
    ("who", "action", "expected"),
    [
        ("files", "kms:GenerateDataKey", YES),
        ("files", "kms:Decrypt", YES),
        ("email", "kms:Decrypt", YES),
        ("email", "kms:GenerateDataKey", NO),
        ("copy", "kms:Decrypt", YES),
        ("scan", "kms:Decrypt", YES),
    ],
)
def test_keys_are_used_through_s3_alone(who: str, action: str, expected: Decision) -> None:
    caller, nothing = callers(EVERYTHING)[who], {"Statement": ()}
    through: dict[str, Value] = {"kms:ViaService": "s3.eu-central-1.amazonaws.com"}
    assert decide(Request(caller, action, KEY_ARN, through), nothing, ACCOUNT) is expected
    assert decide(Request(caller, action, KEY_ARN), nothing, ACCOUNT) is NO
    assert decide(Request(caller, action, f"{KEY_ARN}0", through), nothing, ACCOUNT) is NO


def test_where_no_category_has_a_key_nobody_decrypts() -> None:
    through: dict[str, Value] = {"kms:ViaService": "s3.eu-central-1.amazonaws.com"}
    for who in ("files", "email"):
        assert decide(Request(callers(PLAIN)[who], "kms:Decrypt", KEY_ARN, through), {"Statement": ()}, ACCOUNT) is NO


@pytest.mark.parametrize("action", ["PutObject", "DeleteObject", "DeleteObjectVersion", "GetObject", "PutObjectAcl"])
def test_mail_reads_versions_of_files_and_does_nothing_else_to_them(action: str) -> None:
    """By what its own policy allows, whatever the bucket's denies."""
    nothing: dict[str, Any] = {"Statement": []}
    for rendered in (EVERYTHING, PLAIN):
        assert ask(rendered, "email", "GetObjectVersion", {}, nothing) is YES
        assert ask(rendered, "email", action, {}, nothing) is NO


def test_a_policy_that_the_evaluator_does_not_know_is_no_pass() -> None:
    bucket = managed(PLAIN, "FilesBucketPolicy")
    bucket["Statement"].append({"Effect": "Allow", "NotPrincipal": "*", "Action": "*", "Resource": "*"})
    with pytest.raises(UnknownElement):
        ask(PLAIN, "files", "GetObjectVersion", {}, bucket)
