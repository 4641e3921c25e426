"""The bucket for files as the emulator has it: private, versioned, heard by its queue, and open to pages for uploads.

What the emulator does not enforce (tags in conditions, TLS, the parts behind conditions) is asked of the template in
`tests/unit/policies`.
"""

import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import boto3
import httpx
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from playwright.sync_api import Browser, Page, sync_playwright

from deploy.aws.stacks import Stacks
from deploy.aws.templates import PARTS
from deploy.local.endpoints import AwsEndpoints
from deploy.local.stack import Stack
from services.files.settings import INLINE
from tests.unit.policies.template import Rendered

pytestmark = pytest.mark.usefixtures("no_services")

FORTNIGHT = str(14 * 24 * 3600)
CHROMIUM = shutil.which("chromium")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here (Debian: apt-get install chromium)")


def client(aws: AwsEndpoints, name: str, **credentials: str) -> Any:
    return boto3.client(
        name,
        endpoint_url=aws.endpoint_url,
        region_name=aws.region,
        config=Config(signature_version="s3v4", retries={"total_max_attempts": 1}) if name == "s3" else None,
        **{
            "aws_access_key_id": aws.access_key_id,
            "aws_secret_access_key": aws.secret_access_key,
            **credentials,
        },
    )


@pytest.fixture
def s3(aws: AwsEndpoints) -> Any:
    return client(aws, "s3")


@pytest.fixture
def heard(aws: AwsEndpoints) -> Any:
    """Takes from the queue until a record about a key has come that has this event name; returns the record."""
    sqs = client(aws, "sqs")
    sqs.purge_queue(QueueUrl=aws.files_queue_url)

    def take(name: str, key: str) -> dict[str, Any]:
        for _ in range(20):
            answer = sqs.receive_message(QueueUrl=aws.files_queue_url, MaxNumberOfMessages=10, WaitTimeSeconds=1)
            for message in answer.get("Messages", ()):
                sqs.delete_message(QueueUrl=aws.files_queue_url, ReceiptHandle=message["ReceiptHandle"])
                for record in json.loads(message["Body"]).get("Records", ()):
                    if (record["eventName"], record["s3"]["object"]["key"]) == (name, key):
                        found: dict[str, Any] = record["s3"]["object"]
                        return found
        raise AssertionError(f"no {name} of {key}")

    return take


def form(s3: Any, aws: AwsEndpoints, key: str) -> tuple[str, dict[str, str]]:
    fields = {"Content-Type": "text/plain", "success_action_status": "204"}
    conditions = [{name: value} for name, value in fields.items()] + [["content-length-range", 1, 100]]
    made = s3.generate_presigned_post(aws.files_bucket, key, Fields=fields, Conditions=conditions, ExpiresIn=60)
    return made["url"], made["fields"]


def test_it_is_versioned_private_and_encrypted(aws: AwsEndpoints, s3: Any) -> None:
    assert s3.get_bucket_versioning(Bucket=aws.files_bucket)["Status"] == "Enabled"
    assert all(s3.get_public_access_block(Bucket=aws.files_bucket)["PublicAccessBlockConfiguration"].values())
    (rule,) = s3.get_bucket_encryption(Bucket=aws.files_bucket)["ServerSideEncryptionConfiguration"]["Rules"]
    assert rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
    version = s3.put_object(Bucket=aws.files_bucket, Key="general/private", Body=b"x")["VersionId"]
    address = f"{aws.endpoint_url}/{aws.files_bucket}/general/private"
    assert httpx.get(address).status_code == 403
    assert httpx.get(address, params={"versionId": version}).status_code == 403


def test_nothing_of_the_queue_is_lost_for_two_weeks(aws: AwsEndpoints) -> None:
    sqs = client(aws, "sqs")
    queue, dead = (
        sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
        for url in (aws.files_queue_url, aws.files_dead_letter_queue_url)
    )
    assert json.loads(queue["RedrivePolicy"]) == {"deadLetterTargetArn": dead["QueueArn"], "maxReceiveCount": 100}
    assert (queue["MessageRetentionPeriod"], dead["MessageRetentionPeriod"]) == (FORTNIGHT, FORTNIGHT)
    assert json.loads(dead["RedriveAllowPolicy"])["sourceQueueArns"] == [queue["QueueArn"]]


