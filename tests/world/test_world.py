"""Some hundred worlds without a fault, and faults planted one by one: the world sees each.

Thousands of seeds: `ESPLANADE_WORLD_SEEDS=0:5000 python -m pytest tests/world/test_world.py -q -k seed`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from actors.entity import Answers
from actors.flusher import Flusher
from actors.tenure import Tenure
from esplanade.storage.journal import Append, Lease, OutboxEntry, Published, StoredReply
from esplanade.storage.memory import MemoryJournal
from tests.world.world import ASTRAY, play, shelf

FIRST, LAST = (int(part) for part in os.environ.get("ESPLANADE_WORLD_SEEDS", "0:120").split(":"))
CALM = 1
"""Worlds in which every await of the database is crashed at, one by one."""
MAX_HUNT = 600
"""Seeds in which a planted fault must show."""


async def test_no_seed_loses_or_doubles_what_was_acked() -> None:
    on = await shelf()
    crashes = pauses = drains = 0
    for seed in range(FIRST, LAST):
        world = await play(seed, on)
        crashes, pauses, drains = crashes + world.crashes, pauses + world.pauses, drains + world.drains
    assert LAST - FIRST < 50 or min(crashes, pauses, drains) >= (LAST - FIRST) // 4, "the worlds are too quiet to show anything"


_TOLD = """
import asyncio
from tests.world.world import play, shelf

async def main():
    on = await shelf()
    for seed in (0, 1, 2):
        world = await play(seed, on)
        print(seed, world.step, world.awaits, world.chance.random())

asyncio.run(main())
"""


def test_a_world_is_its_seed_and_nothing_else() -> None:
    """Two processes whose sets and dicts of strings are ordered by other hashes live through the same, step by step: a seed that failed there fails here."""
    told = [
        subprocess.run([sys.executable, "-c", _TOLD], env={**os.environ, "PYTHONHASHSEED": salt}, capture_output=True, text=True, check=True).stdout
        for salt in ("1", "2")
    ]
    assert told[0].count("\n") == 3
    assert told[0] == told[1]


async def test_a_crash_at_whatever_await_of_the_database_loses_nothing() -> None:
    """In calm worlds that differ in nothing else: each place where a process waits for the database, before the effect and after it, is a crash of its own."""
    on = await shelf()
    for seed in range(FIRST, FIRST + CALM):
        awaits = (await play(seed, on, calm=True)).awaits
        assert awaits > 100
        crashed = [await play(seed, on, calm=True, crash_at=place) for place in range(1, awaits + 1)]
        assert sum(world.crashes for world in crashed) == awaits


def reply_before_the_append(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers leave at the end of the turn; the append follows."""
    monkeypatch.setattr(Flusher, "when_durable", lambda self, log, release: release(None))
    monkeypatch.setattr(Flusher, "when_all_durable", lambda self, logs, indices, release: release(indices, None))


def reply_when_the_flush_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers leave when the flush is on its way, before it is durable."""
    flush = Flusher._flush

    async def early(self: Flusher, batch: Any) -> None:
        batch.release(None)
        batch.waiting, batch.frames = [], []
        await flush(self, batch)

    monkeypatch.setattr(Flusher, "_flush", early)


def no_fence(monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal appends whatever comes, at whatever position is free."""
    commit = MemoryJournal._commit

    def unfenced(self: MemoryJournal, appends: Sequence[Append], outbox: Sequence[OutboxEntry], keys: Sequence[StoredReply]) -> list[Published]:
        moved = []
        for append in appends:
            head = len(self.store.logs.get((append.tenant, append.partition), ()))
            moved.append(Append(append.tenant, append.partition, self.store.leases[append.partition].epoch, head + 1, append.events))
        return commit(self, moved, outbox, keys)

    monkeypatch.setattr(MemoryJournal, "_commit", unfenced)


def takeover_without_a_new_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A takeover leaves the epoch as it is: the former owner's late append still passes."""
    acquire = MemoryJournal.acquire

    async def same(self: MemoryJournal, partitions: Sequence[int], owner: str, *, ttl_ms: int) -> list[Lease]:
        before = dict(self.store.leases)
        taken = []
        for lease in await acquire(self, partitions, owner, ttl_ms=ttl_ms):
            held = before.get(lease.partition)
            kept = lease if held is None else Lease(lease.partition, owner, held.epoch, lease.expires_unix_ms)
            self.store.leases[lease.partition] = kept
            taken.append(kept)
        return taken

    monkeypatch.setattr(MemoryJournal, "acquire", same)


def lost_dedupe(monkeypatch: pytest.MonkeyPatch) -> None:
    """A repeated command is done again."""
    monkeypatch.setattr(Answers, "find", lambda self, key: None)


def dedupe_forgotten_by_snapshots(monkeypatch: pytest.MonkeyPatch) -> None:
    """The remembered answers are not part of the snapshot."""
    monkeypatch.setattr(Answers, "save", lambda self: [])


def reads_outside_the_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shard that pauses past its lease goes on answering when it wakes."""
    monkeypatch.setattr(Tenure, "until_s", property(lambda self: float("inf"), lambda self, value: None), raising=False)


@pytest.mark.parametrize(
    ("fault", "first", "astray"),
    [
        (reply_before_the_append, 0, ASTRAY),
        (reply_when_the_flush_is_sent, 0, ASTRAY),
        (no_fence, 1, ASTRAY),
        (takeover_without_a_new_epoch, 237, ASTRAY),
        (lost_dedupe, 0, ASTRAY),
        (dedupe_forgotten_by_snapshots, 25, ASTRAY),
        (reads_outside_the_lease, 556, 0.5),
    ],
)
async def test_the_world_catches(fault: Callable[[pytest.MonkeyPatch], None], first: int, astray: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """`first`: where to begin, so that a fault that few worlds show is found soon. `astray`: only who is asked by an old directory answers what is no longer so."""
    on = await shelf()
    fault(monkeypatch)
    said = ""
    for seed in range(first, first + MAX_HUNT):
        try:
            await play(seed, on, astray=astray)
        except AssertionError as caught:
            said = str(caught)
            break
    assert "ESPLANADE_WORLD_SEEDS=" in said, f"{fault.__name__}: {MAX_HUNT} seeds did not show it, or do not say how to repeat them"
