"""The parts of the templates behind conditions, deployed to the emulator with every one of them switched on.

What the emulator cannot do is left out here, and read from the template in `tests/unit/policies`:

- GuardDuty's plan, CloudFront's public keys and key groups are unknown to its CloudFormation, and it asks nobody for a
  signature;
- it takes no replication of a bucket from a template, so that is set on the bucket by itself, as the template has it;
- its distribution asks S3 for the newest version whatever the link says (which the bucket's policy refuses). So what
  comes to an origin, and what a viewer gets, is seen at an origin of this test's own.
"""

from __future__ import annotations

import copy
import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from botocore.exceptions import ClientError

from deploy.aws.stacks import Stacks, outputs_of
from deploy.aws.templates import EMAIL, FILES, PARTS, load
from deploy.local.endpoints import AwsEndpoints
from deploy.processes import ACCOUNT
from services.files.settings import INLINE
from tests.integration.test_files_bucket import client
from tests.unit.policies.template import Rendered, of_part

pytestmark = pytest.mark.usefixtures("no_services")

NAME, COPY = "optional", "optional-copy"
UNKNOWN = ("FilesScanPlan", "FilesPublicKey", "FilesKeyGroup")
ORIGIN = "https://crm.example"
SWITCHES = {
    "EnvironmentName": NAME,
    "CreateIdentity": "false",
    "RequireTls": "false",
    "ServiceRoleTrustedService": "ecs-tasks.amazonaws.com",
    "ScanMalware": "true",
    "ReplicaBucketArn": f"arn:aws:s3:::{COPY}",
    "CloudFrontPublicKeyA": "-----BEGIN PUBLIC KEY-----",
    "FilesOrigins": ORIGIN,
    "WebhookUrl": f"{ORIGIN}/api/webhooks/ses",
}
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="the emulator runs functions with node")


def known_to_the_emulator() -> str:
    """The template of files without `UNKNOWN`, and without what refers to them."""
    template = load(FILES.body)
    for name in (*UNKNOWN, "FilesPublicKeyB"):
        del template["Resources"][name]
    for output in ("FilesKeyPairIdA", "FilesKeyPairIdB"):
        del template["Outputs"][output]
    distribution = template["Resources"]["FilesDistribution"]["Properties"]["DistributionConfig"]
    del distribution["DefaultCacheBehavior"]["TrustedKeyGroups"]
    return json.dumps(template)


@pytest.fixture(scope="module", name="aws")
def usual_account(aws: AwsEndpoints) -> AwsEndpoints:
    """The emulator looks for a distribution in its usual account alone."""
    return replace(aws, access_key_id="test", secret_access_key="test")


@pytest.fixture(scope="module")
def deployed(aws: AwsEndpoints) -> Iterator[dict[str, str]]:
    """Logical → physical name of what was made."""
    cloud, s3 = client(aws, "cloudformation"), client(aws, "s3")
    s3.create_bucket(Bucket=COPY)
    s3.put_bucket_versioning(Bucket=COPY, VersioningConfiguration={"Status": "Enabled"})
    stacks = Stacks(cloud, NAME, seconds=60, poll=0.1)
    made = outputs_of(stacks.settle(EMAIL, EMAIL.body, stacks.parameters(EMAIL, SWITCHES, {})))
    stacks.settle(FILES, known_to_the_emulator(), stacks.parameters(FILES, SWITCHES, made))
    yield stacks.resources(EMAIL) | stacks.resources(FILES)
    stacks.delete(FILES)
    stacks.delete(EMAIL)


def test_everything_that_is_switched_on_is_made(deployed: dict[str, str]) -> None:
    rendered = Rendered(**SWITCHES)
    wanted = {name for part in PARTS for name in of_part(part)["Resources"] if rendered.has(name)}
    assert wanted - set(deployed) == set(UNKNOWN)


def test_the_bucket_names_the_roles_and_the_distribution_that_were_made(
    aws: AwsEndpoints, deployed: dict[str, str]
) -> None:
    policy = json.loads(client(aws, "s3").get_bucket_policy(Bucket=deployed["FilesBucket"])["Policy"])
    statements = {each["Sid"]: each for each in policy["Statement"]}
    roles = ("FilesRole", "ServiceRole", "FilesScanRole", "FilesReplicationRole")
    assert statements["ReadOnlyByOurs"]["Condition"]["ArnNotLike"]["aws:PrincipalArn"] == [
        client(aws, "iam").get_role(RoleName=deployed[role])["Role"]["Arn"] for role in roles
    ]
    distribution = f"arn:aws:cloudfront::{ACCOUNT}:distribution/{deployed['FilesDistribution']}"
    for way in ("SignedLinks", "PublicFiles"):
        assert statements[way]["Condition"]["StringEquals"]["AWS:SourceArn"] == distribution


