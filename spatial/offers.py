"""Offers: what a shop announces, to whom, when, and the exact rule by which a push follows from positions.

The rule (the position host runs it compiled, the oracle in `scenarios.oracle` runs it by brute force; they must agree):

At the close of tick t, for every offer o with `starts_tick <= t < ends_tick` and every subject s, s is *eligible* when

* `Within(radius_m)`: s is present, its last position is on the anchor's level, and (x - ax)^2 + (y - ay)^2 <= radius_m^2,
  computed in float64 from the float32 coordinates of the columns;
* `Inside()`: s is present and the outline of the level of its last position covers it (border included);
* `Everyone()`: s has been observed in this venue at any time up to t.

A push (o, s, t) is made when s is eligible at t and was not at the close of t - 1 (an inactive offer has nobody eligible), it has had fewer
than `cap` pushes of o, and the last of them, if any, was at t' with t - t' >= cooldown_ticks. One push per (o, s, t): its id is `push_id`.

An offer with `terms` goes by state and not by coming: at the close of every tick that 10 divides, everyone eligible who has had fewer than `cap` pushes of it, the last
`cooldown_ticks` ago or more, is decided by the rule of `spatial.audience`: hold-out, quiet hours, segments, languages, walking time on the live graph (in cells of
`spatial.reach`), at most one offer with terms a person and second by priority, density of the store, budget. A push (o, s, t) is made where that says `PUSH`. Who is
on the way to a store: pushed to of one of its offers with terms within the last 5 minutes, present and not in it. Who is held back is looked at again a second later.

*Present*: observed at some tick, not LEFT since, and observed within the last STALE_TICKS ticks (t - last observation < STALE_TICKS).
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from esplanade.core.errors import InvalidInput
from esplanade.core.ids import check_name
from spatial.zone_shapes import MAX_HOURS, Hours, Open

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


class Terms(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who of an audience, how many, and when not. within_s: walking time to the unit at most. segments: bits, any of them (0: everyone). languages: primary tags (empty: all). budget: pushes in all.
    quiet: hours without pushes. hold_out: share of people who never get it, by a hash of `salt` (empty: the offer's id). density_per_m2: of the unit, beyond which nobody more is sent."""

    within_s: Annotated[float, msgspec.Meta(gt=0, le=86_400)] | None = None
    segments: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] = 0
    languages: Annotated[tuple[Annotated[str, msgspec.Meta(pattern="^[a-z]{2,8}$")], ...], msgspec.Meta(max_length=32)] = ()
    budget: Annotated[int, msgspec.Meta(ge=0, lt=2**31)] | None = None
    priority: Annotated[int, msgspec.Meta(ge=-1000, le=1000)] = 0
    quiet: Annotated[tuple[Open, ...], msgspec.Meta(max_length=MAX_HOURS)] = ()
    hold_out: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    salt: Annotated[str, msgspec.Meta(max_length=64)] = ""
    density_per_m2: Annotated[float, msgspec.Meta(gt=0, le=10)] | None = None


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
    terms: Terms | msgspec.UnsetType = msgspec.UNSET


def check_offer(offer: Offer) -> Offer:
    """Return the offer if its fields make sense together; raises InvalidInput otherwise."""
    check_name(offer.id, "offer id")
    if offer.ends_tick <= offer.starts_tick:
        raise InvalidInput(f"offer {offer.id}: ends at tick {offer.ends_tick}, not after its start {offer.starts_tick}; give a later end")
    if isinstance(offer.audience, Within) and not 0.5 <= offer.audience.radius_m <= 1000:
        raise InvalidInput(f"offer {offer.id}: radius {offer.audience.radius_m} m; must be 0.5 to 1000 m")
    if isinstance(offer.terms, Terms):
        for quiet in offer.terms.quiet:
            Hours(quiet.from_s, quiet.until_s, quiet.every_s)
    return offer


def push_id(offer_id: str, subject: int, tick: int) -> str:
    """The id by which a client removes duplicates."""
    return f"{offer_id}.{subject}.{tick}"
