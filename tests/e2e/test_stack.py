"""The whole stack: ready, reached through the gateway, and driven by the operator's command."""

import os
import signal
import subprocess

import httpx

from deploy.local.parts import PARTS
from deploy.local.site import ROOT
from deploy.local.stack import Stack


def mailroom(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `./mailroom` as a person would on this stack, from another folder."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MAILROOM_", "AWS_"))}
    env["MAILROOM_STATE_DIR"] = str(stack.site.state_dir)
    return subprocess.run(
        [str(ROOT / "mailroom"), *arguments],
        env=env,
        cwd=stack.site.state_dir,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_everything_is_ready_and_the_gateway_reaches_both_services(stack: Stack) -> None:
    assert {name: stack.problem(name) for name in PARTS} == dict.fromkeys(PARTS)
    assert stack.ready()
    origin = stack.site.url("gateway")
    # Without a token: each service itself says so, which the gateway could not.
    assert httpx.get(f"{origin}/api/email").status_code == 401
    assert httpx.post(f"{origin}/api/email", json={}).status_code == 401


def test_the_command_uses_the_running_stack(stack: Stack) -> None:
    done = mailroom(stack, "topics", "verify")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_killed_service_is_answered_for_and_comes_back(stack: Stack) -> None:
    stack.start()
    origin = stack.site.url("gateway")
    stack.kill("email", signal.SIGKILL)
    assert httpx.post(f"{origin}/api/email", json={}, timeout=60).status_code == 503
    stack.start(["email"], with_needs=False)
    stack.wait_ready(["email"])
    assert httpx.post(f"{origin}/api/email", json={}).status_code == 401
