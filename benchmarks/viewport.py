"""Bytes to an operator who watches one shop front in a level of 20,000 people; the peer is an exact crop computed afterwards, in the frame that a whole level comes in.

People walk at 1.3 m/s in random directions that they keep for some seconds, a third stand; the level is 400 m x 250 m, the front 24 m x 12 m; 2 frames a second for 60 s. Told beside it:
the crop of every frame packed as tightly as ours is (8 B a person), the whole level, and the time to crop a picture for one viewer and for 100.
"""

from __future__ import annotations

import json
import time
from typing import Final

import numpy as np

from gateway import frames as f
from gateway.codec import MSGPACK
from gateway.viewport import ROW_BYTES, Picture, Viewport

LEVEL_M: Final = (400.0, 250.0)
FRONT: Final = f.View(180.0, 100.0, 204.0, 112.0)
RATE_HZ: Final = 2.0
FRAMES: Final = 120
SPEED_M_S: Final = 1.3


def _dots(name: np.ndarray, place: np.ndarray, tick: int) -> f.Dots:
    return f.Dots(
        venue="mall", level=0, tick=tick, pseudonym=name.astype("<u4").tobytes(), x=place[:, 0].astype("<f4").tobytes(),
        y=place[:, 1].astype("<f4").tobytes(),
    )  # fmt: skip


def _day(n: int, seed: int) -> list[f.Dots]:
    rng = np.random.default_rng(seed)
    name = np.sort(rng.choice(2**32, n, replace=False))
    place = rng.uniform((0, 0), LEVEL_M, (n, 2))
    heading, walks = rng.uniform(0, 2 * np.pi, n), rng.random(n) < 2 / 3
    out = []
    for tick in range(FRAMES):
        turning = rng.random(n) < 0.1
        heading[turning], walks[turning] = rng.uniform(0, 2 * np.pi, turning.sum()), rng.random(turning.sum()) < 2 / 3
        step = np.stack((np.cos(heading), np.sin(heading)), axis=1) * (SPEED_M_S / RATE_HZ) * walks[:, None]
        place = np.clip(place + step, (0, 0), LEVEL_M)
        out.append(_dots(name, place, tick))
    return out


def _crop(dots: f.Dots) -> f.Dots:
    name = np.frombuffer(dots.pseudonym, "<u4")
    x, y = (np.frombuffer(column, "<f4").astype(np.float64) for column in (dots.x, dots.y))
    at = (x >= FRONT.x0) & (x < FRONT.x1) & (y >= FRONT.y0) & (y < FRONT.y1)
    return _dots(name[at], np.stack((x[at], y[at]), axis=1), dots.tick)


def run(*, n: int = 20_000, repeats: int = 5) -> None:
    ours: list[float] = []
    exact: list[float] = []
    tight: list[float] = []
    whole: list[float] = []
    inside: list[int] = []
    one_ms: list[float] = []
    each_of_hundred_ms: list[float] = []
    for seed in range(repeats):
        viewport = Viewport(FRONT, bytes_per_s=None)
        sums = np.zeros(4)
        for dots in _day(n, seed):
            began = time.perf_counter()
            frame = viewport.frame(Picture(dots), interval_s=1 / RATE_HZ)
            one_ms.append(1000 * (time.perf_counter() - began))
            crop = _crop(dots)
            people = len(crop.pseudonym) // 4
            inside.append(people)
            head = len(MSGPACK.encode(_dots(np.empty(0), np.empty((0, 2)), dots.tick)))
            sums += (
                0 if frame is None else len(MSGPACK.encode(frame)),
                len(MSGPACK.encode(crop)),
                head + ROW_BYTES * people,
                len(MSGPACK.encode(dots)),
            )
        picture = Picture(dots)
        began = time.perf_counter()
        for i in range(100):
            Viewport(f.View(i, i, i + 24.0, i + 12.0), bytes_per_s=None).frame(picture, interval_s=0.5)
        each_of_hundred_ms.append(10 * (time.perf_counter() - began))
        for series, total in zip((ours, exact, tight, whole), sums.tolist(), strict=True):
            series.append(total)
        print(f"viewport {seed + 1}/{repeats}: ours {ours[-1]:,.0f} B, exact crop {exact[-1]:,.0f} B, whole level {whole[-1]:,.0f} B", flush=True)
    print(
        json.dumps(
            {
                "name": "viewport", "n": n, "ours": round(float(np.median(ours))), "peer": round(float(np.median(exact))), "unit": f"bytes of {FRAMES} frames",
                "ratio": round(float(np.median(ours) / np.median(exact)), 3), "to_a_crop_as_tight": round(float(np.median(ours) / np.median(tight)), 3),
                "whole_level": round(float(np.median(whole))), "people_in_view": round(float(np.mean(inside)), 1),
                "ms_for_one_viewer": round(float(np.median(one_ms)), 3), "ms_for_each_of_100": round(float(np.median(each_of_hundred_ms)), 3),
            }
        )
    )  # fmt: skip
