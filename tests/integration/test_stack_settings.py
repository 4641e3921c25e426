"""Ports and folders of a stack are settings, and what is wrong with them is said by name."""

from pathlib import Path

import pytest

from deploy.local import providers
from deploy.local.parts import PARTS
from deploy.local.site import (
    DEFAULT_PORTS,
    ROOT,
    StackError,
    free_ports,
    remember_ports,
    site_from_environment,
    throwaway_site,
)
from deploy.local.stack import Stack
from deploy.processes import PROCESSES
from services.email.provider_settings import KNOWN
from services.email.settings import EmailSettings
from services.kit.settings import load

OF_AWS = ("SES_CONFIGURATION_SET", "MAILROOM_CONTENT_BUCKET", "MAILROOM_NOTIFICATIONS_QUEUE_URL")
"""What only a stack that has been started knows."""


def test_without_settings_everything_is_in_the_checkout_on_the_usual_ports(tmp_path: Path) -> None:
    site = site_from_environment({"MAILROOM_STATE_DIR": str(tmp_path)})
    assert dict(site.ports) == DEFAULT_PORTS
    assert site.cache_dir == ROOT / ".mailroom" / "cache"
    assert site_from_environment({}).state_dir == ROOT / ".mailroom"


def test_a_port_of_the_environment_goes_before_the_base_and_the_base_before_the_file(tmp_path: Path) -> None:
    (tmp_path / "ports").write_text("# by hand\nMAILROOM_MONGO_PORT = 7001\nMAILROOM_KAFKA_PORT=7002\n")
    of_file = site_from_environment({"MAILROOM_STATE_DIR": str(tmp_path)})
    assert (of_file.ports["mongo"], of_file.ports["kafka"], of_file.ports["email"]) == (7001, 7002, 8101)
    environ = {"MAILROOM_STATE_DIR": str(tmp_path), "MAILROOM_PORT_BASE": "9100", "MAILROOM_KAFKA_PORT": "7003"}
    of_environment = site_from_environment(environ)
    assert (of_environment.ports["gateway"], of_environment.ports["mongo"], of_environment.ports["kafka"]) == (
        9100,
        9105,
        7003,
    )


def test_the_ports_of_a_started_stack_are_remembered(tmp_path: Path) -> None:
    environ = {"MAILROOM_STATE_DIR": str(tmp_path)}
    site = site_from_environment({**environ, "MAILROOM_PORT_BASE": "9200"})
    remember_ports(site)
    assert site_from_environment(environ).ports == site.ports


@pytest.mark.parametrize("text", ["", "80", "70000", "kafka", "-1"])
def test_what_is_no_port_is_refused_by_the_name_of_its_setting(tmp_path: Path, text: str) -> None:
    with pytest.raises(StackError, match="MAILROOM_KAFKA_PORT"):
        site_from_environment({"MAILROOM_STATE_DIR": str(tmp_path), "MAILROOM_KAFKA_PORT": text})


def test_two_parts_cannot_share_a_port(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="MAILROOM_KAFKA_PORT and MAILROOM_MONGO_PORT are both 7000"):
        site_from_environment(
            {"MAILROOM_STATE_DIR": str(tmp_path), "MAILROOM_KAFKA_PORT": "7000", "MAILROOM_MONGO_PORT": "7000"}
        )


def test_free_ports_are_all_different_and_never_those_of_outgoing_connections() -> None:
    ports = free_ports(50)
    assert len(set(ports)) == 50
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert max(ports) < lowest


def test_two_shares_of_the_ports_have_none_in_common(tmp_path: Path) -> None:
    for share in (1, 6):
        site = throwaway_site(tmp_path / str(share), {"MAILROOM_PORT_SHARE": f"{share}/8"})
        assert {port % 8 for port in site.ports.values()} == {share}


def test_a_stack_sends_through_every_provider_and_hears_their_reports(tmp_path: Path) -> None:
    site = site_from_environment({"MAILROOM_STATE_DIR": str(tmp_path)})
    env = Stack(site).env()
    settings = load(EmailSettings, env | dict.fromkeys(OF_AWS, "needed-0123"))
    assert settings.providers == providers.EVERY == KNOWN
    keys = providers.webhook_keys(site)
    assert settings.sendgrid_keys == (keys.sendgrid_public,)
    assert [each.get_secret_value() for each in settings.mailgun_keys] == [keys.mailgun]
    assert site.webhook_keys_file.stat().st_mode & 0o077 == 0
    assert providers.webhook_keys(site) == keys, "a stack that starts again would not believe what is reported to it"
    launch = PARTS["simulator"].launch
    assert launch is not None
    told = launch(site, env, print)
    assert not any(key in argument for argument in told.command for key in (keys.sendgrid, keys.mailgun))
    assert {keys.sendgrid, keys.mailgun} <= set(told.env.values())


def test_a_stack_that_was_told_so_or_is_for_tests_has_ses_alone(tmp_path: Path) -> None:
    alone = Stack(site_from_environment({"MAILROOM_STATE_DIR": str(tmp_path)}), extra={"MAILROOM_PROVIDERS": "ses"})
    assert alone.env()["MAILROOM_PROVIDERS"] == "ses"
    site = throwaway_site(tmp_path / "tests", {})
    assert "MAILROOM_PROVIDERS" not in Stack(site).env()
    launch = PARTS["simulator"].launch
    assert launch is not None
    assert "--webhooks" not in launch(site, Stack(site).env(), print).command, "nobody may be there to take reports"


def test_what_providers_are_reached_with_is_given_to_the_email_service_alone(tmp_path: Path) -> None:
    site = site_from_environment({"MAILROOM_STATE_DIR": str(tmp_path)})
    env = Stack(site).env()
    given = providers.service_environment(site)
    for process in PROCESSES:
        launch = PARTS[process.name].launch
        assert launch is not None
        got = given.keys() & launch(site, env, print).env.keys()
        assert got == (given.keys() if process.module[0] == "services.email" else set()), process.name


def test_a_throwaway_stack_finds_its_ports_again(tmp_path: Path) -> None:
    site = throwaway_site(tmp_path, {})
    remember_ports(site)
    assert throwaway_site(tmp_path, {}).ports == site.ports
