"""Ports and folders of a stack are settings, and what is wrong with them is said by name."""

from pathlib import Path

import pytest

from deploy.local.site import (
    DEFAULT_PORTS,
    ROOT,
    StackError,
    free_ports,
    remember_ports,
    site_from_environment,
    throwaway_site,
)


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


def test_a_throwaway_stack_finds_its_ports_again(tmp_path: Path) -> None:
    site = throwaway_site(tmp_path, {})
    remember_ports(site)
    assert throwaway_site(tmp_path, {}).ports == site.ports
