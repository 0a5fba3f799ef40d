"""Frames of people in a venue and of the offers they are told of."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from actors.messages import Key, Store
from gateway.frames.base import Coordinate, Frame, Id, LevelIndex, Place, Seq, StaleMs, Subject, Tick
from spatial.offers import Offer


class WalkIn(Frame, frozen=True, kw_only=True, tag="walk_in"):
    """Digital walk-in by QR: `location` is an entrance code such as north_entrance."""

    seq: Seq
    venue: Id
    location: Id
    key: Key | None = None


class Move(Frame, frozen=True, kw_only=True, tag="move"):
    """My position (the subject is the token's). `tick` only from sources of a driven venue. Answered with Taken only if `ack`."""

    seq: Seq
    venue: Id
    level: LevelIndex
    x: Coordinate
    y: Coordinate
    tick: Tick | None = None
    ack: bool = False


class Leave(Frame, frozen=True, kw_only=True, tag="leave"):
    """I have left the venue."""

    seq: Seq
    venue: Id
    tick: Tick | None = None


class GetOffers(Frame, frozen=True, kw_only=True, tag="get_offers"):
    seq: Seq
    venue: Id
    stale_ms: StaleMs = 0


class SetTraits(Frame, frozen=True, kw_only=True, tag="set_traits"):
    """Operators and feeds: what n people are: subject (n,) u4 each once, segments (n,) u8 bits, and the language they speak ("": unknown). Answered with Done."""

    seq: Seq
    venue: Id
    subject: bytes
    segments: bytes
    language: Annotated[str, msgspec.Meta(pattern="^([a-z]{2,8})?$")] = ""
    key: Key | None = None


class Explain(Frame, frozen=True, kw_only=True, tag="explain"):
    """Why an offer was or was not pushed to me; operators: to `subject`. Answered with Explained."""

    seq: Seq
    venue: Id
    offer: Id
    subject: Subject | None = None


class CreateOffer(Frame, frozen=True, kw_only=True, tag="create_offer"):
    """Operators."""

    seq: Seq
    venue: Id
    offer: Offer
    key: Key | None = None


class EndOffer(Frame, frozen=True, kw_only=True, tag="end_offer"):
    seq: Seq
    venue: Id
    offer: Id
    tick: Tick
    key: Key | None = None


class WalkedIn(Frame, frozen=True, kw_only=True, tag="walked_in"):
    seq: Seq
    venue: str
    venue_name: str
    level: int
    x: float
    y: float
    stores: tuple[Store, ...]


class Explained(Frame, frozen=True, kw_only=True, tag="explained"):
    """`outcome` is stable, `message` for people; `pushes` made so far, the last at `tick`."""

    seq: Seq
    offer: str
    subject: int
    outcome: str
    message: str
    pushes: int
    tick: int | None = None


class OfferList(Frame, frozen=True, kw_only=True, tag="offer_list"):
    seq: Seq
    offers: tuple[Offer, ...]


class Push(Frame, frozen=True, kw_only=True, tag="push"):
    """An offer for me. `id` removes duplicates; ack it. `kind`: NEW_OFFER for flash sales, NEARBY otherwise. `place`: where to resume."""

    id: str
    kind: Literal["NEW_OFFER", "NEARBY"]
    venue: str
    offer: str
    unit: str
    title: str
    text: str
    tick: int
    place: Place


class PushColumns(Frame, frozen=True, kw_only=True, tag="push_columns"):
    """To a feed: pushes of one tick for the subjects it speaks for (it opened the source): row i pushes offers[offer[i]] to subject[i]; offer (n,) u2, subject (n,) u4."""

    venue: str
    tick: int
    offers: tuple[str, ...]
    offer: bytes
    subject: bytes
    place: Place


class OfferState(Frame, frozen=True, kw_only=True, tag="offer_state"):
    """`place`: where to resume."""

    venue: str
    offer: Offer
    ended: bool
    place: Place | None = None
