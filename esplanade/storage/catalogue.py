"""The catalogue: tenants and the documents of their venues. Small, read on activation, written by operators."""

from __future__ import annotations

import hashlib
from typing import Final, Protocol

import msgspec

from esplanade.core.errors import InvalidInput, LimitExceeded
from esplanade.core.ids import check_name

FIRST_SUBJECT: Final = 2**30
"""Guests' subject numbers begin here; below are those that a recording or a simulation brings along."""

SUBJECTS_END: Final = 2**32
"""Subject numbers travel as u4."""

MAX_DOCUMENT_BYTES: Final = 64 * 2**20


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


class _Heading(msgspec.Struct):
    id: str
    name: str
    kind: str


def describe_venue(tenant: str, document: bytes, *, created_unix_ms: int) -> VenueEntry:
    """The entry of a venue document. Raises InvalidInput where it is no JSON object with the strings id, name and kind, or too big."""
    if len(document) > MAX_DOCUMENT_BYTES:
        raise InvalidInput(f"venue document of {len(document)} bytes; at most {MAX_DOCUMENT_BYTES}")
    try:
        heading = msgspec.json.decode(document, type=_Heading)
    except msgspec.DecodeError as error:
        raise InvalidInput(f"venue document: {error}; must be the JSON of a venue with id, name and kind") from error
    return VenueEntry(
        tenant=tenant, venue=check_name(heading.id, "venue id"), name=heading.name, kind=heading.kind,
        digest=hashlib.sha256(document).hexdigest(), created_unix_ms=created_unix_ms,
    )  # fmt: skip


def check_subject(tenant: str, number: int) -> int:
    """`number`, if it still fits. Raises LimitExceeded."""
    if number >= SUBJECTS_END:
        raise LimitExceeded(
            f"tenant {tenant!r} has used up its subject numbers ({FIRST_SUBJECT} to {SUBJECTS_END - 1}); serve new guests in another tenant"
        )
    return number
