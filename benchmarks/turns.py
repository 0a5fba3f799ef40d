"""Journalled turns a second of a plain actor through Ray, the whole runtime on, 1,024 commands a call; the peer writes a row an event into PostgreSQL.

Ours: keyed commands to 20,000 entities over all partitions of a service's two shard processes (lease and fence, dedupe by client and sequence, journal, profile), 32
calls in flight to each, answered when durable; a call goes to one shard, as a gateway gathers what goes to one. Every command makes an event, which carries its remembered answer. The peer keeps the same promise in the usual way: the same
commands in batches of 1,024 over four connections, each batch one transaction that inserts a row an event (`unnest`, one statement) under a unique
(entity, version), and one that updates the entities' versions. Same PostgreSQL, same settings, one after the other.
"""

from __future__ import annotations

import asyncio
import functools
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import psycopg

from actors.behaviour import Context, Decision, not_understood
from actors.directory import Directory, decode_leases, partitions_of, shard_name, shard_of
from actors.events import EventBody, QrScanned
from actors.messages import Command, Done, Rejected, ScanQr
from actors.partition_log import BEHAVIOURS
from actors.ray_system import ProcessHandle, RaySystem, spawn, start_ray
from actors.requests import Ask, Replied
from actors.system import Key
from esplanade.core.errors import Fault
from esplanade.core.ids import Address, partition_of
from esplanade.service_config import GC_YOUNG_DOOR, ServiceConfig, settle_collector
from esplanade.shard_process import ShardProcess
from esplanade.storage.embedded import start_postgres, start_redis
from esplanade.storage.postgres_migrate import migrate

ENTITIES = 20_000
CALL = 1_024
IN_FLIGHT = 32
SHARDS = 2
TENANT = "bench"
DONE = Done()
PEER_CONNECTIONS = 4


class Counter:
    """Counts its commands: as plain as an actor can be. Not of the product."""

    def initial(self) -> list[int]:
        return [0]

    def venue_of(self, address: Address, command: Command) -> str | None:
        return None

    def decide(self, state: list[int], command: Command, context: Context) -> Decision | Rejected:
        if not isinstance(command, ScanQr):
            return not_understood(command, context)
        return Decision((QrScanned(command.venue, command.location),), DONE)

    def apply(self, state: list[int], event: EventBody) -> list[int]:
        if not isinstance(event, QrScanned):
            raise Fault(f"a counter has no event {type(event).__name__}")
        state[0] += 1
        return state

    def save(self, state: list[int]) -> bytes:
        return str(state[0]).encode()

    def load(self, data: bytes) -> list[int]:
        return [int(data)]


def shard(config: ServiceConfig, index: int) -> ShardProcess:
    """Factory, run inside the shard's process: the product's shard with one more kind."""
    return ShardProcess(config, index, behaviours={**BEHAVIOURS, "counter": Counter()})


@functools.cache
def _entities(shard: int) -> list[Address]:
    """Of those in partitions of this shard."""
    addresses = [Address("counter", TENANT, str(i)) for i in range(ENTITIES)]
    return [address for address in addresses if shard_of(partition_of(address), SHARDS) == shard]


