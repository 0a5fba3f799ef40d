"""The oracle: who should have been pushed what and when, found by brute force from the recording, the offers and the venue.

It covers every offer without terms, which is all that scenarios have; one with terms it refuses (`tests/actors/test_audiences.py` holds those to `spatial.audience`).
It applies the rule in `spatial.offers` the slow, obvious way (all distances; Shapely for outlines) and shares no code with the position host. Never reads
the journal or what a gateway sent; `compare` sets its answer beside what clients received.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
import numpy.typing as npt
import shapely

from esplanade.core.errors import InvalidInput
from scenarios.recording import TickRows
from spatial.columns import LEFT
from spatial.offers import STALE_TICKS, Everyone, Inside, Offer, Terms, Within
from spatial.plan import anchor_of
from spatial.venue import Venue

_NEVER = -(2**31)


@dataclass(frozen=True, slots=True)
class Pushes:
    """Pushes as columns: offer (n,) index into an offers tuple, subject (n,), tick (n,)."""

    offer: npt.NDArray[np.int64]
    subject: npt.NDArray[np.int64]
    tick: npt.NDArray[np.int64]

    @classmethod
    def of(cls, rows: Iterable[tuple[int, int, int]]) -> Pushes:
        table = np.array(sorted(rows), np.int64).reshape(-1, 3)
        return cls(table[:, 0], table[:, 1], table[:, 2])

    def __len__(self) -> int:
        return len(self.offer)

    def key(self) -> npt.NDArray[np.void]:
        """One comparable value a push, shape (n,)."""
        table = np.ascontiguousarray(np.stack([self.offer, self.subject, self.tick], axis=1).astype(">i8"))
        return table.view(np.dtype((np.void, 24))).ravel()

    def take(self, rows: npt.NDArray[np.bool_]) -> Pushes:
        return Pushes(self.offer[rows], self.subject[rows], self.tick[rows])


class Second(msgspec.Struct, frozen=True):
    """What the recording shows at one tick: people present by level (index as in Venue.levels)."""

    tick: int
    inside: tuple[int, ...]


@dataclass(slots=True)
class Busiest:
    """Everyone's place at the tick with most people present: level (n,) u1, x_m, y_m (n,) f4, metres, venue frame."""

    tick: int = 0
    people: int = 0
    level: npt.NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8))
    x_m: npt.NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    y_m: npt.NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))


@dataclass(frozen=True, slots=True)
class Findings:
    """What the oracle found in a recording. `rows` counts distinct (tick, subject)."""

    pushes: Pushes
    people_seen: int
    people_inside_max: int
    people_inside_end: int
    rows: int
    seconds: tuple[Second, ...]
    busiest: Busiest


class _People:
    """Everyone observed so far, a row a subject in order of first observation."""

    def __init__(self, offers: int) -> None:
        self._sorted = np.empty(0, np.uint32)
        self._row = np.empty(0, np.int64)
        self._offers = offers
        self.subject = np.empty(0, np.uint32)
        self.level = np.empty(0, np.uint8)
        self.x = np.empty(0, np.float64)
        self.y = np.empty(0, np.float64)
        self.seen = np.empty(0, np.int64)
        self.left = np.empty(0, bool)
        self.within = np.empty(0, bool)
        self.eligible = np.empty((0, offers), bool)
        self.count = np.empty((0, offers), np.int32)
        self.last = np.empty((0, offers), np.int64)

    def rows_of(self, subject: npt.NDArray[np.uint32]) -> npt.NDArray[np.int64]:
        """Row of each subject; new subjects get new rows."""
        at = np.searchsorted(self._sorted, subject)
        known = at < len(self._sorted)
        known[known] = self._sorted[at[known]] == subject[known]
        new = subject[~known]
        if len(new):
            first = len(self.subject)
            self._sorted = np.concatenate([self._sorted, new])
            self._row = np.concatenate([self._row, np.arange(first, first + len(new))])
            order = np.argsort(self._sorted, kind="stable")
            self._sorted, self._row = self._sorted[order], self._row[order]
            n, k = len(new), self._offers
            self.subject = np.concatenate([self.subject, new])
            self.level = np.concatenate([self.level, np.zeros(n, np.uint8)])
            self.x = np.concatenate([self.x, np.zeros(n)])
            self.y = np.concatenate([self.y, np.zeros(n)])
            self.seen = np.concatenate([self.seen, np.full(n, _NEVER, np.int64)])
            self.left = np.concatenate([self.left, np.zeros(n, bool)])
            self.within = np.concatenate([self.within, np.zeros(n, bool)])
            self.eligible = np.concatenate([self.eligible, np.zeros((n, k), bool)])
            self.count = np.concatenate([self.count, np.zeros((n, k), np.int32)])
            self.last = np.concatenate([self.last, np.full((n, k), _NEVER, np.int64)])
            at = np.searchsorted(self._sorted, subject)
        return self._row[at]


