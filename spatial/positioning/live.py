"""Where thousands of phones are, at once and as they walk: one cloud of particles a subject, one compiled pass for all observations of a tick.

Owns the clouds, who they belong to, the order of a phone's observations by its own clock, ageing, and what is told of an estimate. Pure: the server's time is an argument. It never sees a
socket, a venue document, or the observations of another subject when it places one.

The estimator is that of `grid_filter`, causal: the same likelihood of a scan over all map cells, the same motion, turn, walls and jumps between floors. Its state is a few hundred particles
instead of a probability in every cell, floor and turn, which is 4.4 KB a subject instead of 0.8 MB, and some forty times less to compute; what that costs in accuracy is in docs/positioning-live.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from esplanade.core.errors import InvalidInput
from spatial.positioning import live_kernels as kernels
from spatial.positioning.grid_filter import OPENING, SETTLE_S, SETTLE_SCANS, SETTLED_M, Locator
from spatial.positioning.live_kernels import Cloud, MapArrays, Told
from spatial.positioning.model import Model
from spatial.positioning.observations import F8
from spatial.positioning.observed import FAST, GONE, LEVEL, Answers, Observed, State, transmitter_key
from spatial.positioning.radio_map import POWER, SILENT_DBM

B1 = npt.NDArray[np.bool_]
F4 = npt.NDArray[np.float32]
I4 = npt.NDArray[np.int32]
I8 = npt.NDArray[np.int64]
U1 = npt.NDArray[np.uint8]
U4 = npt.NDArray[np.uint32]
U8 = npt.NDArray[np.uint64]

PARTICLES: Final = 256
MAX_SUBJECTS: Final = 50_000
"""Subjects of one venue at once; another one is told FULL."""
FIRST_SUBJECTS: Final = 256
USED_READINGS: Final = 48
"""The strongest readings of a scan that are compared with the map; the others count in its length alone."""
BLOCK: Final = 4
"""Cells of the ground on a side of a block, of which one stands for all when a scan is compared with the whole venue."""
SILENT_S: Final = 60.0
"""A subject of whom nothing came for so long (server's time) is forgotten."""
LOST_S: Final = 30.0
"""After so long without an observation (phone's time) nothing is known of where the walker went: the cloud begins anew."""
BACK_S: Final = 600.0
"""A phone whose clock goes back by more was set; by less: the observation is late."""
MAX_WALK_M_S: Final = 4.0
"""A dead-reckoned path faster than this is cut to it."""
SPREAD: Final = 1.2
"""Beyond `Tuning.spread_causal`, which is learned of `grid_filter`: a cloud is that much narrower than what it stands for (measured on the malls' walks)."""
STRANGERS: Final = 3
"""Scans in a row that hold nothing of this venue, after which the phone is not in it."""
STRANGE_READINGS: Final = 4
KNOWN_SHARE: Final = 0.1
FAST_M_S: Final = 8.0
"""Nobody on foot or on an escalator is faster; beyond it, and beyond both radii, an estimate is flagged."""
WAY_REACH_M: Final = 25.0
"""A change of level further than this from every way between levels is flagged."""
CHI2_90: Final = 4.605

ANY_FLOOR: Final = -1
SAYS_NOTHING_M: Final = 1e9


class LiveMap:
    """A model laid out for the kernels. levels: names of the venue's levels in order, to which the model's floors are matched by name. Raises InvalidInput for a floor that the venue does not have."""

    def __init__(self, model: Model, levels: tuple[str, ...]) -> None:
        unknown = [floor.name for floor in model.floors if floor.name not in levels]
        if unknown:
            raise InvalidInput(
                f"model of {model.site}: floors {unknown} are not levels of the venue, which has {list(levels)}; fit a model of this venue"
            )
        if not len(model.radio.norm) or not model.radio.transmitters:
            raise InvalidInput(f"model of {model.site}: its radio map is empty; survey the venue and fit it again")
        self.tuning = model.tuning
        self.levels = len(levels)
        self.level_of = np.array([levels.index(floor.name) for floor in model.floors], np.int64)
        self.floor_of = np.full(len(levels), -1, np.int64)
        locator = Locator(model)
        self.floor_of[self.level_of[locator.surveyed]] = locator.surveyed
        keys = np.array([transmitter_key(name) for name in model.radio.transmitters], np.uint64)
        order = np.argsort(keys)
        self.keys, self._index = keys[order], order.astype(np.int32)
        field = model.radio.field()
        top = field.max(axis=0)
        scale = np.maximum(top, 1e-9) / np.float32(255)
        table = np.ascontiguousarray(np.rint(field / scale).astype(np.uint8).T)
        parts: list[tuple[Any, ...]] = []
        blocks = 0
        block_first, base, at = [0], [], 0
        for f, floor in enumerate(model.floors):
            cell_of = model.radio.cell_of[f]
            base.append(at)
            row, column = np.nonzero(cell_of >= 0)
            wide = cell_of.shape[1] // BLOCK + 1
            _, block = np.unique(row // BLOCK * wide + column // BLOCK, return_inverse=True)
            n = int(block.max()) + 1 if len(row) else 0
            by_block = np.argsort(block, kind="stable")
            flat, of = (row * cell_of.shape[1] + column)[by_block], block[by_block]
            middle = np.searchsorted(of, np.arange(n)) + np.bincount(of, minlength=n) // 2
            prior = np.bincount(of, locator.prior[f].ravel()[flat], minlength=n) / len(locator.surveyed) if n else np.zeros(0)
            jump = np.bincount(of, locator.jump[f].ravel()[flat], minlength=n) if n else np.zeros(0)
            near_row, near_column = locator.nearest[f] if n else np.indices(cell_of.shape)
            parts.append((
                flat + at, np.bincount(of, minlength=n), cell_of.ravel()[flat[middle]], prior, jump, cell_of.ravel(), floor.rooms.ravel(),
                (near_row * cell_of.shape[1] + near_column).ravel(),
            ))  # fmt: skip
            at += cell_of.size
            blocks += n
            block_first.append(blocks)
        ground, count, cell, prior, jump, cells, rooms, nearest = (np.concatenate(column) for column in zip(*parts, strict=True))
        heard = np.stack([table[:, first:last].max(axis=1, initial=0) > 0 for first, last in _spans(model)], axis=1)
        self.arrays = MapArrays(
            np.ascontiguousarray(table.T), scale.astype(np.float32), model.radio.norm.astype(np.float32), np.ascontiguousarray(table[:, cell]),
            model.radio.norm[cell].astype(np.float32), np.array(block_first, np.int32), heard.astype(np.uint8), prior.astype(np.float32), jump.astype(np.float32),
            np.concatenate([[0], np.cumsum(count)]).astype(np.int32), ground.astype(np.int32), np.array(base, np.int32),
            np.array([floor.free.shape[0] for floor in model.floors], np.int32), np.array([floor.free.shape[1] for floor in model.floors], np.int32),
            cells.astype(np.int32), rooms.astype(np.uint8), nearest.astype(np.int32),
            np.array([floor.corner_m for floor in model.floors], np.float64), np.array([floor.cell_m for floor in model.floors], np.float64),
            np.array([floor.offset_m for floor in model.floors], np.float64), np.array([floor.scale for floor in model.floors], np.float64),
        )  # fmt: skip
        self.ways_m = [floor.to_venue(floor.ways_m) for floor in model.floors]

    def index_of(self, key: U8) -> I4:
        """(k,) transmitters of keys, -1 where the map knows none."""
        if not len(self.keys):
            return np.full(len(key), -1, np.int32)
        place = np.minimum(np.searchsorted(self.keys, key), len(self.keys) - 1)
        return np.where(self.keys[place] == key, self._index[place], -1).astype(np.int32)


def _spans(model: Model) -> list[tuple[int, int]]:
    """First map cell of each floor, and the one after its last."""
    return [(int(cells[cells >= 0].min()), int(cells.max()) + 1) if (cells >= 0).any() else (0, 0) for cells in model.radio.cell_of]


def _rounds(first: B1) -> Iterator[I8]:
    """Of rows in groups (first: (n,) whether a group begins), the first of each, then the second of each, and so on."""
    start = np.maximum.accumulate(np.where(first, np.arange(len(first)), 0))
    place = np.arange(len(first)) - start
    for k in range(int(place.max()) + 1 if len(place) else 0):
        yield np.flatnonzero(place == k)


class LiveFilter:
    """All subjects of one venue. `seed` fixes every draw: the same observations give the same answers, whatever batches they come in."""

    def __init__(self, maps: LiveMap, *, seed: int = 0, particles: int = PARTICLES, max_subjects: int = MAX_SUBJECTS) -> None:
        self.maps = maps
        self.seed = seed
        self.particles = particles
        self.max_subjects = max_subjects
        self._row: dict[int, int] = {}
        self._free: list[int] = []
        self._make(0)

    def __len__(self) -> int:
        return len(self._row)

    def _make(self, room: int) -> None:
        n = self.particles
        f4 = np.float32
        self._cloud = Cloud(
            np.zeros((room, n), f4), np.zeros((room, n), f4), np.zeros((room, n), f4), np.zeros((room, n), f4), np.zeros((room, n), np.uint8),
            np.zeros(room, np.uint8), np.zeros(room, np.uint8), np.zeros(room, np.uint8), np.zeros(room, np.uint64),
        )  # fmt: skip
        self._at_s = np.full(room, -np.inf)
        self._heard_s = np.full(room, -np.inf)
        self._scans = np.zeros(room, np.int64)
        self._first_s = np.zeros(room)
        self._strange = np.zeros(room, np.int64)
        self._shown = np.zeros(room, np.bool_)
        self._last = np.full((room, 5), np.nan)  # of the newest dot: t_s, level, x, y, radius

    def _columns(self) -> list[npt.NDArray[Any]]:
        return [*self._cloud, self._at_s, self._heard_s, self._scans, self._first_s, self._strange, self._shown, self._last]

    def _grow(self) -> None:
        """Twice the room; rows keep their numbers."""
        old = len(self._at_s)
        room = min(max(2 * old, FIRST_SUBJECTS), self.max_subjects)
        before = self._columns()
        self._make(room)
        for mine, theirs in zip(self._columns(), before, strict=True):
            mine[:old] = theirs
        self._free += range(room - 1, old - 1, -1)

    def _enter(self, subject: int) -> int:
        """The row of a subject, -1 where there is no room."""
        row = self._row.get(subject)
        if row is None:
            if not self._free:
                if len(self._at_s) >= self.max_subjects:
                    return -1
                self._grow()
            row = self._row[subject] = self._free.pop()
            self._clear(row)
            mixed = hashlib.blake2b(subject.to_bytes(4, "little"), key=self.seed.to_bytes(8, "little"), digest_size=8).digest()
            self._cloud.chance[row] = np.uint64(int.from_bytes(mixed, "little"))
        return row

    def _clear(self, row: int) -> None:
        self._begin(row)
        self._at_s[row] = -np.inf
        self._strange[row] = 0

    def forget(self, subject: int) -> None:
        """A subject who has left; no fault where there is none."""
        row = self._row.pop(subject, None)
        if row is not None:
            self._free.append(row)

    def age(self, now_s: float) -> list[int]:
        """Forget those of whom nothing came for SILENT_S; returns them."""
        gone = [subject for subject, row in self._row.items() if now_s - self._heard_s[row] > SILENT_S]
        for subject in gone:
            self.forget(subject)
        return gone

    def take(self, seen: Observed, now_s: float) -> Answers:
        """One step for all observations; answers in their order. Those of one subject are taken in the order of its clock. now_s: the server's time."""
        n = len(seen)
        row = np.array([self._enter(subject) for subject in seen.subject.tolist()], np.int64)
        state = np.full(n, State.FULL, np.uint8)
        gap, taken = np.zeros(n), np.zeros(n, np.bool_)
        order = np.lexsort((seen.at_s, row))
        order = order[row[order] >= 0]
        self._heard_s[row[order]] = now_s
        mine = row[order]
        first = np.ones(len(order), np.bool_)
        first[1:] = mine[1:] != mine[:-1]
        for k in _rounds(first):
            i, r, t = order[k], mine[k], seen.at_s[order[k]]
            before = self._at_s[r]
            anew = (before - t >= BACK_S) | (t - before > LOST_S)
            late = ~anew & (t <= before)
            state[i[late]] = np.where(t[late] == before[late], State.REPEATED, State.LATE)
            for row_anew, t_anew in zip(r[anew].tolist(), t[anew].tolist(), strict=True):
                self._clear(row_anew)
                self._first_s[row_anew] = t_anew
            gap[i] = np.where(anew, 0.0, t - np.where(anew, t, before))
            taken[i] = ~late
            self._at_s[r[~late]] = t[~late]
        use = order[taken[order]]
        answers = self._step(seen, use, row, gap, state)
        again = np.flatnonzero(state == State.REPEATED)
        last = self._last[row[again]]
        dot = np.isfinite(last[:, 0])
        again, last = again[dot], last[dot]
        answers.level[again], answers.xy_m[again], answers.radius_m[again] = last[:, 1], last[:, 2:4], last[:, 4]
        return answers

    def _step(self, seen: Observed, use: I8, row: I8, gap: F8, state: U1) -> Answers:
        n, maps, tuning = len(seen), self.maps, self.maps.tuning
        answers = Answers(
            state, np.zeros(n, np.uint8), np.full((n, 2), np.nan, np.float32), np.full((n, 3), np.nan, np.float32), np.full(n, np.nan, np.float32),
            np.zeros((n, maps.levels), np.float32), np.zeros(n, np.uint8),
        )  # fmt: skip
        if not len(use):
            return answers
        first, at, strength, length, heard, said = self._readings(seen, use)
        strange = (said >= STRANGE_READINGS) & (heard < KNOWN_SHARE * said)
        heard = np.where(strange, 0, heard).astype(np.int32)
        slot = row[use].astype(np.int32)
        east, north = seen.east_m[use].astype(np.float64), seen.north_m[use].astype(np.float64)
        far = np.hypot(east, north)
        cut = np.minimum(1.0, MAX_WALK_M_S * np.maximum(gap[use], 0.5) / np.maximum(far, 1e-9))
        fix_first, fix = self._fixes(seen, use)
        m, f = len(use), len(maps.level_of)
        told = Told(np.zeros(m, np.uint8), np.zeros(m, np.uint8), np.zeros((m, f), np.float32), np.zeros((m, 2)), np.zeros((m, 3)), np.zeros(m))
        kernels.step(
            maps.arrays, self._cloud, told, slot, east * cut, north * cut, gap[use], seen.steady[use], first, at, strength, length, heard, fix_first, fix,
            tuning.sharpness, OPENING, tuning.blend, tuning.loudness, tuning.turn_rad, tuning.stretch, tuning.turn_sd_rad, tuning.inside_rooms,
        )  # fmt: skip
        self._tell(use, slot, seen.at_s[use], heard, strange, np.diff(fix_first) > 0, told, answers)
        return answers

    def _readings(self, seen: Observed, use: I8) -> tuple[I4, I4, F4, F4, I4, I8]:
        """Of the observations `use`, in that order: starts, transmitters and powered strengths of the strongest readings the map knows, length of the whole scan, how many it knows, how many it had.

        Of several readings of one transmitter the strongest counts."""
        index = self.maps.index_of(seen.key)
        count = np.diff(seen.first)[use]
        of = np.repeat(np.arange(len(use)), count)
        starts = np.repeat(np.concatenate([[0], np.cumsum(count)[:-1]]), count)
        reading = np.repeat(seen.first[use].astype(np.int64), count) + np.arange(len(of)) - starts
        at = index[reading]
        strength = np.maximum(seen.rssi_dbm[reading] - np.float32(SILENT_DBM), 0).astype(np.float32)
        loud = (at >= 0) & (strength > 0) & (seen.rssi_dbm[reading] < 0)
        of, at, strength = of[loud], at[loud], strength[loud]
        best = np.lexsort((-strength, at, of))
        of, at, strength = of[best], at[best], strength[best]
        once = np.ones(len(of), np.bool_)
        once[1:] = (of[1:] != of[:-1]) | (at[1:] != at[:-1])
        of, at, strength = of[once], at[once], strength[once]
        powered = (strength ** np.float32(POWER)).astype(np.float32)
        length = np.sqrt(np.bincount(of, powered.astype(np.float64) ** 2, minlength=len(use))).astype(np.float32)
        heard = np.bincount(of, minlength=len(use)).astype(np.int32)
        by_strength = np.lexsort((-strength, of))
        of, at, powered = of[by_strength], at[by_strength], powered[by_strength]
        rank = np.arange(len(of)) - np.repeat(np.concatenate([[0], np.cumsum(heard)[:-1]]), heard)
        kept = rank < USED_READINGS
        first = np.concatenate([[0], np.cumsum(np.minimum(heard, USED_READINGS))]).astype(np.int32)
        return first, at[kept], powered[kept], length, heard, count

    def _fixes(self, seen: Observed, use: I8) -> tuple[I4, F8]:
        count = np.diff(seen.fix_first)[use]
        starts = np.concatenate([[0], np.cumsum(count)]).astype(np.int32)
        reading = np.repeat(seen.fix_first[use].astype(np.int64), count) + np.arange(starts[-1]) - np.repeat(starts[:-1].astype(np.int64), count)
        fix = seen.fix[reading].copy()
        level = fix[:, 4].astype(np.int64)
        floor = np.where((level >= 0) & (level < self.maps.levels), self.maps.floor_of[np.clip(level, 0, self.maps.levels - 1)], ANY_FLOOR)
        fix[(level >= 0) & (floor < 0), 3] = SAYS_NOTHING_M  # on a level that was not surveyed nobody is ever put
        fix[:, 4] = floor
        return starts, fix

    def _tell(self, use: I8, slot: I4, at_s: F8, heard: I4, strange: B1, fixed: B1, told: Told, answers: Answers) -> None:
        maps, tuning = self.maps, self.maps.tuning
        floor = told.floor.astype(np.int64)
        stretch, offset = maps.arrays.stretch[floor], maps.arrays.offset_m[floor]
        xy = (told.xy_m - offset) / stretch
        own = (tuning.spread_causal * SPREAD) ** 2
        least = tuning.floor_m**2
        cov = np.column_stack([
            (told.cov[:, 0] + least) * own / stretch[:, 0] ** 2, told.cov[:, 1] * own / (stretch[:, 0] * stretch[:, 1]), (told.cov[:, 2] + least) * own / stretch[:, 1] ** 2,
        ])  # fmt: skip
        half, off = (cov[:, 0] + cov[:, 2]) / 2, np.hypot((cov[:, 0] - cov[:, 2]) / 2, cov[:, 1])
        radius = np.sqrt(CHI2_90 * (half + off))
        sd = np.sqrt(told.cov[:, 0] + told.cov[:, 2])
        known, scanned, surely = told.known > 0, heard > 0, (sd <= SETTLED_M)
        levels = maps.level_of[floor]
        first = np.ones(len(slot), np.bool_)
        first[1:] = slot[1:] != slot[:-1]
        for g in _rounds(first):
            r, out, t = slot[g], use[g], at_s[g]
            self._strange[r] = np.where(strange[g], np.minimum(self._strange[r] + 1, STRANGERS), np.where(scanned[g] | fixed[g], 0, self._strange[r]))
            outside = self._strange[r] >= STRANGERS
            leaves = outside & np.isfinite(self._last[r, 0])
            answers.flags[out[leaves]] |= GONE
            for row in r[outside & strange[g]].tolist():
                self._begin(row)
            here = known[g] & ~outside
            answers.state[out] = np.where(outside, State.OUTSIDE, np.where(here, State.SETTLING, State.SILENT))
            g, r, out, t = g[here], r[here], out[here], t[here]
            self._first_s[r] = np.where(scanned[g] & (self._scans[r] == 0), t, self._first_s[r])
            self._scans[r] += scanned[g]
            self._shown[r] |= (surely[g] & ((self._scans[r] >= SETTLE_SCANS) | fixed[g])) | (t >= self._first_s[r] + SETTLE_S)
            answers.level[out], answers.xy_m[out], answers.cov_m2[out], answers.radius_m[out] = levels[g], xy[g], cov[g], radius[g]
            answers.levels[out[:, None], maps.level_of[None]] = told.floors[g]
            shown = self._shown[r]
            g, r, out, t = g[shown], r[shown], out[shown], t[shown]
            answers.state[out] = State.LOCATED
            answers.flags[out] = self._flags(r, t, levels[g], floor[g], xy[g], radius[g])
            self._last[r] = np.column_stack([t, levels[g], xy[g], radius[g]])

    def _begin(self, row: int) -> None:
        """What was known of a subject's place is forgotten."""
        self._cloud.live[row] = 0
        self._cloud.weighed[row] = 0
        self._scans[row] = 0
        self._shown[row] = False
        self._last[row] = np.nan

    def _flags(self, row: I4, t_s: F8, level: I8, floor: I8, xy: F8, radius_m: F8) -> U1:
        """What cannot be of the steps from the last dots to these."""
        last = self._last[row]
        before = np.isfinite(last[:, 0])
        moved = np.hypot(xy[:, 0] - last[:, 2], xy[:, 1] - last[:, 3])
        fast = before & (moved > FAST_M_S * np.maximum(t_s - last[:, 0], 0.1) + last[:, 4] + radius_m)
        changed = np.flatnonzero(before & (level != last[:, 1]))
        flags = np.where(fast, FAST, 0).astype(np.uint8)
        for k in changed.tolist():
            ways = self.maps.ways_m[int(floor[k])]
            if len(ways) and np.hypot(ways[:, 0] - xy[k, 0], ways[:, 1] - xy[k, 1]).min() > WAY_REACH_M + radius_m[k]:
                flags[k] |= LEVEL
        return flags
