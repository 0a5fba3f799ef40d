"""The catalogue: tenants, the documents of their venues and their radio maps. Small, read on activation, written by operators."""

from __future__ import annotations

import hashlib
from typing import Final, Protocol

import msgspec

from esplanade.core.errors import InvalidInput, LimitExceeded, NotFound
from esplanade.core.ids import check_name

FIRST_SUBJECT: Final = 2**30
"""Guests' subject numbers begin here; below are those that a recording or a simulation brings along."""

SUBJECTS_END: Final = 2**32
"""Subject numbers travel as u4."""

MAX_DOCUMENT_BYTES: Final = 64 * 2**20

MAX_RADIO_MAP_BYTES: Final = 256 * 2**20
RADIO_MAPS_KEPT: Final = 4
"""Versions of one venue's radio map; older ones go when a new one comes."""


class VenueEntry(msgspec.Struct, frozen=True):
    tenant: str
    venue: str
    name: str
    kind: str
    digest: str  # sha256 hex of the document
    created_unix_ms: int


class RadioMapEntry(msgspec.Struct, frozen=True):
    """A venue's radio map in force: `version` counts what was published for the venue, `digest` is the sha256 hex of the file."""

    venue: str
    version: int
    digest: str


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

    async def put_radio_map(self, tenant: str, venue: str, body: bytes) -> RadioMapEntry:
        """Put a venue's radio map in force; the same again changes nothing. The caller has validated it. RADIO_MAPS_KEPT are kept. Raises NotFound without the venue, InvalidInput."""
        ...

    async def radio_map_entry(self, tenant: str, venue: str) -> RadioMapEntry | None:
        """What is in force, without reading it."""
        ...

    async def radio_map(self, tenant: str, venue: str, version: int) -> bytes:
        """Raises NotFound, also for a version that is no longer kept."""
        ...

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


def check_radio_map(venue: str, body: bytes) -> str:
    """Its digest. Raises InvalidInput where it is empty or too big."""
    if not 0 < len(body) <= MAX_RADIO_MAP_BYTES:
        raise InvalidInput(f"radio map of {venue}: {len(body)} bytes; must be 1 to {MAX_RADIO_MAP_BYTES}")
    return hashlib.sha256(body).hexdigest()


def no_such_map(tenant: str, venue: str, version: int) -> NotFound:
    return NotFound(f"radio map {version} of {venue!r} of {tenant!r}: not kept; ask for the one in force")


def check_subject(tenant: str, number: int) -> int:
    """`number`, if it still fits. Raises LimitExceeded."""
    if number >= SUBJECTS_END:
        raise LimitExceeded(
            f"tenant {tenant!r} has used up its subject numbers ({FIRST_SUBJECT} to {SUBJECTS_END - 1}); serve new guests in another tenant"
        )
    return number
