"""`mailroom cost`: sums by hand, from the pages of the providers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from services.cli.app import app
from services.cli.cost import GUIDE


@pytest.fixture(autouse=True)
def _prices_that_ship(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MAILROOM_PLANS", "MAILROOM_PRICES_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")  # no figure may be cut where a terminal is narrow


def call(*words: str) -> Result:
    return CliRunner().invoke(app, ["cost", *words], prog_name="mailroom")


def told(*words: str) -> Any:
    done = call(*words, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_the_guides_scales_by_todays_prices_beside_its_own_figures() -> None:
    small, *_, large = told("project")
    assert small["providers"]["ses"]["total"] == 200_000
    assert small["files"]["amount"] == 230_000
    assert {name: each["plan"] for name, each in large["providers"].items()} == {
        "ses": "a-la-carte",
        "sendgrid": "essentials-100k",
        "mailgun": "scale",
    }
    assert large["providers"]["sendgrid"]["total"] == 34_950_000 + 100_000 * 880
    assert large["providers"]["ses"]["total"] + large["files"]["amount"] == 43_000_000
    assert large["guide"]["amount"] == 45_600_000
    printed = call("project").stdout
    assert "ses+S3" in printed
    assert "200,000" in printed
    assert "1,000" in printed
    assert "43.00" in printed
    assert all(f"{said / 1e6:.2f}" in printed for _, _, said in GUIDE)


def test_a_scale_of_ones_own_has_no_figure_of_the_guide() -> None:
    (found,) = told("project", "--mails", "3000000", "--gigabytes", "2.5")
    assert "guide" not in found
    assert found["files"]["amount"] == 57_500
    assert found["providers"]["ses"]["total"] == 300_000_000
    assert "guide" not in call("project", "--mails", "10").stdout.split()


def test_the_next_mail_is_free_where_the_fee_pays_for_it_and_has_its_price_where_not() -> None:
    def adds(*words: str) -> dict[str, int]:
        return {each["plan"]: each["adds"] for each in told("compare", *words)}

    within, beyond = adds("--sent", "49999"), adds("--sent", "50000")
    assert (within["essentials-50k"], beyond["essentials-50k"]) == (0, 1330)
    assert within["a-la-carte"] == beyond["a-la-carte"] == 100
    assert adds("--attachments", "1000000000")["a-la-carte"] == 120_100
    month = next(each["month"] for each in told("compare", "--sent", "59999") if each["plan"] == "essentials-50k")
    assert (month["fee"], month["mails"], month["total"]) == (19_950_000, 13_300_000, 33_250_000)


def test_ones_own_plan_is_marked_and_a_server_of_ones_own_is_no_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAILROOM_PLANS", '{"ses": "essentials"}')
    found = told("compare")
    assert sorted(each["plan"] for each in found if each["ours"]) == ["essentials", "essentials-50k", "flex"]
    assert "smtp" not in {each["provider"] for each in found}


def test_a_list_without_storage_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "ours.json"
    file.write_text('{"plans": {}, "prices": []}')
    monkeypatch.setenv("MAILROOM_PRICES_FILE", str(file))
    done = call("project")
    assert done.exit_code == 1
    assert "no storage of class STANDARD" in done.stderr


def test_a_plan_that_is_not_known_is_told_before_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAILROOM_PLANS", '{"ses": "gold"}')
    done = call("compare")
    assert done.exit_code == 78
    assert "a-la-carte, essentials" in done.stderr
