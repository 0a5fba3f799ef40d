"""Which keys of a stream are frequent, in bounded memory: the space-saving sketch of Metwally, Agrawal and El Abbadi (ICDT 2005, "Efficient computation of frequent and
top-k elements in data streams").

Owns counters and their error bound; knows neither actors nor time. With k counters and a total weight W, a key's count is at most W / k too high and never too low, and
every key whose weight is above W / k is among them.
"""

from __future__ import annotations

import heapq
from typing import NamedTuple

from esplanade.core.errors import InvalidInput


class Count(NamedTuple):
    """`weight` of a key is at most `over` too high. `value`: what was added beside it since the key got its counter."""

    key: str
    weight: int
    over: int
    value: float


class HeavyHitters:
    """A sketch of `counters` keys. Adding to a known key costs a look-up; a new one, once the sketch is full, takes the place of the lightest, found in a heap."""

    def __init__(self, counters: int) -> None:
        if counters < 1:
            raise InvalidInput(f"{counters} counters: a sketch has at least 1")
        self.total = 0
        self._counters = counters
        self._held: dict[str, list[float]] = {}  # key -> [weight, over, value]
        self._lightest: list[tuple[float, str]] = []  # a heap with every key once, at a weight that it has or had

    def add(self, key: str, weight: int, value: float = 0.0) -> None:
        self.total += weight
        held = self._held.get(key)
        if held is not None:
            held[0] += weight
            held[2] += value
        elif len(self._held) < self._counters:
            self._held[key] = [weight, 0, value]
            heapq.heappush(self._lightest, (weight, key))
        else:
            heap = self._lightest
            while (now := self._held[heap[0][1]][0]) != heap[0][0]:
                heapq.heapreplace(heap, (now, heap[0][1]))
            floor, least = heap[0]
            del self._held[least]
            self._held[key] = [floor + weight, floor, value]
            heapq.heapreplace(heap, (floor + weight, key))

    def heaviest(self, n: int) -> list[Count]:
        """The n keys with the largest counts, largest first."""
        ordered = sorted(self._held.items(), key=lambda entry: (-entry[1][0], entry[0]))
        return [Count(key, int(weight), int(over), value) for key, (weight, over, value) in ordered[:n]]