def test_it_notifies_of_all_that_s3_tells(aws: AwsEndpoints, s3: Any) -> None:
    found = s3.get_bucket_notification_configuration(Bucket=aws.files_bucket)["QueueConfigurations"]
    assert {event for each in found for event in each["Events"]} == {
        "s3:ObjectCreated:*",
        "s3:ObjectRemoved:*",
        "s3:LifecycleExpiration:*",
        "s3:LifecycleTransition",
        "s3:ObjectTagging:*",
        "s3:ObjectRestore:*",
    }
    assert {each["QueueArn"].rpartition(":")[2] for each in found} == {aws.files_queue_url.rpartition("/")[2]}


def test_uploads_and_deletions_come_to_the_queue(aws: AwsEndpoints, s3: Any, heard: Any) -> None:
    url, fields = form(s3, aws, "general/heard")
    answer = httpx.post(url, data=fields, files={"file": b"hello"})
    assert answer.status_code == 204
    created = heard("ObjectCreated:Post", "general/heard")
    assert (created["versionId"], created["size"]) == (answer.headers["x-amz-version-id"], 5)
    marker = s3.delete_object(Bucket=aws.files_bucket, Key="general/heard")["VersionId"]
    assert heard("ObjectRemoved:DeleteMarkerCreated", "general/heard")["versionId"] == marker
    s3.delete_object(Bucket=aws.files_bucket, Key="general/heard", VersionId=marker)
    assert heard("ObjectRemoved:Delete", "general/heard")["versionId"] == marker


def test_another_bucket_is_not_heard(aws: AwsEndpoints, s3: Any) -> None:
    s3.create_bucket(Bucket="stranger")
    queue = f"arn:aws:sqs:{aws.region}:{aws.account}:{aws.files_queue_url.rpartition('/')[2]}"
    configuration = {"QueueConfigurations": [{"QueueArn": queue, "Events": ["s3:ObjectCreated:*"]}]}
    with pytest.raises(ClientError, match="InvalidArgument"):
        s3.put_bucket_notification_configuration(Bucket="stranger", NotificationConfiguration=configuration)
    s3.delete_bucket(Bucket="stranger")


# The emulator lets its root user do all, so that the local services work; anybody else is held to the policies.


@pytest.fixture(scope="module")
def users(aws: AwsEndpoints) -> Iterator[tuple[str, dict[str, Any]]]:
    """A bucket of a deployment of its own, and S3 as: a user for each service, that policy on another user, an admin.

    Users, because the emulator calls the session of a role by another ARN than AWS does.
    """
    cloud, iam = client(aws, "cloudformation"), client(aws, "iam")
    parameters = {"EnvironmentName": "asked", "CreateIdentity": "false", "RequireTls": "false"} | {
        f"{name}RoleArn": f"arn:aws:iam::{aws.account}:user/mailroom-{name.lower()}" for name in ("Files", "Email")
    }
    stacks = Stacks(cloud, "asked", seconds=60, poll=0.1)
    outputs = stacks.deploy(parameters)
    files, email = outputs["FilesPolicyArn"], outputs["ServicePolicyArn"]
    everything = "arn:aws:iam::aws:policy/AdministratorAccess"
    wanted = {"mailroom-files": files, "mailroom-email": email, "stray": files, "admin": everything}
    found: dict[str, Any] = {}
    for name, policy in wanted.items():
        iam.create_user(UserName=name)
        iam.attach_user_policy(UserName=name, PolicyArn=policy)
        key = iam.create_access_key(UserName=name)["AccessKey"]
        credentials = {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}
        found[name] = client(aws, "s3", **credentials)
    yield outputs["FilesBucketName"], found
    for name, policy in wanted.items():
        for key in iam.list_access_keys(UserName=name)["AccessKeyMetadata"]:
            iam.delete_access_key(UserName=name, AccessKeyId=key["AccessKeyId"])
        iam.detach_user_policy(UserName=name, PolicyArn=policy)
        iam.delete_user(UserName=name)
    for part in reversed(PARTS):
        stacks.delete(part)


