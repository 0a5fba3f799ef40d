"""Dots against the truth: how far off, on which floor, how honest the radius, of a crowd whose phones say only what they sense.

Owns the comparison and the run of crowd, phones and filter in one process (`run_phones`). Pure but for `cpu_s`, the clock it is given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
import numpy as np

from esplanade.core.clock import ticks
from simulation.demand import Demand
from simulation.engine import Crowd
from simulation.phones import Air, Phones, PhoneSettings, survey
from spatial.columns import LEFT, PositionColumns
from spatial.positioning.live import LiveFilter, LiveMap
from spatial.positioning.model import Model
from spatial.positioning.observed import State
from spatial.venue import Venue


class PhoneReport(msgspec.Struct, frozen=True):
    """phones: that sent anything; observations: that arrived; states: how many were answered with each; told: dots compared with the truth of their time; in_radius: share of them within their own radius of it."""

    phones: int
    observations: int
    lost: int
    states: dict[str, int]
    told: int
    mean_m: float
    median_m: float
    p95_m: float
    level_right: float
    in_radius: float
    cpu_us: float


@dataclass(slots=True)
class Truth:
    """Where everybody was, by second, for as long as an answer may take."""

    keep_s: float = 30.0
    _seconds: dict[int, dict[int, tuple[int, float, float]]] = field(default_factory=dict)
    errors_m: list[float] = field(default_factory=list)
    right: list[bool] = field(default_factory=list)
    within: list[bool] = field(default_factory=list)
    states: dict[str, int] = field(default_factory=dict)

    def put(self, at_s: float, where: PositionColumns) -> None:
        rows = zip(where.subject.tolist(), where.level.tolist(), where.x_m.tolist(), where.y_m.tolist(), strict=True)
        self._seconds[round(at_s * 1000)] = {subject: (level, x, y) for subject, level, x, y in rows if level != LEFT}
        for old in [at for at in self._seconds if at < (at_s - self.keep_s) * 1000]:
            del self._seconds[old]

    def compare(self, subject: int, at_ms: int, state: str, level: int, x_m: float, y_m: float, radius_m: float) -> None:
        """Count an answer; one with a dot is held against where the subject was at `at_ms`."""
        self.states[state] = self.states.get(state, 0) + 1
        true = self._seconds.get(at_ms, {}).get(subject)
        if state != "located" or true is None:
            return
        error = float(np.hypot(x_m - true[1], y_m - true[2]))
        self.errors_m.append(error)
        self.right.append(level == true[0])
        self.within.append(level == true[0] and error <= radius_m)

    def report(self, *, phones: int, observations: int, lost: int, cpu_us: float) -> PhoneReport:
        errors = np.array(self.errors_m) if self.errors_m else np.zeros(1)
        mean, median, p95 = (round(float(v), 3) for v in (errors.mean(), np.median(errors), np.percentile(errors, 95)))
        right, within = (round(float(np.mean(part)), 4) if part else 0.0 for part in (self.right, self.within))
        return PhoneReport(phones, observations, lost, self.states, len(self.errors_m), mean, median, p95, right, within, round(cpu_us, 2))


def crowd_of(venue: Venue, people: int, *, seed: int, settle_s: float = 10.0) -> Crowd:
    """So many people in the steady state of their visits; who leaves is replaced."""
    demand = Demand(hourly=(1.0,), prefill=people, population_cap=people, hold_population=True, settle_s=settle_s, stay_s=(60.0, 0.7))
    crowd = Crowd(venue, demand, seed=seed)
    crowd.prefill()
    return crowd


def run_phones(
    venue: Venue,
    *,
    people: int,
    seconds: int,
    seed: int,
    cpu_s: Callable[[], float],
    model: Model | None = None,
    settings: PhoneSettings | None = None,
) -> PhoneReport:
    """Walk a crowd for some seconds with a phone in every pocket, locate all of them, compare. model: another one than `phones.survey` makes of the same air."""
    air = Air(venue, seed=seed)
    maps = LiveMap(model or survey(air, seed=seed, settings=settings), tuple(level.short_name for level in venue.levels))
    live, phones, truth = LiveFilter(maps, seed=seed), Phones(air, seed, settings or PhoneSettings()), Truth()
    crowd = crowd_of(venue, people, seed=seed)
    took_s, observations, subjects = 0.0, 0, set()
    for second in range(seconds):
        for _ in range(ticks(1.0)):
            where = crowd.step().positions
        truth.put(float(second), where)
        batch = phones.sense(float(second), where) if second + 1 < seconds else phones.sense(float(second), where) + phones.rest()
        if not batch:
            continue
        observed = phones.observed(batch)
        began_s = cpu_s()
        answers = live.take(observed, float(second))
        took_s += cpu_s() - began_s
        observations += len(batch)
        subjects.update(observed.subject.tolist())
        for i, message in enumerate(batch):
            state = State(int(answers.state[i])).name.lower()
            xy = answers.xy_m[i]
            truth.compare(
                message.subject, round(message.at_s * 1000), state, int(answers.level[i]), float(xy[0]), float(xy[1]), float(answers.radius_m[i])
            )
    return truth.report(phones=len(subjects), observations=observations, lost=phones.account.lost, cpu_us=1e6 * took_s / max(observations, 1))
