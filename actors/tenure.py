"""Which partitions a shard owns, by the lease table: takes them, extends them, lets them go, and finds out what it has lost or been given.

A shard may answer inside its leases alone (`until_s`) and append under their epochs. Owns no log: what becomes of those is the shard's business.
"""

from __future__ import annotations

from collections.abc import Sequence

from esplanade.core.clock import SystemClock
from esplanade.core.errors import EsplanadeError
from esplanade.storage.journal import Journal, Lease


class Tenure:
    """Of one owner (a name unique to its process and start). `leases` by partition; `leaving`: those of them that are being handed over."""

    def __init__(self, journal: Journal, owner: str, *, ttl_ms: int, clock: SystemClock) -> None:
        self.leases: dict[int, Lease] = {}
        self.leaving: set[int] = set()
        self.until_s = float("-inf")
        self.stopping = False
        self._journal = journal
        self._owner = owner
        self._ttl_ms = ttl_ms
        self._clock = clock
        self._takes = 0  # takeovers begun and ended: a renewal that saw one come or go extends nothing
        self._unsure: dict[int, float] = {}  # partitions that the table may give to this owner although it holds no lease -> when to look

    async def take(self, partitions: Sequence[int]) -> list[Lease]:
        """Take over partitions, whoever holds them. Raises Unavailable."""
        began_s = self._clock.monotonic_s()
        self._takes += 1
        try:
            leases = await self._journal.acquire(sorted(partitions), self._owner, ttl_ms=self._ttl_ms)
        except EsplanadeError:
            self._unsure |= dict.fromkeys(partitions, began_s)  # where it took place after all, nobody else would take them: `renew` looks
            raise
        finally:
            self._takes += 1
        self._own(leases, began_s)
        return leases

    def _own(self, leases: list[Lease], began_s: float) -> None:
        if not self.leases:
            self.until_s = began_s + self._ttl_ms / 1000
        for lease in leases:
            self.leases[lease.partition] = lease
            self.leaving.discard(lease.partition)
            self._unsure.pop(lease.partition, None)

    def let_go(self, partitions: set[int]) -> None:
        """Those that are still leaving have been handed over."""
        look_s = self._clock.monotonic_s() + self._ttl_ms / 1000
        for partition in partitions & self.leaving:
            self.leases.pop(partition, None)
            self._unsure[partition] = look_s  # the next owner may die before it takes it
        self.leaving.difference_update(partitions)

    async def renew(self) -> tuple[list[Lease], list[int]]:
        """Extend the leases. Returns those that the table gives to this owner although it did not know (a takeover whose answer was lost, a hand-over that nobody took up),
        and the partitions that another owner has taken."""
        began_s = self._clock.monotonic_s()
        asked, takes = dict(self.leases), self._takes
        unsure = {partition for partition, look_s in self._unsure.items() if began_s >= look_s}
        try:
            found = [lease for lease in await self._journal.leases() if lease.partition in unsure and lease.owner == self._owner] if unsure else []
            # where the table gives anew what was lost meanwhile, its lease counts and not the old one
            wanted = list((asked | {lease.partition: lease for lease in found}).values())
            kept = await self._journal.renew(wanted, ttl_ms=self._ttl_ms) if wanted else []
        except EsplanadeError:
            return [], []  # the leases run out by themselves; until then this shard may answer
        held = {lease.partition: lease for lease in kept}
        gained = [held[lease.partition] for lease in found if lease.partition in held and lease.partition in self._unsure]
        undisturbed = takes == self._takes and takes % 2 == 0
        if unsure and undisturbed:
            for partition in unsure:
                self._unsure.pop(partition, None)
        if not undisturbed or self.stopping:
            gained = []
        if gained:
            self._own(gained, began_s)
        lost = []
        for partition, lease in asked.items():
            if self.leases.get(partition) is not lease:
                continue  # taken anew, or handed over, meanwhile
            if partition in held and held[partition].epoch == lease.epoch:
                self.leases[partition] = held[partition]
                continue
            del self.leases[partition]
            lost.append(partition)
        if asked and undisturbed:
            self.until_s = began_s + self._ttl_ms / 1000
        return gained, lost