@pytest.mark.parametrize(
    ("user", "call", "allowed"),
    [
        ("mailroom-files", "get version", True),
        ("mailroom-files", "get", False),
        ("mailroom-files", "put", True),
        ("mailroom-files", "tag version", True),
        ("mailroom-files", "tag", False),
        ("mailroom-files", "list versions", True),
        ("mailroom-files", "suspend", False),
        ("mailroom-email", "get version", True),
        ("mailroom-email", "get", False),
        ("mailroom-email", "put", False),
        ("mailroom-email", "tag version", False),
        ("mailroom-email", "list versions", False),
        ("stray", "get version", False),
        ("admin", "get version", False),
        ("admin", "get", False),
        ("admin", "list versions", True),
    ],
)
def test_who_may_do_what(s3: Any, users: tuple[str, dict[str, Any]], user: str, call: str, allowed: bool) -> None:
    bucket, calling = users
    it = {"Bucket": bucket, "Key": "general/asked"}
    version = s3.put_object(**it, Body=b"x")["VersionId"]
    tags = {"TagSet": [{"Key": "colour", "Value": "red"}]}
    mine = calling[user]
    calls = {
        "get": lambda: mine.get_object(**it),
        "get version": lambda: mine.get_object(**it, VersionId=version),
        "put": lambda: mine.put_object(**it, Body=b"y"),
        "tag": lambda: mine.put_object_tagging(**it, Tagging=tags),
        "tag version": lambda: mine.put_object_tagging(**it, VersionId=version, Tagging=tags),
        "list versions": lambda: mine.list_object_versions(Bucket=bucket),
        "suspend": lambda: mine.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"}),
    }
    if allowed:
        calls[call]()
    else:
        with pytest.raises(ClientError) as refused:
            calls[call]()
        assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


# Pages. The origin of the gateway is declared to the bucket; the gateway itself is not needed for it.


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield chromium
        chromium.close()


