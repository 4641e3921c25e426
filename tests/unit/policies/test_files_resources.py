"""What the templates make for files, as CloudFormation would see it: what the emulator leaves out or does not know."""

from __future__ import annotations

import re
from typing import Any, get_args

import pytest

from contracts.files.values import FileCategory
from deploy.aws.templates import COPY, EMAIL, FILES, HANDED, LIMIT, PARTS, Part
from services.files.adapters.s3_objects import SCAN_TAG, VERIFIED_TAG
from services.files.domain.scans import SCAN_RESULTS
from services.files.settings import INLINE
from tests.unit.policies.template import ACCOUNT, Rendered, of_part, source

SMALL = {"avatar"}
"""Looked at every day, and too small to be worth a move."""

OPTIONAL = {
    "ScanMalware": ("true", {"FilesScanRole", "FilesScanPolicy", "FilesScanPlan", "FilesScanRule"}),
    "ReplicaBucketArn": ("arn:aws:s3:::copy", {"FilesReplicationRole", "FilesReplicationPolicy"}),
    "CloudFrontPublicKeyA": (
        "-----BEGIN PUBLIC KEY-----",
        {
            "FilesOriginAccess",
            "FilesPublicKey",
            "FilesKeyGroup",
            "FilesCache",
            "FilesAnswerHeaders",
            "FilesFunction",
            "FilesAnswerFunction",
            "FilesDistribution",
        },
    ),
    "WebhookUrl": (
        "https://mail.example.com/api/webhooks/ses",
        {
            "WebhookDeadLetterQueue",
            "WebhookDeadLetterQueuePolicy",
            "WebhookSubscription",
            "WebhookDeadLettersAlarm",
        },
    ),
    "ServiceRoleTrustedService": ("ecs-tasks.amazonaws.com", {"FilesRole", "ServiceRole"}),
}


def made(rendered: Rendered) -> set[str]:
    return {name for name in source()["Resources"] if rendered.has(name)}


@pytest.mark.parametrize("part", [COPY, *PARTS], ids=lambda part: part.file)
def test_it_can_be_deployed_without_a_bucket_for_templates_and_grow(part: Part) -> None:
    assert len(part.body.encode()) <= LIMIT * 0.85


def test_what_several_templates_declare_they_declare_alike() -> None:
    for section, but in (("Parameters", "Description"), ("Conditions", None)):
        seen: dict[str, Any] = {}
        for part in PARTS:
            for name, each in of_part(part)[section].items():
                told = {key: value for key, value in each.items() if key != but} if but else each
                assert seen.setdefault(name, told) == told, name
    outputs = [name for part in (COPY, *PARTS) for name in of_part(part)["Outputs"]]
    assert len(outputs) == len(set(outputs)), "the command prints them as one"
    resources = [name for part in (COPY, *PARTS) for name in of_part(part)["Resources"]]
    assert len(resources) == len(set(resources))


def test_what_one_stack_hands_to_the_next_is_there_and_fits() -> None:
    made = [name for part in (COPY, EMAIL) for name in of_part(part)["Outputs"]]
    for output, parameter in HANDED.items():
        assert (output in made, parameter in of_part(FILES)["Parameters"]) == (True, True)


def test_email_and_files_mean_the_same_bucket() -> None:
    for given in ({}, {"FilesBucketName": "our-crm-files"}, {"EnvironmentName": "production"}):
        rendered = Rendered(**given)
        statements = rendered.properties("ServicePolicy")["PolicyDocument"]["Statement"]
        reached = {each["Sid"]: each["Resource"] for each in statements}
        assert reached["ReadAttachments"] == f"{rendered.arn('FilesBucket')}/*"
        assert reached["FindContent"] == [rendered.arn("ContentBucket"), rendered.arn("FilesBucket")]


