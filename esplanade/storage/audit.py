"""The audit trail: who did what to what, from where, and what came of it. Lines are added and read; nothing changes or removes one, and the database's roles see to that.

Owns the line and the interface. Which acts are worth a line is for those who do them to say (`gateway.audit_trail`). Implementations: `postgres_audit`, `memory`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import msgspec

from esplanade.core.errors import InvalidInput

MAX_LINES: Final = 10_000
"""Lines that one `read` returns at most."""

MAX_FIELD_CHARS: Final = 512
NO_TENANT: Final = "-"
"""Of lines about somebody who is not known to belong to one, such as a token that does not verify."""

Detail = Mapping[str, str | int | float | bool | None]


class AuditLine(msgspec.Struct, frozen=True):
    """`id`: 16 bytes, made by the writer; the same again is the same line. `who`: `role:subject`. `what`: a declared act such as `offer.create`.

    `target`: an address or id. `origin`: where it came from (a client's network address, a command). `outcome`: `done`, or the code of the refusal.
    """

    id: bytes
    tenant: str
    at_unix_ms: int
    who: str
    what: str
    target: str
    origin: str
    outcome: str
    detail: Detail


class AuditLog(Protocol):
    async def append(self, lines: Sequence[AuditLine]) -> None:
        """Keep lines for ever; those kept already (by id) are left as they are. When it raises, the outcome is unknown: append the same again. Raises Unavailable."""
        ...

    async def lines(self, tenant: str, *, since_unix_ms: int = 0, limit: int = 1000) -> list[AuditLine]:
        """A tenant's lines of `since_unix_ms` and later, oldest first. Raises InvalidInput, Unavailable."""
        ...

    async def close(self) -> None: ...


def check_limit(limit: int) -> None:
    if not 1 <= limit <= MAX_LINES:
        raise InvalidInput(f"limit {limit}: must be 1 to {MAX_LINES}")


def shortened(text: str) -> str:
    """As it may stand in a line: text from outside has no limit of its own, and PostgreSQL holds no NUL."""
    return text[:MAX_FIELD_CHARS].replace("\0", "\N{REPLACEMENT CHARACTER}")
