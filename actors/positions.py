"""The position host: where everyone in one venue is, tick by tick, and what follows from it. `positions/<tenant>/<venue>`.

Owns the venue clock, membership of fences, dwell and pushes of one venue. It awaits nothing, touches no socket and no store, and reads no clock: the shard
hands it rows and time and takes events, outbox entries and publications from it. The rules are those of `spatial.offers` and `actors.system`.

Closing a tick: newest row of each subject, in order of subject; fences of those rows in one compiled pass; those not observed for STALE_TICKS are gone;
crossings and dwells as arrays; then pushes. LEFT is no observation: it ends presence and makes nobody "seen".

**What is durable, and what a restart does.** Events alone restore membership, dwell, counts and caps as of the last durable tick d. The volatile part (last
positions, and when) is checkpointed by a `seen.v1` event at every tick that CHECKPOINT_TICKS divides, with the rows taken since the one before: 20,000 people
are 300 KB in five seconds, where every tick's columns would be 13 MB. After a restart the host goes back to its newest checkpoint c <= d and
says so (`Rewind`, tick c), at most CHECKPOINT_TICKS before any tick it has called closed, so that sources keep that many ticks of rows. As they come
again, ticks c + 1 to d close *silently*: they move positions and nothing else, because what followed from them is in the journal. From d + 1 on everything is as
it would have been: pushes depend on who was eligible at d, which is found from the positions at d; dwell on ticks of entry, which events carry; offers on those
adopted by an event at a tick. A tick without events leaves no trace, and closing it again makes none. (The other choices: journal all columns, 2.6 MB/s; or go back
STALE_TICKS and send 60 s of rows again.)

In a free venue nobody sends again: the host goes on from d, with the membership of d and the positions of c; the first observation of a person
is compared with that membership, so nobody enters twice.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

import msgspec
import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry.base import BaseGeometry

from actors.audiences import TERMS_TICKS, Audiences, Preparation, Prepared
from actors.crowd_state import CrowdState, Rows, SavedCrowd
from actors.edit_book import EditBook
from actors.events import (
    Dwelt,
    EventBody,
    Late,
    OffersAdopted,
    Pushed,
    Seen,
    SourceClosed,
    SourceOpened,
    TraitsAdopted,
    Transitions,
    VenueBound,
    ZonesAdopted,
    ZonesCrossed,
    ZonesPending,
)
from actors.heat import Heat
from actors.live_views import LiveViews
from actors.messages import Crowded, Explanation, Measures, Spotted, ZoneState
from actors.messages import Heat as HeatReply
from actors.plausible import HOLD_S, Plausible
from actors.push_rules import Anchor, PushRules, SavedPushes
from actors.system import VenueClock
from actors.tick_buffer import TickBuffer
from actors.topics import Body, PushBatch, Rewind, TickClosed, VenueStats
from actors.traits import Traits
from actors.venue_book import VenueBook
from actors.zone_watch import STAYS_S, SavedZone, ZoneWatch
from esplanade.core.clock import TICK_S
from esplanade.core.errors import Fault, InvalidInput, LimitExceeded
from spatial.columns import LEFT, PositionColumns
from spatial.drawn_zones import Places, outline
from spatial.measures import Trajectories, voronoi_density
from spatial.offers import Offer
from spatial.plan import anchors, shape
from spatial.settled import Settled
from spatial.zone_shapes import DrawnZone

CHECKPOINT_TICKS: Final = 50
"""A source keeps its rows of this many ticks before the last closed one: no Rewind goes further back."""

DWELL_TICKS: Final = 100
STATS_TICKS: Final = 10
FULLEST: Final = 50
VORONOI_M: Final = 5.0
MAX_VORONOI: Final = 300
"""People around a zone for a Voronoi density on request; 300 take some 50 ms of the shard."""


@dataclass(frozen=True, slots=True)
class HostSettings:
    """Policies of a position host, in seconds of the system clock except `dwell_ticks`."""

    deadline_s: float = 10.0
    """How long a tick waits for a source's rows or declaration, once another source (or itself, further on) has declared; then it closes without."""
    silence_s: float = 60.0
    """A source that says nothing for so long is closed by the host."""
    dwell_ticks: int = DWELL_TICKS
    speed_m_s: float = 0.0
    """What nobody outruns: phones that do get no offers for a while (`actors.plausible`). 0: anybody may be anywhere. Rows of sources are believed."""


