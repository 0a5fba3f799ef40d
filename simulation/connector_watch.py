"""How it stands at each connector of a study, second by second: how many wait, how long those waited who stepped on, how dense it is at both ends.

Owns the measures; it changes nothing. Density counts people within AROUND_M of a stop over the walkable ground there; its level of service is Fruin's for those who
wait (1971). Who waits, and since when, is told in `simulation.transport`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from esplanade.core.errors import InvalidInput
from simulation.transport import Escalator, Lift, Stairs, Transport
from simulation.walkers import Walkers
from spatial import measures

F8 = npt.NDArray[np.float64]

AROUND_M: Final = 3.0


@dataclass(frozen=True, slots=True)
class ConnectorFigures:
    """A connector over a time. density: 1/m2, at its fuller end; service: Fruin's band of the mean density there, for people who wait. wait: seconds, of those who
    stepped on in this time; 0 where nobody did."""

    id: str
    boarded: int
    per_minute: float
    queue_mean: float
    queue_max: int
    wait_mean_s: float
    wait_p95_s: float
    inside_mean: float
    density_mean: float
    density_max: float
    service: str


class ConnectorWatch:
    """Takes down queue, riders and density of every connector each time it is asked."""

    def __init__(self, walkers: Walkers, transport: Transport) -> None:
        floor = walkers.floor
        self._transport = transport
        stops = sorted({(int(k), int(cell)) for k, a, b in zip(transport.of, floor.hop_start, floor.hop_end, strict=True) for cell in (a, b)})
        level_of = floor.level_of(np.array([cell for _, cell in stops], np.int32))
        self._stop_of = np.array([k for k, _ in stops], np.int64)
        self._cells = [
            floor.near(level, (float(floor.x[cell]), float(floor.y[cell])), AROUND_M)
            for (_, cell), level in zip(stops, level_of.tolist(), strict=True)
        ]
        self._area = np.array([len(cells) for cells in self._cells]) * floor.cell_m**2
        self.time_s: list[float] = []
        self._queue: list[npt.NDArray[np.int64]] = []
        self._inside: list[npt.NDArray[np.int64]] = []
        self._density: list[F8] = []

    def take(self, walkers: Walkers) -> None:
        """Take down how it stands now."""
        t = self._transport
        n = len(t.connectors)
        here = np.bincount(walkers.rows["cell"], minlength=len(walkers.floor.x))
        at_stop = np.array([here[cells].sum() for cells in self._cells], np.float64) / np.maximum(self._area, 1e-9) if self._cells else np.zeros(0)
        fuller = np.zeros(n)
        np.maximum.at(fuller, self._stop_of, at_stop)
        self.time_s.append(walkers.time_s)
        self._queue.append(t.queue.copy())
        self._inside.append(np.bincount(t.of[[rider[2] for rider in t.riders]], minlength=n) if t.riders else np.zeros(n, np.int64))
        self._density.append(fuller)

    def figures(self, connector_id: str, *, from_s: float, until_s: float, step_s: float) -> ConnectorFigures:
        """A connector between two times, by id, or by kind and number among its kind (`escalator-3`). Raises InvalidInput for one that is not there, or times at
        which nothing was taken down."""
        k = self.number(connector_id)
        time = np.array(self.time_s)
        rows = np.flatnonzero((time >= from_s) & (time <= until_s))
        if not len(rows):
            last = f"{time[0]:.0f} to {time[-1]:.0f} s" if len(time) else "nothing"
            raise InvalidInput(f"connector {connector_id}: nothing was taken down from {from_s:g} to {until_s:g} s; the run covers {last}")
        waits = np.array([wait for step, which, wait in self._transport.boarded if which == k and from_s <= step * step_s <= until_s])
        queue, inside, density = (np.array([part[row][k] for row in rows.tolist()]) for part in (self._queue, self._inside, self._density))
        seconds = max(step_s, min(until_s, float(time[-1])) - max(from_s, 0.0))
        return ConnectorFigures(
            self._transport.connectors[k].id, len(waits), 60.0 * len(waits) / seconds, float(queue.mean()), int(queue.max()), float(waits.mean()) if len(waits) else 0.0,
            float(np.percentile(waits, 95)) if len(waits) else 0.0, float(inside.mean()), float(density.mean()), float(density.max()),
            measures.band_of(float(density.mean()), waiting=True),
        )  # fmt: skip

    def number(self, name: str) -> int:
        """Which connector is named so, by id or by kind and number. Raises InvalidInput for none."""
        names = [c.id for c in self._transport.connectors]
        if name in names:
            return names.index(name)
        counts: dict[str, int] = {}
        for k, c in enumerate(self._transport.connectors):
            kind = {Lift: "lift", Escalator: "escalator", Stairs: "stairs"}.get(type(c), "hop")
            counts[kind] = counts.get(kind, 0) + 1
            if name == f"{kind}-{counts[kind]}":
                return k
        short = {f"{kind}-1 to {kind}-{n}" for kind, n in counts.items()}
        raise InvalidInput(f"connector {name!r}: there are {', '.join(names) or 'none'}; or by kind and number, {', '.join(sorted(short)) or 'none'}")
