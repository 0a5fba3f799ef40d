"""Zones that operators draw, as a venue's position host watches them: who is in which, what they did there, what a restart must know.

Owns the drawn zones that are in force, membership and counts folded from events, and the watch (`spatial.drawn_zones`) that makes the events. Journals and publishes nothing.

**Restarts.** The watch is volatile. What it held at a checkpoint c is known: membership by the events up to c, changes not confirmed yet by `zones_pending.v1`, places by
`seen.v1`. The ticks after c, sent again, bring it to where it was; what it says of them meanwhile is in the journal and is dropped. A tick that adopts zones is a
checkpoint, so the zones are the same from c on.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from actors.crowd_state import CrowdState
from actors.events import ZonesAdopted, ZonesCrossed, ZonesPending
from actors.messages import ZoneState
from esplanade.core.clock import TICK_S
from spatial.columns import LEFT
from spatial.drawn_zones import BACKWARD, FORWARD, Places, Watched, ground_m2, outline, passed, watches
from spatial.fence_watch import CROSS, DWELL, ENTER, EXIT, Held
from spatial.zone_shapes import DrawnZone, Line

I8 = npt.NDArray[np.int64]

STAYS_S: Final = (0, 10, 30, 60, 120, 300, 600, 1_200, 1_800, 3_600, 7_200)
"""Lengths of finished stays are counted in these classes: from each of these seconds up to the next."""

FLOW_TICKS: Final = 600
"""Entries and exits of the last minute of venue time are told as a flow."""


class SavedZone(msgspec.Struct, array_like=True):
    """subject (n,) u4, since (n,) u8 ticks, dwelt (n,) u1 of those inside; pending: subject (k,) u4, since (k,) u8; by subject."""

    zone: DrawnZone
    counts: tuple[int, int, int, int, int]
    subject: bytes
    since: bytes
    dwelt: bytes
    pending: bytes
    pending_since: bytes
    stays: tuple[int, ...] = ()
    recent: tuple[tuple[int, int, int], ...] = ()


@dataclass(slots=True)
class _Zone:
    """entries, exits, crossed, dwells, stayed (ticks). inside: subject -> (tick of entry, has dwelt). base, pending: inside, and changes not confirmed, at the newest checkpoint. stays: finished ones by STAYS_S; recent: (tick, entries, exits) of the last FLOW_TICKS."""

    zone: DrawnZone
    ground_m2: float
    entries: int = 0
    exits: int = 0
    crossed: int = 0
    dwells: int = 0
    stayed: int = 0
    inside: dict[int, tuple[int, bool]] = field(default_factory=dict)
    base: dict[int, tuple[int, bool]] = field(default_factory=dict)
    pending: dict[int, int] = field(default_factory=dict)
    stays: list[int] = field(default_factory=lambda: [0] * len(STAYS_S))
    recent: list[tuple[int, int, int]] = field(default_factory=list)


class ZoneWatch:
    """Of one venue. `zones`: those in force, by id."""

    def __init__(self, n_levels: int) -> None:
        self._n_levels = n_levels
        self._held: dict[str, _Zone] = {}
        self._watched: list[Watched] | None = None  # None: to be made by `resume`
        self._room = 0

    def __len__(self) -> int:
        return len(self._held)

    # --- fold ---------------------------------------------------------------------------------------------------------

    def apply(self, event: ZonesAdopted | ZonesCrossed | ZonesPending) -> None:
        match event:
            case ZonesAdopted():
                for zone_id in (*event.erased, *(zone.id for zone in event.drawn)):
                    self._held.pop(zone_id, None)
                for zone in event.drawn:
                    self._held[zone.id] = _Zone(zone, ground_m2(zone))
            case ZonesCrossed():
                names = [self._held[zone_id] for zone_id in event.zones]
                rows = zip(event.kind, np.frombuffer(event.zone, "<u2").tolist(), np.frombuffer(event.subject, "<u4").tolist(), strict=True)
                for kind, at, subject in rows:
                    _fold(names[at], kind, subject, event.tick)
            case ZonesPending():
                names = [self._held[zone_id] for zone_id in event.zones]
                columns = (
                    np.frombuffer(event.zone, "<u2").tolist(),
                    np.frombuffer(event.subject, "<u4").tolist(),
                    np.frombuffer(event.since, "<u8").tolist(),
                )
                for at, subject, since in zip(*columns, strict=True):
                    names[at].pending[subject] = since

    def checkpoint(self) -> None:
        """The events so far are those up to a checkpoint; what is pending at it comes after."""
        for held in self._held.values():
            held.base, held.pending = dict(held.inside), {}

    def save(self, crowd: CrowdState) -> list[SavedZone]:
        pending = self._pending(crowd)
        saved = []
        for zone_id, held in sorted(self._held.items()):
            who = sorted(held.inside)
            waiting = sorted(pending.get(zone_id, {}).items())
            saved.append(
                SavedZone(
                    held.zone, (held.entries, held.exits, held.crossed, held.dwells, held.stayed), np.array(who, "<u4").tobytes(),
                    np.array([held.inside[s][0] for s in who], "<u8").tobytes(), bytes(held.inside[s][1] for s in who),
                    np.array([s for s, _ in waiting], "<u4").tobytes(), np.array([since for _, since in waiting], "<u8").tobytes(),
                    tuple(held.stays), tuple(held.recent),
                )
            )  # fmt: skip
        return saved

    def load(self, saved: list[SavedZone]) -> None:
        """Into a fresh watch."""
        for one in saved:
            columns = np.frombuffer(one.subject, "<u4").tolist(), np.frombuffer(one.since, "<u8").tolist(), one.dwelt
            inside = {subject: (since, bool(dwelt)) for subject, since, dwelt in zip(*columns, strict=True)}
            pending = zip(np.frombuffer(one.pending, "<u4").tolist(), np.frombuffer(one.pending_since, "<u8").tolist(), strict=True)
            self._held[one.zone.id] = _Zone(
                one.zone, ground_m2(one.zone), *one.counts, inside, dict(inside), dict(pending), list(one.stays), list(one.recent)
            )

    # --- the watch ----------------------------------------------------------------------------------------------------

    def changed(self, zones: Mapping[str, DrawnZone]) -> tuple[tuple[DrawnZone, ...], tuple[str, ...]]:
        """(those that are new here or differ, ids of those that are gone), by id."""
        drawn = tuple(zones[i] for i in sorted(zones) if i not in self._held or self._held[i].zone != zones[i])
        return drawn, tuple(sorted(self._held.keys() - zones.keys()))

    def members(self) -> set[int]:
        """Subjects inside some zone, as the events say."""
        return {subject for held in self._held.values() for subject in held.inside}

    def resume(self, tick: int, crowd: CrowdState, *, at_checkpoint: bool) -> None:
        """Make the watch as of the close of `tick`, from the places in `crowd` and membership: that of the newest checkpoint, or that of the newest event."""
        inside = {zone_id: held.base if at_checkpoint else held.inside for zone_id, held in self._held.items()}
        self._make(tick, crowd, inside, {zone_id: held.pending if at_checkpoint else {} for zone_id, held in self._held.items()})

    def adopt(self, event: ZonesAdopted, crowd: CrowdState) -> None:
        """Take up other zones, of the close of `event.tick` on, knowing what was known of those that stay. Call before the crowd moves."""
        pending = self._pending(crowd)
        for zone in event.drawn:
            pending.pop(zone.id, None)
        self.apply(event)
        self._make(event.tick - 1, crowd, {zone_id: held.inside for zone_id, held in self._held.items()}, pending)

    def _make(
        self, tick: int, crowd: CrowdState, inside: Mapping[str, Mapping[int, tuple[int, bool]]], pending: Mapping[str, Mapping[int, int]]
    ) -> None:
        known = sorted({subject for part in (*inside.values(), *pending.values()) for subject in part})
        crowd.rows_of(np.array(known, np.uint32))
        self._room = len(crowd.subject)
        self._watched = watches((held.zone for held in self._held.values()), self._n_levels, self._room)
        for watched in self._watched:
            rows: list[tuple[int, int, float, float, int]] = []
            for fence, zone_id in enumerate(watched.ids):
                waiting = pending.get(zone_id, {})
                for subject, (since, dwelt) in inside[zone_id].items():
                    rows.append((subject, fence, float(since), float(waiting.get(subject, np.inf)), 3 if dwelt else 1))
                rows += [(subject, fence, np.inf, float(since), 0) for subject, since in waiting.items() if subject not in inside[zone_id]]
            table = np.array(rows, np.float64).reshape(-1, 5)
            who = crowd.rows_of(table[:, 0].astype(np.uint32)).astype(np.int64)
            held = Held(who, table[:, 1].astype(np.int32), table[:, 2], table[:, 3], table[:, 4].astype(np.uint8))
            n = crowd.count
            level, x_m, y_m = crowd.level[:n].copy(), crowd.x_m[:n].astype(np.float64), crowd.y_m[:n].astype(np.float64)
            here = crowd.present[:n] & np.isfinite(x_m) & np.isfinite(y_m)
            for row, fence in zip(who.tolist(), held.fence.tolist(), strict=True):
                if not here[row]:
                    # Where they are is not known any more (a free venue's host restarted): taken as in the middle of the zone that they are in.
                    zone = self._held[watched.ids[fence]].zone
                    spot = outline(zone).representative_point()
                    level[row], x_m[row], y_m[row], here[row] = zone.level, spot.x, spot.y, True
            placed = np.flatnonzero(here)
            spread = _spread(watched.accuracy_m, len(placed))
            watched.watch.resume(float(tick), placed, level[placed], x_m[placed], y_m[placed], held, cov_m2=spread)

    @property
    def lines(self) -> bool:
        """Whether any zone is a line, for which `step` needs to know where people came from."""
        return any(isinstance(held.zone.shape, Line) for held in self._held.values())

    def step(self, tick: int, crowd: CrowdState, row: npt.NDArray[np.integer], before: Places | None = None) -> ZonesCrossed | None:
        """What follows for these rows of the crowd from where they are now (gone, where they are not present), and, for lines, from where each was `before`."""
        if not self._held:
            return None
        assert self._watched is not None
        if len(crowd.subject) > self._room:
            self._room = len(crowd.subject)
            for watched in self._watched:
                watched.watch.grow(self._room)
        row = np.asarray(row, np.int64)
        level = np.where(crowd.present[row], crowd.level[row], LEFT).astype(np.uint8)
        names: list[str] = []
        parts: list[tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], I8, npt.NDArray[np.float32]]] = []
        for watched in self._watched:
            events = watched.watch.step(
                float(tick), row, level, crowd.x_m[row], crowd.y_m[row], cov_m2=_spread(watched.accuracy_m, len(row)), tags=crowd.segments[row]
            )  # fmt: skip
            if len(events):
                parts.append((events.kind, events.fence.astype(np.int64) + len(names), events.person, events.confidence))
            names += watched.ids
        if before is not None:
            now = Places(level, crowd.x_m[row].astype(np.float64), crowd.y_m[row].astype(np.float64))
            for zone_id, held in sorted(self._held.items()):
                if isinstance(held.zone.shape, Line):
                    way = passed(held.zone, before, now)
                    who = np.flatnonzero(way)
                    kinds = np.where(way[who] > 0, FORWARD, BACKWARD).astype(np.uint8)
                    which = np.full(len(who), len(names), np.int64)
                    parts.append((kinds, which, row[who].astype(np.int64), np.ones(len(who), np.float32)))
                    names.append(zone_id)
        if not any(len(part[0]) for part in parts):
            return None
        kind, zone, person, confidence = (np.concatenate(column) for column in zip(*parts, strict=True))
        subject = crowd.subject[person]
        ids = sorted({names[z] for z in np.unique(zone).tolist()})
        place = np.zeros(len(names), np.int64)
        for at, zone_id in enumerate(ids):
            place[names.index(zone_id)] = at
        order = np.lexsort((kind, subject, place[zone]))
        return ZonesCrossed(
            tick, tuple(ids), kind[order].tobytes(), place[zone][order].astype("<u2").tobytes(), subject[order].astype("<u4").tobytes(),
            confidence[order].astype("<f4").tobytes(),
        )  # fmt: skip

    def pending(self, tick: int, crowd: CrowdState) -> ZonesPending | None:
        """What is not confirmed yet; None where nothing is."""
        rows = [(zone_id, subject, since) for zone_id, waiting in sorted(self._pending(crowd).items()) for subject, since in sorted(waiting.items())]
        if not rows:
            return None
        ids = sorted({zone_id for zone_id, _, _ in rows})
        place = {zone_id: at for at, zone_id in enumerate(ids)}
        return ZonesPending(
            tick, tuple(ids), np.array([place[zone_id] for zone_id, _, _ in rows], "<u2").tobytes(), np.array([s for _, s, _ in rows], "<u4").tobytes(),
            np.array([since for _, _, since in rows], "<u8").tobytes(),
        )  # fmt: skip

    def _pending(self, crowd: CrowdState) -> dict[str, dict[int, int]]:
        found: dict[str, dict[int, int]] = {}
        for watched in self._watched or ():
            held = watched.watch.held()
            for at in np.flatnonzero(np.isfinite(held.pending_s)).tolist():
                waiting = found.setdefault(watched.ids[int(held.fence[at])], {})
                waiting[int(crowd.subject[held.person[at]])] = int(held.pending_s[at])
        return {zone_id: waiting for zone_id, waiting in found.items() if zone_id in self._held}

    # --- what others see ----------------------------------------------------------------------------------------------

    def state(self, zone_id: str, tick: int) -> ZoneState | None:
        held = self._held.get(zone_id)
        if held is None:
            return None
        return ZoneState(
            tick=tick, inside=len(held.inside), entries=held.entries, exits=held.exits, dwells=held.dwells, stayed_s=held.stayed * TICK_S,
            crossed=held.crossed, ground_m2=held.ground_m2,
        )  # fmt: skip

    def flow(self, zone_id: str, tick: int) -> tuple[float, float]:
        """Entries and exits (of a line: passings forward and backward) a minute, over the last minute."""
        recent = [one for one in self._held[zone_id].recent if one[0] > tick - FLOW_TICKS]
        minutes = FLOW_TICKS * TICK_S / 60
        return sum(entries for _, entries, _ in recent) / minutes, sum(exits for _, _, exits in recent) / minutes

    def stays(self, zone_id: str) -> tuple[int, ...]:
        """Finished stays by STAYS_S."""
        return tuple(self._held[zone_id].stays)

    def ground(self, zone_id: str) -> DrawnZone | None:
        held = self._held.get(zone_id)
        return None if held is None else held.zone


def _fold(held: _Zone, kind: int, subject: int, tick: int) -> None:
    if kind in (ENTER, EXIT, FORWARD, BACKWARD):
        inwards = kind in (ENTER, FORWARD)
        if not held.recent or held.recent[-1][0] != tick:
            held.recent = [one for one in held.recent if one[0] > tick - FLOW_TICKS]
            held.recent.append((tick, 0, 0))
        _, entries, exits = held.recent[-1]
        held.recent[-1] = tick, entries + inwards, exits + (not inwards)
    if kind == FORWARD:
        held.entries += 1
    elif kind == BACKWARD:
        held.exits += 1
    elif kind == ENTER:
        held.entries += 1
        held.inside[subject] = tick, False
    elif kind == EXIT:
        held.exits += 1
        stay = tick - held.inside.pop(subject)[0]
        held.stayed += stay
        held.stays[bisect_right(STAYS_S, stay * TICK_S + 1e-9) - 1] += 1
    elif kind == DWELL:
        held.dwells += 1
        held.inside[subject] = held.inside[subject][0], True
    elif kind == CROSS:
        held.crossed += 1


def _spread(accuracy_m: float, n: int) -> npt.NDArray[np.float64] | None:
    """Covariance (n, 3) of positions that are good to so much in each direction; None where they are exact."""
    return np.tile([accuracy_m**2, 0.0, accuracy_m**2], (n, 1)) if accuracy_m > 0 else None
