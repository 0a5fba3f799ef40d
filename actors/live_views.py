"""Dots, density and zones of a venue, made only while somebody watches.

Owns who watches what at which rate, and the pseudonyms; reads the crowd and changes nothing. Rates are in Hz of venue time: one publication in 10 / rate ticks.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

import numpy as np

from actors import position_kernels as kernels
from actors.crowd_state import CrowdState
from actors.messages import ZoneState
from actors.topics import Body, Density, Dots, ZoneCounts
from actors.venue_book import VenueBook
from esplanade.core.clock import TICK_S

WATCH_S: Final = 10.0
"""A watch that is not repeated for so long (system clock) ends."""

CELL_M: Final = 4.0
_ZONE: Final = re.compile(r"venue/[^/]+/zone/[^/]+")
MAX_WATCHED: Final = 4_096
_TOPIC: Final = re.compile(r"venue/[^/]+/(dots|density)/(\d{1,3})")


class LiveViews:
    def __init__(self, book: VenueBook, pseudonym_key: bytes) -> None:
        self._book = book
        self._key = np.frombuffer(pseudonym_key, "<u8", count=8)
        self._watched: dict[str, tuple[int, float]] = {}  # topic -> (ticks between, expires_s)
        self._now_s = 0.0

    def follow(self, book: VenueBook) -> None:
        """The venue's document is this one from now on."""
        self._book = book

    def watch(self, topics: dict[str, float], now_s: float) -> None:
        """Topics that are none of this venue's views are ignored."""
        self._now_s = now_s
        for topic, rate_hz in topics.items():
            found = _TOPIC.fullmatch(topic)
            known = _ZONE.fullmatch(topic) or (found and int(found[2]) < len(self._book.venue.levels))
            if known and rate_hz > 0 and (topic in self._watched or len(self._watched) < MAX_WATCHED):
                self._watched[topic] = max(1, round(1 / (rate_hz * TICK_S))), now_s + WATCH_S

    def expire(self, now_s: float) -> None:
        self._now_s = now_s
        for topic in [topic for topic, (_, expires_s) in self._watched.items() if expires_s <= now_s]:
            del self._watched[topic]

    def of_tick(self, tick: int, crowd: CrowdState, zone_state: Callable[[str], ZoneState | None]) -> list[tuple[str, Body]]:
        """Publications due at this tick."""
        made: list[tuple[str, Body]] = []
        for topic, (every, _) in sorted(self._watched.items()):
            if tick % every == 0:
                _, _, kind, which = topic.split("/")
                if kind == "zone":
                    state = zone_state(which)
                    if state is not None:
                        made.append((topic, self._zone(which, state)))
                else:
                    made.append((topic, self._dots(tick, int(which), crowd) if kind == "dots" else self.density(tick, int(which), crowd)))
        return made

    def _zone(self, zone_id: str, state: ZoneState) -> ZoneCounts:
        return ZoneCounts(
            venue=self._book.venue.id, zone=zone_id, tick=state.tick, inside=state.inside, entries=state.entries, exits=state.exits,
            dwells=state.dwells, crossed=state.crossed, stayed_s=state.stayed_s, ground_m2=state.ground_m2,
        )  # fmt: skip

    def _on_level(self, level: int, crowd: CrowdState) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
        n = crowd.count
        return np.flatnonzero(crowd.present[:n] & (crowd.level[:n] == level) & np.isfinite(crowd.x_m[:n]))

    def _dots(self, tick: int, level: int, crowd: CrowdState) -> Dots:
        row = self._on_level(level, crowd)
        name = np.empty(len(row), np.uint32)
        kernels.pseudonyms(crowd.subject[row], self._key, name)
        order = np.argsort(name)  # the order tells nothing either
        row, name = row[order], name[order]
        radius_dm = crowd.radius_dm[row]
        return Dots(
            venue=self._book.venue.id, level=level, tick=tick, pseudonym=name.tobytes(), x=crowd.x_m[row].tobytes(), y=crowd.y_m[row].tobytes(),
            radius=radius_dm.tobytes() if radius_dm.any() else b"",
        )  # fmt: skip

    def density(self, tick: int, level: int, crowd: CrowdState) -> Density:
        """Where people are on a level, by cell."""
        points = np.array([point for polygon in self._book.venue.levels[level].outline for point in polygon[0]])
        (x0_m, y0_m), (x1_m, y1_m) = points.min(axis=0), points.max(axis=0)
        cell_m = max(CELL_M, (x1_m - x0_m) / 1000, (y1_m - y0_m) / 1000)
        cols, rows = int((x1_m - x0_m) // cell_m) + 1, int((y1_m - y0_m) // cell_m) + 1
        at = self._on_level(level, crowd)
        col = np.clip(((crowd.x_m[at] - x0_m) / cell_m).astype(np.int64), 0, cols - 1)
        row = np.clip(((crowd.y_m[at] - y0_m) / cell_m).astype(np.int64), 0, rows - 1)
        count = np.minimum(np.bincount(row * cols + col, minlength=rows * cols), 65_535).astype("<u2")
        return Density(
            venue=self._book.venue.id, level=level, tick=tick, x0_m=float(x0_m), y0_m=float(y0_m), cell_m=float(cell_m),
            cols=cols, rows=rows, count=count.tobytes(),
        )  # fmt: skip
