"""The gateway sends each path and method to the service that answers it, and speaks for one that is away."""

import json
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from deploy.local.site import throwaway_site
from deploy.local.stack import Stack


def upstream(name: str, port: int, answering: threading.Event | None = None) -> ThreadingHTTPServer:
    """A server that answers everything with its name, once it is `answering`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", "0")))
            if answering is not None:
                answering.wait()
            body = name.encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Service", name)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_POST = do_DELETE = do_PATCH = do_HEAD = answer  # noqa: N815 - names that the base class calls

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
            return

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(throwaway_site(tmp_path_factory.mktemp("gateway"), os.environ))
    stack.start(["gateway"])
    yield stack
    stack.stop()


@pytest.fixture(scope="module")
def origin(gateway: Stack) -> Iterator[str]:
    servers = [upstream(name, gateway.site.ports[name]) for name in ("email", "events", "files")]
    yield gateway.site.url("gateway")
    for server in servers:
        server.shutdown()
        server.server_close()


ID = "0192f0c1-2b7a-7d3e-9c1a-5b8f3e2d1c0b"


@pytest.mark.parametrize(
    ("method", "path", "service"),
    [
        ("POST", "/api/email", "email"),
        ("DELETE", f"/api/email/{ID}", "email"),
        ("GET", f"/api/email/{ID}/content", "email"),
        ("GET", "/api/suppressions", "email"),
        ("POST", "/api/suppressions", "email"),
        ("DELETE", "/api/suppressions/some-id", "email"),
        ("GET", "/unsubscribe/token", "email"),
        ("POST", "/unsubscribe/token", "email"),
        ("GET", "/api/email?page=2", "events"),
        ("GET", f"/api/email/{ID}", "events"),
        ("GET", f"/api/email/{ID}/history", "events"),
        ("GET", "/api/email/analytics", "events"),
        ("GET", "/api/files?page=2", "events"),
        ("HEAD", "/api/files", "events"),
        ("GET", f"/api/files/{ID}", "events"),
        ("GET", f"/api/files/{ID}/history", "events"),
        ("GET", "/api/files/categories", "files"),
        ("POST", "/api/files/upload-url", "files"),
        ("POST", "/api/files/upload-complete", "files"),
        ("POST", "/api/files/batch", "files"),
        ("POST", f"/api/files/{ID}/parts", "files"),
        ("GET", f"/api/files/{ID}/parts", "files"),
        ("DELETE", f"/api/files/{ID}/upload", "files"),
        ("GET", f"/api/files/{ID}/download", "files"),
        ("HEAD", f"/api/files/{ID}/download", "files"),
        ("GET", f"/api/files/{ID}/public", "files"),
        ("GET", f"/api/files/{ID}/history/more", "files"),
        ("PATCH", f"/api/files/{ID}", "files"),
        ("DELETE", f"/api/files/{ID}", "files"),
        ("POST", f"/api/files/{ID}/restore", "files"),
        ("GET", "/api/projections", "events"),
        ("POST", "/api/projections/email_log/rebuild", "events"),
        ("POST", "/api/parked/some-id/retry", "events"),
    ],
)
def test_each_path_and_method_reaches_its_service(origin: str, method: str, path: str, service: str) -> None:
    answer = httpx.request(method, origin + path)
    assert answer.headers["x-service"] == service
    assert method == "HEAD" or answer.text == service


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/files-page", "text/html"),
        ("/files-page/", "text/html"),
        ("/files-page/page.css", "text/css"),
        ("/files-page/page.js", "text/javascript"),
        ("/mailroom-files.js", "text/javascript"),
    ],
)
def test_the_page_to_upload_from_is_served_and_may_call_the_api_and_s3_alone(
    gateway: Stack, origin: str, path: str, kind: str
) -> None:
    answer = httpx.get(origin + path, follow_redirects=True)
    assert (answer.status_code, answer.headers["content-type"]) == (200, f"{kind}; charset=utf-8")
    policy = answer.headers["content-security-policy"]
    assert f"connect-src 'self' {gateway.site.url('aws')};" in policy
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")


@pytest.mark.parametrize(
    "path",
    [
        "/README.md",
        "/files-page/../package.json",
        "/files-page/%2e%2e/package.json",
        "/files-page/..",
        "/files-page/nothing.js",
        "/mailroom-files.d.ts",
        "/clients/js/README.md",
    ],
)
def test_no_other_file_is_served(origin: str, path: str) -> None:
    answer = httpx.get(httpx.URL(origin).copy_with(raw_path=path.encode()))
    assert (answer.status_code, answer.json()["success"]) == (404, False)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/metrics"),
        ("GET", "/readyz"),
        ("GET", "/api/emails"),
        ("PATCH", "/api/email/x"),
        ("GET", "/api/suppressionsx"),
        ("GET", "/api/filesx"),
        ("POST", "/api/file"),
    ],
)
def test_nothing_else_is_let_through(origin: str, method: str, path: str) -> None:
    answer = httpx.request(method, origin + path)
    assert (answer.status_code, answer.json()) == (404, {"success": False, "error": "not found"})


def test_a_large_mail_passes_and_an_endless_one_does_not(origin: str) -> None:
    assert httpx.post(f"{origin}/api/email", content=b"x" * 20_000_000).text == "email"
    assert httpx.post(f"{origin}/api/email", content=b"x" * 45_000_000).status_code == 413


def test_a_service_that_is_away_is_answered_for(tmp_path: Path) -> None:
    stack = Stack(throwaway_site(tmp_path, os.environ))
    stack.start(["gateway"])
    try:
        answer = httpx.get(f"{stack.site.url('gateway')}/api/email", timeout=60)
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "2"
        assert json.loads(answer.text)["success"] is False
    finally:
        stack.stop()


@pytest.mark.long  # the gateway looks for a free place for 3 s
def test_so_many_wait_for_a_service_that_hangs_and_the_others_are_refused(tmp_path: Path) -> None:
    few = {"MAILROOM_GATEWAY_REQUESTS": "3"}
    stack, answering = Stack(throwaway_site(tmp_path, os.environ), extra=few), threading.Event()
    stack.start(["gateway"])
    servers = [upstream(name, stack.site.ports[name], answering) for name in ("email", "events")]
    try:
        with ThreadPoolExecutor(8) as pool:
            url = f"{stack.site.url('gateway')}/api/email"
            asked = [pool.submit(httpx.post, url, content=b"{}", timeout=120) for _ in range(8)]
            refused = [done.result() for _, done in zip(range(5), as_completed(asked), strict=False)]
            assert {(answer.status_code, answer.headers["retry-after"]) for answer in refused} == {(503, "2")}
            assert not json.loads(refused[0].text)["success"]
            answering.set()
            assert sorted(done.result().status_code for done in asked) == [200] * 3 + [503] * 5
            assert httpx.post(url, timeout=120).status_code == 200
    finally:
        answering.set()
        for server in servers:
            server.shutdown()
            server.server_close()
        stack.stop()


def test_only_what_may_take_minutes_is_waited_for_longer(tmp_path: Path) -> None:
    patient = {("POST", "/api/files/upload-complete"), ("POST", "/api/files/batch")}
    others = {
        ("POST", "/api/files/upload-url"),
        ("POST", "/api/files/parts"),
        ("PATCH", "/api/files/batch"),
        ("GET", f"/api/files/{ID}/download"),
        ("GET", "/api/files"),
        ("POST", "/api/email"),
        ("GET", "/api/projections"),
    }
    quick = {"MAILROOM_GATEWAY_PATIENCE": "2s"}
    stack, answering = Stack(throwaway_site(tmp_path, os.environ), extra=quick), threading.Event()
    stack.start(["gateway"])
    servers = [upstream(name, stack.site.ports[name], answering) for name in ("email", "events", "files")]
    calls = sorted(patient | others)
    try:
        with ThreadPoolExecutor(len(calls)) as pool:
            asked = {
                pool.submit(httpx.request, method, stack.site.url("gateway") + path, timeout=120): (method, path)
                for method, path in calls
            }
            given_up = set()
            for done in as_completed(asked):  # whoever is given up at all is given up before anybody answers
                given_up.add(asked[done])
                assert done.result().status_code == 503, asked[done]
                if given_up >= others:
                    answering.set()
                    break
            assert given_up == others
            answers = {call: done.result() for done, call in asked.items() if call in patient}
    finally:
        answering.set()
        for server in servers:
            server.shutdown()
            server.server_close()
        stack.stop()
    found = {call: (answer.status_code, answer.text) for call, answer in answers.items()}
    assert found == dict.fromkeys(patient, (200, "files"))
