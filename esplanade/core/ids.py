"""Addresses of entities, and the cut of the key space into partitions.

An address is `kind/tenant/id`. What belongs to one venue shares the venue's partition, so that a venue's mall, zones and
position host live in one shard: their ids begin with the venue's id, then ":" and the rest.
"""

from __future__ import annotations

import re
import zlib
from typing import Final, NamedTuple

from esplanade.core.errors import InvalidInput

PARTITIONS: Final = 256
"""The key space is cut into this many partitions; fixed for the life of a deployment."""

VENUE_KINDS: Final = frozenset({"mall", "festival", "zone", "positions"})
"""Kinds pinned to their venue's partition."""

_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:\-]{0,127}")


class Address(NamedTuple):
    """`kind/tenant/id`: for example `mall/demo/parkside`, `zone/demo/parkside:unit-12`, `ledger/demo/3`."""

    kind: str
    tenant: str
    id: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.tenant}/{self.id}"

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read `kind/tenant/id`. Raises InvalidInput for anything else."""
        parts = text.split("/")
        if len(parts) != 3 or not all(_PART.fullmatch(part) for part in parts):
            raise InvalidInput(f"address {text[:200]!r}: must be kind/tenant/id, each of 1-128 letters, digits, '.', '_', ':' or '-'")
        return cls(*parts)


def check_name(value: str, what: str) -> str:
    """Return `value` if it can be a part of an address; raises InvalidInput otherwise."""
    if not _PART.fullmatch(value):
        raise InvalidInput(f"{what} {value[:200]!r}: must be 1-128 letters, digits, '.', '_', ':' or '-', beginning with a letter or digit")
    return value


def partition_of(address: Address) -> int:
    """Partition of an address, 0 to PARTITIONS - 1: CRC-32 of `tenant/id`, or of `tenant/venue` for venue kinds."""
    key = address.id.partition(":")[0] if address.kind in VENUE_KINDS else f"{address.kind}:{address.id}"
    return zlib.crc32(f"{address.tenant}/{key}".encode()) % PARTITIONS