def find(
    ticks: Iterable[TickRows],
    *,
    offers: tuple[Offer, ...],
    venue: Venue,
    first_tick: int,
    last_tick: int,
    sample_every: int = 10,
    progress: Callable[[int], None] | None = None,
) -> Findings:
    """Apply the rule of `spatial.offers` to every tick in first_tick..last_tick, also to those without a row.

    ticks: observed ticks, ascending, each subject at most once a tick (as `Recording.ticks` gives them); rows outside the range are ignored.
    The cost is people x offers a tick. `sample_every`: ticks between two entries of `seconds`. Raises InvalidInput for ticks out of order.
    """
    termed = [offer.id for offer in offers if isinstance(offer.terms, Terms)]
    if termed:
        raise InvalidInput(f"oracle: offers {termed[:5]} have terms; it covers offers without, leave them out")
    anchor = [anchor_of(venue, offer.unit_id) for offer in offers]
    outlines = [shapely.make_valid(shapely.MultiPolygon([shapely.Polygon(p[0], p[1:]) for p in level.outline])) for level in venue.levels]
    for outline in outlines:
        shapely.prepare(outline)
    any_inside = np.array([isinstance(offer.audience, Inside) for offer in offers], bool)
    people = _People(len(offers))
    made: list[Pushes] = []
    seconds: list[Second] = []
    busiest = Busiest()
    rows = inside_end = 0
    source = iter(ticks)
    ahead = next(source, None)
    for tick in range(first_tick, last_tick + 1):
        while ahead is not None and ahead.tick <= tick:
            if ahead.tick == tick:
                rows += len(ahead.columns)
                _observe(people, ahead)
            following = next(source, None)
            if following is not None and following.tick <= ahead.tick:
                raise InvalidInput(f"ticks: {following.tick} comes after {ahead.tick}; give each tick once, ascending")
            ahead = following
        present = ~people.left & (tick - people.seen < STALE_TICKS)
        active = np.array([offer.starts_tick <= tick < offer.ends_tick for offer in offers], bool)
        if (active & any_inside).any():
            _look_up_outlines(people, present, outlines)
        now = np.zeros((len(people.subject), len(offers)), bool)
        for o, offer in enumerate(offers):
            if not active[o]:
                continue
            match offer.audience:
                case Within(radius_m=radius_m):
                    level, ax, ay = anchor[o]
                    near = np.flatnonzero(present & (people.level == level))
                    dx, dy = people.x[near] - ax, people.y[near] - ay
                    now[near[dx * dx + dy * dy <= radius_m * radius_m], o] = True
                case Inside():
                    now[:, o] = present & people.within
                case Everyone():
                    now[:, o] = True
        due = now & ~people.eligible
        people.eligible = now
        row, column = np.nonzero(due)
        if len(row):
            caps = np.array([offer.cap for offer in offers])[column]
            cooldowns = np.array([offer.cooldown_ticks for offer in offers])[column]
            last = people.last[row, column]
            allowed = (people.count[row, column] < caps) & ((last == _NEVER) | (tick - last >= cooldowns))
            row, column = row[allowed], column[allowed]
            people.count[row, column] += 1
            people.last[row, column] = tick
            made.append(Pushes(column.astype(np.int64), people.subject[row].astype(np.int64), np.full(len(row), tick, np.int64)))
        inside_end = int(np.count_nonzero(present))
        if inside_end > busiest.people:
            where = np.flatnonzero(present)
            busiest = Busiest(tick, inside_end, people.level[where], people.x[where].astype(np.float32), people.y[where].astype(np.float32))
        if (tick - first_tick) % sample_every == 0 or tick == last_tick:
            by_level = np.bincount(people.level[present], minlength=len(venue.levels))
            seconds.append(Second(tick, tuple(int(n) for n in by_level[: len(venue.levels)])))
        if progress is not None:
            progress(tick)
    pushes = Pushes(*(np.concatenate([getattr(part, name) for part in made] or [np.empty(0, np.int64)]) for name in ("offer", "subject", "tick")))
    return Findings(pushes, len(people.subject), busiest.people, inside_end, rows, tuple(seconds), busiest)


