"""A venue small enough to compute by hand: two square levels of 30 m, three shops on the lower one, one on the upper."""

from __future__ import annotations

from typing import Any

from spatial.venue import Venue

HALL = (((0.0, 0.0), (30.0, 0.0), (30.0, 30.0), (0.0, 30.0)),)


def small_venue() -> Venue:
    """Shop u-n (n = 1, 2, 3) opens at (5n + 2, 4) on the level of index 0; u-9 at (12, 4) on index 1."""

    def unit(n: int, x: float, level: str) -> dict[str, Any]:
        ring = ((x, 0.0), (x + 4, 0.0), (x + 4, 4.0), (x, 4.0))
        return {"id": f"u-{n}", "level_id": level, "category": "room", "polygon": ((ring,),), "till": True}

    def opening(n: int, x: float, level: str) -> dict[str, Any]:
        return {"id": f"d-{n}", "level_id": level, "unit_id": f"u-{n}", "a": (x + 1, 4.0), "b": (x + 3, 4.0)}

    places = [(1, 5.0, "l0"), (2, 10.0, "l0"), (3, 15.0, "l0"), (9, 10.0, "l1")]
    return Venue.model_validate(
        {
            "id": "small",
            "name": "Small",
            "kind": "mall",
            "origin": {"lat_deg": 0, "lon_deg": 0},
            "levels": [{"id": f"l{i}", "ordinal": i, "name": f"Level {i}", "short_name": str(i), "outline": (HALL,)} for i in range(2)],
            "units": [unit(*place) for place in places],
            "openings": [opening(*place) for place in places],
            "occupants": [
                {"id": "o-1", "unit_id": "u-1", "name": "One", "category": "books", "popularity": 1.0},
                {"id": "o-2", "unit_id": "u-2", "name": "Two", "category": "coffee", "popularity": 5.0},
                {"id": "o-3", "unit_id": "u-3", "name": "Three", "category": "coffee", "popularity": 3.0},
            ],
        }
    )
