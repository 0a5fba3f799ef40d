"""Phones located in real time: a batch of n phones, each with a scan a second, by the live filter and, one after another, by the grid filter it stands for. CPU time of one core.

A venue of three floors of 120 x 80 m, 600 transmitters, 40 heard in each scan, made with a seed; phones walk. With ESPLANADE_DATA set, `loss` in the last line says what the live filter costs in metres
on the malls' walks (a quarter left out, `crossval`'s seed 7): it takes minutes, and `--n 0` does that alone.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np

from benchmarks.harness import compare
from spatial.importers.malls import read_site
from spatial.positioning.grid_filter import Estimates, Locator, answer_causal, first_fix
from spatial.positioning.ground import Floor, floors_of
from spatial.positioning.live import LiveFilter, LiveMap
from spatial.positioning.model import Model, Prepared, Tuning, prepare
from spatial.positioning.observed import Observed, State, transmitter_key
from spatial.positioning.pdr import Path as Track
from spatial.positioning.radio_map import FULL, SILENT_DBM, map_cells, map_of
from spatial.positioning.scans import Scans
from spatial.positioning.score import Surveyed, fit_calibrated, split_by_walk
from spatial.positioning.walk_files import read_walks

WIDE_M, HIGH_M, FLOORS, TRANSMITTERS, HEARD = 120, 80, 3, 600, 40
SECONDS = 6
PEERS = 4
"""Phones that the grid filter locates in each repeat."""
SEEDS = 3
"""Seeds of the live filter that `loss` averages over."""


def made_model(seed: int = 7) -> tuple[Model, np.ndarray]:
    """A model by the log-distance law, and the places of its transmitters: x, y, floor."""
    rng = np.random.default_rng(seed)
    places = np.column_stack([rng.uniform(0, WIDE_M, TRANSMITTERS), rng.uniform(0, HIGH_M, TRANSMITTERS), rng.integers(0, FLOORS, TRANSMITTERS)])
    floors, fields, cell_of, first = [], [], [], 0
    for f in range(FLOORS):
        free = np.ones((HIGH_M, WIDE_M), np.bool_)
        free[20:30, 20:100] = False
        floor = Floor(f"F{f}", f, (0.0, 0.0), 1.0, free, np.zeros_like(free), (0.0, 0.0), (1.0, 1.0), np.array([[10.0, 10.0]]))
        cells, centres = map_cells(floor)
        cell_of.append(np.where(cells >= 0, cells + first, -1).astype(np.int32))
        first += len(centres)
        strength = rssi_at(places, np.column_stack([centres, np.full(len(centres), f)])) - SILENT_DBM
        fields.append(np.clip(np.rint(strength * (255 / FULL)), 0, 255).astype(np.uint8))
        floors.append(floor)
    names = tuple(f"w:00:00:{i // 256:02x}:{i % 256:02x}:0" for i in range(TRANSMITTERS))
    radio = map_of(names, np.vstack(fields).T, tuple(cell_of), {})
    return Model("made", tuple(floors), radio, Tuning(), 0), places


def rssi_at(places: np.ndarray, at: np.ndarray) -> np.ndarray:
    """(n, a) mean strengths at (n, 3) points."""
    far = np.sqrt(((at[:, None, :2] - places[None, :, :2]) ** 2).sum(axis=2) + 4)
    rssi: np.ndarray = -35 - 27 * np.log10(far) - 15 * np.abs(at[:, None, 2] - places[None, :, 2])
    return rssi


def _walkers(n: int, places: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(SECONDS, n, 3) places of n phones that walk west to east above the block, and of each scan the HEARD loudest transmitters (SECONDS, n, HEARD) with their strengths."""
    start = np.column_stack([rng.uniform(5, WIDE_M - 15, n), rng.uniform(40, HIGH_M - 5, n), rng.integers(0, FLOORS, n)])
    at = np.stack([start + np.array([1.3 * t, 0.0, 0.0]) for t in range(SECONDS)])
    loudest, rssi = np.empty((SECONDS, n, HEARD), np.int64), np.empty((SECONDS, n, HEARD), np.float32)
    for t in range(SECONDS):
        for first in range(0, n, 512):
            part = slice(first, first + 512)
            all_dbm = rssi_at(places, at[t, part]) + rng.normal(0, 4, (len(at[t, part]), TRANSMITTERS))
            loudest[t, part] = np.argpartition(-all_dbm, HEARD, axis=1)[:, :HEARD]
            rssi[t, part] = np.take_along_axis(all_dbm, loudest[t, part], axis=1)
    return at, loudest, np.clip(rssi, -94.0, -10.0)