class Standing(Protocol):
    """What the venue's mall or festival has in force beside its offers; `standing` grows with every change of it."""

    @property
    def standing(self) -> int: ...

    @property
    def zones(self) -> Mapping[str, DrawnZone]: ...

    @property
    def traits(self) -> Traits: ...

    @property
    def edits(self) -> EditBook: ...

    @property
    def closed(self) -> Collection[str]: ...


@dataclass(slots=True)
class Step:
    """What follows from a call: events to journal, entries for durable topics, publications for ephemeral ones (once what they saw is durable)."""

    events: list[EventBody] = field(default_factory=list)
    outbox: list[tuple[str, Body]] = field(default_factory=list)
    publish: list[tuple[str, Body]] = field(default_factory=list)


class _Saved(msgspec.Struct, array_like=True):
    digest: str
    closed: int
    durable: int
    checkpoint: int
    sources: dict[str, int]
    late_rows: int
    late_ticks: int
    crowd: SavedCrowd
    pushes: SavedPushes
    zones: list[SavedZone] = []
    numbering: str = ""


class PositionHost:
    """`offers`: gives the (revision, offers by id) of the venue's mall or festival, `standing` what else it has in force. `pseudonym_key`: 64 bytes that only this host's epoch has."""

    def __init__(
        self,
        book: VenueBook,
        offers: Callable[[], tuple[int, Mapping[str, Offer]]],
        *,
        epoch: int,
        pseudonym_key: bytes,
        settings: HostSettings | None = None,
        standing: Standing | None = None,
    ) -> None:
        self.book = book
        self.epoch = epoch
        self.settings = settings or HostSettings()
        self.late_rows = 0
        self.late_ticks = 0
        self.tick_ms = 0.0
        self.buffer = TickBuffer()
        self._offers = offers
        self._standing = standing
        self._stood = -1
        self._audiences = Audiences(book, lambda: () if standing is None else standing.closed)
        self._venue = book.venue.id
        self._settled = Settled(book.fences())
        self._anchors = _anchors(book)
        self._views = LiveViews(book, pseudonym_key)
        self.plausible = Plausible(book.venue, self.settings.speed_m_s)
        self._digest: str | None = None
        self._numbering = ""
        self._durable = -1  # newest tick that an event tells of
        self._checkpoint = -1  # tick of the newest seen.v1
        self._base = -1  # tick of the positions that a restart begins with: the newest checkpoint's, or a later snapshot's
        self._silent_until = -1
        self._revision = -1
        self._complete: tuple[int, int, str] | None = None  # offers, standing and map for which all walking times are at hand
        self._told_late = (0, 0)
        self._waiting_since_s: float | None = None
        self._free_due_s = 0.0
        self._rewind_due_s: float | None = None
        self._rewind_tick = -1
        self._reset()

    def _reset(self) -> None:
        n_fences = self.book.outline_base + len(self.book.venue.levels)
        self.crowd = CrowdState(width=self._settled.fences.width, n_fences=n_fences, outline_base=self.book.outline_base)
        self.rules = PushRules(len(self.book.venue.levels), self._anchors)
        self.zones = ZoneWatch(len(self.book.venue.levels))
        self._heat = Heat(self.book.venue)

    # --- state: fold, save, load --------------------------------------------------------------------------------------

    def apply(self, event: EventBody) -> None:
        """Fold one event of this host."""
        match event:
            case VenueBound():
                if event.digest != self._digest and not (event.numbering and event.numbering == self._numbering):
                    self._reset()
                self._digest, self._numbering = event.digest, event.numbering
            case SourceOpened():
                if event.source not in self.buffer.sources:
                    self.buffer.open(event.source, event.first_tick, self._free_due_s)
            case SourceClosed():
                self.buffer.drop(event.source)
                self._durable = max(self._durable, event.tick)
            case Late():
                self.late_rows, self.late_ticks = self.late_rows + event.rows, self.late_ticks + event.ticks
                self._durable = max(self._durable, event.tick)
            case Seen():
                # A checkpoint sets the clock: of an empty venue, to wherever its first source begins.
                self._durable = event.tick
                self._base = self._checkpoint = event.tick
                if self._of_this_venue():
                    self.crowd.apply(event)
                    self.zones.checkpoint()
            case TraitsAdopted():
                self._durable = max(self._durable, event.tick)
                if self._of_this_venue():
                    self.crowd.apply(event)
            case ZonesAdopted() | ZonesCrossed() | ZonesPending():
                self._durable = max(self._durable, event.tick)
                if self._of_this_venue():
                    self.zones.apply(event)
            case Transitions() | Dwelt() | Pushed() | OffersAdopted():
                self._durable = max(self._durable, event.tick)
                if self._of_this_venue():
                    self._apply_crowd(event)
            case _:
                raise Fault(f"a position host has no event {type(event).__name__}; the journal mixes entities")

    def _of_this_venue(self) -> bool:
        """Whether what is folded goes by the numbers of this document's fences."""
        return self._digest == self.book.digest or (self._numbering != "" and self._numbering == self.book.numbering)

    def _apply_crowd(self, event: Transitions | Dwelt | Pushed | OffersAdopted) -> None:
        match event:
            case Transitions() | Dwelt():
                self.crowd.apply(event)
            case Pushed():
                self.rules.apply(event, self.crowd)
            case OffersAdopted():
                self.rules.adopt([offer for offer in event.offers if offer.unit_id in self._anchors])

    def save(self) -> bytes:
        """The state after the last closed tick, positions included."""
        return msgspec.msgpack.encode(
            _Saved(
                self._digest or "",
                self.buffer.closed,
                max(self.buffer.closed, self._silent_until),
                self._checkpoint,
                self.buffer.sources,
                self.late_rows,
                self.late_ticks,
                self.crowd.save(),
                self.rules.save(self.crowd),
                self.zones.save(self.crowd),
                self._numbering,
            )
        )

    def load(self, data: bytes) -> None:
        """Into a fresh host."""
        saved = msgspec.msgpack.decode(data, type=_Saved)
        self._digest, self._numbering = saved.digest, saved.numbering
        self._base, self._durable, self._checkpoint = saved.closed, saved.durable, saved.checkpoint
        self.late_rows, self.late_ticks = saved.late_rows, saved.late_ticks
        for source, first_tick in saved.sources.items():
            self.buffer.open(source, first_tick, self._free_due_s)
        if self._of_this_venue():
            self.crowd.load(saved.crowd)
            self.rules.load(saved.pushes, self.crowd)
            self.zones.load(saved.zones)

    def start(self, now_s: float) -> Step:
        """After the fold: bind the document, take up the clock. Call once, before anything else but `apply` and `load`."""
        step = Step()
        self._free_due_s = now_s + TICK_S
        self._told_late = self.late_rows, self.late_ticks
        if (self._digest, self._numbering) != (self.book.digest, self.book.numbering):
            self._emit(step, VenueBound(self.book.digest, self.book.numbering))
        crowd, sources = self.crowd, self.buffer.sources
        for source, first_tick in sources.items():
            self.buffer.drop(source)
            self.buffer.open(source, first_tick, now_s)
        if sources:
            self.buffer.set_clock(self._base, floor=self._base)
            self._silent_until = self._durable
            self._rewind_due_s, self._rewind_tick = now_s, self._base
            self.zones.resume(self._base, crowd, at_checkpoint=True)
        else:
            self.buffer.set_clock(self._durable, floor=self._durable)
            self._silent_until = self._durable
            held = crowd.member[: crowd.count, 0] >= 0
            new = np.flatnonzero(held & ~crowd.present[: crowd.count])
            crowd.present[new] = True
            crowd.last[new] = self._durable
            self._keep_in_zones()
            self.zones.resume(self._durable, crowd, at_checkpoint=False)
        gone = crowd.stale(self.buffer.closed)
        crowd.present[gone] = False
        self._settle()
        return step

    def _keep_in_zones(self) -> None:
        """Who is in a zone, as the events say, is there still, though nobody knows where."""
        crowd = self.crowd
        row = crowd.rows_of(np.array(sorted(self.zones.members()), np.uint32))
        new = row[~crowd.present[row]]
        crowd.present[new], crowd.last[new] = True, self._durable

    def _settle(self) -> None:
        """Find who was eligible at the last closed tick, from the positions at that tick."""
        tick = self.buffer.closed
        self.rules.draw_circles(tick)
        self.rules.place_all(self.crowd)
        self.rules.turn_on(tick)

    # --- sources and rows ---------------------------------------------------------------------------------------------

    def clock(self) -> VenueClock:
        return VenueClock(
            tick=self.buffer.closed, epoch=self.epoch, driven=bool(self.buffer.sources), late_rows=self.late_rows, late_ticks=self.late_ticks
        )  # fmt: skip

    def open_source(self, source: str, first_tick: int, now_s: float) -> Step:
        """Idempotent. The clock of a venue where nobody was ever seen is set to just before `first_tick`; elsewhere the source begins after the last closed tick."""
        if first_tick < 0:
            raise InvalidInput(f"source {source!r}: first tick {first_tick}; ticks count from 0")
        step = Step()
        if source in self.buffer.sources:
            self.buffer.hear(source, now_s)
            return step
        closed = self.buffer.closed
        if not self.buffer.sources and not self.crowd.seen[: self.crowd.count].any() and not self.buffer.waiting_rows:
            closed = first_tick - 1
            self.buffer.set_clock(closed, floor=closed)
            self._silent_until = closed
            self._settle()
            self.zones.resume(closed, self.crowd, at_checkpoint=False)  # the clock may have gone back
        if not self.buffer.sources:
            # The free ticks before a first source cannot be sent again; the checkpoint says where to go back to.
            self._emit_checkpoint(closed, step)
        self._emit(step, SourceOpened(source, max(first_tick, closed + 1)))
        return step

    def close_source(self, source: str, now_s: float, *, silent: bool = False) -> Step:
        step = Step()
        if source in self.buffer.sources:
            self._emit(step, SourceClosed(source, self.buffer.closed, silent))
            if not self.buffer.sources and self._silent_until > self.buffer.closed:
                # Nobody is left to send the silent ticks again.
                self.buffer.set_clock(self._silent_until, floor=self._silent_until)
                self._settle()
                self._keep_in_zones()
                self.zones.resume(self._silent_until, self.crowd, at_checkpoint=False)
            self._free_due_s = now_s + TICK_S
        return step

    def take(self, columns: PositionColumns, source: str | None, tick: int | None, now_s: float) -> None:
        """Hold rows for their tick (the open one where None). Raises InvalidInput for a level the venue does not have, LimitExceeded without room."""
        levels = len(self.book.venue.levels)
        bad = (columns.level >= levels) & (columns.level != LEFT)
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise InvalidInput(
                f"columns: row {row} (subject {int(columns.subject[row])}) is on level {int(columns.level[row])}; "
                f"venue {self._venue} has levels 0 to {levels - 1}, and {LEFT} for one who has left"
            )
        self.late_rows += self.buffer.add(columns, source or "", self.buffer.closed + 1 if tick is None else tick, now_s)

    def watermark(self, source: str, tick: int, rows: int, now_s: float) -> None:
        self.buffer.declare(source, tick, rows, now_s)

    # --- ticks --------------------------------------------------------------------------------------------------------

    def ready(self, now_s: float) -> bool:
        """Whether the next tick closes now."""
        tick = self.buffer.closed + 1
        if not self.buffer.awaited(tick):
            return tick <= self._silent_until or now_s >= self._free_due_s
        if self.buffer.complete(tick):
            return True
        if not self.buffer.begun(tick):
            self._waiting_since_s = None
            return False
        if self._waiting_since_s is None:
            self._waiting_since_s = now_s
        return now_s - self._waiting_since_s >= self.settings.deadline_s

    def lacking(self) -> Preparation | None:
        """Walking times that offers in force or to come ask for and that are not at hand: whoever makes them aside spares a tick the wait (the first of a mall take a second)."""
        revision, offers = self._offers()
        asked = revision, -1 if self._standing is None else self._standing.standing, self.book.digest
        if asked == self._complete:
            return None
        lacking = self._audiences.lacking(offer for offer in offers.values() if offer.unit_id in self._anchors)
        if lacking is None:
            self._complete = asked
        return lacking

    def prepared(self, made: Prepared) -> None:
        self._audiences.prepared(made)

    @property
    def looks_at_terms(self) -> bool:
        """Whether the next tick looks at offers with terms."""
        return (self.buffer.closed + 1) % TERMS_TICKS == 0

    def poll(self, now_s: float) -> Step:
        """What time alone brings: sources that fell silent, and Rewind again until the sources have heard it."""
        step = Step()
        for source in self.buffer.silent_since(now_s - self.settings.silence_s):
            self.late_ticks += 1
            closing = self.close_source(source, now_s, silent=True)
            step.events += closing.events
        self._views.expire(now_s)
        if self._rewind_due_s is not None and now_s >= self._rewind_due_s:
            if self.buffer.closed > self._rewind_tick or self.buffer.rewound(self._rewind_tick + 1):
                self._rewind_due_s = None
            else:
                self._rewind_due_s = now_s + 1.0
                step.publish.append((f"venue/{self._venue}/clock", Rewind(venue=self._venue, tick=self._rewind_tick, epoch=self.epoch)))
        return step

    def close(self, now_s: float) -> Step:
        """Close the next tick. Call only when `ready`."""
        step = Step()
        tick = self.buffer.closed + 1
        if self.buffer.awaited(tick):
            if not self.buffer.complete(tick):
                self.late_ticks += 1
        else:
            self._free_due_s = max(self._free_due_s + TICK_S, now_s - 10 * TICK_S)
        self._waiting_since_s = None
        columns = self.buffer.take()
        if tick <= self._silent_until:
            self._close_silently(tick, columns)
        else:
            self._close(tick, columns, step, now_s)
        step.publish.append(
            (f"venue/{self._venue}/clock", TickClosed(venue=self._venue, tick=tick, epoch=self.epoch, late_rows=self.late_rows))
        )  # fmt: skip
        return step

    def _close_silently(self, tick: int, columns: PositionColumns) -> None:
        crowd = self.crowd
        row = crowd.rows_of(columns.subject)
        crowd.observe(row, columns.level, columns.x_m, columns.y_m, tick)
        crowd.take_radius(row, columns.radius_dm)
        gone = crowd.stale(tick)
        crowd.present[gone] = False
        self._settled.forget()
        self.zones.step(tick, crowd, np.concatenate([row, gone]))  # what it says is in the journal
        if tick == self._silent_until:
            self._settle()

    def _close(self, tick: int, columns: PositionColumns, step: Step, now_s: float) -> None:
        crowd, rules = self.crowd, self.rules
        if (self.late_rows, self.late_ticks) != self._told_late:
            rows, ticks = self.late_rows - self._told_late[0], self.late_ticks - self._told_late[1]
            self.late_rows, self.late_ticks = self._told_late
            self._emit(step, Late(tick, rows, ticks))
            self._told_late = self.late_rows, self.late_ticks
        edited = self._follow_edits(step)
        adopted = self._adopt(tick, step) or edited
        other_zones = self._adopt_standing(tick, step)

        observed = crowd.rows_of_tick(columns.subject)
        before = self._places() if self.zones.lines else None
        first_seen = crowd.observe(observed, columns.level, columns.x_m, columns.y_m, tick)
        crowd.take_radius(observed, columns.radius_dm)
        gone = crowd.stale(tick)
        crowd.present[gone] = False

        moved, fences = self._settled.moved(len(crowd.subject), observed, columns.level, columns.x_m, columns.y_m, crowd.width)
        row, may_cross = observed, observed[moved]
        if len(gone):
            self._settled.forget(gone)
            row, may_cross = np.concatenate([observed, gone]), np.concatenate([may_cross, gone])
            first_seen = np.concatenate([first_seen, np.zeros(len(gone), np.uint8)])
            fences = np.concatenate([fences, np.full((len(gone), fences.shape[1]), -1, np.int32)])
        was_inside = crowd.inside_venue(row)
        circles_before = rules.circles_of(crowd, row)
        coming = self._freed(now_s, observed, columns)
        first_seen[coming], was_inside[coming], circles_before[coming] = 1, 0, -1

        self._cross(tick, may_cross, fences, step)
        self._dwell(tick, step)
        if len(self.zones):
            looked_at = np.union1d(np.flatnonzero(crowd.present[: crowd.count]), row) if other_zones else row
            happened = self.zones.step(tick, crowd, looked_at, None if before is None else before.take(looked_at))
            if happened is not None:
                self._emit(step, happened)

        if adopted:
            rules.draw_circles(tick)
            rules.place_all(crowd)
        else:
            rules.move(crowd, observed, gone, columns)
        circles_now = rules.circles_of(crowd, row)
        pushed = rules.push(
            tick,
            crowd,
            row,
            first_seen,
            was_inside,
            crowd.inside_venue(row),
            circles_before,
            circles_now,
            self._audiences.pushes(tick, crowd, rules),
            self.plausible.held,
        )
        rules.turn_on(tick)
        if pushed is not None:
            self._emit(step, pushed)
            offers = tuple(rules.offers[rules.slot[offer_id]] for offer_id in pushed.offers)
            batch = PushBatch(venue=self._venue, tick=tick, offers=offers, offer=pushed.offer, subject=pushed.subject)
            step.outbox.append((f"venue/{self._venue}/pushes", batch))
        if other_zones or (tick % CHECKPOINT_TICKS == 0 and (crowd.count or self.buffer.sources)):
            self._emit_checkpoint(tick, step)
        self._heat.sample(tick, crowd)
        self._publish(tick, step)

    def _freed(self, now_s: float, row: Rows, columns: PositionColumns) -> npt.NDArray[np.intp]:
        """Hold the phones of a tick against where they were; (k,) which of the rows were held back until now."""
        phones = self.buffer.unsourced
        if not len(phones):
            return np.zeros(0, np.intp)
        own = np.flatnonzero(np.isin(columns.subject, phones))
        return own[self.plausible.look(now_s, row[own], columns.level[own], columns.x_m[own], columns.y_m[own])]

    def _adopt(self, tick: int, step: Step) -> bool:
        revision, offers = self._offers()
        if revision == self._revision:
            return False
        self._revision = revision
        changed = self.rules.changed(offers)
        if changed:
            self._emit(step, OffersAdopted(tick, changed))
        return bool(changed)

    def _follow_edits(self, step: Step) -> bool:
        """Take up the newest document that operators have made of this one; the numbers of its fences are the same. Some tenths of a second for a mall."""
        if self._standing is None or self._standing.standing == self._stood:
            return False
        edits = self._standing.edits
        if self.book.digest not in edits.digests or self.book.digest == edits.digests[-1]:
            return False
        book = VenueBook.read(zlib.decompress(edits.document))
        if book.numbering != self.book.numbering:
            raise Fault(f"venue {self._venue}: an edit moved units in the document; edits of a running venue leave them in their places")
        self.book = book
        self._settled = Settled(book.fences())
        self.crowd.widen(self._settled.fences.width)
        self._anchors = _anchors(book)
        self.rules.move_anchors(self._anchors)
        self._views.follow(book)
        standing = self._standing
        self._audiences = Audiences(book, lambda: standing.closed)
        self._emit(step, VenueBound(book.digest, book.numbering))
        return True

    def _adopt_standing(self, tick: int, step: Step) -> bool:
        """Whether the drawn zones in force, or what zones go by in people, are others from this tick on."""
        if self._standing is None or self._standing.standing == self._stood:
            return False
        self._stood = self._standing.standing
        traits = self.crowd.unlike(self._standing.traits)
        if traits.subject:
            self._emit(step, TraitsAdopted(tick, traits.subject, traits.segments, traits.languages, traits.spoken))
        levels = len(self.book.venue.levels)  # another document may have fewer than when a zone was drawn
        drawn, erased = self.zones.changed({zone_id: zone for zone_id, zone in self._standing.zones.items() if zone.level < levels})
        if not drawn and not erased:
            return bool(traits.subject)
        event = ZonesAdopted(tick, drawn, erased)
        self.zones.adopt(event, self.crowd)
        self._durable = max(self._durable, tick)
        step.events.append(event)
        return True

    def _emit_checkpoint(self, tick: int, step: Step) -> None:
        pending = self.zones.pending(tick, self.crowd)
        self._emit(step, self.crowd.seen_since(tick, after=self._checkpoint))
        if pending is not None:
            self._emit(step, pending)

    def _cross(self, tick: int, row: Rows, fences: np.ndarray[tuple[int, int], np.dtype[np.int32]], step: Step) -> None:
        crowd = self.crowd
        i, fence, entered = crowd.crossings(row, fences)
        if not len(i):
            return
        subject = crowd.subject[row[i]]
        if (subject[1:] < subject[:-1]).any():
            order = np.argsort(subject, kind="stable")  # the gone come after the observed; by subject they lie between them
            subject, fence, entered = subject[order], fence[order], entered[order]
        self._emit(step, Transitions(tick, subject.tobytes(), fence.astype("<u2").tobytes(), entered.tobytes()))

    def _dwell(self, tick: int, step: Step) -> None:
        row, fence = self.crowd.dwelling(tick - self.settings.dwell_ticks)
        if len(row):
            subject = self.crowd.subject[row]
            order = np.lexsort((fence, subject))
            self._emit(step, Dwelt(tick, subject[order].tobytes(), fence[order].astype("<u2").tobytes()))

    def _emit(self, step: Step, event: EventBody) -> None:
        self.apply(event)
        step.events.append(event)

    # --- what others see ----------------------------------------------------------------------------------------------

    def watch(self, topics: dict[str, float], now_s: float) -> None:
        self._views.watch(topics, now_s)

    def zone_state(self, zone_id: str) -> ZoneState | None:
        fence = self.book.zone_fence.get(zone_id)
        if fence is None:
            return self.zones.state(zone_id, self.buffer.closed)
        crowd = self.crowd
        return ZoneState(
            tick=self.buffer.closed, inside=crowd.inside.item(fence), entries=crowd.entries.item(fence), exits=crowd.exits.item(fence),
            dwells=crowd.dwells.item(fence), stayed_s=crowd.stayed.item(fence) * TICK_S, ground_m2=self.book.ground_m2(zone_id),
        )  # fmt: skip

    def _places(self) -> Places:
        """Where every row of the crowd is; rows to come are nowhere."""
        crowd = self.crowd
        level = np.where(crowd.present, crowd.level, LEFT).astype(np.uint8)
        return Places(level, crowd.x_m.astype(np.float64), crowd.y_m.astype(np.float64))

    def measure(self, zone_id: str, *, voronoi: bool) -> Measures | None:
        """Of a unit or zone; None where there is none with this id. Raises LimitExceeded for too many people for `voronoi`."""
        state, tick = self.zone_state(zone_id), self.buffer.closed
        if state is None:
            return None
        mean_stay_s = state.stayed_s / state.exits if state.exits else 0.0
        told = Measures(tick=tick, inside=state.inside, ground_m2=state.ground_m2, mean_stay_s=mean_stay_s)
        drawn = self.zones.ground(zone_id)
        if voronoi and state.ground_m2 > 0:
            level, ground = self.book.ground_of(zone_id) if drawn is None else (drawn.level, outline(drawn))
            told = msgspec.structs.replace(told, voronoi_per_m2=self._voronoi(level, ground))
        if drawn is None:
            return told
        entries, exits = self.zones.flow(zone_id, tick)
        return msgspec.structs.replace(told, entries_per_min=entries, exits_per_min=exits, stays_s=STAYS_S, stays=self.zones.stays(zone_id))

    def _voronoi(self, level: int, ground: BaseGeometry) -> float:
        """Voronoi density of some ground, of those at most VORONOI_M from it, cells cut to the level's outline."""
        crowd = self.crowd
        n = crowd.count
        row = np.flatnonzero(crowd.present[:n] & (crowd.level[:n] == level) & np.isfinite(crowd.x_m[:n]) & np.isfinite(crowd.y_m[:n]))
        x_m, y_m = crowd.x_m[row].astype(np.float64), crowd.y_m[row].astype(np.float64)
        near = shapely.dwithin(ground, shapely.points(x_m, y_m), VORONOI_M)
        if near.sum() > MAX_VORONOI:
            raise LimitExceeded(f"{int(near.sum())} people within {VORONOI_M} m: at most {MAX_VORONOI} for a Voronoi density; measure a smaller zone")
        people = Trajectories.of(np.arange(near.sum()), np.zeros(int(near.sum())), x_m[near], y_m[near], rate_hz=1 / TICK_S)
        found = voronoi_density(people, ground, shape(self.book.venue.levels[level].outline))[0].value
        return float(found[0]) if len(found) else 0.0

    def heat(self, level: int) -> HeatReply:
        """Person-seconds by cell of a level."""
        raster = self._heat.rasters[level]
        return HeatReply(
            tick=self.buffer.closed, since_tick=self._heat.since_tick, x0_m=raster.x0_m, y0_m=raster.y0_m, cell_m=raster.cell_m, cols=raster.cols,
            rows=raster.rows, person_s=self._heat.person_s[level].astype("<f4").tobytes(),
        )  # fmt: skip

    def explain(self, offer_id: str, subject: int) -> Explanation | None:
        """Why an offer was or was not pushed to somebody; None for an offer that is not followed here (yet)."""
        slot = self.rules.slot.get(offer_id)
        if slot is None:
            return None
        row = self.crowd.row_of(subject)
        if row is not None and self.plausible.held(np.array([row], np.int32))[0]:
            said = f"{offer_id} to {subject}: not pushed: moved faster than anybody can within the last {HOLD_S:g} s"
            return Explanation(outcome="implausible", message=said, pushes=0, tick=-1)
        told = self._audiences.explain(self.buffer.closed, self.crowd, self.rules, self.rules.offers[slot], subject)
        return Explanation(outcome=told.outcome, message=told.message, pushes=told.pushes, tick=told.tick)

    def spotted(self, subject: int) -> Spotted | None:
        """Where someone present was last seen."""
        crowd = self.crowd
        row = crowd.row_of(subject)
        if row is None or not crowd.present[row] or not np.isfinite(crowd.x_m[row]):
            return None
        return Spotted(int(crowd.last[row]), int(crowd.level[row]), float(crowd.x_m[row]), float(crowd.y_m[row]))

    def crowding(self) -> tuple[Crowded, ...]:
        """Where people are, of each level with any, by cell."""
        told = (self._views.density(self.buffer.closed, level, self.crowd) for level in range(len(self.book.venue.levels)))
        return tuple(Crowded(one.level, one.x0_m, one.y0_m, one.cell_m, one.cols, one.rows, one.count) for one in told if any(one.count))

    def _publish(self, tick: int, step: Step) -> None:
        if tick % STATS_TICKS == 0:
            step.publish.append((f"venue/{self._venue}/stats", self.stats(tick)))
        step.publish += self._views.of_tick(tick, self.crowd, self.zone_state)

    def stats(self, tick: int) -> VenueStats:
        crowd, base = self.crowd, self.book.outline_base
        fullest = np.argsort(-crowd.inside[:base], kind="stable")[:FULLEST]
        names = [unit.id for unit in self.book.venue.units] + [zone.id for zone in self.book.venue.zones]
        return VenueStats(
            venue=self._venue, tick=tick, inside=tuple(crowd.inside[base:].tolist()), pushes=self.rules.total,
            entries=int(crowd.venue[0]), exits=int(crowd.venue[1]), dwells=int(crowd.dwells.sum()), tick_ms=self.tick_ms,
            zones={names[f]: int(crowd.inside[f]) for f in fullest.tolist() if crowd.inside[f] > 0},
        )  # fmt: skip


def _anchors(book: VenueBook) -> dict[str, Anchor]:
    unit_ids = [unit.id for unit in book.venue.units]
    return dict(zip(unit_ids, anchors(book.venue, unit_ids), strict=True))
