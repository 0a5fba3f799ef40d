"""Draw Parkside, a mall of our own: three shopping levels over a car park, 180 x 86 m. Run: `python -m scenarios.venues.make_mall`.

A gently curved mall street runs west to east between two pairs of anchor stores, with a round atrium in the middle. Plan coordinates are
(s, t): s metres east along the street, t metres north of its centre line; party walls keep to s, fronts and galleries follow the curve.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import shapely
from shapely.geometry.base import BaseGeometry

from scenarios.venues.drafting import FOLDER, XY, Draft, rectangle, regular
from scenarios.venues.mall_tenants import ANCHORS, KIOSKS, SHOPS, STALLS, Tenant
from spatial.venue import Origin, UnitCategory, Venue
from spatial.venue_files import save_venue

PATH = FOLDER / "parkside_mall.json"

LENGTH, SOUTH, NORTH = 180.0, 2.0, 88.0
WEST_END, EAST_END = 34.0, 146.0  # the anchor stores' party walls
HALF_STREET, DEPTH, SERVICE = 8.0, 18.0, 26.0  # street's half width; depth of shops and of the service strip behind, from the front
MIDDLE, ATRIUM = 90.0, 16.0
VOID = 3.4

SHOPPING = ("L0", "L1", "L2")
LEVELS = ("P", *SHOPPING)
Region = tuple[float, float]


def centre(s: float) -> float:
    """Northing of the street's centre line."""
    return 39.0 + 9.0 * math.sin(math.pi * s / LENGTH)


def at(s: float, t: float) -> XY:
    return s, centre(s) + t


def band(s0: float, s1: float, t0: float | Callable[[float], float], t1: float | Callable[[float], float]) -> shapely.Polygon:
    """What lies between two lines along the street, with a corner on every even metre."""
    inner = [2.0 * k for k in range(math.floor(s0 / 2) + 1, math.ceil(s1 / 2))]
    line = [s0, *inner, s1]
    low = t0 if callable(t0) else lambda _: t0
    high = t1 if callable(t1) else lambda _: t1
    return shapely.Polygon([at(s, low(s)) for s in line] + [at(s, high(s)) for s in reversed(line)])


def strip(s0: float, s1: float) -> shapely.Polygon:
    return rectangle(s0, -50, s1, 150)


def parts(geometry: BaseGeometry, least: float = 0.5) -> list[shapely.Polygon]:
    return [part for part in shapely.get_parts(geometry) if part.geom_type == "Polygon" and part.area > least]


ATRIUM_CENTRE = at(MIDDLE, 0)
FACADE = shapely.union_all(
    [
        band(WEST_END, EAST_END, -HALF_STREET - SERVICE, HALF_STREET + SERVICE),
        rectangle(0, SOUTH + 3, WEST_END, NORTH),
        rectangle(EAST_END, SOUTH, LENGTH, NORTH - 3),
    ]
)
NORTH_CORRIDOR, SOUTH_CORRIDOR, GARDEN_CORRIDOR = (86.0, 94.0), (56.0, 64.0), (112.0, 117.0)
WASH_NORTH, WASH_SOUTH = (118.0, 121.5), (41.0, 44.5)  # narrow corridors to the restrooms
CORE_SOUTH, CORE_NORTH = (64.0, 72.0), (121.5, 129.5)  # lifts and stairs
WIDTHS = (7.4, 5.8, 9.2, 6.4, 8.0, 5.4, 6.8, 11.0, 6.2, 7.6)


def street(level: str) -> BaseGeometry:
    """Open ground of a shopping level."""
    ground: list[BaseGeometry] = [band(0, LENGTH, -HALF_STREET, HALF_STREET), regular(*ATRIUM_CENTRE, ATRIUM, 48)]
    south_end = -50.0 if level == "L0" else -HALF_STREET - 11
    ground.append(band(*SOUTH_CORRIDOR, south_end, 0))
    ground.append(band(*WASH_NORTH, 0, 23.0))
    if level == "L0":
        ground += [strip(*NORTH_CORRIDOR).intersection(rectangle(0, ATRIUM_CENTRE[1], LENGTH, 100)), band(*GARDEN_CORRIDOR, -50, 0)]
    else:
        ground.append(band(*WASH_SOUTH, -23.0, 0))
    return shapely.union_all(ground).intersection(FACADE)


