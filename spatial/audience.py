"""Who of a crowd gets which offer now, who does not, and why: crowd-aware audiences, decided by a stated rule and explained one by one.

Owns the rule beyond `spatial.offers` (which says who is eligible by place). Pure: the crowd, the router under its live changes, the time and what was spent are
arguments; it counts and journals nothing.

The rule. Offers are taken by priority, the highest first, ties by id. For each offer every person gets exactly one `Outcome`, the first that applies:

1. `HELD_OUT`: in the offer's hold-out group: a hash of its salt and the subject, stable for ever, below `hold_out`. They are the measure of what pushes do.
2. `QUIET`: the time lies in the offer's quiet hours. 3. `SEGMENT`: in none of its segments. 4. `LANGUAGE`: speaks none of its languages.
5. `NO_WAY`: no way leads to the store. 6. `TOO_FAR`: the fastest way, live closures, queues and crowds counted, takes more than `within_s`.
7. `OUTRANKED`: already gets `at_most` offers of higher priority.
8. `CROWDED`: the store would pass `density_per_m2` if everyone present, on the way and pushed before them came. 9. `BUDGET`: no pushes are left.
10. `PUSH`.

Whoever decides may bar people beforehand, by `ELSEWHERE` (not where the offer goes), `SERVED` (pushed as often as may be) or `COOLING` (too soon after the last push).

Where room or budget do not last for all, the nearest by time come first, ties by subject.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, assert_never

import numpy as np
import numpy.typing as npt

from esplanade.core.errors import InvalidInput
from spatial.profiles import WALKING, Profile
from spatial.routes import Points
from spatial.routing import Router
from spatial.zone_shapes import Hours

F8 = npt.NDArray[np.float64]
I8 = npt.NDArray[np.int64]

MAX_OFFERS: Final = 4096


class Outcome(IntEnum):
    PUSH = 0
    HELD_OUT = 1
    QUIET = 2
    SEGMENT = 3
    LANGUAGE = 4
    NO_WAY = 5
    TOO_FAR = 6
    OUTRANKED = 7
    CROWDED = 8
    BUDGET = 9
    ELSEWHERE = 10
    SERVED = 11
    COOLING = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """An offer's audience. segments: bits, any of them (0: everyone). languages: BCP 47 primary tags (empty: all). budget: pushes left. density_per_m2: None for no limit."""

    offer_id: str
    unit_id: str
    within_s: float
    segments: int = 0
    languages: frozenset[str] = frozenset()
    budget: int = 2**31
    priority: int = 0
    quiet: tuple[Hours, ...] = ()
    hold_out: float = 0.0
    salt: str = ""
    density_per_m2: float | None = None

    def __post_init__(self) -> None:
        density = self.density_per_m2
        if not (0 < self.within_s <= 86_400 and 0 <= self.segments < 2**64 and self.budget >= 0 and 0 <= self.hold_out <= 1):
            raise InvalidInput(
                f"campaign {self.offer_id}: within {self.within_s} s, budget {self.budget}, hold-out {self.hold_out}; "
                "give 0 to 86400 seconds, a budget not negative and a share of 0 to 1"
            )
        if density is not None and not 0 < density <= 10:
            raise InvalidInput(f"campaign {self.offer_id}: density limit {density} per m2; must be above 0 and at most 10")


@dataclass(frozen=True, slots=True)
class Crowd:
    """People present: subject (n,) each once, level index, x, y metres, segments (n,) uint64 bits, language (n,) primary tags."""

    subject: I8
    level: I8
    x_m: F8
    y_m: F8
    segments: npt.NDArray[np.uint64]
    language: npt.NDArray[np.str_]

    def __post_init__(self) -> None:
        shapes = {len(self.subject), len(self.level), len(self.x_m), len(self.y_m), len(self.segments), len(self.language)}
        if len(shapes) != 1 or len(np.unique(self.subject)) != len(self.subject):
            raise InvalidInput(f"crowd: columns of {sorted(shapes)} rows; must be as long as one another, each subject once")


