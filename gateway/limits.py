"""Numbers that bound a session, by role, and the token bucket that holds them. Pure: time is an argument."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gateway.frames import MAX_GUEST_MESSAGE_BYTES, MAX_MESSAGE_BYTES
from gateway.permissions import Role


@dataclass(frozen=True, slots=True)
class RoleLimits:
    """message_bytes: one message; frames_per_s and burst: the token bucket; subscriptions: topics at once; requests: unanswered at once;
    low_bytes: unsent bytes above which conflatable frames are left out; high_bytes: above which the reader is disconnected."""

    message_bytes: int
    frames_per_s: float
    burst: int
    subscriptions: int
    requests: int = 64
    low_bytes: int = 64 * 1024
    high_bytes: int = 1024 * 1024


_PERSON: Final = RoleLimits(message_bytes=MAX_GUEST_MESSAGE_BYTES, frames_per_s=20.0, burst=60, subscriptions=8)
_STAFF: Final = RoleLimits(
    message_bytes=MAX_MESSAGE_BYTES, frames_per_s=200.0, burst=600, subscriptions=256, low_bytes=512 * 1024, high_bytes=8 * 1024 * 1024
)

LIMITS: Final[dict[Role, RoleLimits]] = {
    "guest": _PERSON,
    "shopper": _PERSON,
    "feed": RoleLimits(
        message_bytes=MAX_MESSAGE_BYTES, frames_per_s=5000.0, burst=20_000, subscriptions=64, low_bytes=2 * 1024 * 1024, high_bytes=32 * 1024 * 1024
    ),
    "operator": _STAFF,
    "engineer": _STAFF,
}


class TokenBucket:
    """`rate` tokens a second, at most `burst` saved up."""

    __slots__ = ("__weakref__", "_at", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at = now

    def take(self, now: float, n: int = 1) -> bool:
        """Whether there were `n` tokens; takes them, or none."""
        tokens = self._tokens
        if now != self._at:  # not another frame of the same message
            if now > self._at:
                tokens += (now - self._at) * self._rate
                if tokens > self._burst:
                    tokens = self._burst
            self._at = now
        if tokens < n:
            self._tokens = tokens
            return False
        self._tokens = tokens - n
        return True

    def give_back(self, n: int) -> None:
        """What was taken for nothing: another bucket had not as many."""
        self._tokens += n
