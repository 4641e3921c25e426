"""What benchmarks are judged with: CPU and memory of processes, dead children included, and sections of the README."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench import results
from bench.measure import Meter, machine
from bench.results import Aim, BenchFailed, Result, Table, percentile

_PARENT = """
import subprocess, sys
burn = "import time; end = time.process_time() + 0.6\\nwhile time.process_time() < end: pass"
subprocess.run([sys.executable, "-c", burn])
hoard = bytearray(64 * 1024 * 1024)
print("burnt", flush=True)
sys.stdin.read()
"""


def test_cpu_of_a_dead_child_and_peak_memory_are_counted() -> None:
    with (
        Meter({"idle": []}) as meter,
        subprocess.Popen([sys.executable, "-c", _PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent,
    ):
        meter.add("burner", parent.pid)
        assert parent.stdout is not None
        parent.stdout.readline()
        time.sleep(0.6)  # two samples of the meter
        parent.communicate()
    assert meter.usage["idle"].cpu_seconds == 0
    assert 0.6 <= meter.usage["burner"].cpu_seconds < 3
    assert 64 < meter.usage["burner"].peak_mb < 400
    assert meter.usage["burner"].processes >= 1


def test_what_was_used_before_the_watch_does_not_count() -> None:
    with subprocess.Popen([sys.executable, "-c", _PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        with Meter({"burner": [parent.pid]}) as meter:
            time.sleep(0.1)
        parent.communicate()
    assert meter.usage["burner"].cpu_seconds < 0.1


def test_a_machine_is_described_without_its_name() -> None:
    found = machine()
    assert found["cores"] >= 1
    assert found["memoryGb"] > 0
    assert set(found) == {"processor", "cores", "memoryGb", "system", "python", "loadBefore", "at", "commit"}


def test_an_aim_knows_which_way_is_better() -> None:
    assert Aim("speed", 80, 75).met
    assert not Aim("speed", 70, 75).met
    assert Aim("delay", 70, 75, at_most=True).met
    assert Aim("delay", 80, 75, " ms", at_most=True).line() == "delay: 80 ms (aim ≤ 75 ms) MISSED"


def test_percentiles() -> None:
    values = [float(number) for number in range(101)]
    assert percentile(values, 50) == 50
    assert percentile(values, 99) == 99
    assert percentile([7.0], 99) == 7.0
    assert percentile([], 99) == 0.0


def test_a_result_replaces_its_own_section_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = tmp_path / "README.md"
    begin, end = "<!-- results of a: written by the benchmark -->", "<!-- end of a -->"
    readme.write_text(f"before\n{begin}\nold \\1\n{end}\nafter\n")
    monkeypatch.setattr(results, "README", readme)
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    table = Table("Rates", ("who", "mails/s"), [("ours \\1", 1234.5), ("peer", 2)])
    Result("a", machine(), [Aim("speed", 80, 75)], [table], ["a note"], {"rates": {"ours": 1234.5}}).keep()
    text = readme.read_text()
    assert text.startswith(f"before\n{begin}\n")
    assert text.endswith(f"{end}\nafter\n")
    assert "old" not in text
    assert "| ours \\1 | 1,234 |" in text or "| ours \\1 | 1,235 |" in text
    assert '"ours": 1234.5' in (tmp_path / "results" / "a.json").read_text()
    with pytest.raises(BenchFailed, match="no section for b"):
        Result("b", machine(), [], []).keep()
