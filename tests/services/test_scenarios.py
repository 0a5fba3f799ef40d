"""`esplanade run` whole: the same seed gives the same hash, a shard's death included; thresholds decide the exit code; an interrupt leaves nothing."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.services.stack import Esplanade, assert_nothing_left, data_folder, eventually

pytestmark = pytest.mark.services

SCENARIO = """
name = "small"
title = "A small Friday"
venue = "parkside_mall"
seed = 7
duration_minutes = 0.5
speed = 2.0
arrivals = {{ hourly = [3600], open_hour = 9.0, start_hour = 9.0, prefill = 200, cap = 400, settle_s = 5.0 }}
shopping = {{ stops = 3.0, stay_median_s = 5.0, buy_probability = 0.9 }}
clients = {{ people = 10 }}
thresholds = [
    {{ metric = "people_inside_max", op = ">=", value = {people} }},
    {{ metric = "payments", op = ">=", value = 1 }},
    {{ metric = "pushes_flash", op = ">=", value = 150 }},
    {{ metric = "pushes_missing", op = "==", value = 0 }},
    {{ metric = "pushes_unexpected", op = "==", value = 0 }},
    {{ metric = "acked_payments_lost", op = "==", value = 0 }},
    {{ metric = "books_sum", op = "==", value = 0 }},
    {{ metric = "books_difference", op = "==", value = 0 }},
]

[[offers]]
id = "passing-by"
units = "top 12"
title = "{{shop}}: today only"
within_m = 8.0

[[flash_sales]]
id = "flash"
minute = 0.0833
unit = "top 1"
title = "Flash sale"
{faults}
"""
KILL = """
[[faults]]
minute = 0.1333
kind = "kill_shard"
"""


@pytest.fixture(scope="module")
def data() -> Iterator[Path]:
    with data_folder() as folder:
        yield folder


def start(data: Path, tmp_path: Path, *arguments: str, people: int = 200, faults: str = "") -> Esplanade:
    file = tmp_path / "small.toml"
    file.write_text(SCENARIO.format(people=people, faults=faults))
    return Esplanade(data, "run", str(file), "--out", str(tmp_path / "out"), *arguments)


def report(tmp_path: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((tmp_path / "out" / "report.json").read_text())
    return read


@pytest.fixture(scope="module")
def undisturbed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The report of the scenario with its own seed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with start(data, folder) as run:
        code = run.wait()
        assert code == 0, run.text
        assert_nothing_left(run)
    return report(folder)


def test_a_scenario_that_holds_ends_with_a_report_and_code_0(undisturbed: dict[str, Any]) -> None:
    assert undisturbed["held"]
    assert undisturbed["hash"]["void"] is None
    assert undisturbed["people_over_sockets"] >= 10


def test_another_seed_has_another_hash_and_a_missed_threshold_ends_with_code_1(undisturbed: dict[str, Any], data: Path, tmp_path: Path) -> None:
    with start(data, tmp_path, "--seed", "8", people=100_000) as run:
        assert run.wait() == 1
        assert run.output[-1] == "It did not hold."
        assert_nothing_left(run)
    other = report(tmp_path)
    missed = [threshold["metric"] for threshold in other["thresholds"] if not threshold["held"]]
    assert missed == ["people_inside_max"]
    assert other["hash"]["void"] is None
    assert other["hash"]["hex"] != undisturbed["hash"]["hex"]


def test_both_shards_killed_in_turn_change_nothing_that_happened(undisturbed: dict[str, Any], data: Path, tmp_path: Path) -> None:
    """The scenario kills the shard of the venue's position host; then we kill the other, which holds half of the wallets."""
    with start(data, tmp_path, faults=KILL) as run:
        run.api = run.says("console ").split()[-1]
        first = run.says(" died; Ray starts it again").split()[0]
        run.says(f"{first} is back after")
        other = {"shard-0": "shard-1", "shard-1": "shard-0"}[first]
        os.kill(int(run.metric(other, "pid")), signal.SIGKILL)
        run.says(f"{other} (process")
        code = run.wait()
        assert code == 0, run.text
        assert_nothing_left(run)
    disturbed = report(tmp_path)
    assert disturbed["hash"] == undisturbed["hash"]
    (fault,) = disturbed["faults"]
    assert (fault["what"], fault["returned"]) == (first, True)
    assert fault["away_s"] > 0
    for metric in ("people_seen", "pushes", "payments", "books_sum", "acked_payments_lost", "payments_unanswered"):
        assert disturbed["metrics"][metric] == undisturbed["metrics"][metric], metric


@pytest.mark.parametrize(("how", "code"), [("Ctrl-C", 130), ("SIGKILL", -signal.SIGKILL)])
def test_a_run_that_is_broken_off_leaves_nothing(how: str, code: int, data: Path, tmp_path: Path) -> None:
    with start(data, tmp_path) as run:
        run.api = run.says("console ").split()[-1]
        assert eventually(lambda: max(run.metric(shard, "ticks") for shard in ("shard-0", "shard-1")) > 30, 60)
        if how == "Ctrl-C":
            run.ctrl_c()
        else:
            run.signal(signal.SIGKILL)
        assert run.wait() == code
        assert "Traceback" not in run.text
        if how == "Ctrl-C":
            assert run.output[-1] == "interrupted; nothing is left running"
            assert_nothing_left(run)
        else:
            assert eventually(lambda: not run.family(), 15), run.family()
    assert not (tmp_path / "out" / "report.json").exists()
