"""Erasing a person: what was sealed with their key reads as erased from then on, who they are elsewhere is forgotten, and what they are signed in with ends.

Owns the order, in which each step may be made again. That it was done is for whoever asks to note in the audit trail.
"""

from __future__ import annotations

from esplanade.core.clock import SystemClock
from esplanade.storage.identity import IdentityStore, Revocation
from esplanade.storage.sealing import SubjectKeys
from gateway.signing_keys import KEEP_S


class Eraser:
    def __init__(self, keys: SubjectKeys, identities: IdentityStore, clock: SystemClock) -> None:
        self._keys = keys
        self._identities = identities
        self._clock = clock

    async def erase(self, tenant: str, subject: int) -> bool:
        """Whether there was a key. In force in every process within 30 s. The caller has the database remove the keys' former versions (`forget_destroyed_keys`). Raises Unavailable."""
        held = await self._keys.erase(tenant, str(subject))
        await self._identities.unlink(tenant, subject)
        now_ms = self._clock.unix_ms()
        await self._identities.revoke(Revocation(tenant, "subject", str(subject), now_ms, now_ms + round(KEEP_S * 1000)))
        return held
