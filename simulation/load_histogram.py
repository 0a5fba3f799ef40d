"""A histogram of durations with logarithmic buckets, mergeable over processes.

Owns counting and quantiles of durations from 1 microsecond to 71 minutes with a relative error below 1/64. It never keeps single samples and
never rounds down: a quantile is the upper edge of its bucket (at most the largest sample), so a stall is not made to look shorter.
Layout after Gil Tene's HdrHistogram: below 128 us a bucket a microsecond, above it 64 buckets for every doubling.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

_SUB: Final = 64
_MAX_US: Final = 2**32 - 1
BUCKETS: Final = 1728
"""Buckets of every histogram: enough for 2**32 - 1 microseconds."""


def _bucket_of(us: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Bucket of each value, shape (n,), for values in 0.._MAX_US."""
    _, exponent = np.frexp(us.astype(np.float64))  # us < 2**53: exact, and exponent is the bit length
    shift = np.maximum(exponent.astype(np.int64) - 7, 0)
    bucket: npt.NDArray[np.int64] = shift * _SUB + (us >> shift)
    return bucket


def _upper_us(bucket: int) -> int:
    """Largest value that falls into a bucket."""
    if bucket < 2 * _SUB:
        return bucket
    shift = bucket // _SUB - 1
    return ((bucket - shift * _SUB + 1) << shift) - 1


class DurationHistogram:
    """Counts of durations in microseconds. `merge` is associative and commutative, so processes may report in any order."""

    def __init__(self) -> None:
        self.counts: npt.NDArray[np.int64] = np.zeros(BUCKETS, np.int64)
        self.count = 0
        self.max_us = 0
        self.sum_us = 0

    def record_us(self, us: npt.NDArray[np.int64]) -> None:
        """Add durations, shape (n,), microseconds; below zero counts as zero, above 71 minutes as 71 minutes."""
        if not len(us):
            return
        clipped = np.clip(us, 0, _MAX_US).astype(np.int64)
        self.counts += np.bincount(_bucket_of(clipped), minlength=BUCKETS)
        self.count += len(clipped)
        self.max_us = max(self.max_us, int(clipped.max()))
        self.sum_us += int(clipped.sum())

    def record_one_us(self, us: int) -> None:
        """Add one duration, without arrays on the way in."""
        value = min(max(us, 0), _MAX_US)
        shift = max(value.bit_length() - 7, 0)
        self.counts[shift * _SUB + (value >> shift)] += 1
        self.count += 1
        self.max_us = max(self.max_us, value)
        self.sum_us += value

    def merge(self, other: DurationHistogram) -> None:
        """Add another histogram's counts to this one."""
        self.counts += other.counts
        self.count += other.count
        self.max_us = max(self.max_us, other.max_us)
        self.sum_us += other.sum_us

    def quantile_ms(self, q: float) -> float:
        """Duration in milliseconds that a share `q` (0 to 1) of the samples does not exceed; 0 where there are none."""
        if not self.count:
            return 0.0
        rank = min(max(int(np.ceil(q * self.count)), 1), self.count)
        bucket = int(np.searchsorted(np.cumsum(self.counts), rank))
        return min(_upper_us(bucket), self.max_us) / 1000.0

    def mean_ms(self) -> float:
        return self.sum_us / self.count / 1000.0 if self.count else 0.0

    def bars(self) -> list[tuple[float, int]]:
        """(upper edge in milliseconds, count) of the buckets that hold something, ascending."""
        return [(_upper_us(int(bucket)) / 1000.0, int(self.counts[bucket])) for bucket in np.flatnonzero(self.counts)]

    def to_state(self) -> dict[str, object]:
        """Plain data for a pipe or a file; read back by `from_state`."""
        used = np.flatnonzero(self.counts)
        return {"bucket": used.tolist(), "count": self.counts[used].tolist(), "max_us": self.max_us, "sum_us": self.sum_us}

    @classmethod
    def from_state(cls, state: dict[str, object]) -> DurationHistogram:
        histogram = cls()
        bucket, count = state["bucket"], state["count"]
        max_us, sum_us = state["max_us"], state["sum_us"]
        assert isinstance(bucket, list)
        assert isinstance(count, list)
        assert isinstance(max_us, int)
        assert isinstance(sum_us, int)
        histogram.counts[np.array(bucket, np.int64)] = np.array(count, np.int64)
        histogram.count = int(sum(count))
        histogram.max_us = max_us
        histogram.sum_us = sum_us
        return histogram
