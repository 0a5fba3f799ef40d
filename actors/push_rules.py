"""Which offers a venue's pushes follow, who is within which, and what was pushed to whom. The rule is stated in `spatial.offers`.

Owns offers by slot (a small number each, never given twice), the circles of those that go by radius, and the counts a person and offer. Decides which
pushes a tick makes; journals and publishes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from actors import position_kernels as kernels
from actors.crowd_state import CrowdState, Rows
from actors.events import Pushed
from spatial.columns import PositionColumns
from spatial.geofence import FenceSet
from spatial.offers import Everyone, Inside, Offer, Terms, Within
from spatial.settled import Settled

MAX_PUSHES: Final = 4_000_000
"""Pushes of one tick; beyond it they are dropped and counted (a hundred thousand people times forty offers that begin in the same tenth of a second)."""

Anchor = tuple[int, float, float]


class SavedPushes(msgspec.Struct, array_like=True):
    """Offers in order of slot; pairs by (offer, subject)."""

    offers: list[Offer]
    offer: bytes
    subject: bytes
    times: bytes
    newest: bytes


class PushRules:
    """`anchor`: (level, x, y) of a unit. `circles` (rows, c): offers within whose radius a present row is, -1 padded."""

    def __init__(self, n_levels: int, anchors: Mapping[str, Anchor]) -> None:
        self._n_levels = n_levels
        self._anchors = anchors
        self.offers: list[Offer] = []
        self.slot: dict[str, int] = {}
        self.dropped = 0
        self._on = np.zeros(0, np.bool_)
        self._starts, self._ends, self._cap, self._cooldown = (np.zeros(0, np.int64) for _ in range(4))
        self._audience = np.zeros(0, np.int8)
        self._terms = np.zeros(0, np.bool_)
        self._fences: FenceSet | None = None
        self._settled: Settled | None = None
        self._circle_slot = np.zeros(1, np.int32)
        self.circles = np.zeros((0, 1), np.int32)
        self._pairs = 0
        self._keys = np.zeros(64, np.uint64)
        self._times, self._newest = np.zeros(64, np.int64), np.zeros(64, np.int64)
        self._slots = np.full(256, -1, np.int32)

    # --- offers -------------------------------------------------------------------------------------------------------

    def changed(self, offers: Mapping[str, Offer]) -> tuple[Offer, ...]:
        """Offers that are new here, or differ, by id."""
        return tuple(offers[i] for i in sorted(offers) if i not in self.slot or self.offers[self.slot[i]] != offers[i])

    def adopt(self, offers: Sequence[Offer]) -> None:
        """Follow these from now on (fold of OffersAdopted). Ends and terms of known ones change, nobody's counts do."""
        for offer in offers:
            at = self.slot.get(offer.id)
            if at is None:
                self.slot[offer.id] = len(self.offers)
                self.offers.append(offer)
            else:
                self.offers[at] = offer
        fresh = len(self.offers) - len(self._on)
        self._on = np.concatenate([self._on, np.zeros(fresh, np.bool_)])
        self._starts = np.array([offer.starts_tick for offer in self.offers], np.int64)
        self._ends = np.array([offer.ends_tick for offer in self.offers], np.int64)
        self._cap = np.array([offer.cap for offer in self.offers], np.int64)
        self._cooldown = np.array([offer.cooldown_ticks for offer in self.offers], np.int64)
        kinds = {Within: 0, Inside: 1, Everyone: 2}
        self._terms = np.array([isinstance(offer.terms, Terms) for offer in self.offers], np.bool_)
        self._audience = np.array([kinds[type(offer.audience)] for offer in self.offers], np.int8)

    def draw_circles(self, tick: int) -> None:
        """Index the circles of offers that have not ended by `tick`. Whoever calls this calls `place_all` before the next push."""
        circles, slots = [], []
        for slot, offer in enumerate(self.offers):
            if isinstance(offer.audience, Within) and offer.ends_tick > tick and not isinstance(offer.terms, Terms):
                level, x_m, y_m = self._anchors[offer.unit_id]
                circles.append((level, x_m, y_m, offer.audience.radius_m))
                slots.append(slot)
        self._fences = FenceSet.build(self._n_levels, (), circles) if circles else None
        self._settled = None if self._fences is None else Settled(self._fences)
        self._circle_slot = np.array([*slots, -1], np.int32)

    def locate(self, level: npt.NDArray[np.uint8], x_m: npt.NDArray[np.float32], y_m: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
        """(n, c) offers by radius that cover each point, -1 padded."""
        if self._fences is None:
            return np.full((len(level), 1), -1, np.int32)
        return self._circle_slot[self._fences.locate(level, x_m, y_m)]

    def place_all(self, crowd: CrowdState) -> None:
        """Find the circles of everyone present anew."""
        row = np.flatnonzero(crowd.present[: crowd.count])
        found = self.locate(crowd.level[row], crowd.x_m[row], crowd.y_m[row])
        self.circles = np.full((len(crowd.subject), found.shape[1]), -1, np.int32)
        self.circles[row] = found

    def move(self, crowd: CrowdState, row: Rows, gone: Rows, columns: PositionColumns) -> None:
        """Find the circles of the rows of these columns, of those who may have crossed one since the last time; `gone` are in none."""
        self._room(crowd)
        if self._settled is not None:
            index, found = self._settled.moved(len(crowd.subject), row, columns.level, columns.x_m, columns.y_m, self.circles.shape[1])
            self.circles[row[index]] = self._circle_slot[found]
            self.circles[gone] = -1
            self._settled.forget(gone)

    def _room(self, crowd: CrowdState) -> None:
        more = len(crowd.subject) - len(self.circles)
        if more > 0:
            self.circles = np.concatenate([self.circles, np.full((more, self.circles.shape[1]), -1, np.int32)])

    def turn_on(self, tick: int) -> None:
        """Remember who was on at the close of `tick`."""
        self._on = (self._starts <= tick) & (tick < self._ends) & ~self._terms

    # --- pushes -------------------------------------------------------------------------------------------------------

    def circles_of(self, crowd: CrowdState, row: Rows) -> npt.NDArray[np.int32]:
        self._room(crowd)
        return self.circles[row]

    def push(
        self, tick: int, crowd: CrowdState, row: Rows, first_seen: npt.NDArray[np.uint8], was_inside: npt.NDArray[np.uint8],
        is_inside: npt.NDArray[np.uint8], circles_before: npt.NDArray[np.int32], circles_now: npt.NDArray[np.int32],
        more: tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]], held: Callable[[Rows], npt.NDArray[np.bool_]],
    ) -> Pushed | None:  # fmt: skip
        """The pushes of the close of `tick`, after the crowd and the circles have moved. `row`: those observed or gone; the columns are theirs, (n,). `more`: (slot, row) of pushes of
        offers with terms. `held`: which of some rows get nothing."""
        offer, whose, dropped = self._by_coming(tick, crowd, row, first_seen, was_inside, is_inside, circles_before, circles_now)
        offer, whose = np.concatenate([offer, more[0]]), np.concatenate([whose, more[1]])
        free = ~held(whose)
        offer, whose = offer[free], whose[free]
        if not len(offer):
            return None
        self.dropped += dropped
        subject = crowd.subject[whose]
        slots = np.unique(offer)
        ids = sorted(self.offers[slot].id for slot in slots.tolist())
        place = np.zeros(len(self.offers), np.int64)
        place[[self.slot[offer_id] for offer_id in ids]] = np.arange(len(ids))
        order = np.lexsort((subject, place[offer]))
        return Pushed(tick, tuple(ids), place[offer][order].astype("<u2").tobytes(), subject[order].tobytes())

    def _by_coming(
        self, tick: int, crowd: CrowdState, row: Rows, first_seen: npt.NDArray[np.uint8], was_inside: npt.NDArray[np.uint8],
        is_inside: npt.NDArray[np.uint8], circles_before: npt.NDArray[np.int32], circles_now: npt.NDArray[np.int32],
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], int]:  # fmt: skip
        """(slot, row) of the pushes of offers without terms, and how many had no room."""
        on = (self._starts <= tick) & (tick < self._ends) & ~self._terms
        if not on.any():
            return np.zeros(0, np.int32), np.zeros(0, np.int32), 0
        kept, started = on & self._on, on & ~self._on
        common = self._cap, self._cooldown, self._slots, self._keys, self._times, self._newest
        kept_inside, kept_everyone = _slots(kept & (self._audience == 1)), _slots(kept & (self._audience == 2))
        new_inside, new_everyone = _slots(started & (self._audience == 1)), _slots(started & (self._audience == 2))
        room = 65_536
        while True:
            offer, whose = np.empty(room, np.int32), np.empty(room, np.int32)
            k = kernels.pushes_to_moved(
                tick, row, first_seen, was_inside, is_inside, circles_before, circles_now, on, self._on, kept_inside, kept_everyone, *common, offer, whose
            )  # fmt: skip
            if started.any():
                k = kernels.pushes_of_started(
                    tick, crowd.count, self.circles, crowd.seen, crowd.member, crowd.outline_base, started, new_inside, new_everyone, *common,
                    offer, whose, k,
                )  # fmt: skip
            if k <= room or room == MAX_PUSHES:
                break
            room = min(k, MAX_PUSHES)
        return offer[:k], whose[:k], max(0, k - room)

    def apply(self, event: Pushed, crowd: CrowdState) -> None:
        """Count the pushes of a tick."""
        place = np.frombuffer(event.offer, "<u2")
        row = crowd.rows_of(np.frombuffer(event.subject, "<u4"))
        crowd.seen[row] = True
        slots = np.array([self.slot[offer_id] for offer_id in event.offers], np.int32)
        self._record(slots[place], row, event.tick)

    def _record(self, offer: npt.NDArray[np.int32], row: Rows, tick: int) -> None:
        needed = self._pairs + len(row)
        if needed > len(self._keys):
            more = (1 << (needed - 1).bit_length()) - len(self._keys)
            self._keys = np.concatenate([self._keys, np.zeros(more, np.uint64)])
            self._times = np.concatenate([self._times, np.zeros(more, np.int64)])
            self._newest = np.concatenate([self._newest, np.zeros(more, np.int64)])
        if needed * 2 > len(self._slots):
            self._slots = np.full(1 << (needed * 4 - 1).bit_length(), -1, np.int32)
            kernels.rehash_pushes(self._slots, self._keys, self._pairs)
        self._pairs = kernels.record_pushes(offer, row, tick, self._slots, self._keys, self._times, self._newest, self._pairs)

    def move_anchors(self, anchors: Mapping[str, Anchor]) -> None:
        """Of the venue as it is from now on. Whoever calls this calls `draw_circles` and `place_all`."""
        self._anchors = anchors

    @property
    def with_terms(self) -> bool:
        return bool(self._terms.any())

    def anchor(self, unit_id: str) -> Anchor:
        return self._anchors[unit_id]

    def pushes_of(self, offer: Offer, n: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """How often the offer was pushed to each of the first n rows, and at which tick last, (n,) each."""
        times, newest = np.zeros(n, np.int64), np.zeros(n, np.int64)
        mine = np.flatnonzero(self._keys[: self._pairs] >> np.uint64(32) == np.uint64(self.slot[offer.id]))
        row = (self._keys[mine] & np.uint64(0xFFFFFFFF)).astype(np.int64)
        times[row], newest[row] = self._times[mine], self._newest[mine]
        return times, newest

    @property
    def total(self) -> int:
        """Pushes made so far."""
        return int(self._times[: self._pairs].sum())

    def save(self, crowd: CrowdState) -> SavedPushes:
        keys = self._keys[: self._pairs]
        offer, subject = (keys >> np.uint64(32)).astype("<u4"), crowd.subject[(keys & np.uint64(0xFFFFFFFF)).astype(np.int64)]
        order = np.lexsort((subject, offer))
        return SavedPushes(
            list(self.offers), offer[order].tobytes(), subject[order].tobytes(), self._times[: self._pairs][order].tobytes(),
            self._newest[: self._pairs][order].tobytes(),
        )  # fmt: skip

    def load(self, saved: SavedPushes, crowd: CrowdState) -> None:
        self.adopt(saved.offers)
        row = crowd.rows_of(np.frombuffer(saved.subject, "<u4"))
        self._record(np.frombuffer(saved.offer, "<u4").astype(np.int32), row, 0)
        self._times[: self._pairs] = np.frombuffer(saved.times, "<i8")
        self._newest[: self._pairs] = np.frombuffer(saved.newest, "<i8")


def _slots(chosen: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    return np.flatnonzero(chosen).astype(np.int32)
