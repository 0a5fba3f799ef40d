"""What two looks at a service's shards say of the time between them: rates, quantiles, hot actors, as numbers and as tables.

Owns the arithmetic and the layout of `esplanade profile` and `esplanade top`; fetches nothing and reads no clock.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from actors.meter import Histogram
from actors.profile import ShardProfile


class Quantiles(msgspec.Struct, frozen=True):
    """Of `count` values: p50, p99 and mean, in the unit of what was observed; interpolated within fixed buckets."""

    count: int
    p50: float
    p99: float
    mean: float

    @classmethod
    def of(cls, histogram: Histogram) -> Quantiles:
        total = histogram.total
        return cls(total, histogram.quantile(0.5), histogram.quantile(0.99), histogram.sum / total if total else 0.0)


class ShardReading(msgspec.Struct, frozen=True):
    shard: str
    pid: int
    node: str
    partitions: int
    entities: int
    logs: int
    turns_per_s: float
    turn_mean_s: float
    busy: float  # share of the time spent in turns and ticks
    answer_s: Quantiles
    mailbox: int
    mailbox_oldest_s: float
    mailbox_s: Quantiles
    gated: int
    flushes_per_s: float
    flush_s: Quantiles
    flush_bytes: Quantiles
    flushed_bytes_per_s: float
    activations: int
    replay_s: Quantiles
    refused: int
    ticks_per_s: float
    tick_mean_s: float


class KindReading(msgspec.Struct, frozen=True):
    """Sampled; see actors.meter."""

    kind: str
    requests_per_s: float
    turn_s: Quantiles
    busy: float
    bytes_per_s: float


class HotReading(msgspec.Struct, frozen=True):
    """`requests_per_s` may be `over_per_s` too high."""

    address: str
    shard: str
    requests_per_s: float
    over_per_s: float
    busy: float


class Reading(msgspec.Struct, frozen=True):
    """Over `span_s`; where it is 0, since the shards started."""

    span_s: float
    shards: list[ShardReading]
    kinds: list[KindReading]
    hot: list[HotReading]


def read(before: Sequence[ShardProfile], after: Sequence[ShardProfile], span_s: float) -> Reading:
    """What happened between two looks, `span_s` apart. A shard process that is not in `before` (it began meanwhile, or there was no look) is read from its start."""
    known = {(one.shard, one.owner): one for one in before}
    shards, hot = [], []
    kinds: dict[str, list[tuple[float, Histogram, float, float]]] = {}
    for now in after:
        then = known.get((now.shard, now.owner))
        took_s = span_s if then is not None else max(now.uptime_s, 1e-9)
        shards.append(_shard(now, then, took_s))
        for kind, held in now.kinds.items():
            past = then.kinds.get(kind) if then is not None else None
            requests, seconds, size = (
                (held.requests, held.seconds, held.bytes)
                if past is None
                else (held.requests - past.requests, held.seconds - past.seconds, held.bytes - past.bytes)
            )
            kinds.setdefault(kind, []).append((requests / took_s, held.turn_s.since(past.turn_s if past else None), seconds / took_s, size / took_s))
        for actor in now.hot:
            within_s = max(now.hot_span_s, 1e-9)
            hot.append(HotReading(actor.address, now.shard, actor.requests / within_s, actor.over / within_s, actor.seconds / within_s))
    return Reading(
        span_s,
        shards,
        [_kind(kind, parts) for kind, parts in sorted(kinds.items())],
        sorted(hot, key=lambda actor: (-actor.requests_per_s, actor.address)),
    )


def _kind(kind: str, parts: list[tuple[float, Histogram, float, float]]) -> KindReading:
    bounds = parts[0][1].bounds
    merged = Histogram(bounds, [sum(counts) for counts in zip(*(part[1].counts for part in parts), strict=True)], sum(part[1].sum for part in parts))
    return KindReading(
        kind, sum(part[0] for part in parts), Quantiles.of(merged), sum(part[2] for part in parts), sum(part[3] for part in parts)
    )  # fmt: skip


def _shard(now: ShardProfile, then: ShardProfile | None, took_s: float) -> ShardReading:
    def more(name: str) -> float:
        return float(getattr(now, name)) - (float(getattr(then, name)) if then is not None else 0.0)

    def quantiles(name: str) -> Quantiles:
        histogram: Histogram = getattr(now, name)
        return Quantiles.of(histogram.since(getattr(then, name) if then is not None else None))

    turns, ticks = more("turns"), more("ticks")
    return ShardReading(
        shard=now.shard, pid=now.pid, node=now.node, partitions=now.partitions, entities=now.entities, logs=now.logs,
        turns_per_s=turns / took_s, turn_mean_s=more("turn_s") / turns if turns else 0.0, busy=more("turn_s") / took_s,
        answer_s=quantiles("answer_time"), mailbox=now.mailbox, mailbox_oldest_s=now.oldest_s, mailbox_s=quantiles("mailbox_time"), gated=now.gated,
        flushes_per_s=more("flushes") / took_s, flush_s=quantiles("flush_time"), flush_bytes=quantiles("flush_size"),
        flushed_bytes_per_s=more("flushed_bytes") / took_s, activations=int(more("activations")), replay_s=quantiles("replay_time"),
        refused=int(more("refused")), ticks_per_s=ticks / took_s, tick_mean_s=more("tick_s") / ticks if ticks else 0.0,
    )  # fmt: skip


# --- tables -----------------------------------------------------------------------------------------------------------


def tables(reading: Reading, *, hot: int = 10) -> RenderableType:
    """Shards, kinds and the hottest actors."""
    return Group(_shards_table(reading), Text(), _queues_table(reading), Text(), _kinds_table(reading), Text(), _hot_table(reading, hot))


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right", no_wrap=True)
    return table


def _shards_table(reading: Reading) -> Table:
    table = _table("shard", "pid", "parts", "actors", "turns/s", "turn", "busy", "answer p50", "p99", "ticks/s", "tick", "refused")
    for one in reading.shards:
        table.add_row(
            one.shard, str(one.pid), str(one.partitions), f"{one.entities:,}", f"{one.turns_per_s:,.0f}", duration(one.turn_mean_s), f"{one.busy:.0%}",
            duration(one.answer_s.p50), duration(one.answer_s.p99), f"{one.ticks_per_s:.1f}", duration(one.tick_mean_s), f"{one.refused:,}",
        )  # fmt: skip
    return table


def _queues_table(reading: Reading) -> Table:
    table = _table(
        "queues", "mailbox", "oldest", "waited p99", "gated", "flushes/s", "flush p50", "p99", "size p50", "p99", "bytes/s", "replays", "p99"
    )
    for one in reading.shards:
        table.add_row(
            one.shard, f"{one.mailbox:,}", duration(one.mailbox_oldest_s), duration(one.mailbox_s.p99), f"{one.gated:,}", f"{one.flushes_per_s:,.0f}",
            duration(one.flush_s.p50), duration(one.flush_s.p99), size(one.flush_bytes.p50), size(one.flush_bytes.p99), size(one.flushed_bytes_per_s),
            f"{one.activations:,}", duration(one.replay_s.p99),
        )  # fmt: skip
    return table


def _kinds_table(reading: Reading) -> Table:
    table = _table("kind (sampled)", "requests/s", "turn p50", "p99", "busy", "bytes/s", "samples")
    for one in reading.kinds:
        table.add_row(
            one.kind, f"{one.requests_per_s:,.0f}", duration(one.turn_s.p50), duration(one.turn_s.p99), f"{one.busy:.1%}", size(one.bytes_per_s), f"{one.turn_s.count:,}",
        )  # fmt: skip
    return table


def _hot_table(reading: Reading, most: int) -> Table:
    table = _table("hot actor (sampled)", "shard", "requests/s", "at most too high", "busy")
    for one in reading.hot[:most]:
        table.add_row(Text(one.address), one.shard, f"{one.requests_per_s:,.0f}", f"{one.over_per_s:,.0f}", f"{one.busy:.1%}")
    return table


def duration(seconds: float) -> str:
    """With three digits: 1.25 ms, 830 us; a dash for none."""
    if seconds <= 0:
        return "-"
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}" if seconds < 999.5 * scale else f"{seconds / scale:,.0f} {unit}"
    return f"{seconds / 1e-6:.3g} us"


def size(count: float) -> str:
    """Bytes, with three digits: 1.5 KiB; a dash for none."""
    if count <= 0:
        return "-"
    for unit, scale in (("MiB", 2.0**20), ("KiB", 2.0**10)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}" if count < 999.5 * scale else f"{count / scale:,.0f} {unit}"
    return f"{count:.0f} B"
