"""The fusion: a hidden Markov model over ground cells, floors and the walk's own turn. Forward it is causal, forward and backward it is smoothed.

Owns the estimate. State: (floor, cell, turn of the dead-reckoned path). Between two scans every cell moves by the path's displacement, turned and stretched, with a blur
for what dead reckoning does not know; what leaves the ground is lost, so that paths through walls die. A scan multiplies by its likelihood. A little mass jumps to the stops of stairs,
escalators and lifts of any surveyed floor (anywhere, where the plan has none), which is how floors change and how the filter finds back.

Causal: the estimate told at time t uses readings delivered by t. Nothing here sees a waypoint, a floor's name or another walk.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from spatial.positioning.kernels import move
from spatial.positioning.model import Model, Prepared
from spatial.positioning.observations import F4, F8

TURNS_RAD: Final = np.radians([-24.0, -12.0, 0.0, 12.0, 24.0])
TURN_STAYS: Final = 0.9
JUMP: Final = 1e-4
ALIVE: Final = 1e-6
OPENING: Final = 1.5
"""The walk's first scan is believed this much more (halving from scan to scan): scans near each other err alike, so that one alone says more than each of many."""
WAY_M: Final = 4.0
RADIUS: Final = 3
BLUR_M: Final = 0.5
BLUR_PER_M: Final = 0.15
WANDER_M_S: Final = 1.2
"""Blur a second (times the square root of seconds) where there is no heading."""
STEP_KNOWN_S: Final = 0.8
"""A step is known this long after it began: the causal answer takes the path up to then and carries the pace on."""
SETTLED_M: Final = 8.0
SETTLE_S: Final = 5.0
SETTLE_SCANS: Final = 2
"""A phone shows no dot until the estimate is this sure on this many scans, or this long after its first scan."""
MAX_SCANS: Final = 400
"""A longer walk is cut; each part starts from nothing but its scans."""

Images = dict[int, F4]


@dataclass(frozen=True, slots=True)
class Estimates:
    """What the filter says at its scans. about_s: (n,) the time that estimate i is for; told_s: (n,) from when on it may be told. floor: (n,) most probable floor; floors: (n, f) probabilities;
    xy_m: (n, 2) mean on that floor, floor metres, on free ground; cov_m2: (n, 2, 2); turn_rad: (n,) mean turn."""

    about_s: F8
    told_s: F8
    floor: npt.NDArray[np.int64]
    floors: F8
    xy_m: F8
    cov_m2: F8
    turn_rad: F8

    def __len__(self) -> int:
        return len(self.about_s)


