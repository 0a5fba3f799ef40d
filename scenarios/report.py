"""The report of a run: what was measured, whether it held, and the evidence. `report.json` is `RunReport`; docs/scenarios.md describes it.

Owns the schema (it changes by addition), the judgement of thresholds and the sentences of the verdict. Draws nothing: `scenarios.report_html` does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from scenarios.books import Books
from scenarios.hashing import RunHash
from scenarios.metrics import METRICS
from scenarios.oracle import Busiest, Second
from scenarios.recording import Manifest
from scenarios.spec import Threshold
from simulation.load_histogram import DurationHistogram
from spatial.venue import Venue

FORMAT: Final = "esplanade.report/1"
MAX_CELLS: Final = 6_000
"""Cells of the density picture of one level at most; cells grow until it holds."""


class ThresholdResult(msgspec.Struct, frozen=True):
    """`why`: where the figure proves nothing (then it is not held), else empty."""

    metric: str
    op: str
    value: float
    measured: float
    held: bool
    unit: str
    meaning: str
    why: str = ""


class Durations(msgspec.Struct, frozen=True):
    """Milliseconds. bars: (upper edge, count) of the histogram's buckets that hold something."""

    count: int
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    bars: tuple[tuple[float, int], ...]

    @classmethod
    def of(cls, histogram: DurationHistogram) -> Durations:
        p50, p90, p99, p999 = (round(histogram.quantile_ms(q), 3) for q in (0.5, 0.9, 0.99, 0.999))
        return cls(histogram.count, round(histogram.mean_ms(), 3), p50, p90, p99, p999, histogram.max_us / 1000, tuple(histogram.bars()))


class FaultResult(msgspec.Struct, frozen=True):
    """away_s: from the fault to the first tick closed after it by the new owner; where none was, to the end of the run (`returned` false)."""

    minute: float
    kind: str
    what: str
    tick: int
    away_s: float
    returned: bool


class OfferCount(msgspec.Struct, frozen=True):
    offer: str
    title: str
    flash: bool
    starts_tick: int
    pushes: int


class ShardSample(msgspec.Struct, frozen=True):
    """A shard at a second of the run: turns in the last second, requests waiting, answers waiting for their flush."""

    shard: str
    turns_per_s: float
    mailbox: int
    gated: int


class Sample(msgspec.Struct, frozen=True):
    """One second of real time. lag_p99_ms: of the slowest generator process, since the start."""

    at_s: float
    tick: int
    connected: int
    tick_ms: float
    lag_p99_ms: float
    shards: tuple[ShardSample, ...]


class DensityGrid(msgspec.Struct, frozen=True):
    """People by square cell of one level at the busiest tick: count[row][col], row 0 at y0_m; metres, venue frame."""

    level: int
    x0_m: float
    y0_m: float
    cell_m: float
    count: tuple[tuple[int, ...], ...]


class OracleResult(msgspec.Struct, frozen=True):
    """examples: up to ten lines `missing|unexpected offer person tick`."""

    expected: int
    received: int
    missing: int
    unexpected: int
    excused: int
    rows: int
    examples: tuple[str, ...]


class ProcessResult(msgspec.Struct, frozen=True):
    """One process of the load generator."""

    process: str
    people: int
    pushes: int
    duplicates: int
    payments: int
    refused: int
    unanswered: int
    rewinds: int
    stalls: int
    reconnects: int
    not_resumed: int
    not_logged: int
    given_up: int
    lag_p99_ms: float
    errors: tuple[str, ...]


