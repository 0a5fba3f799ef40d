"""What differs from the plan right now: closed openings, connectors and lines, queues at lifts, crowds.

Owns the values that a live change is made of and their validation. `spatial.routing.Router.with_live` applies them; this module routes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from esplanade.core.errors import InvalidInput
from spatial.venue import Venue

F8 = npt.NDArray[np.float64]

MAX_FACTOR: Final = 20.0
JAM_PER_M2: Final = 5.4
_GAMMA_PER_M2: Final = 1.913

MAX_CLOSED_LINES: Final = 1_000


def crowd_factor(density_per_m2: npt.ArrayLike) -> F8:
    """How many times longer a metre takes at a density: v(0) / v of Weidmann (1993), v = 1 - exp(-1.913 (1/d - 1/5.4)), at most MAX_FACTOR."""
    density = np.clip(np.asarray(density_per_m2, np.float64), 1e-9, JAM_PER_M2)
    speed = -np.expm1(-_GAMMA_PER_M2 * (1 / density - 1 / JAM_PER_M2))
    return np.asarray(np.minimum(1 / np.maximum(speed, 1e-9), MAX_FACTOR))


@dataclass(frozen=True, slots=True)
class Crowding:
    """Slowing by cell: factor (rows, columns), row 0 at the south, 1 where nobody slows anyone; corner (x0, y0) and cell size in metres. 1 outside."""

    x0_m: float
    y0_m: float
    cell_m: float
    factor: F8

    def __post_init__(self) -> None:
        ok = self.factor.ndim == 2 and self.factor.size > 0 and bool(np.isfinite(self.factor).all())
        if not (ok and self.cell_m > 0 and np.isfinite([self.x0_m, self.y0_m, self.cell_m]).all()):
            raise InvalidInput(f"crowding: factor of shape {self.factor.shape}, cell {self.cell_m} m; needs a finite 2-D raster and a cell above 0")
        if self.factor.min() < 1 or self.factor.max() > MAX_FACTOR:
            raise InvalidInput(
                f"crowding: factors from {self.factor.min():g} to {self.factor.max():g}; they slow, so 1 to {MAX_FACTOR:g} (see crowd_factor)"
            )


def live_of(venue: Venue, closed: Collection[str]) -> Live:
    """What is closed by id, for a router: connectors and openings, a unit by all its openings. Ids that the venue lacks (it was edited since) close nothing."""
    openings = frozenset(opening.id for opening in venue.openings if opening.id in closed or opening.unit_id in closed)
    return Live(closed_openings=openings, closed_connectors=frozenset(connector.id for connector in venue.connectors if connector.id in closed))


@dataclass(frozen=True, slots=True)
class Live:
    """Everything closed or slow now. Ids are the venue's.

    closed_lines: (level index, x1, y1, x2, y2), nobody crosses them. wait_s: seconds before a ride on a connector begins, instead of the usual.
    crowding: by level index.
    """

    closed_openings: frozenset[str] = frozenset()
    closed_connectors: frozenset[str] = frozenset()
    closed_lines: tuple[tuple[int, float, float, float, float], ...] = ()
    wait_s: Mapping[str, float] = field(default_factory=dict)
    crowding: Mapping[int, Crowding] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.closed_lines) > MAX_CLOSED_LINES:
            raise InvalidInput(f"live: {len(self.closed_lines)} closed lines; at most {MAX_CLOSED_LINES}, draw fewer and longer ones")
        for line in self.closed_lines:
            if not np.isfinite(line).all():
                raise InvalidInput(f"live: closed line {line} is not finite")
        for name, seconds in self.wait_s.items():
            if not 0 <= seconds <= 86_400:
                raise InvalidInput(f"live: waiting of {seconds} s at {name}; give 0 to 86400")