class Locator:
    """Holds what is the same for all walks of a model: priors, jump targets, nearest free cells."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.tuning = model.tuning
        self.index = model.radio.index()
        self.surveyed = [f for f, cells in enumerate(model.radio.cell_of) if (cells >= 0).any()]
        self.prior: Images = {}
        self.jump: Images = {}
        self.nearest: dict[int, npt.NDArray[np.int32]] = {}
        ways = all(len(model.floors[f].ways_m) for f in self.surveyed) and len(self.surveyed) > 1
        for f in self.surveyed:
            floor = model.floors[f]
            weight = np.where(floor.rooms, self.tuning.inside_rooms, 1.0) * floor.free
            weight[model.radio.cell_of[f] < 0] = 0
            total = weight.sum()
            self.prior[f] = (weight / max(total, 1e-9)).astype(np.float32)
            self.nearest[f] = ndimage.distance_transform_edt(~floor.free, return_distances=False, return_indices=True)
            target = weight
            if ways:
                row, column = np.indices(floor.free.shape)
                x, y = floor.corner_m[0] + (column + 0.5) * floor.cell_m, floor.corner_m[1] + (row + 0.5) * floor.cell_m
                near = np.zeros(floor.free.shape, bool)
                for way in floor.ways_m:
                    near |= (x - way[0]) ** 2 + (y - way[1]) ** 2 < WAY_M**2
                target = weight * near if (weight * near).any() else weight
            self.jump[f] = (target / max(target.sum(), 1e-9) / len(self.surveyed)).astype(np.float32)
        self.turn_prior = np.exp(-0.5 * (TURNS_RAD / self.tuning.turn_sd_rad) ** 2)
        self.turn_prior /= self.turn_prior.sum()
        n = len(TURNS_RAD)
        mix = np.eye(n) * TURN_STAYS
        for i in range(n):
            for j in (i - 1, i + 1):
                mix[min(max(j, 0), n - 1), i] += (1 - TURN_STAYS) / 2
        self.mix = mix.astype(np.float32)

    def locate(self, walk: Prepared, *, smooth: bool = True) -> tuple[Estimates, Estimates]:
        """(causal, smoothed) estimates at the scans of a walk; both empty where no scan holds a transmitter of the model."""
        scans = walk.scans
        cosine, dice, heard = self.model.radio.dissimilarity(scans, self.index)
        cosine = cosine + np.float32(self.tuning.loudness) * (dice - cosine)
        use = np.flatnonzero(heard > 0)[:MAX_SCANS]
        use = use[np.argsort(scans.about_s[use], kind="stable")]
        about, told = scans.about_s[use], np.maximum.accumulate(scans.told_s[use]) if len(use) else np.zeros(0)
        if len(use) == 0:
            empty = self._collect([], about, told)
            return empty, empty
        sharp = self.tuning.sharpness * (1 + OPENING * 0.5 ** np.arange(len(use)))
        likely = [self._likelihood(cosine[i], dice[i], int(heard[i]), float(s)) for s, i in zip(sharp, use, strict=True)]
        shift, blur = self._motion(walk, about)
        states = self._forward(likely, shift, blur)
        if not smooth:
            causal = self._collect([self._moments(state) for state in states], about, told)
            return causal, causal
        forward = list(states)
        rows = [self._moments(state) for state in forward]
        causal, rows = self._collect(rows, about, told), rows[-1:]
        back: Images = {f: np.ones_like(image) for f, image in forward[-1].items()}
        for k in range(len(use) - 2, -1, -1):
            back = self._step_back(back, shift[k + 1], blur[k + 1], likely[k + 1], forward[k])
            rows.append(self._moments({f: image * back[f] for f, image in forward[k].items()}))
        return causal, self._collect(rows[::-1], about, np.full(len(use), walk.duration_s))

    def _forward(self, likely: list[Images], shift: F8, blur: F8) -> Iterator[Images]:
        """The state after each scan, given all scans up to it."""
        turns = self.turn_prior[:, None, None].astype(np.float32)
        state: Images = {f: turns * (self.prior[f] / np.float32(len(self.surveyed))) for f in self.surveyed}
        for k in range(len(likely)):
            if k:
                state = self._step(state, shift[k], blur[k], likely[k])
            state = self._weigh(state, likely[k])
            yield state

    def _likelihood(self, cosine: F4, dice: F4, heard: int, sharpness: float) -> Images:
        """By floor, (rows, columns): within a floor by the cosine; each floor's whole weight by the blend of cosine and Dice."""
        sharp = sharpness * heard / (heard + 8.0)
        e = np.exp(-sharp * (cosine - cosine.min())).astype(np.float32) + np.float32(1e-6)
        blend = (1 - self.tuning.blend) * cosine + self.tuning.blend * dice
        loud = np.exp(-sharp * (blend - blend.min())).astype(np.float32) + np.float32(1e-6)
        out: Images = {}
        for f in self.surveyed:
            cell_of, prior = self.model.radio.cell_of[f], self.prior[f]
            image = np.where(cell_of >= 0, e[cell_of], np.float32(0))
            weight = float((prior * loud[cell_of]).sum()) / max(float((prior * image).sum()), 1e-12)
            out[f] = image * np.float32(weight)
        return out

    def _motion(self, walk: Prepared, about: F8) -> tuple[F8, F8]:
        """(n, turns, 2) displacements in m before each scan, and (n,) the blur's standard deviation in m."""
        place = walk.track.at(about) @ np.array([1, 1j])
        step = np.diff(place, prepend=place[:1]) * self.tuning.stretch
        gap = np.diff(about, prepend=about[:1])
        turned = step[:, None] * np.exp(1j * (self.tuning.turn_rad + TURNS_RAD))[None]
        if walk.track.steady:
            blur = np.sqrt(BLUR_M**2 * np.maximum(gap, 0.1) / 2 + (BLUR_PER_M * np.abs(step)) ** 2)
        else:
            turned = np.zeros_like(turned)
            blur = WANDER_M_S * np.maximum(gap, 0.5)
        return np.stack([turned.real, turned.imag], axis=-1), blur

    def _step(self, state: Images, shift: F8, blur: float, likely: Images) -> Images:
        total = sum(float(image.sum()) for image in state.values())
        scan = {f: float(image.max()) for f, image in likely.items()}
        out: Images = {}
        for f in self.surveyed:
            image = state.get(f)
            if image is None:
                if scan[f] < 0.2 * max(scan.values()):
                    continue
                moved = np.zeros((len(TURNS_RAD), *self.prior[f].shape), np.float32)
            else:
                moved = self._moved(np.tensordot(self.mix, image, axes=(1, 0)), f, shift, blur)
            moved += np.float32(JUMP * total) * self.turn_prior[:, None, None].astype(np.float32) * self.jump[f]
            out[f] = moved
        return out

    def _step_back(self, back: Images, shift: F8, blur: float, likely: Images, forward: Images) -> Images:
        weighed = {f: image * (likely[f] * (self.prior[f] > 0)) for f, image in back.items()}
        jumped = JUMP * sum(float((image * self.jump[f] * self.turn_prior[:, None, None]).sum()) for f, image in weighed.items())
        out: Images = {}
        for f in forward:
            image = weighed.get(f)
            moved = np.zeros_like(forward[f]) if image is None else np.tensordot(self.mix.T, self._moved(image, f, -shift, blur), axes=(1, 0))
            out[f] = moved + np.float32(jumped)
        most = max(float(image.max()) for image in out.values())
        return {f: image / np.float32(max(most, 1e-30)) for f, image in out.items()}

    def _moved(self, image: F4, f: int, shift: F8, blur: float) -> F4:
        floor = self.model.floors[f]
        image = np.ascontiguousarray(image)
        out, work = np.empty_like(image), np.empty(image.shape[1:], np.float32)
        sigma = max(blur / floor.cell_m, 0.45)
        radius = int(min(max(RADIUS, np.ceil(2.2 * sigma)), 12))
        for i in range(len(TURNS_RAD)):
            move(image[i], floor.free, shift[i, 0] / floor.cell_m, shift[i, 1] / floor.cell_m, sigma, radius, work, out[i])
        return out

    def _weigh(self, state: Images, likely: Images) -> Images:
        out = {f: image * likely[f] for f, image in state.items()}
        mass = {f: float(image.sum()) for f, image in out.items()}
        total = sum(mass.values())
        if not total > 1e-25:  # every path died: start again from the scan alone
            out = {f: self.turn_prior[:, None, None].astype(np.float32) * self.prior[f] * likely[f] for f in self.surveyed}
            mass = {f: float(image.sum()) for f, image in out.items()}
            total = sum(mass.values())
        return {f: image / np.float32(total) for f, image in out.items() if mass[f] > ALIVE * total}

    def _moments(self, state: Images) -> tuple[int, F8, F8, F8, float]:
        mass = np.zeros(len(self.model.floors))
        for f, image in state.items():
            mass[f] = image.sum()
        mass /= mass.sum()
        best = int(mass.argmax())
        floor, image = self.model.floors[best], state[best].sum(axis=0, dtype=np.float64)
        image = np.where(floor.rooms, image * self.tuning.inside_rooms, image)
        image /= image.sum()
        by_column, by_row = image.sum(axis=0), image.sum(axis=1)
        column, row = np.arange(len(by_column)), np.arange(len(by_row))
        mean = np.array([by_column @ column, by_row @ row])
        cov = np.empty((2, 2))
        cov[0, 0], cov[1, 1] = by_column @ (column - mean[0]) ** 2, by_row @ (row - mean[1]) ** 2
        cov[0, 1] = cov[1, 0] = (row - mean[1]) @ image @ (column - mean[0])
        by_turn = state[best].sum(axis=(1, 2), dtype=np.float64)
        turn = float(by_turn @ TURNS_RAD / by_turn.sum()) + self.tuning.turn_rad
        return best, mass, (mean + 0.5) * floor.cell_m + np.array(floor.corner_m), cov * floor.cell_m**2 + np.eye(2) * self.tuning.floor_m**2, turn

    def _collect(self, rows: list[tuple[int, F8, F8, F8, float]], about: F8, told: F8) -> Estimates:
        n = len(self.model.floors)
        return Estimates(
            about, told,
            np.array([row[0] for row in rows], np.int64),
            np.array([row[1] for row in rows], np.float64).reshape(-1, n),
            np.array([row[2] for row in rows], np.float64).reshape(-1, 2),
            np.array([row[3] for row in rows], np.float64).reshape(-1, 2, 2),
            np.array([row[4] for row in rows], np.float64),
        )  # fmt: skip

    def on_ground(self, floor: int, xy_m: F8) -> F8:
        """(n, 2) points moved to the centre of the nearest free cell where they lie off the ground."""
        ground = self.model.floors[floor]
        cell = np.floor((xy_m - np.array(ground.corner_m)) / ground.cell_m).astype(np.int64)
        cell = np.clip(cell, 0, np.array(ground.free.shape[::-1]) - 1)
        row, column = self.nearest[floor][:, cell[:, 1], cell[:, 0]]
        off = (row != cell[:, 1]) | (column != cell[:, 0])
        centre = np.column_stack([column + 0.5, row + 0.5]) * ground.cell_m + np.array(ground.corner_m)
        return np.where(off[:, None], centre, xy_m)


