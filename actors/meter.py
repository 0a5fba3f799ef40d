"""What a shard measures of its work beyond plain counters: by kind, in histograms, and which actors are hot. Costs a turn next to nothing: a few requests, drawn by
chance, are timed alone, all else is counted once a frame, a flush or a wait.

Owns the sampling and the shapes of what is told; decides nothing. Sampled figures (`KindProfile`, `HotActor`) are estimates: each sample stands for as many requests as it was drawn
from, so a figure made of s samples is off by about its 1/sqrt(s).
"""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from actors.heavy_hitters import HeavyHitters

SAMPLE: Final = 256
SAMPLE_SMALL: Final = 16
"""Requests for each that is timed, on average: in frames, and in frames of at most SAMPLE_SMALL requests, which cost a request so much more that denser samples do not show.
Gaps are drawn evenly from 1 to twice that, so that no rhythm of the callers hides an actor."""
HOT_COUNTERS: Final = 128
"""Counters of the sketch of hot actors: an actor's share of the requests is told at most 1 / HOT_COUNTERS too high."""
HOT_TOLD: Final = 20
HOT_WINDOW_S: Final = 10.0
"""Hot actors are those of the window under way and the one before it."""

SECONDS: Final = tuple(digit * 10.0**power for power in range(-6, 2) for digit in (1, 2, 5))[:22]
"""Bounds of durations: 1, 2, 5, ... from a microsecond to ten seconds."""
BYTES: Final = tuple(float(4**power) for power in range(4, 14))
"""Bounds of sizes: from 256 bytes to 64 MiB, each four times the one before."""


class Histogram(msgspec.Struct):
    """`counts[i]` values were at most `bounds[i]` (and above the bound before); the last count is of values beyond all bounds. `sum`: of the values."""

    bounds: tuple[float, ...]
    counts: list[int]
    sum: float = 0.0

    @classmethod
    def of(cls, bounds: tuple[float, ...]) -> Histogram:
        return cls(bounds, [0] * (len(bounds) + 1))

    def observe(self, value: float, count: int = 1) -> None:
        """So many of this value."""
        self.counts[bisect_left(self.bounds, value)] += count
        self.sum += count * value

    @property
    def total(self) -> int:
        return sum(self.counts)

    def quantile(self, share: float) -> float:
        """The value below which `share` of the values lie, interpolated within its bucket; the last bound where it lies beyond; 0 where there is none."""
        total = self.total
        if not total:
            return 0.0
        wanted, below = share * total, 0
        for i, count in enumerate(self.counts[:-1]):
            if count and below + count >= wanted:
                low = self.bounds[i - 1] if i else 0.0
                return low + (self.bounds[i] - low) * (wanted - below) / count
            below += count
        return self.bounds[-1]

    def since(self, before: Histogram | None) -> Histogram:
        """What was observed after `before`, an earlier state of the same histogram; all of it where that counted more (another process began anew)."""
        if before is None or before.bounds != self.bounds or any(now < then for now, then in zip(self.counts, before.counts, strict=True)):
            return self
        return Histogram(self.bounds, [now - then for now, then in zip(self.counts, before.counts, strict=True)], self.sum - before.sum)


class KindProfile(msgspec.Struct):
    """Of one kind of actor, estimated from samples: requests, time in their turns, bytes of their events. `turn_s`: the sampled times themselves."""

    requests: int
    seconds: float
    bytes: int
    turn_s: Histogram


class HotActor(msgspec.Struct, frozen=True):
    """An actor's requests and time in turns within `hot_span_s`, estimated; `requests` may be `over` too high (the sketch's bound), beside the sampling's error."""

    address: str
    requests: int
    over: int
    seconds: float


