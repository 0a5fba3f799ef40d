"""The offers of a venue, as malls and festivals hold them: create, end, list. A part of their behaviours, not an entity.

Owns the rules for offers and none for pushes: who gets one is the position host's business (`spatial.offers` states the rule).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import msgspec

from actors.behaviour import Context, Decision
from actors.events import OfferCreated, OfferEnded
from actors.messages import CreateOffer, Done, EndOffer, GetOffers, Offers, Rejected
from actors.topics import OfferChanged
from actors.venue_book import VenueBook
from esplanade.core.errors import InvalidInput
from spatial.offers import MAX_OFFERS, Offer, check_offer

MAX_OFFERS_EVER: Final = 32_768
"""Offers of a venue, ended ones included: their caps must be remembered."""


@dataclass(slots=True)
class OfferBook:
    """`revision` grows with every change, so that the position host sees one by comparing a number."""

    offers: dict[str, Offer] = field(default_factory=dict)
    revision: int = 0

    def running(self, tick: int) -> dict[str, tuple[str, ...]]:
        """Offers running at `tick`, by unit, in order of id."""
        found: dict[str, list[str]] = {}
        for offer_id in sorted(self.offers):
            offer = self.offers[offer_id]
            if offer.starts_tick <= max(tick, 0) < offer.ends_tick:
                found.setdefault(offer.unit_id, []).append(offer_id)
        return {unit: tuple(ids) for unit, ids in found.items()}

    def apply(self, event: OfferCreated | OfferEnded) -> None:
        match event:
            case OfferCreated():
                self.offers[event.offer.id] = event.offer
            case OfferEnded():
                offer = self.offers[event.offer_id]
                self.offers[offer.id] = msgspec.structs.replace(offer, ends_tick=min(offer.ends_tick, event.tick))
        self.revision += 1


def decide_create(book: OfferBook, command: CreateOffer, context: Context, venue: VenueBook) -> Decision | Rejected:
    offer = command.offer
    try:
        check_offer(offer)
    except InvalidInput as error:
        return Rejected(code="invalid_offer", message=error.message)
    if offer.unit_id not in venue.unit_index:
        return Rejected(
            code="unit_not_found", message=f"offer {offer.id}: unit {offer.unit_id!r} is not in venue {venue.venue.id}; name one of its units"
        )
    held = book.offers.get(offer.id)
    if held == offer:
        return Decision((), Done())
    if held is not None:
        return Rejected(code="offer_exists", message=f"offer {offer.id} exists with other terms; end it and create one with another id")
    running = sum(1 for other in book.offers.values() if other.ends_tick > context.tick)
    if running >= MAX_OFFERS or len(book.offers) >= MAX_OFFERS_EVER:
        return Rejected(
            code="too_many_offers",
            message=f"venue {venue.venue.id} has {running} offers that have not ended and {len(book.offers)} in all; at most {MAX_OFFERS} and {MAX_OFFERS_EVER}",
        )
    changed = OfferChanged(venue=venue.venue.id, offer=offer, ended=False)
    return Decision((OfferCreated(context.tick, offer),), Done(), ((f"venue/{venue.venue.id}/offers", changed),))


def decide_end(book: OfferBook, command: EndOffer, venue: VenueBook) -> Decision | Rejected:
    offer = book.offers.get(command.offer_id)
    if offer is None:
        return Rejected(
            code="offer_not_found", message=f"offer {command.offer_id!r} is not in venue {venue.venue.id}; see GetOffers for those that are"
        )
    if offer.ends_tick <= command.tick:
        return Decision((), Done())
    ended = msgspec.structs.replace(offer, ends_tick=command.tick)
    changed = OfferChanged(venue=venue.venue.id, offer=ended, ended=True)
    return Decision((OfferEnded(offer.id, command.tick),), Done(), ((f"venue/{venue.venue.id}/offers", changed),))


def list_offers(book: OfferBook, command: GetOffers) -> Decision:
    tick = command.tick
    return Decision((), Offers(offers=tuple(book.offers[i] for i in sorted(book.offers) if tick is None or book.offers[i].ends_tick > tick)))
