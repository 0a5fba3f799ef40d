"""What a shard counts about itself, by documented names. Owns the names; measures nothing by itself."""

from __future__ import annotations

import msgspec

from actors.meter import BYTES, SECONDS, Histogram, HotActor, KindProfile


def _seconds() -> Histogram:
    return Histogram.of(SECONDS)


def _bytes() -> Histogram:
    return Histogram.of(BYTES)


class ShardProfile(msgspec.Struct, kw_only=True):
    """Counters of one shard since it started; times in seconds of the system clock."""

    shard: str  # its name
    owner: str  # its name in the lease table: unique to this process
    pid: int
    node: str
    uptime_s: float
    partitions: int  # owned now
    epochs: dict[int, int]  # lease epoch by partition, of partitions with a log in memory
    logs: int  # (tenant, partition) logs in memory
    entities: int
    activations: int  # logs replayed
    turns: int
    turns_per_s: float  # over the last second polled
    turn_s: float  # time in turns, position rows included
    refused: int  # requests answered with an error
    flushes: int
    flush_s: float
    flush_failures: int
    flushed_bytes: int
    flushed_events: int
    snapshots: int
    mailbox: int  # requests that wait for their log or their venue
    gated: int  # answers that wait for their flush
    ticks: int  # closed, silent ones included
    tick_s: float
    late_rows: int
    pushes_dropped: int  # pushes beyond the limit of one tick
    publications: int
    publications_dropped: int  # ephemeral ones that found the queue full, or the broker away
    leases_lost: int
    passivations: int  # logs that left memory because nobody asked for them, or to make room
    reminders: int = 0  # fired
    impossible_moves: int = 0  # places of phones that nobody can have got to
    phones: int = 0  # that the live filters here hold
    observations: int = 0  # of phones, that they answered
    locating_s: float = 0.0  # which took so long, in threads beside the turns
    transfers_finished: int = 0  # between ledgers, carried by this process: arrived or come back
    transfer_failures: int = 0  # rounds of its courier that a ledger did not answer; they are made again
    oldest_s: float = 0.0  # how long the request at the head of the oldest queue has waited
    kinds: dict[str, KindProfile] = msgspec.field(default_factory=dict)  # sampled, see actors.meter
    hot: list[HotActor] = msgspec.field(default_factory=list)  # the hottest actors of the last `hot_span_s`, sampled
    hot_span_s: float = 0.0
    answer_time: Histogram = msgspec.field(default_factory=_seconds)  # seconds from a frame's coming to its last answer
    mailbox_time: Histogram = msgspec.field(default_factory=_seconds)  # seconds that requests waited for their log or their venue
    replay_time: Histogram = msgspec.field(default_factory=_seconds)  # seconds that logs took to be replayed
    flush_time: Histogram = msgspec.field(default_factory=_seconds)  # seconds of flushes that landed
    flush_size: Histogram = msgspec.field(default_factory=_bytes)  # bytes of their events

    def as_dict(self) -> dict[str, object]:
        built: dict[str, object] = msgspec.to_builtins(self)
        return built


FIELDS: tuple[str, ...] = ShardProfile.__struct_fields__
"""Every counter's name, as `System.profile` returns them."""
