"""A run of a scenario from its start to its end, and what it brought. Owns the outcome; the scenario is `simulation.study_spec`'s, who walks where `simulation.study`'s."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from simulation.connector_watch import ConnectorFigures
from simulation.study import Study
from simulation.study_spec import CrowdSpec
from simulation.trajectories import Recorder, Recording
from simulation.walkers import WalkersReport


@dataclass(frozen=True, slots=True)
class LineFigures:
    """A service: how many were served or are being served, their waits (s), the longest line, and how many were served where they stood, the way being blocked."""

    name: str
    begun: int
    wait_mean_s: float
    wait_max_s: float
    line_max: int
    far_served: int


@dataclass(frozen=True, slots=True)
class CrowdOutcome:
    """What a run brought: trajectories, the report at its end, when people left (s, ascending), the digest of the end state, the deepest overlap met, the study
    as it stands at the end, its services."""

    recording: Recording
    report: WalkersReport
    left_s: npt.NDArray[np.float64]
    digest: str
    overlap_m: float
    study: Study
    services: tuple[LineFigures, ...]


def run_crowd(spec: CrowdSpec, *, threads: int | None = None, at_first: Callable[[Study], None] | None = None) -> CrowdOutcome:
    """Walk a scenario until all have left or its time is over. at_first: called when everybody stands at their start. Raises as `Study.of`."""
    study = Study.of(spec, threads=threads)
    walkers = study.walkers
    if at_first is not None:
        at_first(study)
    every = max(1, round(spec.record_s / spec.step_s))
    recorder = Recorder(walkers, every=every)
    left: list[float] = []
    deepest = -1.0
    while walkers.time_s < spec.seconds - 1e-9 and study.busy:
        for _ in range(every):
            study.step()
            left += [walkers.time_s] * len(walkers.left_now)
        deepest = max(deepest, walkers.overlap_m()[0])
        recorder.take()
    return CrowdOutcome(recorder.recording(), report_of(study), np.array(left), walkers.digest(), max(0.0, deepest), study, _services(study))


def egress_curve(outcome: CrowdOutcome, *, points: int = 100) -> list[tuple[float, int]]:
    """(seconds, people who have left by then), at so many equal times from the first to the last who left; empty where nobody did."""
    left_s = outcome.left_s
    if not len(left_s):
        return []
    times = np.linspace(float(left_s[0]), float(left_s[-1]), points)
    return [
        (round(time, 2), int(count)) for time, count in zip(times.tolist(), np.searchsorted(left_s, times + 1e-9, side="right").tolist(), strict=True)
    ]


def report_of(study: Study) -> WalkersReport:
    """The walkers' report, with those who took a step-free way to a goal counted under its name."""
    report = study.walkers.report()
    left: dict[str, int] = {}
    for k, count in enumerate(report.left.values()):
        name = study.places[k % len(study.places)].name
        left[name] = left.get(name, 0) + count
    return replace(report, left={name: count for name, count in left.items() if study.places[study.setting.number(name, "report")].leave})


def _services(study: Study) -> tuple[LineFigures, ...]:
    found = []
    for j, line in enumerate(study.lines.values()):
        waits = np.array([wait for _, wait in line.waits])
        longest = max((lengths[j] for _, lengths in study.line_log), default=0)
        found.append(
            LineFigures(
                line.name, len(waits), float(waits.mean()) if len(waits) else 0.0, float(waits.max()) if len(waits) else 0.0, longest, line.far_served
            )
        )
    return tuple(found)


def connector_figures(
    outcome: CrowdOutcome, *, names: Sequence[str] | None = None, window: tuple[float, float] | None = None
) -> list[ConnectorFigures]:
    """How it stood at connectors (None: all), from the window's first second to its last (None: the whole run; nothing of one that ended within its first second). Raises
    InvalidInput for one that is not there."""
    study = outcome.study
    if window is None and not study.watch.time_s:
        return []
    from_s, until_s = (0.0, study.walkers.time_s) if window is None else window
    wanted = [c.id for c in study.transport.connectors] if names is None else names
    return [study.watch.figures(name, from_s=from_s, until_s=until_s, step_s=study.walkers.step_s) for name in wanted]