class Shops:
    """Hands out tenants in the list's order, each once."""

    def __init__(self) -> None:
        self._next: Iterator[Tenant] = iter(SHOPS)

    def take(self) -> Tenant:
        return next(self._next)


def front_door(draft: Draft, unit: str, shop: BaseGeometry, ground: BaseGeometry, width: float) -> None:
    """An opening of up to `width` in the middle of the shop's longest contact with the ground."""
    contact = shapely.line_merge(shapely.intersection(shop.boundary, ground.buffer(1e-6)))
    line = max((part for part in shapely.get_parts(contact) if part.geom_type == "LineString"), key=lambda part: part.length)
    half = min(width, 0.8 * line.length) / 2
    a, b = (line.interpolate(line.length / 2 + d) for d in (-half, half))
    draft.opening(unit, (a.x, a.y), (b.x, b.y))


def let(draft: Draft, level: str, shop: BaseGeometry, ground: BaseGeometry, tenant: Tenant, *, door: float = 3.2) -> None:
    """A shop with its door, till and occupant; large ones draw more people than small ones."""
    unit = draft.unit(level, "room", shop, name=tenant.name, till=True)
    front_door(draft, unit, shop, ground, door)
    size = min(2.0, max(0.6, math.sqrt(shop.area / 130.0))) if tenant in SHOPS else 1.0
    draft.occupant(unit, tenant.name, tenant.category, tenant.tags, tenant.draw * size)


def row(draft: Draft, level: str, side: int, block: Region, offset: int, ground: BaseGeometry, shops: Shops, built: list[BaseGeometry]) -> None:
    """Fill a block along the street with shops, their widths taken from a cycle and stretched to fit."""
    widths: list[float] = []
    while sum(widths) + 0.5 * WIDTHS[(offset + len(widths)) % len(WIDTHS)] < block[1] - block[0]:
        widths.append(WIDTHS[(offset + len(widths)) % len(WIDTHS)])
    stretch = (block[1] - block[0]) / sum(widths)
    s = block[0]
    for width in widths:
        s0, s1 = s, s + width * stretch
        s = s1
        by_atrium = s1 > MIDDLE - ATRIUM + 2 and s0 < MIDDLE + ATRIUM - 2
        by_wash = any(s1 > a - 7 and s0 < b + 7 for a, b in ((WASH_NORTH,) if side > 0 else (WASH_SOUTH,) if level != "L0" else ()))
        depth = 18.8 if by_wash else 50.0 if by_atrium or width > 10 else HALF_STREET + DEPTH
        deep = band(s0, s1, 0, depth) if side > 0 else band(s0, s1, -depth, 0)
        shop = deep.intersection(FACADE).difference(shapely.union_all([ground, *built]))
        shop = max(parts(shop), key=lambda part: part.area)
        let(draft, level, shop, ground, shops.take())
        built.append(shop)


def anchor_stores(draft: Draft, level: str, ground: BaseGeometry, built: list[BaseGeometry]) -> None:
    for where, s0, s1, side in (
        ("north-west", 0.0, WEST_END, 1), ("south-west", 0.0, WEST_END, -1), ("north-east", EAST_END, LENGTH, 1), ("south-east", EAST_END, LENGTH, -1),
    ):  # fmt: skip
        half = rectangle(s0, 0, s1, 100).intersection(band(0, LENGTH, *((0, 100) if side > 0 else (-100, 0))))
        block = max(parts(half.intersection(FACADE).difference(ground)), key=lambda part: part.area)
        if (level, where) == ("L2", "south-east"):
            food_court(draft, level, block, built)
        else:
            let(draft, level, block, ground, ANCHORS[level, where], door=7.0)
            built.append(block)


