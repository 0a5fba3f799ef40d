"""Hybrid logical clock: stamps that follow wall time, never go back and order events of all clients the same way everywhere.

Owns the arithmetic; wall time is an argument. A stamp is one integer: milliseconds since 1970 times 65,536, plus a count within the millisecond.
Source: Kulkarni et al., Logical Physical Clocks (2014).
"""

from __future__ import annotations

from typing import Final

from esplanade.core.errors import InvalidInput

LOGICAL_BITS: Final = 16
MAX_AHEAD_MS: Final = 60_000
"""A stamp further ahead of our wall clock than this is refused: it would win every conflict until then."""
MAX_STAMP: Final = 1 << 63


class HybridClock:
    """The last stamp given or seen."""

    def __init__(self, last: int = 0) -> None:
        self.last = last

    def tick(self, now_ms: int) -> int:
        """A stamp for an event of ours, above every one given or seen."""
        self.last = max(self.last + 1, now_ms << LOGICAL_BITS)
        return self.last

    @staticmethod
    def fits(stamp: int, now_ms: int) -> bool:
        """Whether a stamp is one, and not from the future."""
        return 0 < stamp < MAX_STAMP and (stamp >> LOGICAL_BITS) <= now_ms + MAX_AHEAD_MS

    def check(self, stamp: int, now_ms: int) -> None:
        """Raises InvalidInput for a stamp from the future."""
        if not self.fits(stamp, now_ms):
            ahead = (stamp >> LOGICAL_BITS) - now_ms
            raise InvalidInput(f"operation stamped {ahead} ms ahead of our clock: at most {MAX_AHEAD_MS} ms; set the client's clock")

    def see(self, stamp: int) -> None:
        """Take note of a checked stamp of another's."""
        self.last = max(self.last, stamp)
