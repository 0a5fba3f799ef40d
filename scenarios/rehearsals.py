"""Rehearsals of a service that runs: a scenario of the library, played through the service's own front door as `esplanade run` plays it, one at a time.

Owns the run under way (one task), the folder with a folder a run (`run.json`, `report.json`, `report.html`, `recording/`), and how many are kept. Its people come from load processes of
their own and live in a tenant of their own, so that they meet nobody real; they do use the service's shards, which is the point. A scenario's faults are left out unless
they are asked for: a rehearsal kills nothing by default.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final, Literal, Protocol

import msgspec

from esplanade.core.clock import SystemClock
from esplanade.core.errors import Conflict, EsplanadeError, NotFound
from esplanade.core.ids import check_name
from scenarios.report import ThresholdResult
from scenarios.runner import Progress, Services, run_scenario
from scenarios.spec import Scenario, find_scenario, library, load_scenario, venue_path
from spatial.venue import Venue
from spatial.venue_files import load_venue, parse_venue

KEPT_RUNS: Final = 20
"""The oldest that is finished goes when another begins."""
POINTS: Final = 600
"""Of a run's picture: beyond, every second one is dropped and from then on half as many are taken."""

STOPPED: Final = "it was stopped"

State = Literal["running", "held", "missed", "failed", "stopped"]


