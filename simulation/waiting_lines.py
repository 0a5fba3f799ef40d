"""Tills, bars, gates and toilets: who stands where in the line, who is served for how long.

Owns a service's line and counters: places in the line `SPACING_M` apart from its head on, first come, first served; who finds no place left stands by until one is
free. It knows people by id and where they stand, sends nobody anywhere else, and draws chance from the function it is given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
import shapely

from esplanade.core.errors import InvalidInput
from simulation import chance

F8 = npt.NDArray[np.float64]

SPACING_M: Final = 0.6
AT_M: Final = 0.25
"""So close to a place is there."""
REACH_S: Final = 30.0
"""Who has not got to the counter by then is served where they stand: the way is blocked, and it is counted."""


@dataclass(slots=True)
class WaitingLine:
    """counters: (k, 2) where people stand who are served. line: (q, 2) places in the line, its head first. service_s: median and sigma of a log-normal time.

    queue: ids, head first. served: id at each counter or 0; begun: step at which service there began, or -1 on the way to it; ends: step at which it ends.
    waits: one (step at which service began, wait in s) each.
    """

    name: str
    counters: F8
    line: F8
    service_s: tuple[float, float]
    queue: list[int] = field(default_factory=list)
    since: list[int] = field(default_factory=list)
    served: list[int] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    waits: list[tuple[int, float]] = field(default_factory=list)
    far_served: int = 0

    @classmethod
    def of(cls, name: str, counters: npt.ArrayLike, line: npt.ArrayLike, service_s: tuple[float, float]) -> WaitingLine:
        """line: corners from its head to its tail, metres. Raises InvalidInput for no counter, a line without length, or times not above 0."""
        counter = np.asarray(counters, np.float64).reshape(-1, 2)
        corners = np.asarray(line, np.float64).reshape(-1, 2)
        if not len(counter) or len(corners) < 2 or not (np.isfinite(counter).all() and np.isfinite(corners).all()):
            raise InvalidInput(f"service {name}: {len(counter)} counters, a line of {len(corners)} corners; give a counter and two corners at least")
        if not (0 < service_s[0] <= 3600 and 0 <= service_s[1] <= 2):
            raise InvalidInput(f"service {name}: service_s = {list(service_s)}; median above 0 s up to an hour, sigma 0 to 2")
        way = shapely.LineString(corners)
        places = shapely.get_coordinates(shapely.line_interpolate_point(way, np.arange(0.0, way.length + 1e-9, SPACING_M)))
        k = len(counter)
        return cls(name, counter, places, service_s, served=[0] * k, sent=[0] * k, ends=[-1] * k)

    def join(self, who: int, step: int) -> None:
        self.queue.append(who)
        self.since.append(step)

    def drop(self, gone: set[int]) -> None:
        """Forget people who are no longer here, or go elsewhere."""
        kept = [(who, since) for who, since in zip(self.queue, self.since, strict=True) if who not in gone]
        self.queue, self.since = [who for who, _ in kept], [since for _, since in kept]
        for k, who in enumerate(self.served):
            if who in gone:
                self.served[k], self.ends[k] = 0, -1

    def turn(self, step: int, step_s: float, place_of: Callable[[int], tuple[float, float]], draw: Callable[[int], float]) -> list[int]:
        """Let time pass to `step`: ids of those whose service has ended. place_of: where somebody stands; draw: a uniform number of somebody, for the service time."""
        done = []
        for k, who in enumerate(self.served):
            if who and self.ends[k] < 0:
                x, y = place_of(who)
                near = (x - self.counters[k, 0]) ** 2 + (y - self.counters[k, 1]) ** 2 <= (2 * AT_M) ** 2
                late = (step - self.sent[k]) * step_s > REACH_S
                if near or late:
                    self.far_served += late and not near
                    self.ends[k] = step + max(1, round(chance.log_normal(draw(who), *self.service_s) / step_s))
            elif who and step >= self.ends[k]:
                done.append(who)
                self.served[k], self.ends[k] = 0, -1
        for k, who in enumerate(self.served):
            if not who and self.queue:
                first = self.queue.pop(0)
                self.waits.append((step, (step - self.since.pop(0)) * step_s))
                self.served[k], self.sent[k], self.ends[k] = first, step, -1
        return done

    def targets(self) -> list[tuple[int, float, float]]:
        """(id, x, y): where each of those in the line, and on the way to a counter, is to stand."""
        on = [(who, float(x), float(y)) for who, (x, y) in zip(self.queue, self.line, strict=False)]
        return on + [(who, float(x), float(y)) for who, (x, y) in zip(self.served, self.counters, strict=True) if who]
