"""The crowd of a venue as columns, a row a subject: where they are, since when they are in which fence, and the counts that follow.

Owns the arrays and the folding of membership events; decides nothing. Rows are entered at first sight and stay, because "seen at any time" is part of
the rule for pushes; at MAX_SUBJECTS new ones are refused. Nothing that leaves this module depends on the order of rows: whoever writes sorts by subject.
"""

from __future__ import annotations

from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from actors import position_kernels as kernels
from actors.events import Dwelt, Seen, TraitsAdopted, Transitions
from actors.traits import LANGUAGE_CHARS, SavedTraits, Traits, columns_of, saved_traits
from esplanade.core.errors import Fault, LimitExceeded
from spatial.columns import LEFT
from spatial.offers import STALE_TICKS

MAX_SUBJECTS: Final = 1_000_000
_NEVER: Final = -(2**62)

Rows = npt.NDArray[np.int32]


class SavedCrowd(msgspec.Struct, array_like=True):
    """Rows by ascending subject. fence, since: of all rows one after the other; fences: (rows,) how many are whose."""

    subject: bytes
    level: bytes
    x: bytes
    y: bytes
    last: bytes
    present: bytes
    seen: bytes
    fences: bytes
    fence: bytes
    since: bytes
    inside: bytes
    entries: bytes
    exits: bytes
    stayed: bytes
    dwells: bytes
    venue: bytes
    traits: SavedTraits = SavedTraits()