@contextmanager
def page_of(browser: Browser, port: int) -> Iterator[Page]:
    """An empty page of http://127.0.0.1:<port>. Really served: Chromium keeps other pages from loopback addresses."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html>")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
            return

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = browser.new_context().new_page()
        page.goto(f"http://127.0.0.1:{port}/")
        try:
            yield page
        finally:
            page.context.close()
            server.shutdown()


POST = """async ([url, fields]) => {
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) form.append(name, value);
  form.append('file', new Blob(['hello']), 'it.txt');
  try {
    const answer = await fetch(url, { method: 'POST', body: form });
    return [answer.status, answer.headers.get('etag'), answer.headers.get('x-amz-version-id')];
  } catch (error) { return [error.name, null, null]; }
}"""

PUT = """async ([url]) => {
  try {
    const answer = await fetch(url, { method: 'PUT', body: 'hello' });
    return [answer.status, answer.headers.get('etag')];
  } catch (error) { return [error.name, null]; }
}"""


def a_part(s3: Any, aws: AwsEndpoints, key: str) -> dict[str, Any]:
    upload = s3.create_multipart_upload(Bucket=aws.files_bucket, Key=key)["UploadId"]
    return {"Bucket": aws.files_bucket, "Key": key, "UploadId": upload, "PartNumber": 1}


@needs_chromium
@pytest.mark.browser
def test_a_page_of_a_declared_origin_posts_and_puts_and_reads_the_etag(
    test_stack: Stack, aws: AwsEndpoints, s3: Any, browser: Browser
) -> None:
    with page_of(browser, test_stack.site.ports["gateway"]) as page:
        status, etag, version = page.evaluate(POST, form(s3, aws, "general/page"))
        assert (status, etag) == (204, '"5d41402abc4b2a76b9719d911017c592"')
        assert s3.head_object(Bucket=aws.files_bucket, Key="general/page", VersionId=version)["ContentLength"] == 5
        part = a_part(s3, aws, "general/parts")
        signed = s3.generate_presigned_url("upload_part", Params={**part, "ContentLength": 5})
        assert page.evaluate(PUT, [signed]) == [200, '"5d41402abc4b2a76b9719d911017c592"']
        longer = s3.generate_presigned_url("upload_part", Params={**part, "ContentLength": 4})
        assert page.evaluate(PUT, [longer]) == [403, None]


@needs_chromium
@pytest.mark.browser
def test_a_page_of_another_origin_learns_nothing_and_puts_nothing(
    test_stack: Stack, aws: AwsEndpoints, s3: Any, browser: Browser
) -> None:
    with page_of(browser, test_stack.site.ports["events"]) as page:
        assert page.evaluate(POST, form(s3, aws, "general/elsewhere")) == ["TypeError", None, None]
        part = a_part(s3, aws, "general/elsewhere-parts")
        assert page.evaluate(PUT, [s3.generate_presigned_url("upload_part", Params=part)]) == ["TypeError", None]
    del part["PartNumber"]
    assert s3.list_parts(**part).get("Parts", []) == []


@needs_chromium
@pytest.mark.browser
def test_only_what_is_on_the_list_is_shown_by_the_browser_and_runs_nothing(browser: Browser) -> None:
    code = Rendered(CloudFrontPublicKeyA="x").properties("FilesAnswerFunction")["FunctionCode"]
    page = browser.new_context().new_page()

    def run(content_type: str | None, status: int = 200, **headers: str) -> dict[str, Any]:
        """The headers that it has set or changed."""
        headers |= {} if content_type is None else {"content-type": content_type}
        answer = {"statusCode": status, "headers": {name: {"value": value} for name, value in headers.items()}}
        told = {"request": {"method": "GET", "uri": "/general/k"}, "response": answer}
        found: dict[str, Any] = page.evaluate(f"(event) => {{ {code}; return handler(event); }}", told)
        assert found["statusCode"] == status
        return {name: each["value"] for name, each in found["headers"].items() if each["value"] != headers.get(name)}

    policy = "default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'"
    for shown in INLINE:
        sandbox = "" if shown == "application/pdf" else "; sandbox"  # Safari leaves a PDF blank under it
        for status in (200, 206):
            assert run(shown, status, etag='"e"') == {"content-security-policy": policy + sandbox}
            named = {"content-disposition": "inline; filename=\"a\"; filename*=UTF-8''a"}
            assert run(shown, status, **named) == {"content-security-policy": policy + sandbox}
        attached = {"content-disposition": "attachment; filename=\"a\"; filename*=UTF-8''a"}
        assert run(shown, 200, **attached) == {"content-security-policy": f"{policy}; sandbox"}
    for other in ("image/svg+xml", "text/html", "text/plain; charset=utf-8", "image/png,application/pdf", "png", ""):
        attachment = {"content-disposition": "attachment", "content-security-policy": f"{policy}; sandbox"}
        assert run(other) == attachment
        assert run(other, 206, **{"content-disposition": "inline"}) == attachment
        named = {"content-disposition": 'inline; filename="a"'}
        assert run(other, 200, **named) == attachment | {"content-disposition": 'attachment; filename="a"'}
        assert "content-disposition" not in run(other, 200, **{"content-disposition": 'attachment; filename="a"'})
    assert run(None)["content-disposition"] == "attachment"
    for kept in (None, "application/pdf", "text/html"):
        assert run(kept, 304) == {}, "the browser keeps what it was told with the bytes"


@needs_chromium
@pytest.mark.browser
def test_the_distribution_refuses_what_names_no_version_and_keeps_its_ways_apart(browser: Browser) -> None:
    code = Rendered(CloudFrontPublicKeyA="x").properties("FilesFunction")["FunctionCode"]
    page = browser.new_context().new_page()

    def run(uri: str, query: dict[str, Any], headers: dict[str, Any]) -> dict[str, Any]:
        request = {"method": "GET", "uri": uri, "querystring": query, "headers": headers, "cookies": {}}
        found: dict[str, Any] = page.evaluate(f"(request) => {{ {code}; return handler({{request}}); }}", request)
        return found

    version, disposition = {"value": "3sL4kqtJ"}, {"value": "attachment"}
    several = {"value": "a", "multiValue": [{"value": "a"}, {"value": "b"}]}
    forged = {"x-mailroom-way": {"value": "public"}}
    for uri in ("/general/k", "/public/general/k"):
        for query in ({}, {"versionId": {"value": ""}}, {"versionId": {"value": "null"}}, {"versionId": several}):
            assert run(uri, query, {})["statusCode"] == 400
    signed = run("/general/k", {"versionId": version, "response-content-disposition": disposition}, forged)
    assert (signed["uri"], signed["headers"]) == ("/general/k", {})
    assert signed["querystring"] == {"versionId": version, "response-content-disposition": disposition}
    public = run("/public/general/k", {"versionId": version, "response-content-type": {"value": "text/html"}}, {})
    assert (public["uri"], public["headers"]) == ("/general/k", forged)
    assert public["querystring"] == {"versionId": version}
