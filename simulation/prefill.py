"""Fast-forward: a venue full of people in the steady state of their itineraries, without simulating the hours that would fill it.

Owns the placing: who is in which place and for how long still, who is on the way and how far along. It begins no run of its own; the engine's step
then lets the crowd settle. Must take well under a minute for 20,000 people.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from esplanade.core.clock import ticks
from esplanade.core.errors import Conflict, LimitExceeded
from simulation import chance, ground_kernels, kernels
from simulation.agents import STAYING, WALKING
from simulation.ground import CELL_M
from simulation.navigation import WALK_MPS

if TYPE_CHECKING:
    from simulation.engine import Crowd

SPREAD_CELLS: Final = 6000
"""Cells looked at for room around the wanted one, at most."""
GAP_M: Final = 0.34


def fill(crowd: Crowd, progress: Callable[[float], None] | None) -> None:
    """Place the demand's people and settle; see `Crowd.prefill`."""
    demand, n = crowd.demand, crowd.demand.prefill
    if crowd.tick or len(crowd.agents):
        raise Conflict(f"prefill at tick {crowd.tick} with {len(crowd.agents)} people inside; call it once, before the first step")
    if n <= 0:
        return
    tell = progress or (lambda _: None)
    wanted = np.empty(n, np.int32)
    for k in range(n):
        wanted[k] = _place_one(crowd)
        if k % 1000 == 0:
            tell(0.2 * k / n)
    _stand(crowd, wanted)
    settle = ticks(demand.settle_s)
    for k in range(settle):
        crowd.step()
        if k % 10 == 0:
            tell(0.2 + 0.8 * k / settle)
    crowd.forget_the_past()
    tell(1.0)


def _place_one(crowd: Crowd) -> int:
    """Append one agent in the middle of its visit; the cell where it should be."""
    a, demand, places, ways, ground = crowd.agents, crowd.demand, crowd.places, crowd.ways, crowd.ground
    total = np.cumsum(np.where(crowd.bound < places.capacity, crowd.weight, 0.0))
    if total[-1] <= 0.0:
        raise LimitExceeded(f"prefill of {demand.prefill}: all places are full at {len(a)} people; lower the prefill")
    u = chance.uniform(crowd.seed & (2**63 - 1), len(a) + 1, 2**33)
    place = int(np.searchsorted(total, u * total[-1], side="right"))
    i = crowd.admit_new(place, int(places.anchor[place]))
    # A visit is entered at any of its stages alike.
    a.stops[i] = 1 + int(crowd.draw(i) * a.stops[i])
    median, sigma = demand.stay_s
    mean_stay_s = median * math.exp(sigma * sigma / 2.0)
    to = crowd.choose(i, place)
    if to < 0:
        to = place
    walk_m = float(ways.from_place(place)[to])
    if to == place or crowd.draw(i) * (mean_stay_s + walk_m / WALK_MPS) < mean_stay_s:
        # Met at a random moment, long stays are met more often: the log-normal weighted by length has its median at exp(sigma^2) times the median.
        length_s = min(4.0 * 3600.0, chance.log_normal(crowd.draw(i), median * math.exp(sigma * sigma), sigma))
        a.mode[i] = STAYING
        a.until[i] = ticks(length_s * crowd.draw(i))
        a.move_at[i] = ticks(60.0 * crowd.draw(i))
        spots = places.spots_of(place)
        return int(spots[int(crowd.draw(i) * len(spots))])
    crowd.bound[place] -= 1
    crowd.bound[to] += 1
    a.place[i] = to
    a.mode[i] = WALKING
    cell, todo_m = int(places.anchor[place]), walk_m * crowd.draw(i)
    no_queue = np.zeros(len(crowd.links))
    for _ in range(len(crowd.links) + 1):
        field, link, _ = ways.from_cell(cell, to, delay_m=no_queue)
        if field < 0:
            break
        leg_m = float(ways.metres(field, cell)[0])
        if link < 0 or todo_m <= leg_m + crowd.links.seconds[link] * WALK_MPS:
            level = ground.level_of(cell)
            lo, hi = int(ground.first[level]), int(ground.first[level + 1])
            leg = slice(int(ways.shift[field]) + lo, int(ways.shift[field]) + hi)
            met: int = ground_kernels.walk_along(
                cell, min(todo_m, leg_m), lo, ways.angle[leg], ways.distance[leg], ground.raster, ground.cid, ground.links, ground.x, ground.y,
                ground.nx, CELL_M,
            )  # fmt: skip
            return met
        todo_m -= leg_m + float(crowd.links.seconds[link]) * WALK_MPS
        cell = int(crowd.links.end[link])
    return cell


def _stand(crowd: Crowd, wanted: npt.NDArray[np.int32]) -> None:
    """Stand everybody on the nearest free ground to the cell where they should be, and plan the walkers' legs."""
    a, ground = crowd.agents, crowd.ground
    kernels.place_apart(
        wanted, crowd.seed & (2**63 - 1), SPREAD_CELLS, GAP_M, ground.first, ground.raster, ground.cid, ground.links, ground.clearance,
        ground.x, ground.y, ground.nx, a.x, a.y, a.cell,
    )  # fmt: skip
    if (a.cell < 0).any():
        raise LimitExceeded(f"prefill of {len(a)}: {int((a.cell < 0).sum())} people found no ground to stand on; lower the prefill")
    a.level[:] = np.searchsorted(ground.first, a.cell, side="right") - 1
    a.target_x[:], a.target_y[:] = a.x, a.y
    a.mark_x[:], a.mark_y[:] = a.x, a.y
    for i in np.flatnonzero(a.mode == WALKING).tolist():
        crowd.replan(i)