@pytest.mark.parametrize("parameter", OPTIONAL)
def test_what_is_optional_is_off_until_its_parameter_is_given(parameter: str) -> None:
    value, resources = OPTIONAL[parameter]
    assert made(Rendered(**{parameter: value})) - made(Rendered()) == resources


def test_every_optional_part_renders_and_so_do_all_together() -> None:
    for given in (*({name: value} for name, (value, _) in OPTIONAL.items()), {n: v for n, (v, _) in OPTIONAL.items()}):
        rendered = Rendered(**given)
        for name in made(rendered):
            if "Properties" in source()["Resources"][name]:
                rendered.properties(name)
        assert {"FilesBucketName", "FilesQueueUrl", "FilesDeadLetterQueueUrl"} <= set(rendered.outputs())


def test_the_distribution_is_told_by_its_own_domain_or_the_alias() -> None:
    key = "-----BEGIN PUBLIC KEY-----"
    certificate = "arn:aws:acm:us-east-1:111122223333:certificate/1"
    named = Rendered(CloudFrontPublicKeyA=key, CloudFrontAlias="cdn.example.com", CloudFrontCertificateArn=certificate)
    assert named.outputs()["FilesDistributionDomain"] == "cdn.example.com"
    assert named.properties("FilesDistribution")["DistributionConfig"]["Aliases"] == ["cdn.example.com"]
    plain = Rendered(CloudFrontPublicKeyA=key)
    assert plain.outputs()["FilesDistributionDomain"] == "made-FilesDistribution-DomainName"
    assert "Aliases" not in plain.properties("FilesDistribution")["DistributionConfig"]
    assert plain.outputs()["FilesKeyPairIdA"] == "made-FilesPublicKey"
    assert not {"FilesDistributionDomain", "FilesKeyPairIdA", "FilesKeyPairIdB"} & set(Rendered().outputs())


def test_a_key_is_rotated_by_way_of_two_that_are_valid_together() -> None:
    first = Rendered(CloudFrontPublicKeyA="first")
    both = Rendered(CloudFrontPublicKeyA="first", CloudFrontPublicKeyB="second")
    second = Rendered(CloudFrontPublicKeyB="second")
    assert first.properties("FilesPublicKey") == both.properties("FilesPublicKey"), "CloudFront changes no key"
    keys = [both.properties(name)["PublicKeyConfig"] for name in ("FilesPublicKey", "FilesPublicKeyB")]
    assert [each["EncodedKey"] for each in keys] == ["first", "second"]
    for unique in ("Name", "CallerReference"):
        assert keys[0][unique] != keys[1][unique]
    groups = [each.properties("FilesKeyGroup")["KeyGroupConfig"]["Items"] for each in (first, both, second)]
    assert groups == [
        ["made-FilesPublicKey"],
        ["made-FilesPublicKey", "made-FilesPublicKeyB"],
        ["made-FilesPublicKeyB"],
    ]
    ids = [{name for name in each.outputs() if "KeyPairId" in name} for each in (first, both, second)]
    assert ids == [{"FilesKeyPairIdA"}, {"FilesKeyPairIdA", "FilesKeyPairIdB"}, {"FilesKeyPairIdB"}]
    assert made(first) ^ made(second) == {"FilesPublicKey", "FilesPublicKeyB"}, "nothing else is touched"


DISTRIBUTED = Rendered(CloudFrontPublicKeyA="-----BEGIN PUBLIC KEY-----")


