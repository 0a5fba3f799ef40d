"""The duration histogram: error bound, never flattering, merge in any order."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from simulation.load_histogram import DurationHistogram

durations = st.lists(st.integers(min_value=0, max_value=2**32 - 1), min_size=1, max_size=200)


def _of(values: list[int]) -> DurationHistogram:
    histogram = DurationHistogram()
    histogram.record_us(np.array(values, np.int64))
    return histogram


@given(durations, st.floats(min_value=0.01, max_value=1.0))
def test_a_quantile_is_never_below_the_true_one_and_at_most_a_64th_above(values: list[int], q: float) -> None:
    rank = max(int(np.ceil(q * len(values))), 1)
    true_us = sorted(values)[rank - 1]
    told_us = _of(values).quantile_ms(q) * 1000
    assert true_us <= told_us + 1e-6
    assert told_us <= true_us * (1 + 1 / 64) + 1e-6


@given(durations, durations, durations)
def test_merging_in_any_order_equals_recording_everything_in_one(a: list[int], b: list[int], c: list[int]) -> None:
    left, right = _of(a), _of(c)
    left.merge(_of(b))
    left.merge(_of(c))
    right.merge(_of(a))
    right.merge(_of(b))
    whole = _of(a + b + c)
    for merged in (left, right):
        assert merged.counts.tolist() == whole.counts.tolist()
        assert (merged.count, merged.max_us, merged.sum_us) == (whole.count, whole.max_us, whole.sum_us)


@given(durations)
def test_one_by_one_equals_all_at_once_and_survives_the_pipe(values: list[int]) -> None:
    single = DurationHistogram()
    for value in values:
        single.record_one_us(value)
    again = DurationHistogram.from_state(single.to_state())
    assert again.counts.tolist() == _of(values).counts.tolist()
    assert (again.count, again.max_us, again.sum_us) == (len(values), max(values), sum(values))


def test_an_empty_histogram_answers_zero() -> None:
    assert DurationHistogram().quantile_ms(0.99) == 0.0
    assert DurationHistogram().bars() == []


def test_a_clock_that_went_back_counts_as_zero_and_not_as_a_huge_delay() -> None:
    histogram = _of([-5, 10])
    assert histogram.max_us == 10
    assert histogram.quantile_ms(0.5) == 0.0