def test_each_role_has_its_policy(aws: AwsEndpoints, deployed: dict[str, str]) -> None:
    iam = client(aws, "iam")
    for role, name, sids in (
        ("FilesScanRole", "scan", {"ManageItsRule", "SeeItsRule", "TagWithTheResult", "TryToWrite", "Scan"}),
        ("FilesReplicationRole", "replicate", {"FindWhatIsNew", "ReadVersions", "WriteTheCopy"}),
    ):
        document = iam.get_role_policy(RoleName=deployed[role], PolicyName=name)["PolicyDocument"]
        assert sids <= {each["Sid"] for each in document["Statement"]}


def test_a_scan_s_result_comes_to_the_files_queue_and_no_other_buckets(
    aws: AwsEndpoints, deployed: dict[str, str]
) -> None:
    events, sqs, queue = client(aws, "events"), client(aws, "sqs"), deployed["FilesQueue"]
    rule = events.describe_rule(Name=f"mailroom-{NAME}-file-scans")
    (target,) = events.list_targets_by_rule(Rule=rule["Name"])["Targets"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    assert target["Arn"] == arn
    pattern = rule["EventPattern"]

    def matches(source: str, bucket: str) -> bool:
        event = {
            "id": "1",
            "detail-type": "GuardDuty Malware Protection Object Scan Result",
            "source": source,
            "account": ACCOUNT,
            "time": "2026-11-29T10:00:14Z",
            "region": aws.region,
            "resources": [],
            "detail": {"s3ObjectDetails": {"bucketName": bucket, "objectKey": "k"}},
        }
        return bool(events.test_event_pattern(EventPattern=pattern, Event=json.dumps(event))["Result"])

    assert matches("aws.guardduty", deployed["FilesBucket"])
    assert not matches("aws.guardduty", "another")
    assert not matches("somebody", deployed["FilesBucket"])


# --- the copy ---


def test_contracts_and_invoices_are_copied_with_their_markers_and_nothing_is_deleted_there(
    aws: AwsEndpoints, deployed: dict[str, str]
) -> None:
    s3, bucket = client(aws, "s3"), deployed["FilesBucket"]
    wanted = Rendered(**SWITCHES).properties("FilesBucket")["ReplicationConfiguration"]
    wanted["Role"] = client(aws, "iam").get_role(RoleName=deployed["FilesReplicationRole"])["Role"]["Arn"]
    for rule in wanted["Rules"]:
        rule["ID"] = rule.pop("Id")
    s3.put_bucket_replication(Bucket=bucket, ReplicationConfiguration=wanted)

    def copies(key: str) -> list[str]:
        found = s3.list_object_versions(Bucket=COPY, Prefix=key)
        markers = ["marker" for _ in found.get("DeleteMarkers", ())]
        return [str(each["StorageClass"]) for each in found.get("Versions", ())] + markers

    versions = {
        key: s3.put_object(Bucket=bucket, Key=key, Body=b"x")["VersionId"]
        for key in ("contract/a", "invoice/a", "general/a", "contracts")
    }
    assert {key: copies(key) for key in versions} == {
        "contract/a": ["STANDARD_IA"],
        "invoice/a": ["STANDARD_IA"],
        "general/a": [],
        "contracts": [],
    }
    s3.delete_object(Bucket=bucket, Key="contract/a")
    assert copies("contract/a") == ["STANDARD_IA", "marker"]
    s3.delete_object(Bucket=bucket, Key="invoice/a", VersionId=versions["invoice/a"])
    with pytest.raises(ClientError):
        s3.head_object(Bucket=bucket, Key="invoice/a")
    assert copies("invoice/a") == ["STANDARD_IA"]


# --- the distribution ---


@dataclass
class Origin:
    """Stands where S3 stands: answers with the type that the last part of the key names, and keeps what came."""

    port: int
    came: list[tuple[str, dict[str, list[str]], dict[str, str]]] = field(default_factory=list)


@pytest.fixture
def origin() -> Iterator[Origin]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            address = urlsplit(self.path)
            headers = {name.lower(): value for name, value in self.headers.items()}
            found.came.append((address.path, parse_qs(address.query), headers))
            self.send_response(200)
            self.send_header("Content-Type", "/".join(address.path.split("/")[-2:]))
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"hi")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found = Origin(server.server_address[1])
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield found
        server.shutdown()