@dataclass(frozen=True, slots=True)
class Answer:
    """Where the walker was at some times. known: (n,) False where nothing can be said. The others as in Estimates."""

    known: npt.NDArray[np.bool_]
    floor: npt.NDArray[np.int64]
    xy_m: F8
    cov_m2: F8


def first_fix(estimates: Estimates) -> int:
    """Index of the first estimate that is shown: the first that is sure to SETTLED_M on SETTLE_SCANS scans, or the first one SETTLE_S after the first scan."""
    sd = np.sqrt(np.trace(estimates.cov_m2, axis1=1, axis2=2))
    good = ((sd <= SETTLED_M) & (np.arange(len(sd)) >= SETTLE_SCANS - 1)) | (estimates.told_s >= estimates.told_s[0] + SETTLE_S)
    return int(good.argmax()) if good.any() else len(estimates) - 1


def answer_causal(locator: Locator, walk: Prepared, estimates: Estimates, t_s: F8) -> Answer:
    """What was told at times t_s: the last estimate told by then, carried on by dead reckoning. Before the first fix, the first fix stands, carried back: such a time is answered late."""
    n = len(t_s)
    if len(estimates) == 0:
        return _unknown(n)
    k = np.clip(np.searchsorted(estimates.told_s, t_s, side="right") - 1, first_fix(estimates), len(estimates) - 1)
    answer = _carried(locator, walk, estimates, k, t_s, lag_s=np.where(t_s < estimates.told_s[k], 0.0, STEP_KNOWN_S))
    return replace(answer, cov_m2=answer.cov_m2 * locator.tuning.spread_causal**2)


