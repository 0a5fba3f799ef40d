"""Counter-based chance: every draw is a hash of (seed, subject, event), so no draw depends on who else drew before.

Owns the hash and what is derived from it. It must never hold a state: the caller keeps the event counter.
The mixer is splitmix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators", constants of the public-domain version).
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Final

_MASK: Final = (1 << 64) - 1
_NORMAL: Final = NormalDist()


def mix(z: int) -> int:
    """One round of splitmix64 on a 64-bit integer."""
    z = (z + 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


def uniform(seed: int, subject: int, event: int) -> float:
    """A number in the open interval (0, 1) for this triple; seed, subject and event are integers >= 0."""
    bits = mix(mix(mix(seed & _MASK) ^ subject) ^ event)
    return ((bits >> 11) + 0.5) * 2.0**-53


def normal(u: float) -> float:
    """Standard normal quantile of u in (0, 1)."""
    return _NORMAL.inv_cdf(u)


def log_normal(u: float, median: float, sigma: float) -> float:
    """Quantile u of a log-normal with this median and sigma of the logarithm."""
    return median * math.exp(sigma * normal(u))


def poisson(u: float, mean: float) -> int:
    """Quantile u of a Poisson distribution; means up to about 50 (itineraries), by summing the distribution."""
    k, term = 0, math.exp(-mean)
    total = term
    while u > total and k < 1000:
        k += 1
        term *= mean / k
        total += term
    return k