def food_court(draft: Draft, level: str, block: shapely.Polygon, built: list[BaseGeometry]) -> None:
    """Stalls along the south and east walls, seats in the middle, open to the street."""
    x0, y0, x1, y1 = block.bounds
    stalls = [rectangle(x0 + 7 * k, y0, x0 + 7 * (k + 1), y0 + 6.5) for k in range(4)]
    stalls += [rectangle(x1 - 6, y0 + 8.75 * k, x1, y0 + 8.75 * (k + 1)) for k in range(2)]
    ground = block.difference(shapely.union_all(stalls))
    for stall, tenant in zip(stalls, STALLS, strict=True):
        let(draft, level, stall, ground, tenant, door=4.0)
        built.append(stall)
    rest = max(parts(ground.difference(rectangle(x1 - 6, y0, x1, y1))), key=lambda part: part.area)
    seats = rest.buffer(-2.5, join_style="mitre")
    pillars = [regular(x0 + 8 + 9 * i, y0 + 13 + 8 * j, 0.6, 8, 22.5) for i in range(3) for j in range(2)]
    draft.unit(level, "walkway", seats.difference(shapely.union_all(pillars)), name="Food court", unit_id="L2-food-court")
    for pillar in pillars:
        draft.unit(level, "structure", pillar)
    draft.zone("zone-food-court", level, "Food court", "dining", ground)
    built += [*pillars, ground]


def restrooms(draft: Draft, level: str, corridor: Region, side: int, built: list[BaseGeometry]) -> None:
    """Women and men to the sides of a corridor's end, the accessible room across it."""
    s0, s1 = corridor

    def room(a: float, b: float, t0: float, t1: float) -> shapely.Polygon:
        return band(a, b, t0, t1) if side > 0 else band(a, b, -t1, -t0)

    women, men, accessible = room(s0 - 7, s0, 18.8, 26), room(s1, s1 + 7, 18.8, 26), room(s0, s1, 23, 26)
    names: tuple[tuple[UnitCategory, shapely.Polygon, XY, XY], ...] = (
        ("restroom.female", women, at(s0, side * 20), at(s0, side * 21.4)),
        ("restroom.male", men, at(s1, side * 20), at(s1, side * 21.4)),
        ("restroom.wheelchair", accessible, at(s0 + 1.2, side * 23), at(s1 - 1.2, side * 23)),
    )
    for category, polygon, a, b in names:
        unit = draft.unit(level, category, polygon)
        draft.opening(unit, a, b)
        built.append(polygon)


def cores(draft: Draft, level: str, built: list[BaseGeometry]) -> None:
    """Lifts that face the street and stairs that face a corridor; the rest of each core is plant."""
    for name, (s0, s1), side in (("south", CORE_SOUTH, -1), ("north", CORE_NORTH, 1)):

        def box(a: float, b: float, t0: float, t1: float, side: int = side) -> shapely.Polygon:
            return band(a, b, t0, t1) if side > 0 else band(a, b, -t1, -t0)

        lifts = [box(s0 + 1.2, s0 + 3.8, 8, 10.6), box(s0 + 4.2, s0 + 6.8, 8, 10.6)]
        stairs = box(s0, s0 + 7, 11.4, 16)
        for number, lift in enumerate(lifts, start=1):
            draft.unit(level, "elevator", lift, unit_id=f"{level}-lift-{name}-{number}")
        draft.unit(level, "stairs", stairs, unit_id=f"{level}-stairs-{name}")
        core = box(s0, s1, 8, 18.8).difference(shapely.union_all([*lifts, stairs]))
        draft.unit(level, "nonpublic", max(parts(core), key=lambda part: part.area), name="Plant")
        built.append(box(s0, s1, 8, 18.8))


ESCALATORS: tuple[tuple[str, str, str, float, float], ...] = (
    # name, lower level, upper level, foot and head along the street
    ("west-lower", "L0", "L1", 36.0, 49.0),
    ("west-upper", "L1", "L2", 54.0, 67.0),
    ("east-lower", "L0", "L1", 144.0, 131.0),
    ("east-upper", "L1", "L2", 126.0, 113.0),
    ("car-park", "P", "L0", 68.0, 55.0),
)