class Point(msgspec.Struct, frozen=True):
    """How many at a tick: people inside, pushes and payments so far."""

    tick: int
    people: int
    pushes: int
    payments: int


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A rehearsal. `tenant`: who asked; `run`: its id, and the tenant that its people live in. `share`: of the phase, 0 to 1. `said`: the outcome, or why it failed."""

    run: str
    tenant: str
    scenario: str
    title: str
    venue: str
    started_ms: int
    state: State
    phase: str = "prepare"
    doing: str = ""
    share: float = 0.0
    tick: int = 0
    ticks: int = 0
    people: int = 0
    connected: int = 0
    pushes: int = 0
    payments: int = 0
    said: str = ""
    picture: tuple[Point, ...] = ()


class Judged(Protocol):
    """What is asked of a `RunReport`."""

    @property
    def held(self) -> bool: ...

    @property
    def thresholds(self) -> Sequence[ThresholdResult]: ...


class Play(Protocol):
    """`scenarios.runner.run_scenario`."""

    async def __call__(
        self, scenario: Scenario, *, venue: Venue, services: Services, out_dir: Path, run: str, progress: Callable[[Progress], None]
    ) -> Judged: ...


class Rehearsals:
    """Belongs to one event loop. `services`: what a run needs of the service, asked for at each start."""

    def __init__(self, services: Callable[[], Awaitable[Services]], folder: Path, clock: SystemClock, *, play: Play = run_scenario) -> None:
        self._services = services
        self._folder = folder
        self._clock = clock
        self._play = play
        self._now: Run | None = None
        self._task: asyncio.Task[None] | None = None
        self._stride = 1
        self._told = 0

    async def start(self, tenant: str, scenario: str, *, venue: str | None = None, faults: bool = False) -> Run:
        """Begin a scenario of the library; returns at once. `venue`: one of the tenant's own, in place of the scenario's.

        Raises NotFound for a scenario or venue that is not there, InvalidInput for one that does not fit, Conflict while another is under way.
        """
        if self._task is not None and not self._task.done():
            assert self._now is not None
            raise Conflict(f"{self._now.run} is under way: a service rehearses one scenario at a time; wait for its end, or stop it")
        file = _file_of(scenario)
        wanted = load_scenario(file)
        if not faults:
            wanted = wanted.model_copy(update={"faults": []})
        services = await self._services()
        plan = (
            load_venue(venue_path(wanted, scenario_file=file)) if venue is None else parse_venue(await services.catalogue.venue(tenant, venue), venue)
        )
        run = f"{wanted.name}-{self._clock.unix_ms():x}".replace("_", "-")
        self._forget()
        self._now = Run(
            run=run, tenant=tenant, scenario=wanted.name, title=wanted.title, venue=plan.id, started_ms=self._clock.unix_ms(), state="running",
            ticks=wanted.ticks,
        )  # fmt: skip
        self._stride, self._told = 1, 0
        self._save(self._now)
        self._task = asyncio.create_task(self._run(wanted, plan, services, run), name=f"rehearsal {run}")
        return self._now

    async def stop(self, tenant: str, run: str) -> Run:
        """End a run that is under way; its load processes are gone when this returns. A finished one stays as it is."""
        held = self.get(tenant, run)
        if held.state == "running":
            await self.close()
        return self.get(tenant, run)

    async def close(self) -> None:
        """End what is under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._now is not None and self._now.state == "running":
            self._end("stopped", STOPPED)  # it was cancelled before its first step, and could not say so itself

    def get(self, tenant: str, run: str) -> Run:
        """Raises NotFound; another tenant's is not there."""
        if self._now is not None and self._now.run == run:
            held: Run | None = self._now
        else:
            held = self._read(self._folder / check_name(run, "run"))
        if held is None or held.tenant != tenant:
            raise NotFound(f"run {run[:80]!r}: there is none of this id")
        return held

    def runs(self, tenant: str) -> list[Run]:
        """Newest first, without their pictures."""
        held = [self._now if self._now is not None and self._now.run == folder.name else self._read(folder) for folder in self._folders()]
        mine = [msgspec.structs.replace(run, picture=()) for run in held if run is not None and run.tenant == tenant]
        return sorted(mine, key=lambda run: -run.started_ms)

    # --- the run ---

    async def _run(self, scenario: Scenario, venue: Venue, services: Services, run: str) -> None:
        assert self._now is not None
        ended: State = "failed"
        said = "the rehearsal broke"
        try:
            report = await self._play(scenario, venue=venue, services=services, out_dir=self._folder / run, run=run, progress=self._progress)
            missed = [threshold.metric for threshold in report.thresholds if not threshold.held]
            ended, said = ("held", "every threshold held") if report.held else ("missed", f"missed: {', '.join(missed)}")
        except asyncio.CancelledError:
            ended, said = "stopped", STOPPED
            raise
        except EsplanadeError as error:
            said = error.message
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
            raise
        finally:
            self._end(ended, said)

    def _end(self, state: State, said: str) -> None:
        assert self._now is not None
        self._now = msgspec.structs.replace(self._now, state=state, said=said, doing="")
        self._save(self._now)

    def _progress(self, now: Progress) -> None:
        held = self._now
        assert held is not None
        picture = held.picture
        if now.phase == "run":
            self._told += 1
            if self._told % self._stride == 0:
                picture = (*picture, Point(now.tick, now.people, now.pushes, now.payments))
                if len(picture) > POINTS:
                    picture, self._stride = picture[::2], 2 * self._stride
        told = now if now.people or now.tick else None
        self._now = msgspec.structs.replace(
            held, phase=now.phase, doing=now.doing, share=round(now.share, 4), picture=picture,
            **({} if told is None else {"tick": now.tick, "people": now.people, "connected": now.connected, "pushes": now.pushes, "payments": now.payments}),
        )  # fmt: skip

    # --- the folder ---

    def _folders(self) -> list[Path]:
        with contextlib.suppress(FileNotFoundError):
            return [
                path for path in self._folder.iterdir() if (path / "run.json").is_file() or (self._now is not None and path.name == self._now.run)
            ]
        return []

    def _save(self, run: Run) -> None:
        """Beside the run's folder while it plays, which must be empty when it begins."""
        folder = self._folder / run.run
        if run.state == "running":
            folder.mkdir(parents=True, exist_ok=True)
            return
        (folder / "run.json").write_bytes(msgspec.json.encode(run))

    def _read(self, folder: Path) -> Run | None:
        try:
            return msgspec.json.decode((folder / "run.json").read_bytes(), type=Run)
        except (OSError, msgspec.MsgspecError):
            return None  # a run that the end of the service cut off left no line

    def _forget(self) -> None:
        held = sorted(self._folders(), key=lambda folder: folder.stat().st_mtime)
        for folder in held[: max(0, len(held) - KEPT_RUNS + 1)]:
            shutil.rmtree(folder, ignore_errors=True)


class Described(msgspec.Struct, frozen=True):
    """A scenario of the library. `faults`: what it breaks where that is asked for; `thresholds`: what decides whether it held."""

    name: str
    title: str
    venue: str
    seed: int
    minutes: float
    speed: float
    people: int
    faults: tuple[str, ...]
    thresholds: tuple[str, ...]


def _file_of(name: str) -> Path:
    """The library's file of a scenario, by the name that is in it or the file's own; never a path. Raises NotFound."""
    stem = name.replace("-", "_")
    if stem not in library():
        raise NotFound(f"scenario {name[:80]!r}: the library has {', '.join(library())}")
    return find_scenario(stem)


def described(name: str) -> Described:
    """Raises NotFound."""
    one = load_scenario(_file_of(name))
    return Described(
        name=one.name, title=one.title, venue=one.venue or "", seed=one.seed, minutes=one.duration_minutes, speed=one.speed, people=one.clients.people,
        faults=tuple(f"{fault.kind} at minute {fault.minute:g}" for fault in one.faults),
        thresholds=tuple(f"{threshold.metric} {threshold.op} {threshold.value:g}" for threshold in one.thresholds),
    )  # fmt: skip
