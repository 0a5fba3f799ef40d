"""Shoppers as bodies: a study's walkers in the place of `simulation.engine`, tick by tick, for the load generator.

Owns the translation: a demand into a study's visitors and offers, a step into the rows of a tick, a stay that has ended into a purchase. Who walks where is
`simulation.study`'s business. Deterministic as the study is; reads no clock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from esplanade.core.clock import TICK_S
from esplanade.core.errors import Conflict, InvalidInput
from simulation import chance
from simulation.demand import Demand
from simulation.engine import GRAVITY_M, Purchases, TickResult
from simulation.study import Study
from simulation.study_people import STAY, WALK
from simulation.study_spec import CrowdSpec, OfferSpec, VisitorsSpec
from spatial.columns import LEFT, PositionColumns
from spatial.venue_files import load_venue

FOR_EVER_S: Final = 30 * 86_400.0
"""Visitors of a demand have no time of their own: they go when their stops are done."""
BOUGHT: Final = 2**40
"""First event of the draws for purchases, far above those that a study takes for the same person."""


@dataclass(frozen=True, slots=True)
class ShoppersReport:
    """How they fared so far. stuck: subjects who want to walk and have not got on for half a minute; ever_stuck: such spells; pull_refused: people whom a flash
    sale would have pulled to a place that was full; max_overlap_m: of two bodies, now. unlinked: ids of connectors without a stop on open ground."""

    tick: int
    population: int
    arrived: int
    left: int
    waiting_outside: int
    purchases: int
    stuck: tuple[int, ...]
    ever_stuck: int
    pull_refused: int
    max_overlap_m: float
    unlinked: tuple[str, ...]
    walking: int
    staying: int
    riding: int


def check_demand(demand: Demand) -> None:
    """Raises InvalidInput for what walkers cannot do: hold a number of people, or turn people away at a cap."""
    if demand.hold_population:
        raise InvalidInput('hold_population = true: a crowd of walkers comes by the hour; leave it out, or take crowd = "shoppers"')
    most = demand.prefill + sum(demand.hourly)
    if most > demand.population_cap:
        raise InvalidInput(
            f"population cap {demand.population_cap}: {demand.prefill} inside and {sum(demand.hourly):g} more by the hour may come to more, and a crowd of walkers "
            'turns nobody away; raise the cap, or take crowd = "shoppers"'
        )


def _clock(hours: float) -> str:
    seconds = round(3600.0 * hours)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


class WalkingShoppers:
    """A venue's crowd under a demand, as `simulation.engine.Crowd` is one: `prefill`, then `step` a tick, for `seconds` at most.

    Raises InvalidInput as `check_demand` and `Study.of`: naming what the venue, the demand or the places cannot.
    """

    def __init__(self, venue_file: Path, demand: Demand, *, seed: int, seconds: float) -> None:
        check_demand(demand)
        self.venue, self.demand, self.seed = load_venue(venue_file), demand, seed & (2**63 - 1)
        self._settle_ticks = round(min(demand.settle_s, 3600.0 * demand.start_hour) / TICK_S) if demand.prefill else 0
        settle_s = self._settle_ticks * TICK_S
        visitors = VisitorsSpec(
            hourly=list(demand.hourly), start=_clock(demand.open_hour), inside=demand.prefill, stops=demand.stops, time_s=(FOR_EVER_S, 0.0),
            range_m=GRAVITY_M, speed_mps=demand.speed_mps,
        )  # fmt: skip
        offers = [
            OfferSpec(pull.unit_id, str(settle_s + TICK_S * pull.tick), str(settle_s + TICK_S * pull.until_tick), pull.pull, pull.decay_m)
            for pull in demand.pulls
        ]
        spec = CrowdSpec(
            venue=str(venue_file), visitors=[visitors], offers=offers, starts=_clock(demand.start_hour - settle_s / 3600.0), step_s=TICK_S,
            seconds=settle_s + seconds, seed=self.seed, stay_s=demand.stay_s,
        )  # fmt: skip
        self.study = Study.of(spec)
        unit = {unit.id: k for k, unit in enumerate(self.venue.units)}
        self._unit = np.array([unit.get(place.name, -1) for place in self.study.places], np.int64)
        self._till = np.array([k >= 0 and self.venue.units[k].till for k in self._unit.tolist()])
        self.tick = 0
        self._last = PositionColumns.empty()
        self._filled = False
        self._left = self._purchases = 0

    @property
    def population(self) -> int:
        """People inside, riders included."""
        return len(self.study.walkers) + len(self.study.transport.riders)

    def prefill(self, progress: Callable[[float], None] | None = None) -> None:
        """Let `settle_s` pass with those who are inside from the start; the tick stays 0. Raises Conflict when the crowd has begun."""
        if self.tick or self._filled:
            raise Conflict(f"prefill at tick {self.tick} with {self.population} people inside; call it once, before the first step")
        self._filled = True
        for k in range(self._settle_ticks):
            self.study.step()
            if progress is not None and k % 10 == 9:
                progress((k + 1) / self._settle_ticks)

    def step(self) -> TickResult:
        """Simulate TICK_S seconds; the rows of that tick."""
        self.tick += 1
        p, w = self.study.people, self.study.walkers
        ended = np.flatnonzero(p["here"] & (p["phase"] == STAY) & (p["until"] <= w.step_number))
        place = p["place"][ended].copy()
        self.study.step()
        p = self.study.people
        bought = self._buy(ended, place, p["phase"][ended] == WALK)
        now = self._positions()
        known = np.isin(self._last.subject, now.subject)
        gone = self._last.take(~known)
        left = gone.subject.copy()
        rows = PositionColumns.concat([now, PositionColumns(gone.subject, np.full(len(gone), LEFT, np.uint8), gone.x_m, gone.y_m)])
        order = np.argsort(rows.subject)
        arrived = now.subject[~np.isin(now.subject, self._last.subject)]
        self._last = now
        self._left += len(left)
        self._purchases += len(bought)
        return TickResult(self.tick, rows.take(order), arrived, left, 0, bought)

    def _buy(self, who: npt.NDArray[np.int64], place: npt.NDArray[np.int32], gone_on: npt.NDArray[np.bool_]) -> Purchases:
        """What those who have ended their stay bought: with the demand's probability, in places with a till."""
        found: list[tuple[int, int, int]] = []
        event = BOUGHT + 2 * self.tick
        for one, at in zip(who[gone_on].tolist(), place[gone_on].tolist(), strict=True):
            if self._till[at] and chance.uniform(self.seed, one, event) < self.demand.buy_probability:
                amount = chance.log_normal(chance.uniform(self.seed, one, event + 1), *self.demand.amount_minor)
                found.append((one, int(self._unit[at]), max(1, min(2**32 - 1, round(amount)))))
        rows = np.array(found, np.int64).reshape(-1, 3)
        return Purchases(rows[:, 0].astype(np.uint32), rows[:, 1].astype(np.uint16), rows[:, 2].astype(np.uint32))

    def _positions(self) -> PositionColumns:
        """Everybody inside, ascending by subject; who rides is seen where they stepped on."""
        r, floor = self.study.walkers.rows, self.study.walkers.floor
        riders = self.study.transport.riders
        cells = floor.hop_start[[rider[2] for rider in riders]] if riders else np.zeros(0, np.int32)
        subject = np.concatenate([r["id"], np.array([rider[1] for rider in riders], np.int64)])
        level = np.concatenate([r["level"], floor.level_of(cells)])
        x, y = np.concatenate([r["x"], floor.x[cells]]), np.concatenate([r["y"], floor.y[cells]])
        order = np.argsort(subject)
        return PositionColumns(
            subject[order].astype(np.uint32), level[order].astype(np.uint8), x[order].astype(np.float32), y[order].astype(np.float32)
        )

    def report(self) -> ShoppersReport:
        study, bodies = self.study, self.study.walkers.report()
        ids = study.walkers.rows["id"]
        staying = int(np.count_nonzero(study.people["phase"][ids] != WALK))
        return ShoppersReport(
            tick=self.tick, population=self.population, arrived=bodies.added, left=self._left, waiting_outside=study.outside, purchases=self._purchases,
            stuck=bodies.stuck, ever_stuck=bodies.ever_stuck, pull_refused=study.refused, max_overlap_m=max(0.0, study.walkers.overlap_m()[0]),
            unlinked=study.setting.unlinked, walking=len(ids) - staying, staying=staying, riding=bodies.riding,
        )  # fmt: skip