def run(*, n: int = 10_000, repeats: int = 5) -> None:
    if n == 0:
        print(json.dumps({"name": "positioning_live", "loss": loss()}), flush=True)
        return
    model, places = made_model()
    maps, locator = LiveMap(model, tuple(floor.name for floor in model.floors)), Locator(model)
    keys = np.array([transmitter_key(name) for name in model.radio.transmitters], np.uint64)
    truth, loudest, rssi = _walkers(n, places, np.random.default_rng(11))
    nothing = np.zeros(n + 1, np.int32)
    batches = [
        Observed(
            np.arange(n, dtype=np.uint32), np.full(n, float(t)), np.full(n, 1.3 * (t > 0), np.float32), np.zeros(n, np.float32), np.ones(n, np.uint8),
            (np.arange(n + 1) * HEARD).astype(np.int32), keys[loudest[t].ravel()], rssi[t].ravel(), nothing, np.zeros((0, 5)),
        )
        for t in range(SECONDS)
    ]  # fmt: skip

    def ours() -> float:
        live = LiveFilter(maps, max_subjects=n)
        live.take(batches[0], 0.0)
        began_s = time.thread_time()
        for t in range(1, SECONDS):
            answers = live.take(batches[t], float(t))
        took_s = time.thread_time() - began_s
        told = answers.state == State.LOCATED
        assert told.mean() > 0.9
        assert np.median(np.hypot(*(answers.xy_m[told] - truth[-1, told, :2]).T)) < 4
        return n * (SECONDS - 1) / took_s

    def peer() -> float:
        began_s = time.thread_time()
        for i in range(PEERS):
            first = (np.arange(SECONDS + 1) * HEARD).astype(np.int32)
            times = np.arange(SECONDS, dtype=np.float64)
            scans = Scans(times, times, first, loudest[:, i].ravel().astype(np.int32), rssi[:, i].ravel(), model.radio.transmitters)
            track = Track(times, np.column_stack([1.3 * times, np.zeros(SECONDS)]), SECONDS, True)
            causal, _ = locator.locate(Prepared("w", track, scans, float(SECONDS)), smooth=False)
            assert np.hypot(*(causal.xy_m[-1] - truth[-1, i, :2])) < 25
        return PEERS * SECONDS / (time.thread_time() - began_s)

    compare("positioning_live", n=n, ours=ours, peer=peer, unit="scans/s of one core", higher_is_better=True, repeats=repeats)


def loss() -> dict[str, dict[str, list[float]]]:
    """By mall: [mean m, floor right, share in the 90 % region] of the grid filter's causal answers and of the live filter's, at the waypoints of the walks left out."""
    found: dict[str, dict[str, list[float]]] = {}
    for site in ("site2", "site1"):
        folder = Path(os.environ["ESPLANADE_DATA"]) / "malls" / site
        walks: list[Surveyed] = [(prepare(walk), walk.floor, walk.waypoints) for walk in read_walks(folder)]
        kept, held = split_by_walk(walks, seed=7)
        model = fit_calibrated(site, floors_of(read_site(folder).venue), kept)
        found[site] = compared(model, held)
        print(site, found[site], flush=True)
    return found


