"""What a shard measures of itself: bounds of the sketch, quantiles of histograms, samples that no rhythm fools, and answers that sampling does not change."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.heavy_hitters import HeavyHitters
from actors.messages import GetBalance, TopUps
from actors.meter import HOT_WINDOW_S, SAMPLE, SAMPLE_SMALL, SECONDS, Histogram, Meter
from actors.requests import Answer, Ask
from esplanade.core.clock import ManualClock
from esplanade.core.errors import InvalidInput
from esplanade.core.ids import Address
from tests.actors.parkside import keys, u4
from tests.actors.stage import stage


@given(st.lists(st.tuples(st.sampled_from("abcdefghijklmnop"), st.integers(1, 9))), st.integers(1, 8))
def test_a_sketch_is_never_too_low_and_within_its_bound_too_high(stream: Sequence[tuple[str, int]], counters: int) -> None:
    sketch, true = HeavyHitters(counters), Counter[str]()
    for key, weight in stream:
        sketch.add(key, weight)
        true[key] += weight
    told = {count.key: count for count in sketch.heaviest(counters)}
    for count in told.values():
        assert true[count.key] <= count.weight <= true[count.key] + count.over
        assert count.over <= sketch.total / counters
    assert all(key in told for key, weight in true.items() if weight > sketch.total / counters)


def test_a_sketch_without_counters_is_refused() -> None:
    with pytest.raises(InvalidInput, match="0 counters"):
        HeavyHitters(0)


@given(st.lists(st.floats(1e-6, 9.0), min_size=1), st.sampled_from([0.01, 0.5, 0.99, 1.0]))
def test_a_quantile_lies_in_the_bucket_of_the_true_one(values: list[float], share: float) -> None:
    histogram = Histogram.of(SECONDS)
    for value in values:
        histogram.observe(value)
    true = sorted(values)[max(0, -int(-share * len(values) // 1) - 1)]
    told = histogram.quantile(share)
    bucket = next(i for i, bound in enumerate(SECONDS) if true <= bound)
    assert (SECONDS[bucket - 1] if bucket else 0.0) <= told <= SECONDS[bucket]


def test_values_beyond_the_last_bound_are_told_as_the_last_bound() -> None:
    histogram = Histogram.of(SECONDS)
    histogram.observe(1e6)
    assert histogram.quantile(0.5) == SECONDS[-1] == 10.0
    assert histogram.quantile(0.5) > Histogram.of(SECONDS).quantile(0.5) == 0.0


def test_what_was_observed_since_a_look_is_the_difference_and_all_of_it_after_a_restart() -> None:
    first, later = Histogram.of(SECONDS), Histogram.of(SECONDS)
    for value in (0.001, 0.5):
        first.observe(value)
        later.observe(value)
    later.observe(0.002)
    assert (later.since(first).total, later.since(None).total) == (1, 3)
    assert later.since(first).sum == pytest.approx(0.002)
    assert first.since(later).total == 2


@pytest.mark.parametrize("frame", [1, 7, 64, 1024])
def test_samples_are_spread_over_callers_that_come_in_a_rhythm(frame: int) -> None:
    meter = Meter(monotonic_s=ManualClock().monotonic_s, chance=random.Random(1))
    total, seen = 400_000, Counter[int]()
    for start in range(0, total, frame):
        chosen, weight = meter.sampled(frame)
        for at in chosen:
            assert 0 <= at < frame
            seen[(start + at) % 8] += 1
    samples = sum(seen.values())
    assert weight == (SAMPLE_SMALL if frame <= SAMPLE_SMALL else SAMPLE)
    assert samples * weight == pytest.approx(total, rel=0.1)
    assert all(count == pytest.approx(samples / 8, rel=0.35) for count in seen.values())


def test_a_hot_actor_is_told_while_it_is_hot_and_forgotten_after_two_windows() -> None:
    clock = ManualClock()
    meter = Meter(monotonic_s=clock.monotonic_s, chance=random.Random(1))
    for i in range(100):
        meter.timed("ledger", "ledger/demo/0" if i % 2 else f"ledger/demo/{i}", 1e-5, 10, SAMPLE)
    [hottest, *_], span_s = meter.hot()
    assert (hottest.address, hottest.requests, span_s) == ("ledger/demo/0", 51 * SAMPLE, 0.0)
    clock.advance(HOT_WINDOW_S)
    assert meter.hot()[0][0].address == "ledger/demo/0"
    clock.advance(HOT_WINDOW_S)
    assert meter.hot()[0] == []
    assert meter.kinds["ledger"].requests == 100 * SAMPLE


class _Always(random.Random):
    def random(self) -> float:
        return 0.0


async def test_requests_that_are_timed_get_the_answers_of_those_that_are_not() -> None:
    requests = [
        Ask(Address("ledger", "demo", str(i % 8)), TopUps(tick=0, key=keys(i // 3), subject=u4(i % 8), amount=u4(5), currency="EUR"))
        if i % 2
        else Ask(Address("ledger", "demo", str(i % 8)), GetBalance(subject=i % 8))
        for i in range(64)
    ]

    async def play(sampled: bool) -> list[Answer]:
        async with stage() as at:
            [shard] = at.system.shards
            if sampled:
                shard._meter = Meter(monotonic_s=at.clock.monotonic_s, chance=_Always())
            found = [answer for _ in range(2) for answer in await shard.answer(requests)]
            profile = shard.profile()
            assert profile.turns == 2 * len(requests)
            assert profile.answer_time.total == 2
            assert profile.mailbox_time.total == len(requests), "the first frame waited for its logs"
            assert profile.flush_time.total == profile.flushes > 0
            assert profile.flush_size.sum == profile.flushed_bytes
            if sampled:
                assert profile.kinds["ledger"].turn_s.total == 2 * len(requests)
                assert {actor.address for actor in profile.hot} == {f"ledger/demo/{i}" for i in range(8)}
            return found

    assert await play(True) == await play(False)
