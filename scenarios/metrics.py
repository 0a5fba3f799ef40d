"""The metrics a threshold may name. Owns their names, units and meaning; `scenarios.runner` fills each of them in every run."""

from __future__ import annotations

from typing import Final, NamedTuple


class Metric(NamedTuple):
    unit: str
    meaning: str


METRICS: Final[dict[str, Metric]] = {
    "people_inside_max": Metric("people", "most people present at one tick, counted in the recording"),
    "people_inside_end": Metric("people", "people present at the last tick, counted in the recording"),
    "people_seen": Metric("people", "different people observed"),
    "turned_away": Metric("people", "arrivals that found the venue at its cap"),
    "websocket_people": Metric("people", "different people who were WebSocket clients of their own"),
    "pushes": Metric("pushes", "pushes received, each id once"),
    "pushes_flash": Metric("pushes", "of these, pushes of flash sales"),
    "pushes_expected": Metric("pushes", "pushes that the brute-force oracle finds in the recording"),
    "pushes_missing": Metric("pushes", "expected by the oracle and received by nobody"),
    "pushes_unexpected": Metric("pushes", "received, but not expected by the oracle"),
    "pushes_duplicate": Metric("pushes", "receipts beyond the first of the same id (allowed on the wire)"),
    "pushes_duplicate_after_dedup": Metric("pushes", "pushes of the same id that reached more than one client (never)"),
    "push_latency_p50_ms": Metric("ms", "from the intended time of the sample due inside the fence to receipt at the client, median"),
    "push_latency_p99_ms": Metric("ms", "the same, 99th percentile"),
    "push_latency_max_ms": Metric("ms", "the same, largest"),
    "payments": Metric("payments", "payments settled and acknowledged to the client"),
    "payments_refused": Metric("payments", "payments that the ledger refused"),
    "payments_unanswered": Metric("payments", "payments without an answer at the end of the drain"),
    "payment_latency_p99_ms": Metric("ms", "from the intended time of a payment to its acknowledgement, 99th percentile"),
    "acked_payments_lost": Metric("payments", "acknowledged, but not in the journal exactly once with the same person, till and amount"),
    "books_sum": Metric("minor units", "largest absolute sum over all accounts of a currency (zero, always)"),
    "books_difference": Metric("minor units", "largest difference between the books told and the books folded from the journal"),
    "late_rows": Metric("rows", "rows that came after their tick had closed; any voids the hash"),
    "late_ticks": Metric("ticks", "ticks closed by the deadline"),
    "real_time_factor": Metric("ratio", "venue time closed over real time taken; 1.0 is real time"),
    "generator_lag_p99_ms": Metric("ms", "how late the load generator sent, against the intended times; above 100 it was the bottleneck"),
    "recording_rows_dropped": Metric("rows", "rows the recording could not keep up with; any makes the oracle's answer void"),
    "shard_away_max_s": Metric("s", "longest time from the kill of a shard to the first tick closed after it"),
    "connections_lost": Metric("connections", "connections lost and made again by the load generator"),
}
"""Every metric by name. `docs/scenarios.md` lists them; a test compares the two."""