class CrowdState:
    """Columns of `count` rows (arrays are longer). `last`: tick of the newest row taken, an observation or LEFT; `present` as in `spatial.offers`.

    member (rows, width) int32: the fences a row is in, ascending, -1 padded; since: ticks of entry. inside, entries, exits, stayed (ticks), dwells: by fence.
    venue: entries to and exits from the venue; indoors: 1 where a row is in it. radius_dm: how sure a row's newest position is, as in `PositionColumns`; like a position's way here
    it is told by no event, so that after a restart it is not known until the next observation.
    """

    def __init__(self, *, width: int, n_fences: int, outline_base: int) -> None:
        self.count = 0
        self.width = width
        self.outline_base = outline_base
        self.subject = np.zeros(0, np.uint32)
        self.level = np.zeros(0, np.uint8)
        self.x_m = np.zeros(0, np.float32)
        self.y_m = np.zeros(0, np.float32)
        self.radius_dm = np.zeros(0, np.uint8)
        self.last = np.zeros(0, np.int64)
        self.present = np.zeros(0, np.bool_)
        self.seen = np.zeros(0, np.bool_)
        self.segments = np.zeros(0, np.uint64)
        self.language = np.zeros(0, f"U{LANGUAGE_CHARS}")
        self.member = np.zeros((0, width), np.int32)
        self.since = np.zeros((0, width), np.int64)
        self.indoors = np.zeros(0, np.uint8)
        self.slots = np.full(4, -1, np.int32)
        self.inside, self.entries, self.exits, self.stayed, self.dwells = (np.zeros(n_fences, np.int64) for _ in range(5))
        self.venue = np.zeros(2, np.int64)
        self._any_radius = False
        self._grow(1024)
        self._asked: npt.NDArray[np.uint32] = np.zeros(0, np.uint32)
        self._answered: Rows = np.zeros(0, np.int32)

    def _grow(self, size: int) -> None:
        more = size - len(self.subject)
        self.subject = np.concatenate([self.subject, np.zeros(more, np.uint32)])
        self.level = np.concatenate([self.level, np.full(more, LEFT, np.uint8)])
        self.x_m = np.concatenate([self.x_m, np.full(more, np.nan, np.float32)])
        self.y_m = np.concatenate([self.y_m, np.full(more, np.nan, np.float32)])
        self.radius_dm = np.concatenate([self.radius_dm, np.zeros(more, np.uint8)])
        self.last = np.concatenate([self.last, np.full(more, _NEVER, np.int64)])
        self.present = np.concatenate([self.present, np.zeros(more, np.bool_)])
        self.seen = np.concatenate([self.seen, np.zeros(more, np.bool_)])
        self.segments = np.concatenate([self.segments, np.zeros(more, np.uint64)])
        self.language = np.concatenate([self.language, np.zeros(more, f"U{LANGUAGE_CHARS}")])
        self.member = np.concatenate([self.member, np.full((more, self.width), -1, np.int32)])
        self.since = np.concatenate([self.since, np.zeros((more, self.width), np.int64)])
        self.indoors = np.concatenate([self.indoors, np.zeros(more, np.uint8)])
        self.slots = np.full(size * 4, -1, np.int32)
        kernels.rehash_rows(self.slots, self.subject, self.count)

    def widen(self, width: int) -> None:
        """Room for that many fences of a row."""
        more = width - self.width
        if more > 0:
            self.width = width
            self.member = np.concatenate([self.member, np.full((len(self.member), more), -1, np.int32)], axis=1)
            self.since = np.concatenate([self.since, np.zeros((len(self.since), more), np.int64)], axis=1)

    def _make_room(self, row: Rows, entered: npt.NDArray[np.uint8]) -> None:
        """For the entries of an event, which may be more than this document's fences overlap: it may be of the venue as it was before an edit."""
        if len(row):
            who, at = np.unique(row, return_inverse=True)
            net = np.bincount(at.reshape(-1), np.where(entered == 1, 1, -1))
            self.widen(int(((self.member[who] >= 0).sum(axis=1) + net).max()))

    def rows_of(self, subject: npt.NDArray[np.uint32]) -> Rows:
        """Rows of subjects, new ones entered. Raises LimitExceeded at MAX_SUBJECTS."""
        if self.count + len(subject) > len(self.subject):
            # Most are known: enter them only if they really do not fit.
            known = int(np.isin(subject, self.subject[: self.count]).sum()) if len(subject) else 0
            needed = self.count + len(subject) - known
            if needed > MAX_SUBJECTS:
                raise LimitExceeded(f"{needed} subjects in one venue; at most {MAX_SUBJECTS}: end the venue's day")
            self._grow(1 << (self.count + len(subject) - 1).bit_length())
        row = np.empty(len(subject), np.int32)
        self.count = kernels.rows_of(self.slots, self.subject, self.count, np.ascontiguousarray(subject, np.uint32), row)
        return row

    def rows_of_tick(self, subject: npt.NDArray[np.uint32]) -> Rows:
        """`rows_of` for the subjects of a tick, who are mostly those of the last one. Not to be written to."""
        if not np.array_equal(subject, self._asked):
            self._answered = self.rows_of(subject)
            self._asked = subject
        return self._answered

    def row_of(self, subject: int) -> int | None:
        """The row of a subject, where there is one."""
        found = np.flatnonzero(self.subject[: self.count] == subject)
        return int(found[0]) if len(found) else None

    def observe(
        self, row: Rows, level: npt.NDArray[np.uint8], x_m: npt.NDArray[np.float32], y_m: npt.NDArray[np.float32],
        tick: int | npt.NDArray[np.int64],
    ) -> npt.NDArray[np.uint8]:  # fmt: skip
        """Take n rows' newest positions; (n,) 1 where someone is here who was never seen."""
        first = np.empty(len(row), np.uint8)
        kernels.observe(
            row, level, x_m, y_m, np.atleast_1d(np.asarray(tick, np.int64)), LEFT, self.level, self.x_m, self.y_m, self.last, self.present, self.seen, first
        )  # fmt: skip
        return first

    def take_radius(self, row: Rows, radius_dm: npt.NDArray[np.uint8] | None) -> None:
        """How sure those positions are; None: not known of any."""
        if radius_dm is not None:
            self.radius_dm[row] = radius_dm
            self._any_radius = True
        elif self._any_radius:
            self.radius_dm[row] = 0

    def stale(self, tick: int) -> Rows:
        """Rows that are present only until now: their last observation is STALE_TICKS ago or more."""
        out = np.empty(self.count, np.int32)
        return out[: kernels.gone_stale(self.count, self.present, self.last, tick - STALE_TICKS, out)]

    def crossings(self, row: Rows, fences: npt.NDArray[np.int32]) -> tuple[Rows, npt.NDArray[np.int32], npt.NDArray[np.uint8]]:
        """(index into row, fence, entered) of the differences between the fences that rows were in and are in now."""
        room = 2 * len(row) * self.width
        i, fence, entered = np.empty(room, np.int32), np.empty(room, np.int32), np.empty(room, np.uint8)
        k = kernels.crossings(row, fences, self.member, i, fence, entered)
        return i[:k], fence[:k], entered[:k]

    def dwelling(self, entered_tick: int) -> tuple[Rows, npt.NDArray[np.int32]]:
        """(row, fence) of those in a unit or zone since exactly that tick."""
        room = 4096
        while True:
            row, fence = np.empty(room, np.int32), np.empty(room, np.int32)
            k = kernels.dwelling(self.count, self.member, self.since, entered_tick, self.outline_base, row, fence)
            if k <= room:
                return row[:k], fence[:k]
            room = k

    def inside_venue(self, row: Rows) -> npt.NDArray[np.uint8]:
        return self.indoors[row]

    def apply(self, event: Transitions | Dwelt | Seen | TraitsAdopted) -> None:
        """Fold one event. Positions and presence come from Seen alone; crossings change membership and counts."""
        subject = np.frombuffer(event.subject, "<u4")
        match event:
            case TraitsAdopted():
                row = self.rows_of(subject)
                _, self.segments[row], self.language[row] = columns_of(SavedTraits(event.subject, event.segments, event.languages, event.spoken))
            case Transitions():
                row = self.rows_of(subject)
                self.seen[row] = True
                fence, entered = np.frombuffer(event.fence, "<u2").astype(np.int32), np.frombuffer(event.entered, np.uint8)
                self._make_room(row, entered)
                bad = kernels.cross(
                    row, fence, entered, event.tick, self.outline_base, self.member, self.since,
                    self.inside, self.entries, self.exits, self.stayed, self.venue, self.indoors,
                )  # fmt: skip
                if bad >= 0:
                    what = "entered" if entered[bad] else "left"
                    raise Fault(
                        f"tick {event.tick}: subject {subject[bad]} {what} fence {fence[bad]}, which does not fit where it was; the journal is damaged"
                    )
            case Dwelt():
                np.add.at(self.dwells, np.frombuffer(event.fence, "<u2"), 1)
            case Seen():
                ago = np.frombuffer(event.ago, "<u2").astype(np.int64)
                columns = np.frombuffer(event.level, np.uint8), np.frombuffer(event.x, "<f4"), np.frombuffer(event.y, "<f4")
                self.observe(self.rows_of(subject), *columns, event.tick - ago)

    def seen_since(self, tick: int, *, after: int) -> Seen:
        """The checkpoint of all rows taken in (after, tick], by subject."""
        row = np.flatnonzero(self.last[: self.count] > after)
        row = row[np.argsort(self.subject[row])]
        return Seen(
            tick, self.subject[row].tobytes(), self.level[row].tobytes(), self.x_m[row].tobytes(), self.y_m[row].tobytes(),
            (tick - self.last[row]).astype("<u2").tobytes(),
        )  # fmt: skip

    def save(self) -> SavedCrowd:
        row = np.argsort(self.subject[: self.count])
        member, since = self.member[row], self.since[row]
        held = member >= 0
        return SavedCrowd(
            self.subject[row].tobytes(), self.level[row].tobytes(), self.x_m[row].tobytes(), self.y_m[row].tobytes(), self.last[row].tobytes(),
            self.present[row].tobytes(), self.seen[row].tobytes(), held.sum(axis=1).astype("<u2").tobytes(), member[held].astype("<u2").tobytes(),
            since[held].tobytes(), self.inside.tobytes(), self.entries.tobytes(), self.exits.tobytes(), self.stayed.tobytes(), self.dwells.tobytes(),
            self.venue.tobytes(), self._traits(row),
        )  # fmt: skip

    def _traits(self, row: npt.NDArray[np.intp]) -> SavedTraits:
        """Of those of these rows who have any."""
        row = row[(self.segments[row] != 0) | (self.language[row] != "")]
        return saved_traits(self.subject[row], self.segments[row], self.language[row])

    def unlike(self, traits: Traits) -> SavedTraits:
        """Those whose traits are others than here."""
        row = self.rows_of(traits.subject)
        other = (self.segments[row] != traits.segments) | (self.language[row] != traits.language)
        return saved_traits(traits.subject[other], traits.segments[other], traits.language[other])

    def load(self, saved: SavedCrowd) -> None:
        """Into a fresh state of the same venue."""
        row = self.rows_of(np.frombuffer(saved.subject, "<u4"))
        self.level[row], self.last[row] = np.frombuffer(saved.level, np.uint8), np.frombuffer(saved.last, "<i8")
        self.x_m[row], self.y_m[row] = np.frombuffer(saved.x, "<f4"), np.frombuffer(saved.y, "<f4")
        self.present[row], self.seen[row] = np.frombuffer(saved.present, np.bool_), np.frombuffer(saved.seen, np.bool_)
        fences = np.frombuffer(saved.fences, "<u2")
        self.widen(int(fences.max(initial=0)))
        held = np.arange(self.width)[None, :] < fences[:, None]
        member, since = np.full((len(row), self.width), -1, np.int32), np.zeros((len(row), self.width), np.int64)
        member[held], since[held] = np.frombuffer(saved.fence, "<u2"), np.frombuffer(saved.since, "<i8")
        self.member[row], self.since[row] = member, since
        inside = np.empty(len(row), np.uint8)
        kernels.inside_venue(row, self.member, self.outline_base, inside)
        self.indoors[row] = inside
        traits = columns_of(saved.traits)
        row = self.rows_of(traits[0])
        self.segments[row], self.language[row] = traits[1:]
        for name in ("inside", "entries", "exits", "stayed", "dwells", "venue"):
            getattr(self, name)[:] = np.frombuffer(getattr(saved, name), "<i8")