def test_links_are_signed_and_the_public_way_is_apart() -> None:
    config = DISTRIBUTED.properties("FilesDistribution")["DistributionConfig"]
    signed, (public,) = config["DefaultCacheBehavior"], config["CacheBehaviors"]
    assert signed["TrustedKeyGroups"] == ["made-FilesKeyGroup"]
    assert (public["PathPattern"], "TrustedKeyGroups" in public) == ("/public/*", False)
    referers = {each["Id"]: each["OriginCustomHeaders"] for each in config["Origins"]}
    assert referers == {way: [{"HeaderName": "Referer", "HeaderValue": way}] for way in ("signed", "public")}
    assert (signed["TargetOriginId"], public["TargetOriginId"]) == ("signed", "public")
    for each in (signed, public):
        assert each["ViewerProtocolPolicy"] == "https-only"
        assert each["AllowedMethods"] == ["GET", "HEAD"]
        assert each["CachePolicyId"] == "made-FilesCache"
        assert each["ResponseHeadersPolicyId"] == "made-FilesAnswerHeaders"
    associated = {
        each["TargetOriginId"]: {one["EventType"]: one["FunctionARN"] for one in each["FunctionAssociations"]}
        for each in (signed, public)
    }
    refusing = {"viewer-request": "made-FilesFunction-FunctionMetadata.FunctionARN"}
    attaching = {"viewer-response": "made-FilesAnswerFunction-FunctionMetadata.FunctionARN"}
    assert associated == {way: {**refusing, **attaching} for way in ("signed", "public")}


def test_s3_knows_the_distribution_by_its_signature_whatever_a_viewer_sends() -> None:
    access = DISTRIBUTED.properties("FilesOriginAccess")["OriginAccessControlConfig"]
    assert (access["OriginAccessControlOriginType"], access["SigningProtocol"]) == ("s3", "sigv4")
    assert access["SigningBehavior"] == "always", "else a viewer's Authorization header would go to S3 in its place"
    origins = DISTRIBUTED.properties("FilesDistribution")["DistributionConfig"]["Origins"]
    assert {each["OriginAccessControlId"] for each in origins} == {"made-FilesOriginAccess"}
    assert {each["DomainName"] for each in origins} == {"made-FilesBucket-RegionalDomainName"}
    assert {each["S3OriginConfig"]["OriginAccessIdentity"] for each in origins} == {""}


def test_browsers_guess_no_types_and_run_nothing_of_what_was_uploaded() -> None:
    policy = DISTRIBUTED.properties("FilesAnswerHeaders")["ResponseHeadersPolicyConfig"]
    headers = policy["SecurityHeadersConfig"]
    assert headers["ContentTypeOptions"] == {"Override": True}  # nosniff
    assert "ContentSecurityPolicy" not in headers, "it depends on what is shown: tests/integration/test_files_bucket.py"
    code = DISTRIBUTED.properties("FilesAnswerFunction")["FunctionCode"]
    (said,) = re.findall(r'var policy = "(.+)";', code)
    rules = {rule.split()[0]: rule.split()[1:] for rule in said.split("; ")}
    assert rules["default-src"] == ["'none'"]
    assert rules.keys() == {"default-src", "img-src", "media-src", "style-src"}, "scripts fall to default-src"


def test_pages_of_the_origins_that_may_upload_may_read_through_the_distribution() -> None:
    assert "CorsConfig" not in DISTRIBUTED.properties("FilesAnswerHeaders")["ResponseHeadersPolicyConfig"]
    given = {"CloudFrontPublicKeyA": "x", "FilesOrigins": "https://a.example,https://b.example"}
    cors = Rendered(**given).properties("FilesAnswerHeaders")["ResponseHeadersPolicyConfig"]["CorsConfig"]
    (of_bucket,) = bucket(**given)["CorsConfiguration"]["CorsRules"]
    assert cors["AccessControlAllowOrigins"]["Items"] == of_bucket["AllowedOrigins"]
    assert cors["AccessControlExposeHeaders"]["Items"] == of_bucket["ExposedHeaders"]
    assert cors["AccessControlAllowMethods"]["Items"] == ["GET", "HEAD"]
    assert (cors["AccessControlAllowCredentials"], cors["OriginOverride"]) == (False, True)


def test_the_template_and_the_service_let_browsers_show_the_same_types() -> None:
    assert tuple(source()["Parameters"]["InlineTypes"]["Default"].split(",")) == INLINE
    chosen = Rendered(CloudFrontPublicKeyA="x", InlineTypes="image/png,audio/mpeg")
    assert "'image/png,audio/mpeg'" in chosen.properties("FilesAnswerFunction")["FunctionCode"]


