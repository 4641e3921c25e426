"""One list of metrics, well formed, and every call by name."""

import ast
import re
from pathlib import Path

import pytest

import services
from services.kit import metrics as m

SERVICES = Path(services.__file__).parent


def test_every_metric_is_well_formed() -> None:
    assert len({metric.name for metric in m.ALL}) == len(m.ALL)
    for metric in m.ALL:
        assert re.fullmatch(r"mailroom_[a-z0-9_]+", metric.name)
        assert metric.help
        assert metric.name.endswith("_total") == isinstance(metric, m.Counter), metric.name
        assert not {"id", "address", "email", "path", "user"} & set(metric.labels)
        if isinstance(metric, m.Histogram):
            assert list(metric.buckets) == sorted(set(metric.buckets))


def test_every_metric_of_the_list_is_fed_somewhere() -> None:
    used = set[str]()
    for path in SERVICES.rglob("*.py"):
        if path != Path(m.__file__):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Name):
                    used.add(node.id)
                elif isinstance(node, ast.Attribute):
                    used.add(node.attr)
    declared = {name for name, value in vars(m).items() if isinstance(value, m.Metric)}
    assert len(declared) == len(m.ALL)
    assert declared - used == {"BUILD_INFO"}
    for service in ("email", "events"):
        assert "describe_build" in (SERVICES / service / "app.py").read_text()


def test_counting_setting_observing() -> None:
    metrics = m.Metrics()
    metrics.inc(m.SEND_ATTEMPTS, provider="ses", lane="urgent")
    metrics.inc(m.SEND_ATTEMPTS, 2, provider="ses", lane="urgent")
    metrics.set(m.OPEN_ATTEMPTS, 5)
    metrics.add(m.OPEN_ATTEMPTS, -2)
    with pytest.raises(KeyError), metrics.timed(m.APPEND_SECONDS):
        raise KeyError
    assert metrics.value(m.SEND_ATTEMPTS, provider="ses", lane="urgent") == 3
    assert metrics.value(m.OPEN_ATTEMPTS) == 3
    assert metrics.count(m.APPEND_SECONDS) == 1
    metrics.describe_build("email", "1.2.3")
    text = metrics.render().decode()
    assert 'service="email",version="1.2.3"} 1.0' in text
    assert 'mailroom_send_attempts_total{lane="urgent",provider="ses"} 3.0' in text
    assert "process_resident_memory_bytes" in text
    assert "_created" not in text


def test_wrong_labels_are_refused() -> None:
    with pytest.raises(ValueError, match="label"):
        m.Metrics().inc(m.SEND_ATTEMPTS, provider="ses")


def test_a_cleared_series_is_gone() -> None:
    metrics = m.Metrics()
    metrics.set(m.CONSUMER_LAG, 7, group="g", topic="t", partition="1")
    metrics.clear(m.CONSUMER_LAG, group="g", topic="t", partition="1")
    assert 'partition="1"' not in metrics.render().decode()


def test_two_processes_in_one_test_do_not_share() -> None:
    one, other = m.Metrics(), m.Metrics()
    one.set(m.OPEN_ATTEMPTS, 9)
    assert other.value(m.OPEN_ATTEMPTS) == 0