@dataclass(frozen=True, slots=True)
class Room:
    """A store's ground and who is on it already or was sent there."""

    ground_m2: float
    people: int
    on_the_way: int = 0


@dataclass(frozen=True, slots=True)
class Decision:
    """One offer to a crowd: outcome (n,) of Outcome, seconds (n,) to the store (inf: no way), by the rows of the crowd. room: pushes that the density allowed."""

    campaign: Campaign
    at_s: float
    subject: I8
    outcome: npt.NDArray[np.int8]
    seconds: F8
    room: int | None

    @property
    def pushed(self) -> I8:
        """Subjects to push to, ascending."""
        return np.sort(self.subject[self.outcome == Outcome.PUSH])

    def counts(self) -> dict[str, int]:
        """How many got each outcome."""
        return {outcome.name.lower(): int((self.outcome == outcome).sum()) for outcome in Outcome}

    def explain(self, subject: int) -> str:
        """Why this person was pushed to or not, in a sentence. Raises InvalidInput for one who was not in the crowd."""
        row = np.flatnonzero(self.subject == subject)
        if not len(row):
            raise InvalidInput(f"explain: subject {subject} was not in the crowd at {self.at_s} s")
        rule, seconds = self.campaign, float(self.seconds[row[0]])
        outcome = Outcome(int(self.outcome[row[0]]))
        match outcome:
            case Outcome.PUSH:
                said = f"pushed: {rule.unit_id} is {seconds:.0f} s away, within {rule.within_s:g} s"
            case Outcome.HELD_OUT:
                said = f"not pushed: in the hold-out group of {rule.hold_out:.0%}, who never get it"
            case Outcome.QUIET:
                said = f"not pushed: {self.at_s:g} s lies in the offer's quiet hours"
            case Outcome.SEGMENT:
                said = "not pushed: in none of the offer's segments"
            case Outcome.LANGUAGE:
                said = f"not pushed: the offer is in {', '.join(sorted(rule.languages))}"
            case Outcome.NO_WAY:
                said = f"not pushed: no way leads from there to {rule.unit_id} at the moment"
            case Outcome.TOO_FAR:
                said = f"not pushed: {rule.unit_id} is {seconds:.0f} s away, more than {rule.within_s:g} s"
            case Outcome.OUTRANKED:
                said = "not pushed: got an offer of higher priority"
            case Outcome.CROWDED:
                said = f"not pushed: held back, {rule.unit_id} has room for {self.room} more at {rule.density_per_m2:g} people per m2, and as many are nearer"
            case Outcome.BUDGET:
                said = f"not pushed: the budget of {rule.budget} pushes was spent on people who are nearer"
            case Outcome.ELSEWHERE:
                said = "not pushed: not where the offer's audience is"
            case Outcome.SERVED:
                said = "pushed as often as the offer may be"
            case Outcome.COOLING:
                said = "not pushed again yet: the cool-down of the last push runs"
            case _:
                assert_never(outcome)
        return f"{rule.offer_id} to {subject}: {said}"


def held_out(salt: str, share: float, subject: I8) -> npt.NDArray[np.bool_]:
    """Who is in a hold-out group of that share: (n,). Depends on the salt and the subject alone; a larger share holds all of a smaller one's group."""
    seed = np.uint64(int.from_bytes(hashlib.blake2b(salt.encode(), digest_size=8).digest(), "little"))
    with np.errstate(over="ignore"):
        # splitmix64's finaliser (Steele, Lea and Flood 2014).
        z = subject.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + seed
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return np.asarray((z >> np.uint64(11)).astype(np.float64) / 2.0**53 < share)


