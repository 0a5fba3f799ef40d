"""A festival ground: stages, bars and gates as stores, with offers. `festival/<tenant>/<venue>`. Parking is a mall's affair."""

from __future__ import annotations

from actors.mall import Mall


class Festival(Mall):
    """Behaviour of a festival: a mall's offers and stores, without bays."""

    parking = False
