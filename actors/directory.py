"""Which shard owns an address: address -> partition -> shard. Shard i of n owns the partitions p with p % n = i; the lease table says so to everyone else."""

from __future__ import annotations

from esplanade.core.errors import InvalidInput
from esplanade.core.ids import PARTITIONS

MAX_SHARDS = PARTITIONS


def shard_of(partition: int, shards: int) -> int:
    """Index of the owner."""
    return partition % shards


def partitions_of(index: int, shards: int) -> list[int]:
    """What shard `index` of `shards` owns. Raises InvalidInput."""
    if not 1 <= shards <= MAX_SHARDS or not 0 <= index < shards:
        raise InvalidInput(f"shard {index} of {shards}: there are 1 to {MAX_SHARDS} shards, numbered from 0")
    return list(range(index, PARTITIONS, shards))


def shard_name(index: int) -> str:
    return f"shard-{index}"
