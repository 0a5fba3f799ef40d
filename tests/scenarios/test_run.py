"""A small run the whole way: a real crowd, real load processes, a real gateway on loopback; shards in this process. Judged by the run's own evidence."""

from __future__ import annotations

import asyncio
import multiprocessing
from pathlib import Path

import pytest

from esplanade.core.errors import Conflict
from scenarios.recording import Recording
from scenarios.report import RunReport, load_json
from scenarios.report_html import page
from scenarios.runner import Progress, run_scenario
from scenarios.spec import VENUES, Scenario, parse_scenario
from spatial.venue import Venue
from spatial.venue_files import load_venue
from tests.scenarios.house import house
from tests.simulation.venues import arcade

VENUE = load_venue(VENUES / "parkside_mall.json")


def scenario(**changes: object) -> Scenario:
    document: dict[str, object] = {
        "name": "small",
        "title": "A small run <b>",
        "seed": 11,
        "duration_minutes": 0.33,
        "arrivals": {"hourly": [3000, 3000], "prefill": 40, "settle_s": 2.0},
        "shopping": {"stay_median_s": 10.0, "buy_probability": 1.0, "stops": 2.0},
        "offers": [
            {"id": "near", "units": "top 30", "title": "{shop} is near", "within_m": 10.0, "cooldown_minutes": 0.1, "cap": 3},
            {"id": "all", "units": "top 1", "title": "Welcome", "audience": "everyone", "from_minute": 0.05},
        ],
        "flash_sales": [{"minute": 0.15, "unit": "top 1", "title": "Flash at {shop}"}],
        "parking": {"occupied": 0.5, "changes_per_minute": 120.0},
        "clients": {"people": 10, "processes": 2},
        "thresholds": [
            {"metric": m, "op": "==", "value": 0} for m in ("pushes_missing", "pushes_unexpected", "books_sum", "acked_payments_lost", "late_rows")
        ]
        + [{"metric": "pushes_flash", "op": ">=", "value": 30}],
    }
    return parse_scenario(document | changes, where="test")


async def run(folder: Path, *, venue: Venue = VENUE, **changes: object) -> RunReport:
    seen: list[Progress] = []
    async with house() as h:
        report = await run_scenario(scenario(**changes), venue=venue, services=h.services, out_dir=folder, run="run-test", progress=seen.append)
    assert {p.phase for p in seen} >= {"prepare", "judge"}
    assert not multiprocessing.active_children()
    return report


@pytest.mark.services
async def test_a_run_holds_and_the_same_seed_gives_the_same_hash_also_when_a_shard_dies(tmp_path: Path) -> None:
    first = await run(tmp_path / "a")
    assert first.held, (first.thresholds, first.warnings)
    assert first.warnings == ()
    assert first.oracle.expected == first.oracle.received > 50
    assert first.books.acked == first.books.payments == first.metrics["payments"] > 0
    assert first.metrics["websocket_people"] >= 10
    assert first.hash.void is None
    assert load_json(tmp_path / "a" / "report.json") == first

    again = await run(tmp_path / "b", faults=[{"minute": 0.12, "kind": "kill_shard"}])
    assert again.held, (again.thresholds, again.warnings)
    assert again.hash == first.hash
    (fault,) = again.faults
    assert fault.returned
    assert fault.away_s > 0
    assert all(process.rewinds >= 1 for process in again.processes)

    html = page(again, VENUE)
    assert "It held." in html
    assert "A small run &lt;b&gt;" in html
    assert not [word for word in ("http://", "https://", "<script", "src=", "@import") if word in html]


@pytest.mark.services
async def test_a_crowd_of_walkers_drives_a_run_as_the_cheap_one_does(tmp_path: Path) -> None:
    report = await run(
        tmp_path / "run", venue=arcade(), crowd="walkers", speed=0.0, parking=None, clients={"people": 5, "processes": 1},
        thresholds=[{"metric": m, "op": "==", "value": 0} for m in ("pushes_missing", "pushes_unexpected", "books_sum", "acked_payments_lost", "late_rows")],
    )  # fmt: skip
    assert report.held, (report.thresholds, report.warnings)
    assert report.hash.void is None
    assert report.oracle.expected == report.oracle.received > 20
    assert report.metrics["payments"] == report.crowd["purchases"] > 0
    assert report.metrics["websocket_people"] >= 5
    assert report.crowd["max_overlap_m"] <= 0.01  # type: ignore[operator]


@pytest.mark.services
async def test_another_seed_gives_another_hash_and_a_missed_threshold_says_so(tmp_path: Path) -> None:
    missed = {"metric": "payments", "op": ">=", "value": 10**6}
    first = await run(tmp_path / "a", seed=11, duration_minutes=0.2, clients={"people": 0}, thresholds=[missed])
    other = await run(tmp_path / "b", seed=12, duration_minutes=0.2, clients={"people": 0}, thresholds=[missed], speed=0.0)
    assert first.hash.hex != other.hash.hex
    assert not first.held
    assert "It did not hold." in page(first, VENUE)
    assert "Missed: payments &gt;= 1e+06" in page(first, VENUE)
    assert other.ticks == 120
    assert other.metrics["pushes_missing"] == other.metrics["pushes_unexpected"] == 0


@pytest.mark.services
async def test_a_run_refuses_a_folder_that_was_used(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("{}")
    async with house() as h:
        with pytest.raises(Conflict, match="is not empty"):
            await run_scenario(scenario(), venue=VENUE, services=h.services, out_dir=tmp_path, run="run-test", progress=lambda _: None)
    assert not multiprocessing.active_children()


@pytest.mark.services
async def test_a_cancelled_run_leaves_no_process_and_keeps_what_was_recorded(tmp_path: Path) -> None:
    playing = asyncio.Event()

    def told(progress: Progress) -> None:
        if progress.phase == "run" and progress.tick > 20:
            playing.set()

    async with house() as h:
        work = asyncio.create_task(
            run_scenario(scenario(duration_minutes=5.0), venue=VENUE, services=h.services, out_dir=tmp_path / "out", run="run-test", progress=told)
        )
        waiting = asyncio.create_task(playing.wait())
        await asyncio.wait({work, waiting}, return_when=asyncio.FIRST_COMPLETED)
        assert not work.done(), work
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
    assert not multiprocessing.active_children()
    assert Recording(tmp_path / "out" / "recording").complete
    assert not (tmp_path / "out" / "report.json").exists()