def _observe(people: _People, rows: TickRows) -> None:
    columns = rows.columns
    gone = columns.level == LEFT
    # Someone whose first row says "left" was never observed.
    known = np.isin(columns.subject, people.subject) | ~gone if gone.any() else ~gone
    subject, gone = columns.subject[known], gone[known]
    row = people.rows_of(subject)
    people.left[row[gone]] = True
    here = ~gone
    at = row[here]
    people.left[at] = False
    people.seen[at] = rows.tick
    people.level[at] = columns.level[known][here]
    people.x[at] = columns.x_m[known][here].astype(np.float64)
    people.y[at] = columns.y_m[known][here].astype(np.float64)


def _look_up_outlines(people: _People, present: npt.NDArray[np.bool_], outlines: Sequence[shapely.Geometry]) -> None:
    """Set `within` of everyone present: whether their level's outline covers their last position (border included)."""
    people.within[:] = False
    for level, outline in enumerate(outlines):
        at = np.flatnonzero(present & (people.level == level))
        if len(at):
            # A polygon covers a point exactly when it intersects it.
            people.within[at] = shapely.intersects_xy(outline, people.x[at], people.y[at])


@dataclass(frozen=True, slots=True)
class Comparison:
    """Pushes expected and received, as sets. `missing`: expected only; `unexpected`: received only; `excused`: expected of people who were no longer connected."""

    expected: int
    received: int
    missing: Pushes
    unexpected: Pushes
    excused: int


def compare(expected: Pushes, received: Pushes, *, disconnected: dict[int, int] | None = None, to_all: frozenset[int] = frozenset()) -> Comparison:
    """Set difference of pushes after removal of duplicates.

    disconnected: WebSocket person -> last tick before they hung up. What an offer to everyone (`to_all`: its index) owes such a person later cannot be
    received by anybody, and is counted as excused instead of missing.
    """
    want, got = np.unique(expected.key(), return_index=True), np.unique(received.key(), return_index=True)
    missing = expected.take(_rows(len(expected), want[1][~np.isin(want[0], got[0])]))
    unexpected = received.take(_rows(len(received), got[1][~np.isin(got[0], want[0])]))
    hung_up = disconnected or {}
    excuse = np.array(
        [
            int(o) in to_all and int(s) in hung_up and int(t) > hung_up[int(s)]
            for o, s, t in zip(missing.offer, missing.subject, missing.tick, strict=True)
        ],
        bool,
    )
    return Comparison(len(want[0]), len(got[0]), missing.take(~excuse), unexpected, int(excuse.sum()))


def _rows(n: int, chosen: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
    mask = np.zeros(n, bool)
    mask[chosen] = True
    return mask