def compared(model: Model, held: list[Surveyed]) -> dict[str, list[float]]:
    locator = Locator(model)
    maps = LiveMap(model, tuple(floor.name for floor in model.floors))
    found = {"grid": _figures(locator, held, [locator.locate(walk, smooth=False)[0] for walk, _, _ in held])}
    by_seed = np.array([_figures(locator, held, [live_estimates(maps, model, walk, seed=seed) for walk, _, _ in held]) for seed in range(SEEDS)])
    found["live"] = np.round(by_seed.mean(axis=0), 4).tolist()
    return found


def live_estimates(maps: LiveMap, model: Model, walk: Prepared, *, seed: int = 0) -> Estimates:
    """A walk as its phone would send it, a scan an observation, and what the live filter said."""
    live, scans = LiveFilter(maps, seed=seed), walk.scans
    keys = np.array([transmitter_key(name) for name in scans.names], np.uint64)
    rows: list[tuple[float, float, int, np.ndarray, np.ndarray, np.ndarray]] = []
    order = np.argsort(scans.about_s, kind="stable")
    path = walk.track.at(scans.about_s[order])
    told_s = np.maximum.accumulate(scans.told_s[order])
    for k, i in enumerate(order.tolist()):
        moved = path[k] - path[max(k - 1, 0)]
        part = slice(scans.first[i], scans.first[i + 1])
        answers = live.take(
            Observed(
                np.ones(1, np.uint32), scans.about_s[i : i + 1], moved[:1].astype(np.float32), moved[1:].astype(np.float32), np.array([walk.track.steady], np.uint8),
                np.array([0, scans.first[i + 1] - scans.first[i]], np.int32), keys[scans.transmitter[part]], scans.rssi_dbm[part], np.zeros(2, np.int32), np.zeros((0, 5)),
            ),
            0.0,
        )  # fmt: skip
        if answers.state[0] in (State.LOCATED, State.SETTLING):
            f = int(answers.level[0])
            xx, xy, yy = answers.cov_m2[0].astype(np.float64) / model.tuning.spread_causal**2  # which the answer has again
            scale = np.array(model.floors[f].scale)
            cov = np.array([[xx, xy], [xy, yy]]) * np.outer(scale, scale)
            rows.append((scans.about_s[i], told_s[k], f, answers.levels[0], model.floors[f].from_venue(answers.xy_m[0].astype(np.float64)), cov))
    n = len(rows)
    return Estimates(
        np.array([row[0] for row in rows]), np.array([row[1] for row in rows]), np.array([row[2] for row in rows], np.int64),
        np.array([row[3] for row in rows]).reshape(n, len(model.floors)), np.array([row[4] for row in rows]).reshape(n, 2), np.array([row[5] for row in rows]).reshape(n, 2, 2),
        np.full(n, model.tuning.turn_rad),
    )  # fmt: skip


def _figures(locator: Locator, held: list[Surveyed], estimates: list[Estimates]) -> list[float]:
    model, errors, right, within = locator.model, [], [], []
    for (walk, floor, waypoints), told in zip(held, estimates, strict=True):
        truth = next((i for i, each in enumerate(model.floors) if each.name == floor), -1)
        if truth < 0 or not len(waypoints):
            continue
        answer = answer_causal(locator, walk, told, waypoints[:, 0])
        assert not len(told) or first_fix(told) < len(told)
        for k, (xy, f) in enumerate(zip(answer.xy_m, answer.floor.tolist(), strict=True)):
            off = model.floors[f].to_venue(xy) - model.floors[truth].to_venue(waypoints[k, 1:])
            errors.append(float(np.hypot(*off)) if answer.known[k] else 100.0)
            right.append(float(answer.known[k] and f == truth))
            within.append(
                float(answer.known[k] and f == truth and (xy - waypoints[k, 1:]) @ np.linalg.solve(answer.cov_m2[k], xy - waypoints[k, 1:]) <= 4.605)
            )
    return [round(float(np.mean(column)), 4) for column in (errors, right, within)]
