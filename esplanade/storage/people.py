"""When somebody was last heard of: what retention is counted from.

Owns the interface. Who counts as heard of is for those who hear them (`gateway.heard`), who goes for `esplanade.retention`. Implementations: `postgres_people`, `memory`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import msgspec

MAX_PEOPLE: Final = 10_000
"""People that one call takes or returns at most."""


class Person(msgspec.Struct, frozen=True):
    tenant: str
    subject: int
    heard_ms: int


class People(Protocol):
    """Every call raises Unavailable while the store is away."""

    async def hear(self, heard: Sequence[Person]) -> None:
        """Keep the newest time of each; of a tenant that is not there nobody is kept."""
        ...

    async def silent(self, tenant: str, *, before_ms: int, limit: int) -> list[Person]:
        """Those last heard of before a time, silent longest first."""
        ...

    async def forget(self, person: Person) -> bool:
        """Whether they were there, and not heard of since; they are gone then."""
        ...

    async def close(self) -> None: ...
