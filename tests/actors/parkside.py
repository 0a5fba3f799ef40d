"""A small venue for tests of actors: two levels of 40 m x 30 m, six shops (four with tills), two parking bays, a zone over two shops' front, two entrances."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

from spatial.columns import PositionColumns
from spatial.venue import Entrance, Level, MultiPolygon, Occupant, Opening, Origin, Unit, Venue, Zone


def box(x0: float, y0: float, x1: float, y1: float) -> MultiPolygon:
    return ((((x0, y0), (x1, y0), (x1, y1), (x0, y1)),),)


def venue(kind: str = "mall", venue_id: str = "parkside") -> Venue:
    units, openings, occupants = [], [], []
    for level in (0, 1):
        for i in range(3):
            unit = f"shop-{level}{i}"
            x = 2.0 + 12 * i
            units.append(Unit(id=unit, level_id=f"l{level}", category="room", polygon=box(x, 20, x + 10, 28), till=i < 2))
            openings.append(Opening(id=f"door-{level}{i}", level_id=f"l{level}", unit_id=unit, a=(x + 4, 20), b=(x + 6, 20)))
            occupants.append(Occupant(id=f"tenant-{level}{i}", unit_id=unit, name=f"Shop {level}{i}", category="clothes" if i else "books"))
    units += [Unit(id=f"bay-{i}", level_id="l0", category="parking", polygon=box(30 + 3 * i, 2, 32 + 3 * i, 6)) for i in range(2)]
    return Venue(
        id=venue_id,
        name="Parkside",
        kind="festival" if kind == "festival" else "mall",
        origin=Origin(lat_deg=0, lon_deg=0),
        levels=tuple(Level(id=f"l{i}", ordinal=i, name=f"Level {i}", short_name=str(i), outline=box(0, 0, 40, 30)) for i in (0, 1)),
        units=tuple(units),
        openings=tuple(openings),
        occupants=tuple(occupants),
        entrances=(
            Entrance(id="e-n", code="north_entrance", name="North", level_id="l0", point=(20, 0)),
            Entrance(id="e-s", code="upper_entrance", name="Upper", level_id="l1", point=(5, 5)),
        ),
        zones=(Zone(id="front", level_id="l0", name="Front", category="plaza", polygon=box(2, 14, 26, 22)),),
    )


def document(kind: str = "mall", venue_id: str = "parkside") -> bytes:
    return venue(kind, venue_id).model_dump_json().encode()


def rows(*people: tuple[int, int, float, float]) -> PositionColumns:
    """Columns of (subject, level, x, y)."""
    return PositionColumns(
        np.array([p[0] for p in people], np.uint32),
        np.array([p[1] for p in people], np.uint8),
        np.array([p[2] for p in people], np.float32),
        np.array([p[3] for p in people], np.float32),
    )


def u4(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}I", *numbers)


def u2(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}H", *numbers)


def keys(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(16, "little") for number in numbers)


def from_u4(data: bytes) -> list[int]:
    found: list[int] = np.frombuffer(data, "<u4").tolist()
    return found


def from_i8(data: bytes) -> list[int]:
    found: list[int] = np.frombuffer(data, "<i8").tolist()
    return found


def named(codes: Sequence[str], result: bytes) -> list[str]:
    """Row results by name."""
    return ["settled" if code == 0 else codes[code - 1] for code in result]