def decide(
    campaigns: Sequence[Campaign],
    crowd: Crowd,
    router: Router,
    at_s: float,
    rooms: Mapping[str, Room],
    *,
    at_most: int = 1,
    profile: Profile = WALKING,
) -> list[Decision]:
    """Decide all offers for a crowd at a venue time, by the rule above; decisions in the order in which offers were taken.

    rooms: by unit id, for each campaign with a density limit. Raises InvalidInput for an offer given twice, too many, or a unit without its room; NotFound for
    a unit that the venue lacks.
    """
    points = Points(crowd.level, crowd.x_m, crowd.y_m)
    units = sorted({c.unit_id for c in campaigns})
    to = {unit: router.matrix(points, [unit], profile=profile)[:, 0] if len(crowd.subject) else np.zeros(0) for unit in units}
    return decide_by(campaigns, crowd, {c.offer_id: to[c.unit_id] for c in campaigns}, at_s, rooms, at_most=at_most)


def decide_by(
    campaigns: Sequence[Campaign],
    crowd: Crowd,
    travel: Mapping[str, F8],
    at_s: float,
    rooms: Mapping[str, Room],
    *,
    at_most: int = 1,
    barred: Mapping[str, npt.NDArray[np.int8]] | None = None,
) -> list[Decision]:
    """`decide` with the walking times given: (n,) seconds by offer id, inf where there is no way. `barred`: (n,) outcomes already known by offer id, PUSH where none is."""
    if len({c.offer_id for c in campaigns}) != len(campaigns) or len(campaigns) > MAX_OFFERS or at_most < 1:
        raise InvalidInput(f"decide: {len(campaigns)} offers, at_most={at_most}; each offer once, at most {MAX_OFFERS}, and at_most 1 or more")
    n = len(crowd.subject)
    taken = np.zeros(n, np.int64)
    sent: dict[str, int] = {}
    decisions = []
    for rule in sorted(campaigns, key=lambda c: (-c.priority, c.offer_id)):
        seconds = travel[rule.offer_id]
        outcome = np.full(n, Outcome.PUSH, np.int8) if barred is None else barred[rule.offer_id].copy()

        def mark(which: Outcome, where: npt.NDArray[np.bool_] | bool, outcome: npt.NDArray[np.int8] = outcome) -> None:
            outcome[(outcome == Outcome.PUSH) & where] = which

        mark(Outcome.HELD_OUT, held_out(rule.salt or rule.offer_id, rule.hold_out, crowd.subject))
        mark(Outcome.QUIET, any(hours.hold(at_s) for hours in rule.quiet))
        mark(Outcome.SEGMENT, (crowd.segments & np.uint64(rule.segments) == 0) & (rule.segments != 0))
        if rule.languages:
            mark(Outcome.LANGUAGE, ~np.isin(crowd.language, sorted(rule.languages)))
        mark(Outcome.NO_WAY, ~np.isfinite(seconds))
        mark(Outcome.TOO_FAR, seconds > rule.within_s)
        mark(Outcome.OUTRANKED, taken >= at_most)
        room = _room(rule, rooms, sent.get(rule.unit_id, 0))
        left = np.flatnonzero(outcome == Outcome.PUSH)
        order = left[np.lexsort((crowd.subject[left], seconds[left]))]
        if room is not None:
            outcome[order[room:]] = Outcome.CROWDED
            order = order[:room]
        outcome[order[rule.budget :]] = Outcome.BUDGET
        order = order[: rule.budget]
        taken[order] += 1
        sent[rule.unit_id] = sent.get(rule.unit_id, 0) + len(order)
        decisions.append(Decision(rule, at_s, crowd.subject, outcome, seconds, room))
    return decisions


def _room(rule: Campaign, rooms: Mapping[str, Room], sent: int) -> int | None:
    """How many more may be sent to the store; None without a limit."""
    if rule.density_per_m2 is None:
        return None
    room = rooms.get(rule.unit_id)
    if room is None:
        raise InvalidInput(f"decide: campaign {rule.offer_id} limits the density of {rule.unit_id}; give the room of that unit")
    return max(0, int(rule.density_per_m2 * room.ground_m2 + 1e-9) - room.people - room.on_the_way - sent)
