"""The catalogue: tenants and the documents of their venues. Small, read on activation, written by operators."""

from __future__ import annotations

from typing import Protocol

import msgspec


class VenueEntry(msgspec.Struct, frozen=True):
    tenant: str
    venue: str
    name: str
    kind: str
    digest: str  # sha256 hex of the document
    created_unix_ms: int


class Catalogue(Protocol):
    async def add_tenant(self, tenant: str, name: str) -> None:
        """Idempotent."""
        ...

    async def tenants(self) -> list[str]: ...

    async def put_venue(self, tenant: str, document: bytes) -> VenueEntry:
        """Store a venue document (JSON of `spatial.venue.Venue`), replacing one with the same id. The caller has validated it."""
        ...

    async def venue(self, tenant: str, venue: str) -> bytes:
        """The document. Raises NotFound."""
        ...

    async def venues(self, tenant: str | None = None) -> list[VenueEntry]: ...

    async def next_subject(self, tenant: str) -> int:
        """A fresh subject number for a guest: 2**30 and up, never given twice in a tenant."""
        ...

    async def secret(self, name: str, make: bytes) -> bytes:
        """The named secret (signing keys); stores `make` if there is none yet. All processes see the same."""
        ...

    async def close(self) -> None: ...
