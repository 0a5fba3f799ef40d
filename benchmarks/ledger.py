"""Durable payments a second in batches of 8,190, and one at a time from 64 callers: the ledger in a real shard against three ways in SQL.

10,000 wallets, 10 stands; embedded PostgreSQL with fsync on; shard, journal, load generator in one process, frames encoded and decoded as between processes. The peers
make the same payments on the same server in the same run. One at a time is measured twice: on a server at rest, and right after the long run, when the disk still takes what that
left behind (snapshots of 24 MB, the server's own checkpoint). `--n`: seconds of the long run (60 for the bar). At the end the shard is dropped where it stands, another
takes over, and its books must be whole: nothing acknowledged lost, nothing twice, sum zero.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psycopg

from actors.directory import partitions_of
from actors.local_system import LocalSystem
from actors.messages import LEDGERS, Books, GetBooks, Payments, Settled, TopUps
from actors.payment_lane import Payment, PaymentLane
from actors.requests import Ask, Refused, Replied, decode_answers, encode_requests
from actors.shard import Shard, ShardSettings
from actors.warm_up import warm_up
from benchmarks import ledger_peers
from benchmarks.ledger_load import Load
from esplanade.core.clock import RealClock
from esplanade.core.errors import Unavailable
from esplanade.core.ids import Address
from esplanade.service_config import GC_YOUNG, settle_collector
from esplanade.storage.embedded import start_postgres
from esplanade.storage.memory import MemoryBroker, MemoryHub
from esplanade.storage.postgres import PostgresCatalogue, PostgresJournal, migrate

CALLERS = 64
GIVE_UP_S = 30.0
"""How long a batch whose answer is `unavailable` is asked again under its keys, as every caller does; then the benchmark ends."""
AGAIN_S = 0.05
CALLERS_A_LEDGER = 2
"""Of batches: one is settled while the flush of the other is under way."""
SLICE_S = 2.0
SINGLES_S = 5.0
TENANT = "bench"


class Ours:
    """A shard on the real journal, and what it has acknowledged."""

    def __init__(self, url: str, load: Load) -> None:
        self.url, self.load = url, load
        self.acked = 0
        self.asked_again = 0
        self._starts = 0

    async def open(self) -> None:
        self.journal, self.catalogue = await PostgresJournal.open(self.url), await PostgresCatalogue.open(self.url)
        await self.catalogue.add_tenant(TENANT, "Bench")
        await self.catalogue.put_venue(TENANT, self.load.venue().model_dump_json().encode())
        await self.start()
        for ledger in range(LEDGERS):
            subjects = np.arange(ledger, self.load.wallets, LEDGERS).astype("<u4")
            amounts = np.full(len(subjects), self.load.funds, "<u4")
            keys = b"".join(int(s).to_bytes(16, "big") for s in subjects)
            await self._ask(ledger, TopUps(tick=0, key=keys, subject=subjects.tobytes(), amount=amounts.tobytes(), currency="EUR"))

    async def start(self) -> None:
        """A shard that takes over whatever another one holds."""
        self._starts += 1
        clock = RealClock()
        self.shard = Shard(
            name="shard-0", owner=f"bench#{self._starts}", partitions=partitions_of(0, 1), journal=self.journal, catalogue=self.catalogue,
            broker=MemoryBroker(MemoryHub(clock)), clock=clock, secret=b"b" * 32, settings=ShardSettings(snapshot_segments=10**9),
        )  # fmt: skip
        await self.shard.start()

    async def _ask(self, ledger: int, command: TopUps | Payments | GetBooks) -> Any:
        data = encode_requests([Ask(Address("ledger", TENANT, str(ledger)), command)])
        until = time.perf_counter() + GIVE_UP_S
        while True:
            [answer] = decode_answers(await self.shard.frame(data))
            if isinstance(answer, Replied):
                return answer.reply
            if not isinstance(answer, Refused) or answer.code != Unavailable.code or time.perf_counter() >= until:
                raise AssertionError(f"ledger {ledger}: {answer}")
            self.asked_again += 1
            await asyncio.sleep(AGAIN_S)

    async def batches(self, seconds: float) -> float:
        """Payments a second, acknowledged as durable: CALLERS_A_LEDGER for each ledger, each one batch after the other."""
        began = time.perf_counter()
        before = self.acked

        async def call(ledger: int) -> None:
            while time.perf_counter() < began + seconds:
                b = self.load.batch(ledger)
                reply = await self._ask(
                    ledger,
                    Payments(
                        tick=1,
                        venue="ground",
                        key=b.key,
                        subject=b.subject.tobytes(),
                        unit=b.unit.tobytes(),
                        amount=b.amount.tobytes(),
                        currency="EUR",
                    ),
                )
                if not isinstance(reply, Settled) or any(reply.result):
                    raise AssertionError(f"a payment was refused: {reply}")
                self.acked += len(reply.result)

        await asyncio.gather(*(call(ledger) for ledger in range(LEDGERS) for _ in range(CALLERS_A_LEDGER)))
        return (self.acked - before) / (time.perf_counter() - began)

    async def singles(self, seconds: float) -> tuple[float, list[float]]:
        """(payments a second, latencies in ms) of CALLERS callers, each waiting for its answer."""
        lane, rng = PaymentLane(LocalSystem([self.shard])), np.random.default_rng(self.acked)
        wallets, units = rng.integers(0, self.load.wallets, 65_536).tolist(), rng.integers(0, self.load.tills, 65_536).tolist()
        took: list[float] = []

        async def call(caller: int) -> None:
            i, own = 0, rng.bytes(8)
            while (now := time.perf_counter()) < until:
                row, i = (caller * 1024 + i) % 65_536, i + 1
                outcome = await lane.pay(TENANT, "ground", "EUR", 1, Payment(own + i.to_bytes(8, "big"), wallets[row], units[row], 1))
                if outcome.code is not None:
                    raise AssertionError(f"a payment was refused: {outcome}")
                took.append((time.perf_counter() - now) * 1000)

        began = time.perf_counter()
        until = began + seconds
        await asyncio.gather(*(call(caller) for caller in range(CALLERS)))
        span_s = time.perf_counter() - began
        self.acked += len(took)
        return len(took) / span_s, sorted(took)

    async def take_over(self) -> float:
        """Drop the shard where it stands, start another, and prove its books; seconds until all ledgers have answered."""
        for task in self.shard._tasks:
            task.cancel()
        await asyncio.gather(*self.shard._tasks, return_exceptions=True)
        began = time.perf_counter()
        await self.start()
        books: list[Books] = [await self._ask(ledger, GetBooks()) for ledger in range(LEDGERS)]
        took_s = time.perf_counter() - began
        if sum(b.payments for b in books) != self.acked or any(total for b in books for total in b.total.values()):
            raise AssertionError(
                f"{self.acked} payments acknowledged, {sum(b.payments for b in books)} in the books, sums {[b.total for b in books]}"
            )
        return took_s

    async def close(self) -> None:
        await self.shard.stop()
        await self.journal.close()
        await self.catalogue.close()


async def _watch(ours: Ours, slices: list[float]) -> None:
    """Payments a second of each SLICE_S, until cancelled."""
    while True:
        began, before = time.perf_counter(), ours.acked
        await asyncio.sleep(SLICE_S)
        slices.append((ours.acked - before) / (time.perf_counter() - began))


def _log_bytes(url: str) -> int:
    """That the server has ever written to its log."""
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute("SELECT pg_current_wal_lsn() - '0/0'").fetchone()
        return int(row[0]) if row is not None else 0


def _quantile(took_ms: list[float], percent: int) -> float:
    """Of sorted milliseconds."""
    return round(took_ms[len(took_ms) * percent // 100], 2)


async def _measure(url: str, peer_url: str, n: int, repeats: int) -> dict[str, object]:
    load = Load()
    ledger_peers.prepare(peer_url, load)
    ours = Ours(url, load)
    await ours.open()
    peers = {"row_locking": ledger_peers.row_locking, "function": ledger_peers.function, "set_based": ledger_peers.set_based}
    rates: dict[str, list[float]] = {name: [] for name in ("ours", *peers)}
    settle_collector(GC_YOUNG)  # as a shard's process does
    await ours.singles(1.0)
    single, took = await ours.singles(SINGLES_S)
    print(f"ledger one at a time: {single:,.0f}/s, p99 {_quantile(took, 99):.2f} ms", flush=True)
    await ours.batches(1.0)
    for i in range(repeats):
        rates["ours"].append(await ours.batches(SLICE_S))
        for name, peer in peers.items():
            rates[name].append(await asyncio.to_thread(peer, peer_url, load, SLICE_S))
        print(f"ledger {i + 1}/{repeats}: " + ", ".join(f"{name} {found[-1]:,.0f}/s" for name, found in rates.items()), flush=True)
    slices: list[float] = []
    watching = asyncio.create_task(_watch(ours, slices))
    before, log_before = ours.acked, await asyncio.to_thread(_log_bytes, url)
    held = await ours.batches(float(n))
    log_bytes = (await asyncio.to_thread(_log_bytes, url) - log_before) / (ours.acked - before)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    print(f"ledger held for {n} s: {held:,.0f}/s, by {SLICE_S:.0f} s: {', '.join(f'{rate / 1000:,.0f}k' for rate in slices)}", flush=True)
    after, took_after = await ours.singles(SINGLES_S)
    profile = ours.shard.profile()
    taken_over_s = await ours.take_over()
    await ours.close()
    medians = {name: statistics.median(found) for name, found in rates.items()}
    best = max(medians[name] for name in peers)
    return {
        "name": "ledger", "n": n, "ours": round(medians["ours"]), "peer": round(best), "unit": "payments/s", "ratio": round(medians["ours"] / best, 2),
        "ratio_to_row_locking": round(medians["ours"] / medians["row_locking"], 2), "peers": {name: round(medians[name]) for name in peers},
        "held": round(held), "held_slowest": round(min(slices, default=held)), "log_bytes_a_payment": round(log_bytes), "single": round(single),
        "single_p50_ms": _quantile(took, 50), "single_p99_ms": _quantile(took, 99), "single_after_load": round(after),
        "single_after_load_p99_ms": _quantile(took_after, 99), "acked": ours.acked,
        "asked_again": ours.asked_again, "take_over_s": round(taken_over_s, 2), "flushes": profile.flushes,
        "flush_ms": round(1000 * profile.flush_s / profile.flushes, 2),
        "turn_share": round(profile.turn_s / profile.uptime_s, 3), "snapshots": profile.snapshots,
    }  # fmt: skip


def run(*, n: int = 10, repeats: int = 5) -> None:
    warm_up()
    folder = Path(tempfile.mkdtemp(prefix="esplanade-bench-", dir="/var/tmp"))
    folder.chmod(0o755)
    server = start_postgres(folder)
    try:
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute("CREATE DATABASE ours")
            connection.execute("CREATE DATABASE peers")
        url, peer_url = (server.url.replace("@/postgres?", f"@/{name}?") for name in ("ours", "peers"))
        migrate(url)
        print(json.dumps(asyncio.run(_measure(url, peer_url, n, repeats))), flush=True)
    finally:
        server.stop()
        shutil.rmtree(folder)
