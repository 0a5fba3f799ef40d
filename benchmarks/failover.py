"""Time without answers when a shard is killed (SIGKILL) or hangs (SIGSTOP) under payments: the warm spare against Ray's own restart of the same process.

The whole service runs as `esplanade serve` would start it, with a spare; callers pay one cent at a time, each payment with a key of its own, repeated until
acked. The time without answers is the longest silence of any ledger that the broken shard owned. The peer is how long the killed process takes to answer
again by Ray's restart alone, in the same kills (of which it waits `peer_waits_s` on purpose, to leave the cores to the spare). A checker in another process sees only what was acked and reads the journal: every acked key once.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import msgspec

from actors.events import Paid, decode_event
from actors.messages import LEDGERS, Payments, Settled, TopUps
from actors.ray_system import YIELD_S, ProcessHandle
from esplanade.cluster import Cluster
from esplanade.core.errors import LimitExceeded, Unavailable
from esplanade.core.ids import Address, partition_of
from esplanade.settings import load_settings
from esplanade.storage.postgres import PostgresJournal
from spatial.venue_files import dump_venue, load_venue

TENANT = "bench"
VENUES = Path(__file__).parent.parent / "scenarios" / "venues"
CALLERS = 32
LEASE_S = 3.0
QUIET_S = 1.5
"""Load between two kills, once everything stands again."""


@dataclass
class Load:
    """Callers that pay, and what was acked when, by ledger."""

    cluster: Cluster
    venue: str
    unit: int
    at: dict[int, list[float]] = field(default_factory=lambda: {i: [] for i in range(LEDGERS)})
    acked: list[bytes] = field(default_factory=list)
    refused: int = 0
    ending: bool = False

    async def top_up(self) -> None:
        for subject in range(CALLERS):
            top = TopUps(tick=0, key=_key(1, subject, 0), subject=_u4(subject), amount=_u4(10_000_000), currency="EUR")
            await self.cluster.system.ask(_ledger(subject), top, deadline_s=30)

    async def caller(self, subject: int) -> None:
        number = 0
        while not self.ending:
            number += 1
            key = _key(2, subject, number)
            payment = Payments(
                tick=0, venue=self.venue, key=key, subject=_u4(subject), unit=struct.pack("<H", self.unit), amount=_u4(1), currency="EUR"
            )
            while True:
                try:
                    reply = await self.cluster.system.ask(_ledger(subject), payment, deadline_s=30)
                    break
                except (Unavailable, LimitExceeded):
                    self.refused += 1
            if not isinstance(reply, Settled) or reply.result != b"\0":
                raise AssertionError(f"a payment was refused: {reply}")
            self.at[subject % LEDGERS].append(time.monotonic())
            self.acked.append(key)

    def silence_s(self, ledgers: list[int], since: float, until: float) -> float:
        longest = 0.0
        for ledger in ledgers:
            times = [since, *(moment for moment in self.at[ledger] if since <= moment <= until), until]
            longest = max(longest, *(b - a for a, b in pairwise(times)))
        return longest


def _key(kind: int, subject: int, number: int) -> bytes:
    return struct.pack("<IIQ", kind, subject, number)


def _u4(value: int) -> bytes:
    return struct.pack("<I", value)


def _ledger(subject: int) -> Address:
    return Address("ledger", TENANT, str(subject % LEDGERS))


async def _start_of(shard: ProcessHandle) -> str:
    while True:
        try:
            return str(await shard.call("owner"))
        except Unavailable:
            await asyncio.sleep(0.02)


async def _break(load: Load, how: signal.Signals) -> tuple[float, float]:
    """Break the shard that owns most ledgers; (time without answers, time until its process answered again)."""
    directory = load.cluster.system.directory
    owners = {ledger: directory.owner_of(partition_of(Address("ledger", TENANT, str(ledger)))) for ledger in range(LEDGERS)}
    name = Counter(owners.values()).most_common(1)[0][0]
    ledgers = [ledger for ledger, owner in owners.items() if owner == name]
    shard = next(shard for shard in load.cluster.shards if shard.name == name)
    pid, start = await shard.pid(), await _start_of(shard)
    began = time.monotonic()
    os.kill(pid, how)
    back = began
    async with asyncio.timeout(60):
        while await _start_of(shard) == start:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        back = time.monotonic()
        await load.cluster.settled()
    await asyncio.sleep(QUIET_S)
    return load.silence_s(ledgers, began, time.monotonic()), back - began


async def _measure(folder: Path, kills: int, hangs: int) -> dict[str, object]:
    cluster = Cluster(load_settings(data_dir=folder, shards=2, spares=1, lease_ttl_s=LEASE_S))
    config = await cluster.start(lambda step: print(step, flush=True))
    try:
        venue = load_venue(sorted(VENUES.glob("*.json"))[0])
        await cluster.put_venue(TENANT, dump_venue(venue))
        load = Load(cluster, venue.id, next(i for i, unit in enumerate(venue.units) if unit.till))
        await load.top_up()
        began = time.monotonic()
        callers = [asyncio.create_task(load.caller(subject)) for subject in range(CALLERS)]
        await asyncio.sleep(QUIET_S)
        found: dict[signal.Signals, list[tuple[float, float]]] = {signal.SIGKILL: [], signal.SIGSTOP: []}
        for how, times in ((signal.SIGKILL, kills), (signal.SIGSTOP, hangs)):
            for i in range(times):
                found[how].append(await _break(load, how))
                print(
                    f"{how.name} {i + 1}/{times}: {found[how][-1][0]:.3f} s without answers; back by itself after {found[how][-1][1]:.2f} s",
                    flush=True,
                )
        load.ending = True
        await asyncio.gather(*callers)
        span = time.monotonic() - began
        checker = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "benchmarks.failover", config.postgres_url],
            input=b"".join(load.acked),
            capture_output=True,
            check=True,
        )
        verdict = json.loads(checker.stdout)
    finally:
        await cluster.stop()
    silent = [gap for gap, _ in found[signal.SIGKILL]]
    restarts = [back for _, back in found[signal.SIGKILL]]
    ours, peer = statistics.median(silent), statistics.median(restarts)
    return {
        "name": "failover", "n": kills, "ours": round(ours, 3), "peer": round(peer, 3), "unit": "s without answers", "ratio": round(peer / ours, 2),
        "max": round(max(silent), 3), "hang": [round(gap, 3) for gap, _ in found[signal.SIGSTOP]], "lease_s": LEASE_S, "peer_waits_s": YIELD_S,
        "acked": len(load.acked), "acked_per_s": round(len(load.acked) / span), "refused_and_repeated": load.refused, **verdict,
    }  # fmt: skip


def run(*, n: int = 10, repeats: int = 5) -> None:
    """`n` kills and `repeats // 2` hangs."""
    folder = Path(tempfile.mkdtemp(prefix="esplanade-bench-", dir="/var/tmp"))
    folder.chmod(0o755)
    try:
        result = asyncio.run(_measure(folder, n, max(1, repeats // 2)))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(result), flush=True)
    if result["lost"] or result["doubled"]:
        raise SystemExit(f"{result['lost']} acked payments lost, {result['doubled']} doubled")


async def check(url: str, acked: list[bytes]) -> dict[str, int]:
    """How many acked payments the journal lacks, and how many it has twice."""
    journal = await PostgresJournal.open(url)
    stored: Counter[bytes] = Counter()
    try:
        for ledger in range(LEDGERS):
            async for segment in journal.read(TENANT, partition_of(Address("ledger", TENANT, str(ledger)))):
                for event in segment.events:
                    body = decode_event(event.type, event.body)
                    if isinstance(body, Paid):
                        stored.update(body.key[i : i + 16] for i in range(0, len(body.key), 16))
    finally:
        await journal.close()
    return {"lost": sum(key not in stored for key in acked), "doubled": sum(count > 1 for count in stored.values()), "stored": len(stored)}


if __name__ == "__main__":
    read = sys.stdin.buffer.read()
    sys.stdout.buffer.write(msgspec.json.encode(asyncio.run(check(sys.argv[1], [read[i : i + 16] for i in range(0, len(read), 16)]))))