def test_what_was_deleted_leaves_the_cache_within_ten_minutes() -> None:
    policy = DISTRIBUTED.properties("FilesCache")["CachePolicyConfig"]
    assert policy["MinTTL"] == 0
    assert policy["DefaultTTL"] <= policy["MaxTTL"] <= 600
    errors = DISTRIBUTED.properties("FilesDistribution")["DistributionConfig"]["CustomErrorResponses"]
    assert errors == [{"ErrorCode": 403, "ErrorCachingMinTTL": 0}]


def test_the_cache_goes_by_version_way_and_what_the_link_asks_for() -> None:
    policy = DISTRIBUTED.properties("FilesCache")["CachePolicyConfig"]
    key = policy["ParametersInCacheKeyAndForwardedToOrigin"]
    assert key["QueryStringsConfig"] == {
        "QueryStringBehavior": "whitelist",
        "QueryStrings": ["versionId", "response-content-disposition", "response-content-type"],
    }
    assert key["HeadersConfig"] == {"HeaderBehavior": "whitelist", "Headers": ["x-mailroom-way"]}
    assert key["CookiesConfig"] == {"CookieBehavior": "none"}


def bucket(**parameters: str) -> dict[str, Any]:
    return Rendered(**parameters).properties("FilesBucket")


def test_every_category_ages_but_avatars() -> None:
    rules = {rule["Id"]: rule for rule in bucket()["LifecycleConfiguration"]["Rules"]}
    aging = {name: rule for name, rule in rules.items() if "Transitions" in rule}
    assert set(aging) == set(get_args(FileCategory)) - SMALL
    for name, rule in aging.items():
        assert (rule["Prefix"], rule["Status"]) == (f"{name}/", "Enabled")
        rare, cold = rule["Transitions"]
        assert (rare["StorageClass"], cold["StorageClass"]) == ("STANDARD_IA", "GLACIER_IR")
        assert 30 <= rare["TransitionInDays"] <= cold["TransitionInDays"] - 30
    rest = {name: rule for name, rule in rules.items() if name not in aging}
    assert set(rest) == {"recoverable", "abort-unfinished-uploads"}
    assert {rule["Prefix"] for rule in rest.values()} == {""}
    assert {rule["Status"] for rule in rest.values()} == {"Enabled"}
    assert rest["recoverable"]["NoncurrentVersionExpiration"] == {"NoncurrentDays": "90"}
    assert rest["recoverable"]["ExpiredObjectDeleteMarker"] is True, "else a marker alone stays for ever"
    assert rest["abort-unfinished-uploads"]["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 7}


def test_no_current_version_ever_expires() -> None:
    assert not any("ExpirationInDays" in rule for rule in bucket()["LifecycleConfiguration"]["Rules"])


def test_origins_are_declared_or_no_page_uploads() -> None:
    assert "CorsConfiguration" not in bucket()
    (rule,) = bucket(FilesOrigins="https://a.example,https://b.example")["CorsConfiguration"]["CorsRules"]
    assert rule["AllowedOrigins"] == ["https://a.example", "https://b.example"]
    assert rule["AllowedMethods"] == ["GET", "HEAD", "POST", "PUT"]
    assert rule["ExposedHeaders"] == ["ETag", "x-amz-version-id"]


def test_contracts_and_invoices_are_copied_where_asked() -> None:
    assert "ReplicationConfiguration" not in bucket()
    rules = bucket(ReplicaBucketArn="arn:aws:s3:::copy")["ReplicationConfiguration"]["Rules"]
    assert [rule["Filter"]["Prefix"] for rule in rules] == ["contract/", "invoice/"]
    assert {rule["Destination"]["Bucket"] for rule in rules} == {"arn:aws:s3:::copy"}
    assert len({rule["Priority"] for rule in rules}) == 2
    assert not any("SourceSelectionCriteria" in rule for rule in rules)
    keys = {"FilesKmsKeyArns": "arn:aws:kms:x", "ReplicaKmsKeyArn": "arn:aws:kms:y"}
    rules = bucket(ReplicaBucketArn="arn:aws:s3:::copy", **keys)["ReplicationConfiguration"]["Rules"]
    assert {rule["Destination"]["EncryptionConfiguration"]["ReplicaKmsKeyID"] for rule in rules} == {"arn:aws:kms:y"}


def test_the_copy_lets_go_of_what_was_never_verified_or_is_infected_and_of_nothing_else() -> None:
    """S3 copies all that is stored, with the tag of its upload: a rule with a tag asks for it then and never later, and
    lets no delete marker through.
    """
    rules = bucket(ReplicaBucketArn="arn:aws:s3:::copy")["ReplicationConfiguration"]["Rules"]
    assert [set(rule["Filter"]) for rule in rules] == [{"Prefix"}] * 2
    assert {rule["DeleteMarkerReplication"]["Status"] for rule in rules} == {"Enabled"}
    there = Rendered().properties("CopyBucket")
    assert there["VersioningConfiguration"] == {"Status": "Enabled"}
    ending = {rule["Id"]: rule for rule in there["LifecycleConfiguration"]["Rules"]}
    assert all(rule["Status"] == "Enabled" for rule in ending.values())
    markers = ending.pop("markers-alone")
    assert markers.keys() == {"Id", "Status", "Prefix", "ExpiredObjectDeleteMarker"}
    assert {name: rule["TagFilters"] for name, rule in ending.items()} == {
        "never-verified": [{"Key": VERIFIED_TAG, "Value": "false"}],
        "infected": [
            {"Key": SCAN_TAG, "Value": next(word for word, said in SCAN_RESULTS.items() if said == "infected")}
        ],
    }
    for rule in ending.values():
        assert {"ExpirationInDays", "NoncurrentVersionExpiration"} <= rule.keys(), "hidden, and then gone"
    assert int(ending["never-verified"]["ExpirationInDays"]) > 14, "as long as notifications wait for the files service"


def test_uploads_are_tagged_where_there_is_a_copy() -> None:
    assert "FilesTagUploads" not in Rendered().outputs()
    assert Rendered(ReplicaBucketArn="arn:aws:s3:::copy").outputs()["FilesTagUploads"] == "true"


def test_scan_results_come_to_the_queue_that_s3_notifies() -> None:
    rendered = Rendered(ScanMalware="true")
    rule = rendered.properties("FilesScanRule")
    assert [each["Arn"] for each in rule["Targets"]] == [rendered.arn("FilesQueue")]
    assert rule["EventPattern"] == {
        "source": ["aws.guardduty"],
        "detail-type": ["GuardDuty Malware Protection Object Scan Result"],
        "detail": {"s3ObjectDetails": {"bucketName": [f"mailroom-local-files-{ACCOUNT}"]}},
    }
    assert rule["Name"] == "mailroom-local-file-scans", "the queue's policy writes this name out"
    notified = rendered.properties("FilesBucket")["NotificationConfiguration"]
    assert notified["EventBridgeConfiguration"] == {"EventBridgeEnabled": True}
    assert rendered.properties("FilesScanPlan")["Actions"] == {"Tagging": {"Status": "ENABLED"}}


def test_the_queue_lets_the_bucket_send_under_whatever_name() -> None:
    for given in ({}, {"FilesBucketName": "our-crm-files"}, {"EnvironmentName": "production"}):
        rendered = Rendered(**given)
        allowed = rendered.properties("FilesQueuePolicy")["PolicyDocument"]["Statement"][0]
        assert allowed["Condition"]["ArnEquals"]["aws:SourceArn"] == rendered.arn("FilesBucket")
