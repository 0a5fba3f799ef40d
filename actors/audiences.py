"""Offers with terms: who gets them, once a second, and why anybody does or does not. The rule is stated in `spatial.offers`.

Owns nothing that must survive: what it needs of the past (pushes made, traits) is folded elsewhere. Places are the crowd's, walking times those of the
venue's router under what is closed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from actors.crowd_state import CrowdState
from actors.push_rules import PushRules
from actors.venue_book import VenueBook
from esplanade.core.clock import TICK_S
from spatial import audience
from spatial.audience import Campaign, Crowd, Decision, Outcome, Room
from spatial.offers import Everyone, Inside, Offer, Terms, Within
from spatial.reach import ReachField
from spatial.zone_shapes import Hours

TERMS_TICKS: Final = 10
"""Offers with terms are looked at once in so many ticks."""

ON_THE_WAY_TICKS: Final = 3_000
"""Who was pushed to so lately and is not in the store is on the way there."""

ANY_TIME_S: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class Explained:
    """`outcome`: `pushed`, `off`, `unseen`, or the name of an `Outcome`; `pushes` made of the offer to the subject so far, the last at `tick` (-1: none)."""

    outcome: str
    message: str
    pushes: int
    tick: int


class Audiences:
    """Of one venue. `closed`: ids of what is closed now, with a number that grows when it changes."""

    def __init__(self, book: VenueBook, closed: Callable[[], Collection[str]]) -> None:
        self._book = book
        self._closed = closed
        self._fields: dict[frozenset[str], ReachField] = {}

    def decide(self, tick: int, crowd: CrowdState, rules: PushRules) -> list[Decision]:
        """Every offer with terms that is on at `tick`, for everyone seen; reads and changes nothing."""
        offers = [offer for offer in rules.offers if isinstance(offer.terms, Terms) and offer.starts_tick <= tick < offer.ends_tick]
        if not offers:
            return []
        n = crowd.count
        seconds: dict[str, npt.NDArray[np.float64]] = {}
        timed = sorted({offer.unit_id for offer in offers if isinstance(offer.terms, Terms) and offer.terms.within_s is not None})
        x_m, y_m = crowd.x_m[:n].astype(np.float64), crowd.y_m[:n].astype(np.float64)
        if timed:
            field = self._field()
            field.prepare(timed)
            sample = field.nearest(np.where(crowd.present[:n], crowd.level[:n], 255), x_m, y_m)
            for unit_id in timed:
                seconds[unit_id] = field.seconds_from(unit_id, sample)
        people = Crowd(
            crowd.subject[:n].astype(np.int64), crowd.level[:n].astype(np.int64), x_m, y_m, crowd.segments[:n], crowd.language[:n]
        )  # fmt: skip
        campaigns: list[Campaign] = []
        barred: dict[str, npt.NDArray[np.int8]] = {}
        rooms: dict[str, Room] = {}
        travel: dict[str, npt.NDArray[np.float64]] = {}
        for offer in offers:
            terms = offer.terms
            assert isinstance(terms, Terms)
            times, newest = rules.pushes_of(offer, n)
            campaigns.append(_campaign(offer, terms, int(times.sum())))
            outcome = np.where(self._placed(offer, crowd, rules), Outcome.PUSH, Outcome.ELSEWHERE).astype(np.int8)
            outcome[times >= offer.cap] = Outcome.SERVED
            outcome[(times > 0) & (times < offer.cap) & (tick - newest < offer.cooldown_ticks)] = Outcome.COOLING
            barred[offer.id] = outcome
            travel[offer.id] = seconds[offer.unit_id] if terms.within_s is not None else np.zeros(n)
            if terms.density_per_m2 is not None:
                rooms[offer.unit_id] = self._room(tick, offer, offers, crowd, rules, rooms.get(offer.unit_id))
        return audience.decide_by(campaigns, people, travel, tick * TICK_S, rooms, barred=barred)

    def pushes(self, tick: int, crowd: CrowdState, rules: PushRules) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """(offer slot, row) of the pushes of the close of `tick`."""
        slots, rows = [np.zeros(0, np.int32)], [np.zeros(0, np.int32)]
        if tick % TERMS_TICKS == 0 and rules.with_terms:
            for decision in self.decide(tick, crowd, rules):
                row = np.flatnonzero(decision.outcome == Outcome.PUSH).astype(np.int32)
                slots.append(np.full(len(row), rules.slot[decision.campaign.offer_id], np.int32))
                rows.append(row)
        return np.concatenate(slots), np.concatenate(rows)

    def explain(self, tick: int, crowd: CrowdState, rules: PushRules, offer: Offer, subject: int) -> Explained:
        """Why `subject` was or was not pushed this offer, as things stand at the close of `tick`."""
        row = crowd.row_of(subject)
        if row is None or not crowd.seen[row]:
            return Explained("unseen", f"{offer.id} to {subject}: not pushed: never seen in this venue", 0, -1)
        times, newest = rules.pushes_of(offer, crowd.count)
        pushes, last = int(times[row]), int(newest[row]) if times[row] else -1
        if not offer.starts_tick <= tick < offer.ends_tick:
            said = f"{offer.id} to {subject}: the offer runs from tick {offer.starts_tick} to {offer.ends_tick}, and it is {tick}"
            return Explained("off", said + _so_far(pushes, last, offer), pushes, last)
        if isinstance(offer.terms, Terms):
            [decision] = [one for one in self.decide(tick, crowd, rules) if one.campaign.offer_id == offer.id]
            outcome = Outcome(int(decision.outcome[row]))
            message = decision.explain(subject)
        else:
            placed = bool(self._placed(offer, crowd, rules)[row])
            outcome = Outcome.PUSH if placed else Outcome.ELSEWHERE
            if pushes >= offer.cap:
                outcome = Outcome.SERVED
            elif pushes and tick - last < offer.cooldown_ticks:
                outcome = Outcome.COOLING
            message = f"{offer.id} to {subject}: " + _PLAIN[outcome]
        name = "pushed" if outcome == Outcome.SERVED else "due" if outcome == Outcome.PUSH else outcome.name.lower()
        return Explained(name, message + _so_far(pushes, last, offer), pushes, last)

    def _placed(self, offer: Offer, crowd: CrowdState, rules: PushRules) -> npt.NDArray[np.bool_]:
        """Who of all rows is where the offer's audience is."""
        n = crowd.count
        match offer.audience:
            case Everyone():
                return crowd.seen[:n].copy()
            case Inside():
                return crowd.inside_venue(np.arange(n, dtype=np.int32)).astype(np.bool_)
            case Within(radius_m):
                level, ax, ay = rules.anchor(offer.unit_id)
                dx, dy = crowd.x_m[:n].astype(np.float64) - ax, crowd.y_m[:n].astype(np.float64) - ay
                near = crowd.present[:n] & (crowd.level[:n] == level) & (dx * dx + dy * dy <= radius_m * radius_m)
                return np.asarray(near)

    def _room(self, tick: int, offer: Offer, offers: list[Offer], crowd: CrowdState, rules: PushRules, known: Room | None) -> Room:
        if known is not None:
            return known
        fence = self._book.zone_fence[offer.unit_id]
        inside = (crowd.member[: crowd.count] == fence).any(axis=1)
        coming = np.zeros(crowd.count, np.bool_)
        for other in offers:
            if other.unit_id == offer.unit_id:
                times, newest = rules.pushes_of(other, crowd.count)
                coming |= (times > 0) & (tick - newest < ON_THE_WAY_TICKS)
        return Room(self._book.ground_m2(offer.unit_id), int(inside.sum()), int((coming & ~inside & crowd.present[: crowd.count]).sum()))

    def lacking(self, offers: Iterable[Offer]) -> Preparation | None:
        """The walking times that these offers ask for and that are not at hand, under what is closed now: to be made elsewhere and taken in by `prepared`."""
        units = {offer.unit_id for offer in offers if isinstance(offer.terms, Terms) and offer.terms.within_s is not None}
        closed = frozenset(self._closed())
        field = self._fields.get(closed)
        missing = tuple(sorted(units if field is None else units - field.places))
        return Preparation(self._book, closed, field, missing) if missing else None

    def prepared(self, made: Prepared) -> None:
        """Have these walking times at hand, if they are still of this map."""
        if made.book is self._book:
            if made.field not in self._fields.values():
                self._fields = {made.closed: made.field}  # one: what was closed before is seldom closed again the same way
            made.field.take(made.seconds)

    def _field(self) -> ReachField:
        closed = frozenset(self._closed())
        field = self._fields.get(closed)
        if field is None:
            field = ReachField(self._book.router_under(closed))
            self._fields = {closed: field}
        return field