def escalators(draft: Draft) -> None:
    """Each place has one going up (its north side) and one going down."""
    for name, lower, upper, foot, head in ESCALATORS:
        outward = math.copysign(1.3, foot - head)
        for way, t0, t1 in (("up", 0.15, 1.75), ("down", -1.75, -0.15)):
            polygon = band(min(foot, head), max(foot, head), t0, t1)
            units = {level: draft.unit(level, "escalator", polygon, unit_id=f"{level}-escalator-{name}-{way}") for level in (lower, upper)}
            middle = (t0 + t1) / 2
            stops = [(lower, at(foot + outward, middle), units[lower]), (upper, at(head - outward, middle), units[upper])]
            draft.connector(f"escalator-{name}-{way}", "escalator", stops, "forward" if way == "up" else "backward")


def lifts_and_stairs(draft: Draft) -> None:
    for name, (s0, _), side in (("south", CORE_SOUTH, -1), ("north", CORE_NORTH, 1)):
        for number, s in ((1, s0 + 2.5), (2, s0 + 5.5)):
            stops = [(level, at(s, side * 7.2), f"{level}-lift-{name}-{number}") for level in LEVELS]
            draft.connector(f"lift-{name}-{number}", "elevator", stops)
        steps = [(level, at(s0 - 0.8, side * 13.7), f"{level}-stairs-{name}") for level in LEVELS]
        draft.connector(f"stairs-{name}", "stairs", steps)


def voids(draft: Draft, level: str) -> None:
    """Openings to the level below, in the middle of the street, cut out around the escalators."""
    moving = [band(min(a, b) - 3.5, max(a, b) + 3.5, -1.9, 1.9) for _, lower, upper, a, b in ESCALATORS if level in (lower, upper)]
    stretches = [(6.0, 29.0), (37.5, 49.0), (54.0, 67.0), (113.0, 126.0), (131.0, 142.5), (151.0, 174.0)]
    for s0, s1 in stretches:
        void = band(s0, s1, -VOID, VOID).buffer(-1.2).buffer(1.2, quad_segs=3)
        for polygon in parts(void.difference(shapely.union_all(moving)), 1.0):
            draft.unit(level, "opentobelow", polygon)
    draft.unit(level, "opentobelow", regular(*ATRIUM_CENTRE, 8.5, 36), name="Atrium")


def ground_floor(draft: Draft) -> None:
    """Kiosks and seats in the street, the atrium's stage, the way in from outside."""
    for s, tenant in zip((10.0, 17.0, 24.0, 110.0, 117.0, 124.0, 160.0, 168.0), KIOSKS, strict=True):
        kiosk = draft.unit("L0", "room", band(s - 2.2, s + 2.2, -1.5, 1.5), name=tenant.name, till=True)
        draft.opening(kiosk, at(s - 1.3, -1.5), at(s + 1.3, -1.5))
        draft.occupant(kiosk, tenant.name, tenant.category, tenant.tags, tenant.draw)
    for s0, s1 in ((28.0, 32.0), (71.0, 74.0), (149.0, 153.0)):
        draft.unit("L0", "walkway", band(s0, s1, -2.0, 2.0), name="Seats")
    draft.unit("L0", "stage", regular(*ATRIUM_CENTRE, 3.2, 24), name="Atrium stage")
    draft.zone("zone-atrium", "L0", "Atrium", "plaza", regular(*ATRIUM_CENTRE, 13.0, 36))
    north = max(y for _, y in shapely.get_coordinates(FACADE.intersection(strip(89.9, 90.1))))
    south, garden = (min(y for _, y in shapely.get_coordinates(FACADE.intersection(strip(s - 0.1, s + 0.1)))) for s in (60.0, 114.5))
    draft.entrance("north_entrance", "North entrance", "L0", (90.0, north - 1.2))
    draft.entrance("south_entrance", "South entrance", "L0", (60.0, south + 1.2))
    draft.entrance("garden_entrance", "Garden entrance", "L0", (114.5, garden + 1.2))
    draft.entrance("west_entrance", "West entrance", "L0", at(1.2, 0))
    draft.entrance("east_entrance", "East entrance", "L0", at(LENGTH - 1.2, 0))
    draft.amenity("L0", "information", at(84.0, -10.5), name="Information")
    draft.amenity("L0", "atm", at(57.0, -12.0), name="Cash machine")
    draft.amenity("L0", "defibrillator", at(93.0, 17.5), name="Defibrillator")


