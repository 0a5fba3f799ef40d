"""Who entered, left, crossed and dwelt in which fence, from positions that are uncertain: a step at a time, for hundreds of thousands of people.

Owns the state of people towards fences (who is inside, since when, what is pending) and the rule by which events follow from positions. It reads no clock: the
time of a step is an argument and never goes back.

The rule. A person's *place* is their last position, or with `steady_s` above 0 an average of their positions with that time constant (weight of a new one:
1 - exp(-dt / steady_s)), begun anew on another level. *Depth* is the place's distance to the fence's border, positive inside.

* **enter** when someone outside has depth >= `margin_m` (with a margin of 0: when the fence covers the place, border included, exactly);
  **exit** when someone inside has depth <= -`margin_m` (0: when the fence no longer covers it). Inwards the margin is never more than area / perimeter,
  a depth that every fence has. Between the margins nothing changes: that is the hysteresis in metres.
* `confirm_s`: the condition must hold that long without a break; that is the hysteresis in seconds. `least`: it must also have that probability.
* **dwell** once a visit, `dwell_s` after its enter. Time counts at steps, so a dwell is noticed at the first step at or after it.
* **cross** where the way from one place to the next meets a fence and both ends, and the visit before and after, are outside (fast movers). The way is a straight line
  on one level.
* **floor**: a fence lives on its level. Someone who changes level or leaves exits at once from all fences of the old one, without margin or confirming.
* **tags**: a fence sees who has all bits of `all_of` and none of `none_of`. **schedule**: outside its hours a fence sees nobody. Who is no longer seen exits
  at once; who is seen anew may enter.
* **confidence** of an event: the probability that its claim (inside, or for an exit outside) is true, from the covariance of the place (errors of different steps
  taken as independent) and the probability of the level; 1.0 where neither is given. Exact for a Gaussian; a circle counts as a polygon of 32 corners.

Bad rows (not finite, a level that there is not, a covariance that is none, a person number out of range) change nothing and are returned. A person may occur
once a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from esplanade.core.errors import InvalidInput, LimitExceeded, NotFound
from spatial import fence_kernels as kernels
from spatial.columns import LEFT
from spatial.fence_kernels import CROSS, DWELL, ENTER, EXIT
from spatial.geofence import Corridor, FenceSet, MultiPolygonCoords
from spatial.venue import Venue
from spatial.zone_shapes import MAX_MARGIN_M, Hours

F8 = npt.NDArray[np.float64]
I4 = npt.NDArray[np.int32]
I8 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

MAX_PEOPLE: Final = 5_000_000
SLOTS: Final = 4
MAX_SLOTS: Final = 1024
"""Fences that one person can be in at a time. Slots grow for all when one needs more."""

CELL_M: Final = 5.0
"""Larger than where each point is located anew: a person is looked at only as often as they near a border or leave a cell."""

BEYOND_M: Final = 2.0
"""A cell of the raster lists what comes this near to it, so that who is near a border need not be looked at again before they reach it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FenceRule:
    """What a fence asks; see the module for what each means."""

    margin_m: float = 0.0
    confirm_s: float = 0.0
    dwell_s: float | None = None
    least: float = 0.0
    cross: bool = False
    all_of: int = 0
    none_of: int = 0
    hours: tuple[Hours, ...] = ()

    def __post_init__(self) -> None:
        fit = 0 <= self.margin_m <= MAX_MARGIN_M and 0 <= self.confirm_s < np.inf and 0 <= self.least < 1
        if not (fit and (self.dwell_s is None or 0 <= self.dwell_s < np.inf) and 0 <= self.all_of < 2**64 and 0 <= self.none_of < 2**64):
            raise InvalidInput(f"{self}: margin must be 0 to {MAX_MARGIN_M} m, times not negative, least probability 0 to below 1, tags bits of 64")


@dataclass(frozen=True, slots=True)
class Held:
    """Who is towards which fence, beyond being outside: person, fence (k,); since_s: of the enter; pending_s: since when a change is pending (inf: none is); state
    (k,) bits: 1 inside, 2 has dwelt. By person, then fence."""

    person: I8
    fence: I4
    since_s: F8
    pending_s: F8
    state: npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Events:
    """Events of one step in the order of its rows, a person's by fence with crossings last: kind (e,) of ENTER.. , person, fence, confidence. `bad`: rows of the step left out."""

    at_s: float
    kind: npt.NDArray[np.uint8]
    person: I8
    fence: I4
    confidence: npt.NDArray[np.float32]
    bad: I8

    def __len__(self) -> int:
        return len(self.kind)

    def of(self, kind: int) -> list[tuple[int, int]]:
        """(person, fence) of the events of one kind."""
        mine = self.kind == kind
        return list(zip(self.person[mine].tolist(), self.fence[mine].tolist(), strict=True))


