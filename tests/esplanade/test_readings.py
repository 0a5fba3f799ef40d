"""What `esplanade profile` says of two looks at a shard is the difference between them, and all of it where the shard is another process than before."""

from __future__ import annotations

import io

import msgspec
import pytest
from rich.console import Console

from actors.messages import GetBalance
from actors.meter import BYTES, SECONDS, Histogram, HotActor, KindProfile
from actors.profile import ShardProfile
from esplanade.cli.readings import duration, read, size, tables
from esplanade.core.ids import Address
from tests.actors.stage import stage


async def look(asks: int) -> ShardProfile:
    """A real shard's profile after so many requests."""
    async with stage() as at:
        for i in range(asks):
            await at.system.ask(Address("ledger", "demo", str(i % 8)), GetBalance(subject=i % 8))
        profile = msgspec.convert((await at.system.profile())[0], ShardProfile)
    profile.flush_time, profile.flush_size = Histogram.of(SECONDS), Histogram.of(BYTES)
    return profile


async def test_rates_are_of_the_time_between_two_looks() -> None:
    before, after = await look(10), await look(30)
    after.owner = before.owner
    before.kinds = {"ledger": KindProfile(1000, 1.0, 5000, Histogram.of(SECONDS))}
    after.kinds = {"ledger": KindProfile(3000, 2.0, 9000, Histogram.of(SECONDS))}
    after.kinds["ledger"].turn_s.observe(0.001)
    after.hot, after.hot_span_s = [HotActor("ledger/demo/0", 500, 20, 0.1)], 10.0
    reading = read([before], [after], 4.0)
    [shard], [kind], [hot] = reading.shards, reading.kinds, reading.hot
    assert shard.turns_per_s == (30 - 10) / 4
    assert shard.answer_s.count == 20
    assert (kind.requests_per_s, kind.busy, kind.bytes_per_s, kind.turn_s.count) == (500.0, 0.25, 1000.0, 1)
    assert (hot.address, hot.requests_per_s, hot.over_per_s, hot.busy) == ("ledger/demo/0", 50.0, 2.0, 0.01)


async def test_a_shard_that_began_anew_is_read_from_its_start() -> None:
    before, after = await look(30), await look(10)
    after.owner, after.uptime_s = "shard-0@another", 2.0
    [shard] = read([before], [after], 4.0).shards
    assert shard.turns_per_s == 5.0
    assert shard.answer_s.count == 10


async def test_the_tables_hold_every_shard_kind_and_hot_actor_even_with_odd_names() -> None:
    profile = await look(5)
    profile.kinds = {"ledger": KindProfile(1, 0.1, 1, Histogram.of(SECONDS))}
    profile.hot = [HotActor("session/demo/[red]x", 5, 0, 0.0)]
    out = io.StringIO()
    Console(file=out, width=200).print(tables(read([], [profile], 0.0)))
    for text in ("shard-0", "ledger", "session/demo/[red]x", "at most too high"):
        assert text in out.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0, "-"), (8.3e-7, "0.83 us"), (0.00125, "1.25 ms"), (0.9999, "1,000 ms"), (12.0, "12 s"), (4000, "4,000 s")]
)
def test_durations_have_three_digits(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(0, "-"), (12, "12 B"), (1536, "1.5 KiB"), (5 * 2**20, "5 MiB")])
def test_sizes_have_three_digits(count: float, text: str) -> None:
    assert size(count) == text
