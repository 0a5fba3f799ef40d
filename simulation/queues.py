"""Connectors in operation: who waits at which stop, who is inside, who steps off where.

Owns the service of escalators, stairs and lifts: one person every `every_s` seconds a link and direction, at most `room_for` inside, and nobody steps
off onto somebody. It changes mode, level and position of agents; where they go next is the engine's business.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from esplanade.core.clock import TICK_S, ticks
from simulation import kernels
from simulation.agents import QUEUEING, RIDING, WALKING, Agents
from simulation.ground import Ground
from simulation.navigation import WALK_MPS, Links

BOARD_M: Final = 1.3
"""Who is this close to the stop's point can step on."""
EXIT_M: Final = 2.0
EXIT_GAP_M: Final = 0.32
SWAP_AFTER: Final = ticks(3.0)


class Queues:
    """Service of every link. `waiting`: (l,) people queueing or on their way to it, as of the last tick."""

    def __init__(self, ground: Ground, links: Links) -> None:
        self._ground, self._links = ground, links
        self._next_at = np.zeros(len(links), np.float64)
        self._exits = [ground.around(int(cell), EXIT_M) for cell in links.end]
        self.waiting = np.zeros(len(links), np.int64)
        self.swaps = 0

    def delay_m(self) -> npt.NDArray[np.float64]:
        """(l,) metres of walking worth the wait behind those who chose each link already."""
        return self.waiting * self._links.every_s * WALK_MPS

    def shift_clock(self, ticks_back: int) -> None:
        """The tick that was `ticks_back` is now 0."""
        self._next_at -= ticks_back
        self.swaps = 0

    def serve(self, agents: Agents, tick: int) -> list[int]:
        """Let riders off and queuers on. Rows of those who stepped off in this tick, on their new level, ascending."""
        riding = np.flatnonzero((agents.mode == RIDING) & (agents.until <= tick))
        off = [int(i) for i in riding[np.argsort(agents.until[riding], kind="stable")] if self._step_off(agents, int(i), tick)]
        queued = np.flatnonzero(agents.mode == QUEUEING)
        if len(queued):
            inside = np.bincount(agents.link[agents.mode == RIDING], minlength=len(self._links))
            start = self._links.start[agents.link[queued]]
            near = np.hypot(agents.x[queued] - self._ground.x[start], agents.y[queued] - self._ground.y[start]) <= BOARD_M
            queued = queued[near]
            order = np.lexsort((queued, agents.since[queued], agents.link[queued]))
            queued = queued[order]
            first = np.unique(agents.link[queued], return_index=True)[1]
            for i in queued[first].tolist():
                link = int(agents.link[i])
                if tick >= self._next_at[link] and inside[link] < self._links.room_for[link]:
                    self._next_at[link] = max(self._next_at[link], float(tick - 1)) + self._links.every_s[link] / TICK_S
                    self._board(agents, i, tick)
        return sorted(off)

    def _board(self, agents: Agents, i: int, tick: int) -> None:
        link = int(agents.link[i])
        cell = int(self._links.start[link])
        agents.mode[i] = RIDING
        agents.since[i] = tick
        agents.until[i] = tick + ticks(float(self._links.seconds[link]))
        agents.x[i], agents.y[i], agents.cell[i] = self._ground.x[cell], self._ground.y[cell], cell
        agents.slow_s[i] = 0.0

    def _step_off(self, agents: Agents, i: int, tick: int) -> bool:
        link = int(agents.link[i])
        level = int(self._links.end_level[link])
        spots = self._exits[link]
        ground = self._ground
        at = kernels.first_vacant(spots, 0, ground.x, ground.y, level, agents.x, agents.y, agents.level, agents.mode, EXIT_GAP_M)
        if at >= 0:
            x, y, cell = float(ground.x[at]), float(ground.y[at]), at
        elif tick - agents.until[i] >= SWAP_AFTER:
            # Both ends can be full of people who wait for each other's connector: one who waits here steps on, and leaves the place to who comes off.
            end = int(self._links.end[link])
            rows = np.flatnonzero((agents.mode == QUEUEING) & (agents.level == level))
            rows = rows[np.hypot(agents.x[rows] - ground.x[end], agents.y[rows] - ground.y[end]) <= EXIT_M]
            if not len(rows):
                return False
            other = int(rows[np.argmin(agents.since[rows])])
            x, y, cell = float(agents.x[other]), float(agents.y[other]), int(agents.cell[other])
            self._board(agents, other, tick)
            self.swaps += 1
        else:
            return False
        agents.x[i], agents.y[i], agents.cell[i], agents.level[i] = x, y, cell, level
        agents.heading_x[i] = agents.heading_y[i] = 0.0
        agents.mode[i] = WALKING  # at once, so that the next one off sees this body
        return True
