"""Counters of one gateway process, and their travel to `/metrics` through the broker. docs/metrics.md lists every name.

Counting must stay cheaper than what is counted: plain integers, no locks (one event loop).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import Final, Literal, get_args

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from actors.meter import Histogram, HotActor, KindProfile

CounterName = Literal[
    "esplanade_gateway_messages_in_total",
    "esplanade_gateway_messages_out_total",
    "esplanade_gateway_bytes_in_total",
    "esplanade_gateway_bytes_out_total",
    "esplanade_gateway_frames_in_total",
    "esplanade_gateway_frames_out_total",
    "esplanade_gateway_errors_total",
    "esplanade_gateway_disconnects_total",
    "esplanade_gateway_refused_connections_total",
    "esplanade_gateway_conflated_total",
    "esplanade_gateway_pushes_total",
    "esplanade_gateway_pushes_resent_total",
    "esplanade_gateway_pushes_abandoned_total",
    "esplanade_gateway_position_rows_total",
    "esplanade_gateway_position_batches_total",
    "esplanade_gateway_observations_total",
    "esplanade_gateway_impossible_moves_total",
    "esplanade_gateway_tee_failures_total",
    "esplanade_gateway_payment_batches_total",
    "esplanade_gateway_refills_total",
    "esplanade_gateway_unreadable_publications_total",
    "esplanade_gateway_broker_losses_total",
    "esplanade_gateway_lost_publications_total",
    "esplanade_gateway_stale_reads_total",
    "esplanade_gateway_audit_lines_total",
    "esplanade_gateway_audit_lost_total",
    "esplanade_gateway_people_unheard_total",
    "esplanade_gateway_refused_tokens_total",
    "esplanade_gateway_revocations_total",
    "esplanade_gateway_quota_refusals_total",
    "esplanade_gateway_webhook_attempts_total",
    "esplanade_gateway_codes_total",
    "esplanade_gateway_webhooks_in_total",
    "esplanade_gateway_event_streams_total",
]
GaugeName = Literal[
    "esplanade_gateway_connections",
    "esplanade_gateway_subscriptions",
    "esplanade_gateway_requests_in_flight",
    "esplanade_gateway_held_reads",
]
HistogramName = Literal["esplanade_gateway_request_seconds"]
ScrapeName = Literal[
    "esplanade_up",
    "esplanade_shard",
    "esplanade_shard_requests_total",
    "esplanade_shard_event_bytes_total",
    "esplanade_shard_turn_seconds",
    "esplanade_shard_answer_seconds",
    "esplanade_shard_mailbox_seconds",
    "esplanade_shard_replay_seconds",
    "esplanade_shard_flush_seconds",
    "esplanade_shard_flush_bytes",
    "esplanade_shard_hot_requests",
]
"""Made by the API process itself: which processes reported, and what `System.profile()` tells: every number by label `counter`, histograms, kinds, and how hot the
hottest actors are (by rank; who they are is told by /v1/profile, to those who may know)."""

HELP: Final[dict[CounterName | GaugeName | HistogramName | ScrapeName, str]] = {
    "esplanade_gateway_messages_in_total": "WebSocket messages received",
    "esplanade_gateway_messages_out_total": "WebSocket messages written",
    "esplanade_gateway_bytes_in_total": "payload bytes received",
    "esplanade_gateway_bytes_out_total": "payload bytes written",
    "esplanade_gateway_frames_in_total": "requests taken, by op",
    "esplanade_gateway_frames_out_total": "frames written",
    "esplanade_gateway_errors_total": "Error frames written, by code",
    "esplanade_gateway_disconnects_total": "connections ended, by WebSocket close code",
    "esplanade_gateway_refused_connections_total": "handshakes refused, by reason (path, origin, address, draining, full; late: waited too long to be let in; silent: no request came)",
    "esplanade_gateway_conflated_total": "frames left out for slow readers, by reason (rate, slow, unseen: of ephemeral topics; policy: of others)",
    "esplanade_gateway_pushes_total": "pushes sent to sessions for the first time",
    "esplanade_gateway_pushes_resent_total": "pushes sent again because no ack came",
    "esplanade_gateway_pushes_abandoned_total": "pushes given up without an ack",
    "esplanade_gateway_position_rows_total": "position rows handed to the System",
    "esplanade_gateway_observations_total": "observations of phones that the live filter answered",
    "esplanade_gateway_impossible_moves_total": "dots of phones faster than anybody walks, or on another level without a way",
    "esplanade_gateway_position_batches_total": "calls that carried them",
    "esplanade_gateway_tee_failures_total": "column frames that the recorder refused",
    "esplanade_gateway_payment_batches_total": "calls that carried single payments",
    "esplanade_gateway_refills_total": "durable publications read again from the journal after a gap",
    "esplanade_gateway_unreadable_publications_total": "publications that could not be decoded",
    "esplanade_gateway_broker_losses_total": "times the broker's connection was lost",
    "esplanade_gateway_lost_publications_total": "gaps that the journal could no longer fill",
    "esplanade_gateway_stale_reads_total": "reads whose caller allows staleness, by answer (held: without a turn; asked: by a new one)",
    "esplanade_gateway_audit_lines_total": "lines of the audit trail made durable",
    "esplanade_gateway_people_unheard_total": "words of people that were not noted for retention, for want of room or of a database",
    "esplanade_gateway_audit_lost_total": "acts that got no line in the audit trail, by reason (full, rate, stopped)",
    "esplanade_gateway_refused_tokens_total": "credentials refused, by reason",
    "esplanade_gateway_revocations_total": "revocations heard of",
    "esplanade_gateway_quota_refusals_total": "requests refused by a limit that several share, by whose it is (address, tenant)",
    "esplanade_gateway_codes_total": "sign-in codes, by channel and what became of them (email or sms, and sent, retried, refused, given_up, failed or stopped)",
    "esplanade_gateway_webhook_attempts_total": "deliveries of webhooks, by outcome (delivered, failed, dead, lost, replayed)",
    "esplanade_gateway_webhooks_in_total": "webhooks from partners, by outcome (done, or the code of the refusal)",
    "esplanade_gateway_event_streams_total": "event streams ended, by reason (client, slow, expired, stopped)",
    "esplanade_gateway_connections": "connections open now",
    "esplanade_gateway_subscriptions": "topic subscriptions of clients now",
    "esplanade_gateway_requests_in_flight": "requests taken and not yet answered",
    "esplanade_gateway_held_reads": "replies held for reads that allow staleness",
    "esplanade_gateway_request_seconds": "from a request taken to its answer written",
    "esplanade_up": "1 for each process that reported within ten seconds",
    "esplanade_shard": "a counter of a shard, as System.profile() gives it",
    "esplanade_shard_requests_total": "requests to actors, by kind, estimated from samples",
    "esplanade_shard_event_bytes_total": "bytes of events that turns made, by kind, estimated from samples",
    "esplanade_shard_turn_seconds": "time of sampled turns, by kind",
    "esplanade_shard_answer_seconds": "from a frame's coming to its last answer, durable",
    "esplanade_shard_mailbox_seconds": "how long requests waited for their log or their venue",
    "esplanade_shard_replay_seconds": "how long logs took to be replayed",
    "esplanade_shard_flush_seconds": "time of flushes that landed",
    "esplanade_shard_flush_bytes": "bytes of events of flushes that landed",
    "esplanade_shard_hot_requests": "requests of the hottest actors within the last 10 to 20 s, by rank, estimated from samples",
}
METRICS_PREFIX: Final = "metrics:"
"""Keys in the broker under which processes put their `Snapshot`, with METRICS_TTL_S."""
METRICS_TTL_S: Final = 10.0
MAX_LABELS: Final = 200
"""Label values of one counter; beyond, they are counted under `other`."""

BUCKETS_S: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
LABEL: Final[dict[str, str]] = {
    "esplanade_gateway_frames_in_total": "op",
    "esplanade_gateway_errors_total": "code",
    "esplanade_gateway_disconnects_total": "code",
    "esplanade_gateway_refused_connections_total": "reason",
    "esplanade_gateway_conflated_total": "reason",
    "esplanade_gateway_stale_reads_total": "answer",
    "esplanade_shard_requests_total": "kind",
    "esplanade_shard_event_bytes_total": "kind",
    "esplanade_shard_turn_seconds": "kind",
    "esplanade_shard_hot_requests": "rank",
    "esplanade_gateway_audit_lost_total": "reason",
    "esplanade_gateway_refused_tokens_total": "reason",
    "esplanade_gateway_quota_refusals_total": "whose",
    "esplanade_gateway_webhook_attempts_total": "outcome",
    "esplanade_gateway_codes_total": "outcome",
    "esplanade_gateway_webhooks_in_total": "outcome",
    "esplanade_gateway_event_streams_total": "reason",
}
HOT_RANKS: Final = 10
SHARD_HISTOGRAMS: Final[dict[ScrapeName, str]] = {
    "esplanade_shard_answer_seconds": "answer_time",
    "esplanade_shard_mailbox_seconds": "mailbox_time",
    "esplanade_shard_replay_seconds": "replay_time",
    "esplanade_shard_flush_seconds": "flush_time",
    "esplanade_shard_flush_bytes": "flush_size",
}
"""Field of the profile by metric."""


class Snapshot(msgspec.Struct, frozen=True):
    """What a process puts into the broker. `counters`: (name, label value or '', value). `buckets`: not cumulative, the last beyond all bounds."""

    process: str
    counters: list[tuple[str, str, float]]
    gauges: list[tuple[str, float]]
    buckets: list[int]
    seconds: float


class Counter:
    """One counter of one label value, for those that count with every frame: `counter.n += 1`."""

    __slots__ = ("n",)

    def __init__(self) -> None:
        self.n = 0.0


class GatewayMetrics:
    """Counters, gauges and the latency histogram of one process."""

    def __init__(self) -> None:
        self._counters: dict[tuple[CounterName, str], Counter] = {}
        self._labels: dict[CounterName, int] = {}
        self._buckets = [0] * (len(BUCKETS_S) + 1)
        self._seconds = 0.0

    def count(self, name: CounterName, by: float = 1, label: str = "") -> None:
        counter = self._counters.get((name, label))
        if counter is None:
            counter = self.counter(name, label)
        counter.n += by

    def counter(self, name: CounterName, label: str = "") -> Counter:
        """Of a label value; beyond MAX_LABELS of them, the one of all others."""
        found = self._counters.get((name, label))
        if found is None:
            seen = self._labels.get(name, 0)
            if seen >= MAX_LABELS:
                return self._counters.setdefault((name, "other"), Counter())
            self._labels[name] = seen + 1
            found = self._counters[(name, label)] = Counter()
        return found

    def observe(self, seconds: float) -> None:
        self._buckets[bisect_left(BUCKETS_S, seconds)] += 1
        self._seconds += seconds

    def value(self, name: CounterName, label: str = "") -> float:
        found = self._counters.get((name, label))
        return 0.0 if found is None else found.n

    def snapshot(self, process: str, gauges: Iterable[tuple[GaugeName, float]] = ()) -> bytes:
        """msgpack of a Snapshot."""
        counters: list[tuple[str, str, float]] = [(name, label, counter.n) for (name, label), counter in self._counters.items() if counter.n]
        return msgspec.msgpack.encode(Snapshot(process, counters, list(gauges), self._buckets, self._seconds))


class Scrape:
    """A Prometheus collector over the snapshots of all processes and the shards' profiles."""

    def __init__(self, snapshots: Iterable[Snapshot], profiles: Iterable[dict[str, object]] = ()) -> None:
        self._snapshots = list(snapshots)
        self._profiles = list(profiles)

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("esplanade_up", HELP["esplanade_up"], labels=["process"])
        for snapshot in self._snapshots:
            up.add_metric([snapshot.process], 1)
        yield up
        for name in get_args(CounterName):
            label = LABEL.get(name)
            counter = CounterMetricFamily(name, HELP[name], labels=["process", label] if label else ["process"])
            for snapshot in self._snapshots:
                for key, value_label, value in snapshot.counters:
                    if key == name:
                        counter.add_metric([snapshot.process, value_label] if label else [snapshot.process], value)
            yield counter
        for gauge_name in get_args(GaugeName):
            gauge = GaugeMetricFamily(gauge_name, HELP[gauge_name], labels=["process"])
            for snapshot in self._snapshots:
                for key, value in snapshot.gauges:
                    if key == gauge_name:
                        gauge.add_metric([snapshot.process], value)
            yield gauge
        histogram = HistogramMetricFamily("esplanade_gateway_request_seconds", HELP["esplanade_gateway_request_seconds"], labels=["process"])
        for snapshot in self._snapshots:
            total, rows = 0, []
            for bound, n in zip((*map(str, BUCKETS_S), "+Inf"), snapshot.buckets, strict=False):
                total += n
                rows.append((bound, total))
            histogram.add_metric([snapshot.process], buckets=rows, sum_value=snapshot.seconds)
        yield histogram
        shard = GaugeMetricFamily("esplanade_shard", HELP["esplanade_shard"], labels=["shard", "counter"])
        for i, profile in enumerate(self._profiles):
            name = str(profile.get("shard", profile.get("name", i)))
            for key, entry in profile.items():
                if isinstance(entry, (int, float)) and key != "shard":
                    shard.add_metric([name, str(key)], float(entry))
        yield shard
        yield from self._shards()

    def _shards(self) -> Iterator[Metric]:
        """Kinds, histograms and ranks of shards that tell of them (one that was started by an older version does not)."""
        shards = [msgspec.convert(profile, _Told) for profile in self._profiles if "kinds" in profile]
        for name, field in SHARD_HISTOGRAMS.items():
            family = HistogramMetricFamily(name, HELP[name], labels=["shard"])
            for told in shards:
                histogram: Histogram = getattr(told, field)
                family.add_metric([told.shard], buckets=_cumulated(histogram), sum_value=histogram.sum)
            yield family
        requests = CounterMetricFamily("esplanade_shard_requests_total", HELP["esplanade_shard_requests_total"], labels=["shard", "kind"])
        size = CounterMetricFamily("esplanade_shard_event_bytes_total", HELP["esplanade_shard_event_bytes_total"], labels=["shard", "kind"])
        turn = HistogramMetricFamily("esplanade_shard_turn_seconds", HELP["esplanade_shard_turn_seconds"], labels=["shard", "kind"])
        hot = GaugeMetricFamily("esplanade_shard_hot_requests", HELP["esplanade_shard_hot_requests"], labels=["shard", "rank"])
        for told in shards:
            for kind, measured in told.kinds.items():
                requests.add_metric([told.shard, kind], measured.requests)
                size.add_metric([told.shard, kind], measured.bytes)
                turn.add_metric([told.shard, kind], buckets=_cumulated(measured.turn_s), sum_value=measured.turn_s.sum)
            for rank, actor in enumerate(told.hot[:HOT_RANKS], 1):
                hot.add_metric([told.shard, str(rank)], actor.requests)
        yield from (requests, size, turn, hot)


class _Told(msgspec.Struct):
    """What Scrape reads of a shard's profile beside its numbers."""

    shard: str
    kinds: dict[str, KindProfile]
    hot: list[HotActor]
    answer_time: Histogram
    mailbox_time: Histogram
    replay_time: Histogram
    flush_time: Histogram
    flush_size: Histogram


def _cumulated(histogram: Histogram) -> list[tuple[str, float]]:
    rows, total = [], 0
    for bound, count in zip((*(f"{bound:g}" for bound in histogram.bounds), "+Inf"), histogram.counts, strict=True):
        total += count
        rows.append((bound, float(total)))
    return rows
