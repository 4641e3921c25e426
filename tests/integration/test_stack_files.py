"""Locks, Compose file and local stack say the same."""

import ast
import os
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml

from deploy import compose, processes
from deploy.local.parts import PARTS
from deploy.local.site import ROOT, throwaway_site
from deploy.local.stack import Stack
from services.email.settings import EmailSettings
from services.kit.settings import load
from tests.unit.email_service.test_email_settings import GOOD

LOCKS = ("runtime", "dev", "stack", "ministack", "bench")


def names(text: str) -> set[str]:
    found = re.findall(r"^([A-Za-z0-9][A-Za-z0-9._-]*)", text, flags=re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower() for name in found}


@pytest.mark.parametrize("lock", LOCKS)
def test_every_requirement_is_locked_with_hashes_and_names_no_registry(lock: str) -> None:
    wanted = names((ROOT / "requirements" / f"{lock}.in").read_text())
    locked = (ROOT / "requirements" / f"{lock}.txt").read_text()
    assert wanted <= names(locked)
    for block in re.split(r"\n(?=\S)", locked.strip()):
        assert "==" in block
        assert "--hash=sha256:" in block
    assert "://" not in locked
    assert "--index-url" not in locked
    assert "--find-links" not in locked


def test_the_tests_run_on_the_versions_that_the_image_has() -> None:
    def versions(lock: str) -> dict[str, str]:
        text = (ROOT / "requirements" / f"{lock}.txt").read_text()
        return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", text, flags=re.MULTILINE))

    runtime, dev = versions("runtime"), versions("dev")
    assert {name: dev.get(name) for name in runtime} == runtime


def imported(folder: str) -> set[str]:
    """The top-level names of what the modules of a folder import, ours and the standard library's left out."""
    found: set[str] = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names) - {"contracts", "services", "deploy"}


@pytest.mark.parametrize("folder", ["contracts", "services", "deploy"])
def test_the_image_has_all_that_our_modules_import(folder: str) -> None:
    # jgo belongs to a script that the stack's own environment runs, MSK's signer to a lock of its own.
    locked = names((ROOT / "requirements" / "runtime.txt").read_text())
    distributions = packages_distributions()
    missing = {
        name
        for name in imported(folder) - {"jgo", "aws_msk_iam_sasl_signer"}
        if not any(re.sub(r"[-_.]+", "-", each).lower() in locked for each in distributions.get(name, []))
    }
    assert not missing


def test_compose_and_local_stack_run_the_same_processes_with_the_same_settings(tmp_path: Path) -> None:
    services = yaml.safe_load(compose.FILE.read_text())["services"]
    local = Stack(throwaway_site(tmp_path, os.environ)).env()
    for each in (*processes.PROCESSES, *processes.JOBS):
        assert services[each.name]["command"] == ["python", "-m", *each.module]
        own = dict[str, str]()
        if isinstance(each, processes.Process):
            own = dict(each.own) | compose.optional_environment(each)
        assert services[each.name]["environment"].items() >= own.items()
        assert set(services[each.name]["environment"]) - set(own) == each.variables
        assert each.variables <= set(local)
        assert set(services[each.name]["depends_on"]) == set(each.needs)


def test_every_variable_has_a_reader_and_no_other_process_gets_it(tmp_path: Path) -> None:
    stack = Stack(throwaway_site(tmp_path, os.environ), extra={"MAILROOM_LOG_LEVEL": "debug"})
    whole = stack.env()
    read = frozenset().union(*(process.variables for process in processes.PROCESSES))
    assert read == set(whole) - {"MAILROOM_LOG_LEVEL"}
    whole |= dict.fromkeys(processes.PROVIDERS, "x")
    for process in processes.PROCESSES:
        launch = PARTS[process.name].launch
        assert launch is not None
        given = launch(stack.site, whole, print).env
        assert set(given) & set(whole) == process.variables | {"MAILROOM_LOG_LEVEL"} | (process.optional & set(whole))
        assert bool(process.optional & set(given)) == process.name.startswith("email")
        assert given.items() >= dict(process.own).items()
        assert given[process.port_setting] == str(stack.site.ports[process.name])


def test_compose_passes_on_what_an_operator_may_add() -> None:
    """What .env holds, else nothing; the templates and the prices lie elsewhere inside the containers."""
    services = yaml.safe_load(compose.FILE.read_text())["services"]
    for name in ("email", "email-urgent", "files", "events"):
        given = services[name]["environment"]
        assert given["MAILROOM_OLD_ENCRYPTION_KEYS"] == "${MAILROOM_OLD_ENCRYPTION_KEYS:-}"
        if not name.startswith("email"):
            continue
        assert given["MAILROOM_UNSUBSCRIBE_MAILTO"] == "${MAILROOM_UNSUBSCRIBE_MAILTO:-}"
        places = ("MAILROOM_TEMPLATES_DIR", "MAILROOM_PRICES_FILE")
        for place, volume in zip(places, services[name]["volumes"], strict=True):
            assert given[place] == f"${{{place}:+{volume['target']}}}"
            assert volume["read_only"]
            stands_in = volume["source"].removeprefix(f"${{{place}:-").removesuffix("}")
            assert (ROOT / stands_in).exists()
    names = ("MAILROOM_OLD_ENCRYPTION_KEYS", "MAILROOM_UNSUBSCRIBE_MAILTO", *places)
    found = load(EmailSettings, GOOD | dict.fromkeys(names, ""))
    assert (found.unsubscribe_mailto, found.templates_directory, found.prices_file) == (None, None, None)


def test_compose_holds_no_secret() -> None:
    environment = yaml.safe_load(compose.FILE.read_text())["services"]["email"]["environment"]
    for name in ("FILE_ENCRYPTION_KEY", "WEBHOOK_SECRET", "MAILROOM_JWT_SECRET"):
        assert environment[name].startswith(f"${{{name}:?")


def test_every_container_is_bounded_watched_and_not_root() -> None:
    services = yaml.safe_load(compose.FILE.read_text())["services"]
    jobs = {job.name for job in processes.JOBS}
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}, name
        assert "restart" in service, name
        ours = service["image"].startswith("mailroom:")
        assert ours or service["user"].partition(":")[0] not in ("0", "root", ""), name
        assert name in jobs or service["healthcheck"]["test"], name
    dockerfile = (ROOT / "deploy/docker/Dockerfile").read_text()
    assert re.search(r"^USER 10001:10001$", dockerfile, flags=re.MULTILINE)
    assert re.search(r"^HEALTHCHECK ", dockerfile, flags=re.MULTILINE)
