"""Webhooks: which topics of a venue a partner is told of, how far each is delivered, what was tried, and what was given up; and the partners who may tell us.

Owns the records and the interface; what a delivery is, and when to try again, is for `gateway.webhooks`. Secrets come sealed. Implementations: `postgres_webhooks`, `memory_webhooks`; one contract
suite for both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal, Protocol

import msgspec

from esplanade.core.errors import LimitExceeded, NotFound

MAX_WEBHOOKS: Final = 50
"""Of one tenant, and as many sources."""
MAX_LOG: Final = 1_000
"""Attempts kept of one webhook; the oldest go."""
MAX_DEAD: Final = 10_000
"""Dead letters kept of one webhook; the oldest go."""

Outcome = Literal["delivered", "failed", "dead", "lost", "replayed"]
"""`failed`: tried again; `dead`: given up, and kept as a dead letter; `lost`: past the outbox's keeping before it could be delivered."""
SourceKind = Literal["payments", "sensors"]


class Webhook(msgspec.Struct, frozen=True, kw_only=True):
    """`types`: kinds of events; `where`: JSON of a filter, or empty. `secret`, `former`: sealed; the former one signs too until `former_until_unix_ms`."""

    tenant: str
    id: str
    url: str
    venue: str
    types: tuple[str, ...]
    where: str
    secret: bytes
    former: bytes = b""
    former_until_unix_ms: int = 0
    enabled: bool = True
    created_unix_ms: int


class Cursor(msgspec.Struct, frozen=True, kw_only=True):
    """All of a topic up to (epoch, offset) is delivered or given up. `attempts`: of what comes next; `failing`: what came last was given up. Held by its claimant until `held_until_unix_ms`."""

    tenant: str
    webhook: str
    topic: str
    epoch: int
    offset: int
    attempts: int = 0
    failing: bool = False
    due_unix_ms: int = 0
    held_until_unix_ms: int = 0


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One try. `status`: of HTTP, 0 where there was no answer."""

    message: str
    topic: str
    epoch: int
    offset: int
    type: str
    at_unix_ms: int
    attempt: int
    status: int
    outcome: Outcome
    error: str = ""


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """`body`: as it was to be sent."""

    message: str
    type: str
    body: bytes
    at_unix_ms: int
    attempts: int
    error: str


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Who may tell of payments or sensors of a venue. `secret`: sealed."""

    tenant: str
    id: str
    kind: SourceKind
    venue: str
    secret: bytes
    created_unix_ms: int


class WebhookStore(Protocol):
    """Every call may raise Unavailable."""

    async def add(self, webhook: Webhook, places: Mapping[str, tuple[int, int]]) -> None:
        """Keep a webhook and where it begins in each topic. Raises LimitExceeded beyond MAX_WEBHOOKS of a tenant, NotFound for an unknown tenant."""
        ...

    async def change(self, webhook: Webhook) -> None:
        """Its URL, secrets and whether it is enabled. Raises NotFound."""
        ...

    async def remove(self, tenant: str, webhook: str) -> None:
        """With all that is kept about it. Raises NotFound."""
        ...

    async def webhook(self, tenant: str, webhook: str) -> Webhook:
        """Raises NotFound."""
        ...

    async def webhooks(self, tenant: str) -> list[Webhook]:
        """By id."""
        ...

    async def claim(self, *, now_unix_ms: int, hold_ms: int, limit: int) -> list[tuple[Webhook, Cursor]]:
        """Cursors of enabled webhooks that are due, that nobody holds and whose topic has more; from now on the caller holds them for `hold_ms`."""
        ...

    async def settle(self, held: Cursor, now: Cursor, attempts: Sequence[Attempt] = (), dead: DeadLetter | None = None) -> bool:
        """Write where a cursor is now, with what was tried, in one transaction. False, and nothing is written, where `held` is not held any more (its time was over and another has it)."""
        ...

    async def attempts(self, tenant: str, webhook: str, *, limit: int) -> list[Attempt]:
        """The newest first."""
        ...

    async def dead(self, tenant: str, webhook: str, *, after: str = "", limit: int) -> list[DeadLetter]:
        """By message, those after one."""
        ...

    async def dead_letter(self, tenant: str, webhook: str, message: str) -> DeadLetter:
        """Raises NotFound."""
        ...

    async def revive(self, tenant: str, webhook: str, attempt: Attempt, *, gone: bool) -> None:
        """Note that a dead letter was tried again; `gone`: with success, and it is one no more."""
        ...

    async def add_source(self, source: Source) -> None:
        """Raises LimitExceeded, NotFound for an unknown tenant."""
        ...

    async def remove_source(self, tenant: str, source: str) -> None:
        """Raises NotFound."""
        ...

    async def source(self, tenant: str, source: str) -> Source:
        """Raises NotFound."""
        ...

    async def sources(self, tenant: str) -> list[Source]:
        """By id."""
        ...

    async def close(self) -> None: ...


def no_webhook(tenant: str, webhook: str) -> NotFound:
    return NotFound(f"webhook {webhook[:200]!r} of {tenant}: there is none of this id; GET /v1/webhooks lists them")


def no_source(tenant: str, source: str) -> NotFound:
    return NotFound(f"source {source[:200]!r} of {tenant}: there is none of this id; GET /v1/sources lists them")


def too_many(what: str, tenant: str) -> LimitExceeded:
    return LimitExceeded(f"{tenant} has {MAX_WEBHOOKS} {what}: at most so many; remove one first")
