"""Rows that wait for their tick, by tick and source, and what each source has declared.

Owns the question "is tick t complete?" and the merging of its rows. It closes nothing and reads no clock; time is passed in.

A source declares each tick once, from its first tick on, without gaps (a declaration may overtake another on the way; a missing one is waited for). Rows
of a source are counted by distinct (tick, subject), so that sending them again changes nothing.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from esplanade.core.errors import Conflict, InvalidInput, LimitExceeded
from spatial.columns import PositionColumns

MAX_AHEAD: Final = 256
"""Ticks that rows and declarations may be ahead of the last closed one."""

MAX_WAITING_ROWS: Final = 8_000_000
"""Rows that wait, at most (13 or 14 bytes each)."""

MAX_SOURCES: Final = 64
_RECENT: Final = 64


class _Source:
    def __init__(self, first_tick: int, now_s: float) -> None:
        self.first_tick = first_tick
        self.heard_s = now_s
        self.declared: dict[int, int] = {}
        self.counted: dict[int, tuple[int, int]] = {}  # tick -> (rows held when counted, distinct subjects)


class TickBuffer:
    """`closed`: last tick taken out. `floor`: rows of ticks up to it cannot be told from rows sent again, and count as such. `unsourced`: whose rows of that tick came
    from no source, from phones that is; in no order, and somebody may be there twice."""

    def __init__(self) -> None:
        self.closed = -1
        self.floor = -1
        self.waiting_rows = 0
        self.unsourced: npt.NDArray[np.uint32] = np.zeros(0, np.uint32)
        self._sources: dict[str, _Source] = {}
        self._parts: dict[int, dict[str, list[PositionColumns]]] = {}
        self._recent: dict[int, npt.NDArray[np.uint32]] = {}

    @property
    def sources(self) -> dict[str, int]:
        """First tick by name."""
        return {name: source.first_tick for name, source in sorted(self._sources.items())}

    def open(self, name: str, first_tick: int, now_s: float) -> None:
        if len(self._sources) >= MAX_SOURCES:
            raise LimitExceeded(f"source {name!r}: {MAX_SOURCES} are open already; close one")
        self._sources[name] = _Source(first_tick, now_s)

    def hear(self, name: str, now_s: float) -> None:
        self._sources[name].heard_s = now_s

    def drop(self, name: str) -> None:
        self._sources.pop(name, None)

    def set_clock(self, closed: int, *, floor: int) -> None:
        """Start over from a restored or set clock; what waited is dropped, because it will be sent again."""
        self.closed, self.floor, self.waiting_rows = closed, floor, 0
        self._parts.clear()
        self._recent.clear()

    def add(self, columns: PositionColumns, source: str, tick: int, now_s: float) -> int:
        """Hold rows for their tick; returns how many came too late. Raises LimitExceeded where there is no room."""
        held = self._sources.get(source)
        if held is not None:
            held.heard_s = now_s
        if tick <= self.closed:
            if tick <= self.floor:
                return 0
            known = self._recent.get(tick)
            return len(columns) if known is None else int(np.count_nonzero(~np.isin(columns.subject, known)))
        self._check_ahead(tick)
        if self.waiting_rows + len(columns) > MAX_WAITING_ROWS:
            raise LimitExceeded(
                f"{self.waiting_rows} rows wait for tick {self.closed + 1}; at most {MAX_WAITING_ROWS}: send again when it has closed"
            )
        self.waiting_rows += len(columns)
        self._parts.setdefault(tick, {}).setdefault(source, []).append(columns)
        return 0

    def declare(self, name: str, tick: int, rows: int, now_s: float) -> None:
        """Raises InvalidInput for a source that is not open, Conflict where the tick was declared with another count, LimitExceeded too far ahead."""
        source = self._sources.get(name)
        if source is None:
            raise InvalidInput(f"watermark of source {name!r}: it is not open; open it first")
        if rows < 0:
            raise InvalidInput(f"watermark of source {name!r}, tick {tick}: {rows} rows; must not be negative")
        source.heard_s = now_s
        if tick <= self.closed:
            return
        self._check_ahead(tick)
        if source.declared.setdefault(tick, rows) != rows:
            raise Conflict(f"source {name!r} declared {source.declared[tick]} rows for tick {tick} and now {rows}; a tick is declared once")

    def _check_ahead(self, tick: int) -> None:
        if tick > self.closed + MAX_AHEAD:
            raise LimitExceeded(f"tick {tick} is {tick - self.closed} ahead of the last closed one; at most {MAX_AHEAD}: wait for TickClosed")

    def awaited(self, tick: int) -> bool:
        """Whether an open source has its say in this tick."""
        return any(source.first_tick <= tick for source in self._sources.values())

    def complete(self, tick: int) -> bool:
        """Whether every source that has its say has declared the tick, and its rows are here."""
        return all(self._has(name, source, tick) for name, source in self._sources.items() if source.first_tick <= tick)

    def _has(self, name: str, source: _Source, tick: int) -> bool:
        declared = source.declared.get(tick)
        if declared is None:
            return False
        parts = self._parts.get(tick, {}).get(name, [])
        rows = sum(len(part) for part in parts)
        if rows < declared:
            return False
        counted = source.counted.get(tick)
        if counted is None or counted[0] != rows:
            distinct = _distinct(np.concatenate([part.subject for part in parts])) if parts else 0
            source.counted[tick] = counted = rows, distinct
        return counted[1] >= declared

    def begun(self, tick: int) -> bool:
        """Whether some source has declared this tick or a later one."""
        return any(declared >= tick for source in self._sources.values() for declared in source.declared)

    def rewound(self, tick: int) -> bool:
        """Whether every source that has its say in the tick has declared it."""
        return all(tick in source.declared for source in self._sources.values() if source.first_tick <= tick)

    def silent_since(self, before_s: float) -> list[str]:
        """Sources not heard of since a time."""
        return sorted(name for name, source in self._sources.items() if source.heard_s < before_s)

    def take(self) -> PositionColumns:
        """Close the next tick: its rows by subject, each subject's newest (the last sent, of the last source by name)."""
        tick = self.closed + 1
        by_source = self._parts.pop(tick, {})
        self.unsourced = np.concatenate([np.zeros(0, np.uint32), *(part.subject for part in by_source.get("", []))])
        columns = PositionColumns.concat([part for name in sorted(by_source) for part in by_source[name]])
        self.waiting_rows -= len(columns)
        self.closed = tick
        for source in self._sources.values():
            source.declared.pop(tick, None)
            source.counted.pop(tick, None)
        merged = columns if _ascending(columns.subject) else _newest(columns)
        self._recent[tick] = merged.subject
        self._recent.pop(tick - _RECENT, None)
        return merged


def _ascending(subject: npt.NDArray[np.uint32]) -> bool:
    """Whether each is greater than the one before: as one source sends a crowd."""
    return bool((subject[1:] > subject[:-1]).all())


def _newest(columns: PositionColumns) -> PositionColumns:
    """The last row of each subject, by subject."""
    order = np.argsort(columns.subject, kind="stable")
    subject = columns.subject[order]
    newest = np.ones(len(subject), np.bool_)
    newest[:-1] = subject[1:] != subject[:-1]
    return columns.take(order[newest])


def _distinct(subject: npt.NDArray[np.uint32]) -> int:
    """How many different ones (sorting beats hashing here by five to one)."""
    if _ascending(subject):
        return len(subject)
    ordered = np.sort(subject)
    return 1 + int(np.count_nonzero(ordered[1:] != ordered[:-1]))