class FenceWatch:
    """A set of fences and the people it has seen. `people`: how many numbers 0.. there are; `steady_s`: time constant of the averaged place (0: none)."""

    def __init__(
        self,
        n_levels: int,
        people: int,
        polygons: Sequence[tuple[int, MultiPolygonCoords]],
        circles: Sequence[tuple[int, float, float, float]] = (),
        corridors: Sequence[Corridor] = (),
        *,
        rules: Sequence[FenceRule] | FenceRule | None = None,
        steady_s: float = 0.0,
    ) -> None:
        """Fences are numbered as in `FenceSet.build`; `rules` is one for all or one each. Raises InvalidInput and LimitExceeded."""
        count = len(polygons) + len(circles) + len(corridors)
        each = [rules or FenceRule()] * count if rules is None or isinstance(rules, FenceRule) else list(rules)
        if len(each) != count:
            raise InvalidInput(f"fences: {len(each)} rules for {count} fences; give one rule for all, or one each")
        if not 0 <= steady_s < np.inf:
            raise InvalidInput(f"fences: steady_s={steady_s}; must be seconds, 0 or more")
        if not 1 <= people <= MAX_PEOPLE:
            raise LimitExceeded(f"fences: {people} people; 1 to {MAX_PEOPLE}")
        margin = np.array([rule.margin_m for rule in each])
        beyond = BEYOND_M if margin.any() else 0.0
        self.fences = FenceSet.build(n_levels, polygons, circles, corridors, margin_m=margin + beyond, cell_m=CELL_M)
        raster = self.fences.raster
        ring = np.zeros(len(raster.cell_first) - 1, np.uint8)
        for rows, columns, base in raster.shape:
            kernels.ring_distance(raster.cell_first, raster.entry, rows, columns, base, ring)
        along = raster.edge[:, 2:] - raster.edge[:, :2]
        line = np.ascontiguousarray(np.column_stack([raster.edge[:, :2], along, 1.0 / np.maximum((along**2).sum(axis=1), 1e-300)]).T)
        self._raster = raster._replace(ring=ring, beyond=beyond, line=line)
        self._hours = [(fence, rule.hours) for fence, rule in enumerate(each) if rule.hours]
        self._rules = kernels.Rules(
            inwards=np.minimum(margin, _deepest(raster, count)), outwards=margin,
            dwell=np.array([np.inf if rule.dwell_s is None else rule.dwell_s for rule in each]),
            confirm=np.array([rule.confirm_s for rule in each]), least=np.array([rule.least for rule in each]),
            all_of=np.array([rule.all_of for rule in each], np.uint64), none_of=np.array([rule.none_of for rule in each], np.uint64),
            active=np.ones(count, np.bool_), cross=np.array([rule.cross for rule in each], np.bool_),
        )  # fmt: skip
        self._crossing = bool(self._rules.cross.any())
        self._steady_s = float(steady_s)
        self._epoch = 0
        self._now = -np.inf
        self._stamp = np.full(len(raster.part_fence), -1, np.int64)
        self._people = _nobody(people, SLOTS)

    def step(
        self,
        at_s: float,
        person: npt.NDArray[np.integer],
        level: npt.NDArray[np.uint8],
        x_m: npt.NDArray[np.floating],
        y_m: npt.NDArray[np.floating],
        *,
        cov_m2: F8 | None = None,
        sure: F8 | None = None,
        tags: npt.NDArray[np.uint64] | None = None,
        silent: bool = False,
    ) -> Events:
        """Take the positions of m people at a time and return what follows.

        person: (m,) each at most once. level: (m,) index, LEFT leaves. x_m, y_m: (m,) metres, venue frame. cov_m2: (m, 3) xx, xy, yy. sure: (m,) probability of
        the level. tags: (m,) bits. silent: no events; who is in a fence is taken as in it (after a restart). Who is not in the step stays as they were;
        their dwelling is noticed when they are next in one. Raises InvalidInput where shapes disagree or time goes back.
        """
        m = len(person)
        shapes = [part.shape for part in (person, level, x_m, y_m, *(v for v in (sure, tags) if v is not None))]
        if any(shape != (m,) for shape in shapes) or (cov_m2 is not None and cov_m2.shape != (m, 3)):
            raise InvalidInput(f"step: shapes {shapes}, covariance {None if cov_m2 is None else cov_m2.shape}; must be (m,) each and (m, 3)")
        if not self._now <= at_s < np.inf:
            raise InvalidInput(f"step: at {at_s} s after a step at {self._now} s; time must be finite and never goes back")
        self._now = at_s
        self._open_and_close(at_s)
        row = np.ascontiguousarray(person, np.int64)
        x, y = np.ascontiguousarray(x_m, np.float64), np.ascontiguousarray(y_m, np.float64)
        good = ((np.abs(x) <= 1e7) & (np.abs(y) <= 1e7)) | (level == LEFT)
        good &= (row >= 0) & (row < len(self._people.level)) & ((level < self.fences.n_levels) | (level == LEFT))
        cov = np.zeros((0, 3)) if cov_m2 is None else np.ascontiguousarray(cov_m2, np.float64)
        if cov_m2 is not None:
            good &= np.isfinite(cov).all(axis=1) & (cov[:, 0] >= 0) & (cov[:, 2] >= 0) & (cov[:, 1] ** 2 <= cov[:, 0] * cov[:, 2] * (1 + 1e-9))
        chance = np.zeros(0) if sure is None else np.ascontiguousarray(sure, np.float64)
        if sure is not None:
            good &= (chance >= 0) & (chance <= 1)
        bits = np.zeros(m, np.uint64) if tags is None else np.ascontiguousarray(tags, np.uint64)
        bad = np.flatnonzero(~good)
        if len(bad):
            row, level, x, y, bits = row[good], level[good], x[good], y[good], bits[good]
            cov, chance = (cov[good] if len(cov) else cov), (chance[good] if len(chance) else chance)
        level = np.ascontiguousarray(level, np.uint8)
        event = np.empty(256, np.uint8), np.empty(256, np.int64), np.empty(256, np.int32), np.empty(256, np.float32), 0
        taken = 0
        while True:
            self._stamp[:] = -1
            taken, event = kernels.step(
                self._raster, self._rules, self._people, taken, row, level, x, y, cov, chance, bits, float(at_s), self._steady_s, self._epoch, silent,
                self._crossing, self._stamp, event,
            )  # fmt: skip
            if taken == len(row):
                break
            self._more_slots()
        kind, who, which, confidence, count = event
        return Events(at_s, kind[:count], who[:count], which[:count], confidence[:count], bad)

    def inside(self, fence: int) -> I8:
        """People inside a fence, ascending; all others that were seen are outside it. Raises NotFound."""
        if not 0 <= fence < self.fences.n_fences:
            raise NotFound(f"fence {fence}: there are {self.fences.n_fences}")
        people = self._people
        used = np.arange(people.fence.shape[1]) < people.held[:, None]
        return np.flatnonzero((used & (people.fence == fence) & (people.state & 1 == 1)).any(axis=1))

    def outside(self, fence: int) -> I8:
        """People who are present and not inside a fence, ascending."""
        return np.setdiff1d(np.flatnonzero(self._people.level != LEFT), self.inside(fence), assume_unique=True)

    def fences_of(self, person: int) -> list[int]:
        """Fences that a person is inside, ascending."""
        people = self._people
        used = slice(int(people.held[person]))
        return [int(f) for f in people.fence[person, used][people.state[person, used] & 1 == 1]]

    def held(self) -> Held:
        """What a watch must remember of people beside their places: `resume` takes it."""
        people = self._people
        person, slot = np.nonzero(np.arange(people.fence.shape[1]) < people.held[:, None])
        return Held(person, people.fence[person, slot], people.since[person, slot], people.pending[person, slot], people.state[person, slot])

    def grow(self, people: int) -> None:
        """Make room for persons 0 to `people` - 1. Raises LimitExceeded."""
        if people > MAX_PEOPLE:
            raise LimitExceeded(f"fences: {people} people; 1 to {MAX_PEOPLE}")
        fresh = _nobody(max(0, people - len(self._people.level)), self._people.fence.shape[1])
        grown = {name: np.concatenate([getattr(self._people, name), getattr(fresh, name)]) for name in kernels.People._fields}
        self._people = kernels.People(**grown)

    def resume(
        self, at_s: float, person: I8, level: npt.NDArray[np.uint8], x_m: F8, y_m: F8, held: Held, *, cov_m2: F8 | None = None
    ) -> None:  # fmt: skip
        """Take up where another watch left off: m people at their places (finite, on a level), and what was held of them. Steps then give what they would have given there."""
        while np.bincount(held.person, minlength=1).max() > self._people.fence.shape[1]:
            self._more_slots()
        people = self._people
        self._now = max(self._now, at_s)
        people.level[person], people.time[person], people.epoch[person] = level, at_s, -1
        people.at[person, 0], people.at[person, 1] = x_m, y_m
        people.spread[person] = 0.0 if cov_m2 is None else cov_m2
        people.safe[person, 2] = -1.0
        order = np.lexsort((held.fence, held.person))
        who = held.person[order]
        slot = np.arange(len(who)) - np.searchsorted(who, who)
        people.held[:] = np.bincount(who, minlength=len(people.held))
        people.fence[who, slot], people.since[who, slot] = held.fence[order], held.since_s[order]
        people.pending[who, slot], people.state[who, slot] = held.pending_s[order], held.state[order]

    def probability(self, chance: F8, x_m: F8, y_m: F8, cov_m2: F8, *, least: float = 0.01) -> tuple[I8, I4, F8]:
        """Fences that m uncertain points lie in, with probability `least` or more: CSR offset (m + 1,), fence (h,), probability (h,).

        chance: (m, levels), the probability of each level. cov_m2: (m, 3) xx, xy, yy. Raises InvalidInput for shapes, for what is not finite.
        """
        m = len(x_m)
        if not (chance.shape == (m, self.fences.n_levels) and x_m.shape == y_m.shape == (m,) and cov_m2.shape == (m, 3) and 0 < least <= 1):
            raise InvalidInput(f"probability: chance {chance.shape}, x {x_m.shape}, covariance {cov_m2.shape}, least {least}; see the docstring")
        fit = np.isfinite(chance).all() and np.isfinite(cov_m2).all() and (np.abs(x_m) <= 1e7).all() and (np.abs(y_m) <= 1e7).all()
        if not (
            fit and (cov_m2[:, 0] >= 0).all() and (cov_m2[:, 2] >= 0).all() and (cov_m2[:, 1] ** 2 <= cov_m2[:, 0] * cov_m2[:, 2] * (1 + 1e-9)).all()
        ):
            raise InvalidInput("probability: a value that is not finite, or a covariance that is none; give finite metres and a positive covariance")
        offset = np.zeros(m + 1, np.int64)
        of, x, y, cov = (np.ascontiguousarray(v, np.float64) for v in (chance, x_m, y_m, cov_m2))
        fence, p = kernels.probabilities(self._raster, of, x, y, cov, least, offset)
        return offset, fence, p

    def _open_and_close(self, at_s: float) -> None:
        for fence, hours in self._hours:
            open_ = any(h.hold(at_s) for h in hours)
            if self._rules.active[fence] != open_:
                self._rules.active[fence] = open_
                self._epoch += 1

    def _more_slots(self) -> None:
        people = self._people
        width = people.fence.shape[1]
        if width >= MAX_SLOTS:
            raise LimitExceeded(f"fences: somebody is in more than {MAX_SLOTS} fences at once; remove fences that lie over one another")
        wider = {
            name: np.concatenate([getattr(people, name), np.zeros_like(getattr(people, name))], axis=1)
            for name in ("fence", "since", "pending", "state")
        }
        self._people = people._replace(**wider)