def _asks(sequence: int) -> list[Ask]:
    """A call to one shard: each of its entities at most once, so that a client has one command under way to each."""
    entities, begin = _entities(sequence % SHARDS), sequence // SHARDS * CALL
    command = ScanQr(venue="venue", location="entrance")
    return [Ask(entities[i % len(entities)], command, Key("client", 1 + i // len(entities))) for i in range(begin, begin + CALL)]


async def _ours(system: RaySystem, calls: list[list[Ask]]) -> float:
    waiting = iter(calls)

    async def caller() -> None:
        for asks in waiting:
            answers = await system.request_many(asks, deadline_s=60)
            if {*map(type, answers)} != {Replied}:
                raise AssertionError(f"{[answer for answer in answers if not isinstance(answer, Replied)][:3]}")

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(IN_FLIGHT * SHARDS)))
    return len(calls) * CALL / (time.perf_counter() - began)


_TABLES = """
    CREATE TABLE entity_row (entity text PRIMARY KEY, version bigint NOT NULL) WITH (fillfactor = 50);
    CREATE TABLE event_row (entity text, version bigint, client text, sequence bigint, type text, body bytea, reply bytea, PRIMARY KEY (entity, version));
"""
_PEER = """
    WITH moved AS (
        INSERT INTO entity_row AS e (entity, version) SELECT u.entity, 1 FROM unnest(%s::text[]) AS u (entity) ORDER BY u.entity
        ON CONFLICT (entity) DO UPDATE SET version = e.version + 1 RETURNING e.entity, e.version
    )
    INSERT INTO event_row SELECT moved.entity, moved.version, 'client', u.sequence, 'scan_qr.v1', u.body, u.reply
    FROM moved JOIN unnest(%s::text[], %s::bigint[], %s::bytea[], %s::bytea[]) AS u (entity, sequence, body, reply) USING (entity)
"""


async def _peer(url: str, calls: list[list[Ask]]) -> float:
    waiting = iter(calls)
    connections = [await psycopg.AsyncConnection.connect(url, autocommit=True) for _ in range(PEER_CONNECTIONS)]

    async def caller(connection: psycopg.AsyncConnection[Any]) -> None:
        for asks in waiting:
            entities = [str(ask.address) for ask in asks]
            sequences = [ask.key.sequence for ask in asks if ask.key is not None]
            await connection.execute(_PEER, (entities, entities, sequences, [b"venue/entrance"] * CALL, [b"\x81\xa1t\xa4done"] * CALL), binary=True)

    began = time.perf_counter()
    await asyncio.gather(*(caller(connection) for connection in connections))
    took = time.perf_counter() - began
    for connection in connections:
        await connection.close()
    return len(calls) * CALL / took


async def _measure(urls: tuple[str, str], n: int, repeats: int) -> dict[str, object]:
    config = ServiceConfig(
        postgres_url=urls[0], redis_url=urls[1], shards=SHARDS, spares=0, host="127.0.0.1", gateway_port=0, api_port=0, local_sign_in=False,
        allowed_origins=(), console=None, max_connections=1, lease_ttl_s=30.0, tick_deadline_s=10.0,
    )  # fmt: skip
    processes = [spawn("benchmarks.turns:shard", shard_name(i), config, i) for i in range(SHARDS)]
    directory = Directory()
    for i, process in enumerate(processes):
        await process.started()
        directory.adopt(decode_leases(await process.call("take", partitions_of(i, SHARDS))))
    system = RaySystem(directory)
    settle_collector(GC_YOUNG_DOOR)  # as a gateway does, which asks as this process does
    calls = max(20, n // CALL)
    made = 0

    def some() -> list[list[Ask]]:
        nonlocal made
        made += calls
        return [_asks(made - calls + i) for i in range(calls)]

    await _ours(system, some()), await _peer(urls[0], some())
    ours, peer = [], []
    pids = [await process.pid() for process in processes]
    spent: list[dict[str, float]] = []
    for i in range(repeats):
        before, commands = await _flushes(processes), some()
        at_first = _cpu_s(pids)
        ours.append(await _ours(system, commands))
        spent.append({part: seconds - at_first[part] for part, seconds in _cpu_s(pids).items()})
        flushes = await _flushes(processes) - before
        peer.append(await _peer(urls[0], some()))
        print(f"turns {i + 1}/{repeats}: ours {ours[-1]:,.0f} turns/s ({calls * CALL / flushes:,.0f} a flush), peer {peer[-1]:,.0f}", flush=True)
    stored = _stored(urls[0])
    for process in processes:
        await process.stop()
    mine, theirs = statistics.median(ours), statistics.median(peer)
    return {
        "name": "turns", "n": calls * CALL, "ours": round(mine), "peer": round(theirs), "unit": "turns/s", "ratio": round(mine / theirs, 2),
        "cpu_us_a_turn": {part: round(statistics.median(each[part] for each in spent) / (calls * CALL) * 1e6, 2) for part in spent[0]},
        "events_a_turn": 1, "entities": ENTITIES, "shards": SHARDS, "best": round(max(ours)), "stored_events": stored,
    }  # fmt: skip


def _cpu_s(shards: list[int]) -> dict[str, float]:
    """Processor time so far: of the shards, of PostgreSQL, of this process (which asks), of all else that it has started (Ray's own)."""
    own = psutil.Process()
    spent = dict.fromkeys(("shards", "postgres", "asker", "ray"), 0.0)
    for process in psutil.process_iter():
        try:
            name, times = process.name(), process.cpu_times()
            part = "asker" if process.pid == own.pid else "shards" if process.pid in shards else "postgres" if name == "postgres" else "ray"
            if part != "ray" or name in ("raylet", "gcs_server"):
                spent[part] += times.user + times.system
        except psutil.NoSuchProcess:
            continue
    return spent


async def _flushes(processes: list[ProcessHandle]) -> int:
    return sum([(await process.call("profile"))["flushes"] for process in processes])


def _stored(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT sum(l - f + 1) FROM esplanade.segment, unnest(first_versions, last_versions) AS u (f, l)").fetchone()
    return 0 if row is None else int(row[0])


def run(*, n: int = 200_000, repeats: int = 5) -> None:
    folder = Path(tempfile.mkdtemp(prefix="esplanade-bench-", dir="/var/tmp"))
    folder.chmod(0o755)
    servers: list[Any] = []
    try:
        servers += [start_postgres(folder), start_redis(folder)]
        migrate(servers[0].url)
        with psycopg.connect(servers[0].url) as connection:
            connection.execute(_TABLES)
        node = start_ray(processes=SHARDS)
        try:
            result = asyncio.run(_measure((servers[0].url, servers[1].url), n, repeats))
        finally:
            node.stop()
    finally:
        for server in servers:
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(result), flush=True)