def answer_smoothed(locator: Locator, walk: Prepared, estimates: Estimates, t_s: F8) -> Answer:
    """The whole walk's estimate at times t_s: between two estimates, dead reckoning from both, blended by nearness in time."""
    n = len(t_s)
    if len(estimates) == 0:
        return _unknown(n)
    after = np.clip(np.searchsorted(estimates.about_s, t_s, side="right"), 0, len(estimates) - 1)
    before = np.clip(np.searchsorted(estimates.about_s, t_s, side="right") - 1, 0, len(estimates) - 1)
    a, b = _carried(locator, walk, estimates, before, t_s, snap=False), _carried(locator, walk, estimates, after, t_s, snap=False)
    span = np.maximum(estimates.about_s[after] - estimates.about_s[before], 1e-6)
    share = np.clip((t_s - estimates.about_s[before]) / span, 0, 1)
    share = np.where(a.floor == b.floor, share, np.rint(share))
    floor = np.where(share < 0.5, a.floor, b.floor)
    xy = a.xy_m * (1 - share[:, None]) + b.xy_m * share[:, None]
    cov = a.cov_m2 * (1 - share[:, None, None]) + b.cov_m2 * share[:, None, None]
    return Answer(a.known, floor, _snapped(locator, floor, xy), cov * locator.tuning.spread_smoothed**2)


def _unknown(n: int) -> Answer:
    return Answer(np.zeros(n, bool), np.zeros(n, np.int64), np.full((n, 2), np.nan), np.tile(np.diag([np.inf, np.inf]), (n, 1, 1)))


def _carried(
    locator: Locator, walk: Prepared, e: Estimates, k: npt.NDArray[np.int64], t_s: F8, *, snap: bool = True, lag_s: F8 | float = 0.0
) -> Answer:
    tuning = locator.tuning
    known = walk.track.at(t_s - lag_s)
    pace = known - walk.track.at(t_s - lag_s - 1.0)  # m/s over the last known second, carried over the time whose steps are not known yet
    path = known + pace * np.broadcast_to(lag_s, t_s.shape)[:, None]
    moved = (path - walk.track.at(e.about_s[k])) @ np.array([1, 1j]) * tuning.stretch * np.exp(1j * e.turn_rad[k])
    if not walk.track.steady:
        moved = np.zeros_like(moved)
    xy = e.xy_m[k] + np.column_stack([moved.real, moved.imag])
    grown = (0.2 * np.abs(moved)) ** 2
    cov = e.cov_m2[k] + grown[:, None, None] * np.eye(2)
    return Answer(np.ones(len(t_s), bool), e.floor[k], _snapped(locator, e.floor[k], xy) if snap else xy, cov)


def _snapped(locator: Locator, floor: npt.NDArray[np.int64], xy: F8) -> F8:
    out = xy.copy()
    for f in np.unique(floor):
        out[floor == f] = locator.on_ground(int(f), xy[floor == f])
    return out
