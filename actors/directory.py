"""Which process owns a partition: address -> partition -> owner, as the lease table says. Owns the newest lease heard of for each partition.

A directory is a hint, never a right: a request sent by an old one is refused by the former owner, who may append nothing, and goes to the new one with the same key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec

from esplanade.core.errors import InvalidInput
from esplanade.core.ids import PARTITIONS
from esplanade.storage.journal import Lease

MAX_SHARDS = PARTITIONS

DIRECTORY_CHANNEL: Final = "esp:directory"
"""Where an owner says which leases it has just taken; msgpack of list[Lease]."""

encode_leases: Final = msgspec.msgpack.Encoder().encode
decode_leases: Final = msgspec.msgpack.Decoder(list[Lease]).decode

Moved = Callable[[frozenset[int]], None]


class Directory:
    """Owners by partition. Older news than what is held is ignored, in whatever order it comes."""

    def __init__(self) -> None:
        self._leases: dict[int, Lease] = {}
        self._owners: dict[int, str] = {}  # the processes of the leases
        self._listeners: list[Moved] = []

    def owner_of(self, partition: int) -> str | None:
        """Name of the process that owns it; None where nobody does yet."""
        return self._owners.get(partition)

    def processes(self) -> list[str]:
        """Names of all owners."""
        return sorted({process_of(lease.owner) for lease in self._leases.values()})

    @property
    def leases(self) -> Mapping[int, Lease]:
        return self._leases

    def when_moved(self, listener: Moved) -> None:
        """`listener` hears which partitions have another owner than before."""
        self._listeners.append(listener)

    def adopt(self, leases: Iterable[Lease]) -> frozenset[int]:
        """Take in news; returns the partitions that have another owner than before."""
        moved = set()
        for lease in leases:
            held = self._leases.get(lease.partition)
            if held is not None and held.epoch > lease.epoch:
                continue
            self._leases[lease.partition] = lease
            self._owners[lease.partition] = process_of(lease.owner)
            if held is None or held.owner != lease.owner:
                moved.add(lease.partition)
        found = frozenset(moved)
        if found:
            for listener in self._listeners:
                listener(found)
        return found


def owner_name(process: str, start: str) -> str:
    """The owner's name in the lease table: another one at each start of a process."""
    return f"{process}@{start}"


def process_of(owner: str) -> str:
    """Name of the process of an owner."""
    return owner.partition("@")[0]


def shard_of(partition: int, shards: int) -> int:
    """Index of the owner where nothing has moved yet: shard i of n owns the partitions p with p % n = i."""
    return partition % shards


def partitions_of(index: int, shards: int) -> list[int]:
    """What shard `index` of `shards` owns at the start. Raises InvalidInput."""
    if not 1 <= shards <= MAX_SHARDS or not 0 <= index < shards:
        raise InvalidInput(f"shard {index} of {shards}: there are 1 to {MAX_SHARDS} shards, numbered from 0")
    return list(range(index, PARTITIONS, shards))


SHARD_PREFIX: Final = "shard-"
"""Names of processes that may own partitions begin so."""


def shard_name(index: int) -> str:
    return f"{SHARD_PREFIX}{index}"