@dataclass(frozen=True, slots=True)
class Preparation:
    """Walking times to some units of a map: a second or so for the first of a mall, because its ways are looked for. `make` changes nothing and may run in any thread."""

    book: VenueBook
    closed: frozenset[str]
    field: ReachField | None
    units: tuple[str, ...]

    def make(self) -> Prepared:
        field = ReachField(self.book.router_under(self.closed)) if self.field is None else self.field
        return Prepared(self.book, self.closed, field, field.seconds_to(self.units))


@dataclass(frozen=True, slots=True)
class Prepared:
    book: VenueBook
    closed: frozenset[str]
    field: ReachField
    seconds: dict[str, npt.NDArray[np.float64]]


def _campaign(offer: Offer, terms: Terms, spent: int) -> Campaign:
    return Campaign(
        offer_id=offer.id, unit_id=offer.unit_id, within_s=ANY_TIME_S if terms.within_s is None else terms.within_s, segments=terms.segments,
        languages=frozenset(terms.languages), budget=2**31 if terms.budget is None else max(0, terms.budget - spent), priority=terms.priority,
        quiet=tuple(Hours(quiet.from_s, quiet.until_s, quiet.every_s) for quiet in terms.quiet), hold_out=terms.hold_out, salt=terms.salt,
        density_per_m2=terms.density_per_m2,
    )  # fmt: skip


def _so_far(pushes: int, last: int, offer: Offer) -> str:
    return f" ({pushes} of at most {offer.cap} pushes so far, the last at tick {last})" if pushes else ""


_PLAIN: Final = {
    Outcome.PUSH: "not pushed again while they stay where they are: a push is made on coming there",
    Outcome.ELSEWHERE: "not pushed: not where the offer's audience is",
    Outcome.SERVED: "pushed as often as the offer may be",
    Outcome.COOLING: "not pushed again yet: the cool-down of the last push runs",
}