@pytest.fixture
def viewer(aws: AwsEndpoints, deployed: dict[str, str], origin: Origin) -> Iterator[httpx.Client]:
    """Somebody at the distribution, with that origin in S3's place; all else is as it was deployed."""
    cloudfront, it = client(aws, "cloudfront"), {"Id": deployed["FilesDistribution"]}
    there = cloudfront.get_distribution_config(**it)
    config = copy.deepcopy(there["DistributionConfig"])
    for each in config["Origins"]["Items"]:
        assert each["DomainName"].startswith(f"{deployed['FilesBucket']}.s3.")
        assert each["OriginAccessControlId"] == deployed["FilesOriginAccess"]
        del each["S3OriginConfig"]
        each |= {
            "DomainName": "127.0.0.1",
            "OriginAccessControlId": "",
            "CustomOriginConfig": {
                "HTTPPort": origin.port,
                "HTTPSPort": 443,
                "OriginProtocolPolicy": "http-only",
            },
        }
    answer = cloudfront.update_distribution(**it, IfMatch=there["ETag"], DistributionConfig=config)
    host = answer["Distribution"]["DomainName"]
    headers = {"Host": host, "X-Forwarded-Proto": "https"}
    with httpx.Client(base_url=aws.endpoint_url, headers=headers, trust_env=False, timeout=60) as viewer:
        yield viewer
    cloudfront.update_distribution(**it, IfMatch=answer["ETag"], DistributionConfig=there["DistributionConfig"])


@needs_node
def test_both_ways_reach_the_origin_as_themselves_and_with_what_the_link_may_ask(
    viewer: httpx.Client, origin: Origin
) -> None:
    asked = {"versionId": "v1", "response-content-disposition": 'attachment; filename="a b.pdf"', "colour": "red"}
    forged = {"Referer": "public", "X-Mailroom-Way": "public"}
    assert viewer.get("/general/application/pdf", params=asked, headers=forged).content == b"hi"
    assert viewer.get("/public/general/image/png", params=asked, headers={"Referer": "signed"}).status_code == 200
    (signed, public) = origin.came
    asked.pop("colour")
    assert signed[:2] == ("/general/application/pdf", {name: [value] for name, value in asked.items()})
    assert (signed[2]["referer"], "x-mailroom-way" in signed[2]) == ("signed", False)
    assert public[:2] == ("/general/image/png", {"versionId": ["v1"]})
    assert (public[2]["referer"], public[2]["x-mailroom-way"]) == ("public", "public")


@needs_node
def test_what_names_no_version_reaches_no_origin(viewer: httpx.Client, origin: Origin) -> None:
    for path in ("/general/image/png", "/public/general/image/png"):
        for query in ("", "?versionId=", "?versionId=null", "?versionId=a&versionId=b"):
            assert viewer.get(path + query).status_code == 400
    assert viewer.get("/public/general/image/png?versionId=v", headers={"X-Forwarded-Proto": "http"}).status_code == 403
    assert viewer.put("/public/general/image/png?versionId=v").status_code in (403, 405)
    assert origin.came == []


@needs_node
@pytest.mark.parametrize("way", ["", "/public"])
def test_every_answer_forbids_guessing_and_running(viewer: httpx.Client, way: str) -> None:
    for shown in (*INLINE, "image/svg+xml"):
        answer = viewer.get(f"{way}/general/{shown}?versionId=v")
        assert (answer.status_code, answer.headers["content-type"]) == (200, shown)
        assert answer.headers["x-content-type-options"] == "nosniff"
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; ")
        assert ("sandbox" in policy) == (shown != "application/pdf"), "a PDF that is shown"
        assert answer.headers.get("content-disposition") == (None if shown in INLINE else "attachment")


@needs_node
@pytest.mark.parametrize("way", ["", "/public"])
def test_pages_of_the_declared_origins_alone_read_it(viewer: httpx.Client, way: str) -> None:
    address = f"{way}/general/image/png?versionId=v"
    answer = viewer.get(address, headers={"Origin": ORIGIN})
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert "access-control-allow-credentials" not in answer.headers
    for headers in ({}, {"Origin": "https://elsewhere.example"}):
        assert "access-control-allow-origin" not in viewer.get(address, headers=headers).headers
