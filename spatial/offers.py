"""Offers: what a shop announces, to whom, when, and the exact rule by which a push follows from positions.

The rule (the position host runs it compiled, the oracle in `scenarios.oracle` runs it by brute force; they must agree):

At the close of tick t, for every offer o with `starts_tick <= t < ends_tick` and every subject s, s is *eligible* when

* `Within(radius_m)`: s is present, its last position is on the anchor's level, and (x - ax)^2 + (y - ay)^2 <= radius_m^2,
  computed in float64 from the float32 coordinates of the columns;
* `Inside()`: s is present and the outline of the level of its last position covers it (border included);
* `Everyone()`: s has been observed in this venue at any time up to t.

A push (o, s, t) is made when s is eligible at t and was not at the close of t - 1 (an inactive offer has nobody eligible), it has had fewer
than `cap` pushes of o, and the last of them, if any, was at t' with t - t' >= cooldown_ticks. One push per (o, s, t): its id is `push_id`.

*Present*: observed at some tick, not LEFT since, and observed within the last STALE_TICKS ticks (t - last observation < STALE_TICKS).
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from esplanade.core.errors import InvalidInput
from esplanade.core.ids import check_name

STALE_TICKS: Final = 600
"""A subject not observed for this many ticks (60 s of venue time) is no longer present."""

MAX_OFFERS: Final = 4096
"""Offers of one venue that have not ended, at most."""


class Within(msgspec.Struct, frozen=True, tag="within"):
    """People at most `radius_m` metres from the offer's anchor, on its level."""

    radius_m: float


class Inside(msgspec.Struct, frozen=True, tag="inside"):
    """People inside the venue: at the start of the offer, and who enter while it lasts."""


class Everyone(msgspec.Struct, frozen=True, tag="everyone"):
    """Everybody seen in this venue so far, whether still there or not."""


Audience = Within | Inside | Everyone


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """An offer of the shop in `unit_id`. Its anchor is the middle of the unit's first opening, else a point inside the unit (`spatial.plan.anchor_of`)."""

    id: str
    unit_id: str
    title: Annotated[str, msgspec.Meta(min_length=1, max_length=120)]
    text: Annotated[str, msgspec.Meta(max_length=500)] = ""
    audience: Audience
    starts_tick: Annotated[int, msgspec.Meta(ge=0)] = 0
    ends_tick: Annotated[int, msgspec.Meta(ge=0)] = 2**53
    cooldown_ticks: Annotated[int, msgspec.Meta(ge=0)] = 6000
    cap: Annotated[int, msgspec.Meta(ge=1, le=255)] = 1
    flash: bool = False


def check_offer(offer: Offer) -> Offer:
    """Return the offer if its fields make sense together; raises InvalidInput otherwise."""
    check_name(offer.id, "offer id")
    if offer.ends_tick <= offer.starts_tick:
        raise InvalidInput(f"offer {offer.id}: ends at tick {offer.ends_tick}, not after its start {offer.starts_tick}; give a later end")
    if isinstance(offer.audience, Within) and not 0.5 <= offer.audience.radius_m <= 1000:
        raise InvalidInput(f"offer {offer.id}: radius {offer.audience.radius_m} m; must be 0.5 to 1000 m")
    return offer


def push_id(offer_id: str, subject: int, tick: int) -> str:
    """The id by which a client removes duplicates."""
    return f"{offer_id}.{subject}.{tick}"
