"""The agents as a structure of arrays, in the order of their subjects.

Owns storage: growth, appending and stable removal. What the numbers mean is told here, what changes them is the engine's business.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

WALKING: Final = 0  # along a field: to a place or to a connector's stop
STAYING: Final = 1  # at a place: shuffling between spots
QUEUEING: Final = 2  # at a stop, for a connector
RIDING: Final = 3  # inside a connector: seen at its stop, touches nobody

_FIELDS: Final[dict[str, Any]] = {
    "subject": np.uint32, "level": np.uint8, "mode": np.uint8, "x": np.float64, "y": np.float64, "heading_x": np.float64, "heading_y": np.float64,
    "slow_s": np.float64, "speed": np.float64, "cell": np.int32, "field": np.int32, "link": np.int32, "place": np.int32, "last": np.int32,
    "target_x": np.float64, "target_y": np.float64, "until": np.int64, "move_at": np.int64, "since": np.int64, "stops": np.int32, "draws": np.uint32,
    "mark_x": np.float64, "mark_y": np.float64, "mark_at": np.int64,
    "next_x": np.float64, "next_y": np.float64, "next_hx": np.float64, "next_hy": np.float64, "next_slow": np.float64,
    "wish_x": np.float64, "wish_y": np.float64, "wish_v": np.float64,
}  # fmt: skip


class Agents:
    """n agents, rows ascending by subject.

    x, y: metres; heading: unit vectors; cell: free cell stood on. mode: one of the above. place: where to, or where at; last: the place before.
    field, link: the leg's field, and the link to take at its end or -1. until: tick at which a stay or a ride ends; move_at: tick of the next shuffle;
    since: tick at which the mode began. stops: places left to visit. draws: chance events so far. mark: where and when last seen to get on.
    next_*: generation t + 1 of x, y, heading and slow_s.
    """

    subject: npt.NDArray[np.uint32]
    level: npt.NDArray[np.uint8]
    mode: npt.NDArray[np.uint8]
    x: npt.NDArray[np.float64]
    y: npt.NDArray[np.float64]
    heading_x: npt.NDArray[np.float64]
    heading_y: npt.NDArray[np.float64]
    slow_s: npt.NDArray[np.float64]
    speed: npt.NDArray[np.float64]
    cell: npt.NDArray[np.int32]
    field: npt.NDArray[np.int32]
    link: npt.NDArray[np.int32]
    place: npt.NDArray[np.int32]
    last: npt.NDArray[np.int32]
    target_x: npt.NDArray[np.float64]
    target_y: npt.NDArray[np.float64]
    until: npt.NDArray[np.int64]
    move_at: npt.NDArray[np.int64]
    since: npt.NDArray[np.int64]
    stops: npt.NDArray[np.int32]
    draws: npt.NDArray[np.uint32]
    mark_x: npt.NDArray[np.float64]
    mark_y: npt.NDArray[np.float64]
    mark_at: npt.NDArray[np.int64]
    next_x: npt.NDArray[np.float64]
    next_y: npt.NDArray[np.float64]
    next_hx: npt.NDArray[np.float64]
    next_hy: npt.NDArray[np.float64]
    next_slow: npt.NDArray[np.float64]
    wish_x: npt.NDArray[np.float64]
    wish_y: npt.NDArray[np.float64]
    wish_v: npt.NDArray[np.float64]

    def __init__(self) -> None:
        self._store: dict[str, npt.NDArray[Any]] = {name: np.zeros(1024, dtype) for name, dtype in _FIELDS.items()}
        self._n = 0
        self._bind()

    def __len__(self) -> int:
        return self._n

    def append(self, count: int) -> int:
        """Add `count` rows of zeros at the end; the index of the first."""
        first = self._n
        capacity = len(self._store["x"])
        if first + count > capacity:
            grown = max(first + count, 2 * capacity)
            for name, array in self._store.items():
                bigger = np.zeros(grown, array.dtype)
                bigger[:first] = array[:first]
                self._store[name] = bigger
        for array in self._store.values():
            array[first : first + count] = 0
        self._n = first + count
        self._bind()
        return first

    def keep(self, rows: npt.NDArray[np.bool_]) -> None:
        """Remove the rows where `rows` (n,) is False; the order stays."""
        kept = int(np.count_nonzero(rows))
        for array in self._store.values():
            array[:kept] = array[: self._n][rows]
        self._n = kept
        self._bind()

    def turn_generation(self) -> None:
        """Generation t + 1 becomes t."""
        for now, then in (("x", "next_x"), ("y", "next_y"), ("heading_x", "next_hx"), ("heading_y", "next_hy"), ("slow_s", "next_slow")):
            self._store[now], self._store[then] = self._store[then], self._store[now]
        self._bind()

    def _bind(self) -> None:
        for name, array in self._store.items():
            setattr(self, name, array[: self._n])