class RunReport(msgspec.Struct, frozen=True, kw_only=True):
    """Everything `report.json` holds."""

    format: str = FORMAT
    scenario: str
    title: str
    tenant: str
    venue: str
    venue_name: str
    seed: int
    speed: float
    ticks: int
    people_over_sockets: int
    started_unix_ms: int
    wall_s: float
    held: bool
    facts: tuple[str, ...]
    warnings: tuple[str, ...]
    metrics: dict[str, float]
    thresholds: tuple[ThresholdResult, ...]
    levels: tuple[str, ...]
    people: tuple[Second, ...]
    first_tick: int
    pushes_each_second: tuple[int, ...]
    payments_each_second: tuple[int, ...]
    samples: tuple[Sample, ...]
    offers: tuple[OfferCount, ...]
    latency: Durations
    payment_latency: Durations
    generator_lag: Durations
    generator_bottleneck: bool
    busiest_tick: int
    busiest: tuple[DensityGrid, ...]
    oracle: OracleResult
    books: Books
    currency: str
    hash: RunHash
    recording: Manifest
    faults: tuple[FaultResult, ...]
    processes: tuple[ProcessResult, ...]
    shards: tuple[dict[str, object], ...]
    crowd: dict[str, object]
    versions: dict[str, str]


def judge(thresholds: Sequence[Threshold], metrics: Mapping[str, float], *, void: Mapping[str, str]) -> tuple[ThresholdResult, ...]:
    """Each threshold against its figure. A figure that is void (metric -> why) proves nothing: its threshold is not held."""
    results = []
    for threshold in thresholds:
        measured, metric, why = metrics[threshold.metric], METRICS[threshold.metric], void.get(threshold.metric, "")
        held = threshold.holds(measured) and not why
        results.append(ThresholdResult(threshold.metric, threshold.op, threshold.value, measured, held, metric.unit, metric.meaning, why))
    return tuple(results)


def verdict(metrics: Mapping[str, float], books: Books, run_hash: RunHash) -> tuple[str, ...]:
    """The three facts behind the answer: pushes, money, pace."""
    m = {name: f"{value:,.0f}" for name, value in metrics.items()}
    wrong = metrics["pushes_missing"] + metrics["pushes_unexpected"]
    pushes = f"{m['pushes']} pushes reached their people, "
    pushes += (
        "exactly those that a brute-force oracle finds in the recording"
        if not wrong
        else f"but {m['pushes_missing']} are missing and {m['pushes_unexpected']} were not due"
    )
    money = f"{m['payments']} payments were acknowledged; " + (
        "the books sum to zero and none was lost"
        if books.balanced
        else f"the books are off by {max(books.largest_sum, books.difference):,} and {books.acked_lost} acknowledged payments are lost"
    )
    pace = (
        f"{m['people_inside_max']} people at once, at {metrics['real_time_factor']:.2f} times real time; "
        f"a push took {metrics['push_latency_p99_ms']:,.0f} ms at the 99th percentile"
    )
    pace += "" if run_hash.void is None else "; the hash is void"
    return f"{pushes}.", f"{money}.", f"{pace}."


def density(busiest: Busiest, venue: Venue) -> tuple[DensityGrid, ...]:
    """The busiest moment as cells over each level's outline."""
    grids = []
    for index, level in enumerate(venue.levels):
        points = np.array([point for polygon in level.outline for point in polygon[0]])
        low, high = points.min(axis=0), points.max(axis=0)
        width, height = (float(v) for v in high - low)
        cell = float(max(2.0, math.sqrt(width * height / MAX_CELLS)))
        columns, rows = max(1, math.ceil(width / cell)), max(1, math.ceil(height / cell))
        here = busiest.level == index
        column = np.clip(((busiest.x_m[here] - low[0]) / cell).astype(int), 0, columns - 1)
        row = np.clip(((busiest.y_m[here] - low[1]) / cell).astype(int), 0, rows - 1)
        count = np.zeros((rows, columns), int)
        np.add.at(count, (row, column), 1)
        grids.append(DensityGrid(index, float(low[0]), float(low[1]), cell, tuple(tuple(line) for line in count.tolist())))
    return tuple(grids)


def save_json(report: RunReport, path: Path) -> None:
    """Write report.json."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1))


def load_json(path: Path) -> RunReport:
    """Read report.json back."""
    return msgspec.json.decode(path.read_bytes(), type=RunReport)
