"""Interleaved repeats and the last line of JSON. Owns how a comparison is timed and printed; never what is compared."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable

MIN_REPEATS = 5


def compare(
    name: str,
    *,
    n: int,
    ours: Callable[[], float],
    peer: Callable[[], float],
    unit: str,
    higher_is_better: bool,
    repeats: int = MIN_REPEATS,
    more: dict[str, object] | None = None,
) -> dict[str, object]:
    """Run `ours` and `peer` in turn (each returns one figure in `unit`), after one uncounted run of both, and print the medians.

    `ratio` is above 1 when ours is better, whichever way the unit points. Raises ValueError below five repeats.
    """
    if repeats < MIN_REPEATS:
        raise ValueError(f"repeats = {repeats}; at least {MIN_REPEATS}, since these machines are noisy")
    ours(), peer()
    a: list[float] = []
    b: list[float] = []
    for i in range(repeats):
        a.append(ours())
        b.append(peer())
        print(f"{name} {i + 1}/{repeats}: ours {a[-1]:,.1f} {unit}, peer {b[-1]:,.1f} {unit}", flush=True)
    mine, theirs = statistics.median(a), statistics.median(b)
    result: dict[str, object] = {
        "name": name,
        "n": n,
        "ours": round(mine, 3),
        "peer": round(theirs, 3),
        "unit": unit,
        "ratio": round(mine / theirs if higher_is_better else theirs / mine, 3),
        **(more or {}),
    }
    print(json.dumps(result), flush=True)
    return result
