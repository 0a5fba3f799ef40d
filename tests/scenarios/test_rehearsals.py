"""Rehearsals: one at a time, seen by who asked, kept and forgotten, and what becomes of them; then the same over HTTP. What plays stands in here; `esplanade run` has its own tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from esplanade.api_process import RehearsalDesk
from esplanade.control import controlled
from esplanade.core.clock import ManualClock
from esplanade.core.errors import Conflict, Fault, NotFound, Unavailable
from gateway.api import ApiSettings, build_api
from gateway.permissions import ROLES
from scenarios.rehearsals import KEPT_RUNS, POINTS, Rehearsals, described
from scenarios.report import ThresholdResult
from scenarios.runner import Progress
from scenarios.spec import library
from tests.gateway.mall import Mall, running_mall

NAME = "black-friday"


@dataclass(frozen=True)
class Judged:
    held: bool
    thresholds: Sequence[ThresholdResult]


class Stage:
    """Plays what a test tells it to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = ManualClock()
        self.ends: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self.asked: list[dict[str, Any]] = []
        self.progress: Callable[[Progress], None] = lambda _: None
        self.judged = Judged(True, ())
        self.rehearsals = self.desk()

    def desk(self) -> Rehearsals:
        async def services() -> Any:
            return None

        return Rehearsals(services, self.folder, self.clock, play=self.play)

    async def play(self, scenario: Any, **more: Any) -> Judged:
        self.asked.append({"scenario": scenario, **more})
        self.progress = more["progress"]
        failure = await asyncio.shield(self.ends)
        if failure is not None:
            raise failure
        (more["out_dir"] / "recording").mkdir()
        (more["out_dir"] / "recording" / "positions.parquet").write_bytes(b"PAR1")
        (more["out_dir"] / "report.html").write_text("<p>held</p>")
        return self.judged


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    stage = Stage(tmp_path / "runs")
    yield stage
    await stage.rehearsals.close()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_rehearsal_is_followed_to_its_end_and_read_again_by_a_service_that_restarted(stage: Stage) -> None:
    run = await stage.rehearsals.start("demo", NAME)
    assert (run.state, run.scenario, run.venue) == ("running", NAME, "parkside")
    await settle()
    [asked] = stage.asked
    assert asked["run"] == run.run
    assert asked["scenario"].faults == [], "nothing is killed unasked"
    stage.progress(Progress(phase="run", doing="playing", share=0.25, tick=100, people=700, connected=9, pushes=3, payments=2))
    now = stage.rehearsals.get("demo", run.run)
    assert (now.share, now.people, [point.people for point in now.picture]) == (0.25, 700, [700])
    stage.ends.set_result(None)
    await settle()
    ended = stage.rehearsals.get("demo", run.run)
    assert (ended.state, ended.said) == ("held", "every threshold held")
    assert stage.desk().get("demo", run.run) == ended
    assert [held.run for held in stage.desk().runs("demo")] == [run.run]
    assert stage.desk().runs("other") == []


async def test_one_at_a_time(stage: Stage) -> None:
    first = await stage.rehearsals.start("demo", NAME)
    with pytest.raises(Conflict, match=first.run):
        await stage.rehearsals.start("demo", NAME)
    stopped = await stage.rehearsals.stop("demo", first.run)
    assert stopped.state == "stopped"
    stage.clock.advance(1.0)
    assert (await stage.rehearsals.start("demo", NAME)).run != first.run


async def test_a_missed_threshold_is_named_and_a_failure_says_why(stage: Stage) -> None:
    stage.judged = Judged(False, (ThresholdResult("payments", ">=", 1, 0, False, "", ""), ThresholdResult("pushes", ">=", 1, 2, True, "", "")))
    stage.ends.set_result(None)
    run = await stage.rehearsals.start("demo", NAME)
    await settle()
    assert (stage.rehearsals.get("demo", run.run).state, stage.rehearsals.get("demo", run.run).said) == ("missed", "missed: payments")
    stage.ends = asyncio.get_running_loop().create_future()
    stage.ends.set_result(Fault("the load generator broke"))
    stage.clock.advance(1.0)
    run = await stage.rehearsals.start("demo", NAME)
    await settle()
    assert (stage.rehearsals.get("demo", run.run).state, stage.rehearsals.get("demo", run.run).said) == ("failed", "the load generator broke")


async def test_another_tenant_knows_nothing_of_it(stage: Stage) -> None:
    run = await stage.rehearsals.start("demo", NAME)
    with pytest.raises(NotFound):
        stage.rehearsals.get("other", run.run)
    with pytest.raises(NotFound):
        await stage.rehearsals.stop("other", run.run)


@pytest.mark.parametrize("name", ["nothing", "../../etc/passwd", "scenarios/library/black_friday.toml"])
async def test_only_what_the_library_has_is_played(stage: Stage, name: str) -> None:
    with pytest.raises(NotFound, match=library()[0]):
        await stage.rehearsals.start("demo", name)
    with pytest.raises(NotFound):
        described(name)


