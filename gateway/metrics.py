"""Counters of one gateway process, and their travel to `/metrics` through the broker. docs/metrics.md lists every name.

Counting must stay cheaper than what is counted: plain integers, no locks (one event loop).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import Final, Literal, get_args

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

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
    "esplanade_gateway_tee_failures_total",
    "esplanade_gateway_payment_batches_total",
    "esplanade_gateway_refills_total",
    "esplanade_gateway_unreadable_publications_total",
    "esplanade_gateway_broker_losses_total",
    "esplanade_gateway_lost_publications_total",
    "esplanade_gateway_audit_lines_total",
    "esplanade_gateway_audit_lost_total",
]
GaugeName = Literal["esplanade_gateway_connections", "esplanade_gateway_subscriptions", "esplanade_gateway_requests_in_flight"]
HistogramName = Literal["esplanade_gateway_request_seconds"]
ScrapeName = Literal["esplanade_up", "esplanade_shard"]
"""Made by the API process itself: which processes reported, and every number of `System.profile()` by label `counter`."""

HELP: Final[dict[CounterName | GaugeName | HistogramName | ScrapeName, str]] = {
    "esplanade_gateway_messages_in_total": "WebSocket messages received",
    "esplanade_gateway_messages_out_total": "WebSocket messages written",
    "esplanade_gateway_bytes_in_total": "payload bytes received",
    "esplanade_gateway_bytes_out_total": "payload bytes written",
    "esplanade_gateway_frames_in_total": "requests taken, by op",
    "esplanade_gateway_frames_out_total": "frames written",
    "esplanade_gateway_errors_total": "Error frames written, by code",
    "esplanade_gateway_disconnects_total": "connections ended, by WebSocket close code",
    "esplanade_gateway_refused_connections_total": "handshakes refused, by reason",
    "esplanade_gateway_conflated_total": "frames of ephemeral topics left out, by reason (rate, slow)",
    "esplanade_gateway_pushes_total": "pushes sent to sessions for the first time",
    "esplanade_gateway_pushes_resent_total": "pushes sent again because no ack came",
    "esplanade_gateway_pushes_abandoned_total": "pushes given up without an ack",
    "esplanade_gateway_position_rows_total": "position rows handed to the System",
    "esplanade_gateway_position_batches_total": "calls that carried them",
    "esplanade_gateway_tee_failures_total": "column frames that the recorder refused",
    "esplanade_gateway_payment_batches_total": "calls that carried single payments",
    "esplanade_gateway_refills_total": "durable publications read again from the journal after a gap",
    "esplanade_gateway_unreadable_publications_total": "publications that could not be decoded",
    "esplanade_gateway_broker_losses_total": "times the broker's connection was lost",
    "esplanade_gateway_lost_publications_total": "gaps that the journal could no longer fill",
    "esplanade_gateway_audit_lines_total": "lines of the audit trail made durable",
    "esplanade_gateway_audit_lost_total": "acts that got no line in the audit trail, by reason (full, rate, stopped)",
    "esplanade_gateway_connections": "connections open now",
    "esplanade_gateway_subscriptions": "topic subscriptions of clients now",
    "esplanade_gateway_requests_in_flight": "requests taken and not yet answered",
    "esplanade_gateway_request_seconds": "from a request taken to its answer written",
    "esplanade_up": "1 for each process that reported within ten seconds",
    "esplanade_shard": "a counter of a shard, as System.profile() gives it",
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
    "esplanade_gateway_audit_lost_total": "reason",
}


class Snapshot(msgspec.Struct, frozen=True):
    """What a process puts into the broker. `counters`: (name, label value or '', value). `buckets`: not cumulative, the last beyond all bounds."""

    process: str
    counters: list[tuple[str, str, float]]
    gauges: list[tuple[str, float]]
    buckets: list[int]
    seconds: float


class GatewayMetrics:
    """Counters, gauges and the latency histogram of one process."""

    def __init__(self) -> None:
        self._counters: dict[tuple[CounterName, str], float] = {}
        self._labels: dict[CounterName, int] = {}
        self._buckets = [0] * (len(BUCKETS_S) + 1)
        self._seconds = 0.0

    def count(self, name: CounterName, by: float = 1, label: str = "") -> None:
        key = (name, label)
        value = self._counters.get(key)
        if value is None:
            seen = self._labels.get(name, 0)
            if seen >= MAX_LABELS:
                key = (name, "other")
                value = self._counters.get(key, 0.0)
            else:
                self._labels[name] = seen + 1
                value = 0.0
        self._counters[key] = value + by

    def observe(self, seconds: float) -> None:
        self._buckets[bisect_left(BUCKETS_S, seconds)] += 1
        self._seconds += seconds

    def value(self, name: CounterName, label: str = "") -> float:
        return self._counters.get((name, label), 0.0)

    def snapshot(self, process: str, gauges: Iterable[tuple[GaugeName, float]] = ()) -> bytes:
        """msgpack of a Snapshot."""
        counters: list[tuple[str, str, float]] = [(name, label, value) for (name, label), value in self._counters.items()]
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