def _nobody(people: int, slots: int) -> kernels.People:
    """State of people never seen."""
    return kernels.People(
        level=np.full(people, LEFT, np.uint8), at=np.zeros((people, 2)), time=np.zeros(people), spread=np.zeros((people, 3)),
        safe=np.full((people, 3), -1.0), due=np.zeros(people), epoch=np.full(people, -1, np.int64), tags=np.zeros(people, np.uint64),
        held=np.zeros(people, np.int32), fence=np.zeros((people, slots), np.int32), since=np.zeros((people, slots)),
        pending=np.zeros((people, slots)), state=np.zeros((people, slots), np.uint8),
    )  # fmt: skip


def unit_fence(venue: Venue, unit_id: str) -> tuple[int, MultiPolygonCoords]:
    """The fence of a unit, as `FenceWatch` takes polygons. Raises NotFound."""
    for unit in venue.units:
        if unit.id == unit_id:
            return venue.level_index(unit.level_id), unit.polygon
    raise NotFound(f"unit {unit_id[:100]!r}: no unit of venue {venue.id} has this id")


def _deepest(raster: kernels.Raster, count: int) -> F8:
    """Area over perimeter of each fence (c,): every fence has a point that deep. Half the radius for circles, half the half width for corridors."""
    edge = raster.edge
    which = np.repeat(raster.part_fence, np.diff(raster.part_edge))
    area = np.bincount(which, (edge[:, 0] * edge[:, 3] - edge[:, 1] * edge[:, 2]) / 2, count)
    around = np.bincount(which, np.hypot(edge[:, 2] - edge[:, 0], edge[:, 3] - edge[:, 1]), count)
    deep = np.maximum(area, 0.0) / np.maximum(around, 1e-12)
    round_ = raster.part_slab < 0
    deep[raster.part_fence[round_]] = raster.capsule[round_, 4] / 2
    return np.asarray(deep)


__all__ = ["CROSS", "DWELL", "ENTER", "EXIT", "Events", "FenceRule", "FenceWatch", "Held", "Hours", "unit_fence"]