async def test_the_oldest_are_forgotten_and_a_picture_stays_small(stage: Stage) -> None:
    stage.ends.set_result(None)
    runs = []
    for _ in range(KEPT_RUNS + 2):
        stage.clock.advance(1.0)
        runs.append((await stage.rehearsals.start("demo", NAME)).run)
        await settle()
    assert len(stage.rehearsals.runs("demo")) == KEPT_RUNS
    assert runs[-1] in [run.run for run in stage.rehearsals.runs("demo")]
    stage.ends = asyncio.get_running_loop().create_future()
    stage.clock.advance(1.0)
    run = await stage.rehearsals.start("demo", NAME)
    await settle()
    for tick in range(5 * POINTS):
        stage.progress(Progress(phase="run", doing="", share=0.0, tick=tick, people=1))
    picture = stage.rehearsals.get("demo", run.run).picture
    assert POINTS / 2 <= len(picture) <= POINTS
    assert (picture[0].tick, picture[-1].tick > 4.9 * POINTS) == (0, True)


@dataclass
class Web:
    mall: Mall
    stage: Stage
    client: httpx.AsyncClient

    async def ask(self, method: str, path: str, role: str = "operator", *, tenant: str = "demo", body: Any = None) -> httpx.Response:
        bearer = {"authorization": f"Bearer {self.mall.token(5, role, tenant=tenant)}"}  # type: ignore[arg-type]
        return await self.client.request(method, path, json=body, headers=bearer)


@pytest.fixture
async def web(stage: Stage) -> AsyncIterator[Web]:
    """The API over the control socket of a service's data directory, as in `esplanade serve`."""
    data = stage.folder.parent
    async with running_mall() as mall, controlled(_NoShards(), data, stage.rehearsals):
        app = build_api(
            catalogue=mall.catalogue, broker=mall.broker, signer=mall.signer, clock=mall.clock, settings=ApiSettings(ws_url="ws://127.0.0.1:1/"), checks={},
            system=mall.system, journal=mall.journal, rehearsing=RehearsalDesk(data),
        )  # fmt: skip
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:7000") as client:
            yield Web(mall, stage, client)


class _NoShards:
    async def add_shard(self) -> str:
        raise Unavailable("not here")

    async def drain(self, name: str) -> None:
        raise Unavailable("not here")

    async def remove_shard(self, name: str) -> None:
        raise Unavailable("not here")

    def shards_now(self) -> dict[str, str]:
        return {}


async def test_an_operator_begins_follows_and_takes_the_report_away(web: Web) -> None:
    told = (await web.ask("GET", f"/v1/scenarios/{NAME}", "engineer")).json()
    assert told["name"] == NAME
    assert told["thresholds"]
    begun = await web.ask("POST", f"/v1/scenarios/{NAME}/runs", body={})
    assert begun.status_code == 202
    path = begun.headers["location"]
    assert (await web.ask("GET", path)).json()["state"] == "running"
    assert (await web.ask("POST", f"/v1/scenarios/{NAME}/runs", body={})).json()["code"] == "conflict"
    assert (await web.ask("GET", f"{path}/report.html")).status_code == 404, "not before its end"
    web.stage.ends.set_result(None)
    await settle()
    assert [run["state"] for run in (await web.ask("GET", "/v1/runs")).json()["runs"]] == ["held"]
    report = await web.ask("GET", f"{path}/report.html")
    assert (report.status_code, report.text) == (200, "<p>held</p>")
    assert report.headers["content-disposition"].startswith("attachment")
    [file] = (await web.ask("GET", f"{path}/recording")).json()["files"]
    assert file == {"name": "positions.parquet", "bytes": 4}
    assert (await web.ask("GET", f"{path}/recording/{file['name']}")).content == b"PAR1"
    assert (await web.ask("GET", f"{path}/recording/..%2Frun.json")).status_code == 404, "of the recording's folder and no other"
    assert (await web.ask("GET", f"{path}/run.json")).status_code == 404


async def test_one_is_stopped_over_http_and_what_is_not_there_is_404(web: Web) -> None:
    path = (await web.ask("POST", f"/v1/scenarios/{NAME}/runs", body={"faults": True})).headers["location"]
    assert (await web.ask("DELETE", path)).json()["state"] == "stopped"
    for method, missing in (
        ("GET", "/v1/runs/none"),
        ("DELETE", "/v1/runs/none"),
        ("GET", "/v1/scenarios/none"),
        ("POST", "/v1/scenarios/none/runs"),
    ):
        assert (await web.ask(method, missing, body={} if method == "POST" else None)).status_code == 404, missing
    assert (await web.ask("GET", path, tenant="other")).status_code == 404


@pytest.mark.parametrize("role", ROLES)
async def test_only_operators_begin(web: Web, role: str) -> None:
    reply = await web.ask("POST", f"/v1/scenarios/{NAME}/runs", role, body={})
    assert reply.status_code == (202 if role == "operator" else 403)
