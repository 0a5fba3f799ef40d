"""Venue documents read from the catalogue and kept: parsed once a digest. Owns the cache and its age; nothing of what a venue means."""

from __future__ import annotations

import asyncio
from typing import Final

from actors.venue_book import VenueBook
from esplanade.storage.catalogue import Catalogue

FRESH_S: Final = 30.0
"""A book older than this (system clock) is compared with the catalogue again before it is used."""

MAX_BOOKS: Final = 64
"""Books kept; the one read longest ago goes first."""


class VenueShelf:
    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._books: dict[tuple[str, str], tuple[VenueBook, float]] = {}

    def at_hand(self, tenant: str, venue: str, now_s: float) -> VenueBook | None:
        held = self._books.get((tenant, venue))
        return held[0] if held is not None and now_s - held[1] < FRESH_S else None

    async def fetch(self, tenant: str, venue: str, now_s: float) -> VenueBook:
        """The book as the catalogue has it now. Raises NotFound, InvalidInput, Unavailable."""
        held = self._books.get((tenant, venue))
        digest = next((entry.digest for entry in await self._catalogue.venues(tenant) if entry.venue == venue), None)
        if held is not None and held[0].digest == digest:
            book = held[0]
        else:
            book = await asyncio.to_thread(VenueBook.read, await self._catalogue.venue(tenant, venue))
        self._books.pop((tenant, venue), None)
        while len(self._books) >= MAX_BOOKS:
            del self._books[next(iter(self._books))]
        self._books[(tenant, venue)] = book, now_s
        return book