class Stopwatch:
    """Times the chosen requests of a frame while all of them run one after another. `at`: before which request it wants to be looked at next; -1: before none.

    `told(index, took_s, size)` gets the seconds of a request and by how much what was gathered has grown.
    """

    __slots__ = ("_chosen", "_monotonic_s", "_timing", "_told", "at")

    def __init__(self, chosen: Iterable[int], monotonic_s: Callable[[], float], told: Callable[[int, float, int], None]) -> None:
        self._chosen = iter(chosen)
        self._monotonic_s = monotonic_s
        self._told = told
        self._timing: tuple[int, float, int] | None = None
        self.at = next(self._chosen, -1)

    def look(self, index: int, gathered: int) -> int:
        """Request `index` is the next to run; returns `at`."""
        now_s = self._monotonic_s()
        if self._timing is not None:
            timed, began_s, before = self._timing
            self._timing = None
            self._told(timed, now_s - began_s, max(0, gathered - before))
            self.at = next(self._chosen, -1)
        if index == self.at:
            self._timing = index, self._monotonic_s(), gathered
            self.at = index + 1
        return self.at


class Meter:
    """`chance` draws the samples; it decides nothing else."""

    def __init__(self, *, monotonic_s: Callable[[], float], chance: random.Random) -> None:
        self.answer_s = Histogram.of(SECONDS)  # of frames: from their coming to their last answer, durable
        self.mailbox_s = Histogram.of(SECONDS)  # of requests that waited for their log or venue
        self.replay_s = Histogram.of(SECONDS)  # of logs
        self.kinds: dict[str, KindProfile] = {}
        self._monotonic_s = monotonic_s
        self._chance = chance
        self._ahead = {every: self._gap(every) for every in (SAMPLE, SAMPLE_SMALL)}
        self._began_s = monotonic_s()
        self._hot = HeavyHitters(HOT_COUNTERS)
        self._hot_before: HeavyHitters | None = None
        self._before_s = 0.0

    def _gap(self, every: int) -> int:
        return 1 + int(self._chance.random() * (2 * every - 1))

    def sampled(self, requests: int) -> tuple[list[int] | tuple[()], int]:
        """Which of a frame's requests to time, and how many requests each of them stands for."""
        every = SAMPLE if requests > SAMPLE_SMALL else SAMPLE_SMALL
        ahead = self._ahead[every]
        if ahead > requests:
            self._ahead[every] = ahead - requests
            return (), every
        chosen, at = [], ahead - 1
        while at < requests:
            chosen.append(at)
            at += self._gap(every)
        self._ahead[every] = at - requests + 1
        return chosen, every

    def timed(self, kind: str, address: str, took_s: float, size: int, weight: int) -> None:
        """A sampled request that stands for `weight`: time of its turn, bytes of its events."""
        held = self.kinds.get(kind)
        if held is None:
            held = self.kinds[kind] = KindProfile(0, 0.0, 0, Histogram.of(SECONDS))
        held.requests += weight
        held.seconds += weight * took_s
        held.bytes += weight * size
        held.turn_s.observe(took_s)
        self._turn_over()
        self._hot.add(address, weight, weight * took_s)

    def _turn_over(self) -> None:
        now_s = self._monotonic_s()
        span_s = now_s - self._began_s
        if span_s >= HOT_WINDOW_S:
            self._hot_before, self._before_s = (self._hot, span_s) if span_s < 2 * HOT_WINDOW_S else (None, 0.0)
            self._hot, self._began_s = HeavyHitters(HOT_COUNTERS), now_s

    def hot(self) -> tuple[list[HotActor], float]:
        """The hottest actors, most requests first, and the seconds that they are told of."""
        self._turn_over()
        found: dict[str, HotActor] = {}
        for sketch in (self._hot, self._hot_before):
            for key, weight, over, seconds in sketch.heaviest(HOT_COUNTERS) if sketch is not None else ():
                known = found.get(key, HotActor(key, 0, 0, 0.0))
                found[key] = HotActor(key, known.requests + weight, known.over + over, known.seconds + seconds)
        ordered = sorted(found.values(), key=lambda actor: (-actor.requests, actor.address))[:HOT_TOLD]
        return ordered, self._monotonic_s() - self._began_s + self._before_s