def car_park(draft: Draft) -> None:
    """Bays of 2.5 x 5 m in double rows about aisles of 6 m; plant at the west end, deliveries at the east."""
    level = draft.level("P", -1, "Car park", rectangle(0, SOUTH, LENGTH, NORTH))
    draft.unit(level, "nonpublic", rectangle(0, SOUTH, 14, 36), name="Plant")
    draft.unit(level, "nonpublic", rectangle(0, 50, 14, NORTH), name="Water tank")
    draft.unit(level, "nonpublic", rectangle(164, 56, LENGTH, NORTH), name="Deliveries")
    built: list[BaseGeometry] = []
    cores(draft, level, built)
    keep_clear = [core.buffer(2.2, join_style="mitre") for core in built]
    keep_clear += [band(min(a, b) - 4.5, max(a, b) + 4.5, -4, 4) for _, lower, _, a, b in ESCALATORS if lower == level]
    keep_clear.append(rectangle(85.0, SOUTH, 91.0, NORTH))  # the lane across
    clear = shapely.union_all(keep_clear)
    shapely.prepare(clear)
    columns: list[shapely.Polygon] = []
    bay = 0
    for y in (3.5, 14.5, 19.5, 30.5, 35.5, 46.5, 51.5, 62.5, 67.5, 78.5):
        for k in range(55):
            x = 20.0 + 2.5 * k
            box = rectangle(x, y, x + 2.5, y + 5.0)
            if clear.disjoint(box) and x + 2.5 <= 160:
                bay += 1
                draft.unit(level, "parking", box, name=f"{chr(65 + int(y // 8))}{bay:03d}", unit_id=f"P-bay-{bay:03d}")
    for y in (19.5, 35.5, 51.5, 67.5):
        columns += [regular(30.0 + 10 * k, y, 0.35, 8, 22.5) for k in range(13) if clear.disjoint(regular(30.0 + 10 * k, y, 0.35, 8))]
    for column in columns:
        draft.unit(level, "structure", column)
    draft.entrance("parking_entrance", "Car park entrance", level, (LENGTH - 1.5, 28.0), "parking")
    draft.amenity(level, "payment", (74.5, centre(74.5) - 3.0), name="Parking payment")


def shopping_level(draft: Draft, level: str, ordinal: int, name: str, shops: Shops) -> None:
    draft.level(level, ordinal, name, FACADE)
    ground = street(level)
    built: list[BaseGeometry] = []
    anchor_stores(draft, level, ground, built)
    cores(draft, level, built)
    restrooms(draft, level, WASH_NORTH, 1, built)
    if level != "L0":
        restrooms(draft, level, WASH_SOUTH, -1, built)
    south_wash = () if level == "L0" else (WASH_SOUTH,)
    garden = (GARDEN_CORRIDOR,) if level == "L0" else ()
    doorway = (NORTH_CORRIDOR,) if level == "L0" else ()
    for side, breaks, offset in (
        (1, (*doorway, WASH_NORTH, CORE_NORTH), 3 * ordinal),
        (-1, (*south_wash, SOUTH_CORRIDOR, CORE_SOUTH, *garden), 3 * ordinal + 5),
    ):
        s = WEST_END
        for s0, s1 in (*breaks, (EAST_END, EAST_END)):
            if s0 - s > 3:
                row(draft, level, side, (s, s0), offset, ground, shops, built)
            s = s1
            offset += 2
    for left in parts(FACADE.difference(shapely.union_all([ground, *built]).buffer(1e-6))):
        draft.unit(level, "nonpublic", left, name="Service")
    if level == "L0":
        ground_floor(draft)
    else:
        voids(draft, level)


def make() -> Venue:
    """The whole venue; the same every time."""
    draft, shops = Draft(), Shops()
    car_park(draft)
    for level, ordinal, name in (("L0", 0, "Ground floor"), ("L1", 1, "First floor"), ("L2", 2, "Second floor")):
        shopping_level(draft, level, ordinal, name, shops)
    escalators(draft)
    lifts_and_stairs(draft)
    return draft.venue("parkside", "Parkside", "mall", "Europe/London", Origin(lat_deg=51.5312, lon_deg=-0.0211, bearing_deg=0.0))


if __name__ == "__main__":
    save_venue(make(), PATH)
