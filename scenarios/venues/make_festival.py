"""Draw Meadow, a festival ground of our own, 400 x 300 m. Run: `python -m scenarios.venues.make_festival`.

The site is a meadow between a road in the south and a river in the north-east. A fence separates the arrival areas from the arena; people
pass it at three gates with lanes. Three stages face away from each other, bars and food stands line the ways between them.
"""

from __future__ import annotations

import math

import shapely
from shapely.geometry.base import BaseGeometry

from scenarios.venues.drafting import FOLDER, XY, Draft, rectangle, regular, turned
from spatial.plan import shape
from spatial.venue import Origin, UnitCategory, Venue
from spatial.venue_files import save_venue

PATH = FOLDER / "meadow_festival.json"
LEVEL = "G"

SITE: tuple[XY, ...] = (
    (6, 0), (394, 0), (400, 18), (400, 152), (396, 186), (386, 214), (372, 238), (352, 258), (326, 274), (294, 286), (258, 294),
    (214, 299), (160, 300), (96, 298), (52, 290), (22, 272), (6, 244), (0, 206), (0, 20),
)  # fmt: skip

ARENA: tuple[XY, ...] = (
    (34, 40), (366, 40), (366, 150), (362, 182), (348, 212), (324, 240), (296, 262), (262, 277), (214, 288), (150, 290), (92, 285),
    (58, 270), (40, 246), (34, 206),
)  # fmt: skip
"""The arena fence, closed; gates are cut out of it."""

# Middle of each gate on the fence, the way in (degrees counter-clockwise from east), number of lanes, code and name.
GATES: tuple[tuple[XY, float, int, str, str], ...] = (
    ((200.0, 40.0), 90.0, 8, "main_gate", "Main gate"),
    ((34.0, 196.0), 0.0, 4, "west_gate", "West gate"),
    ((366.0, 96.0), 180.0, 4, "camp_gate", "Camp gate"),
)
LANE_M = 1.6

# Name, category, tags, popularity, width, depth, middle of the counter side, direction that the counter faces (degrees).
STANDS: tuple[tuple[str, str, str, float, float, float, XY, float], ...] = (
    ("Long Bar", "bar", "beer cider wine", 6.0, 22, 9, (112, 150), 0),
    ("Willow Bar", "bar", "beer cocktails", 4.0, 16, 8, (76, 92), 0),
    ("River Bar", "bar", "beer wine", 4.5, 18, 8, (283, 226), 240),
    ("Gate Bar", "bar", "beer soft", 3.5, 14, 7, (246, 66), 90),
    ("Lantern Bar", "bar", "cocktails gin", 3.0, 12, 7, (350, 124), 180),
    ("Cider Barn", "bar", "cider", 2.8, 12, 7, (226, 92), 180),
    ("Well & Spring", "bar", "water soft alcohol-free", 2.2, 9, 6, (158, 66), 90),
    ("Smoke & Oak", "food", "barbecue burgers", 3.2, 9, 5, (178.0, 118.0), 0),
    ("Dough Wagon", "food", "pizza vegetarian", 3.0, 8, 5, (178.0, 107.0), 0),
    ("Green Pan", "food", "vegan bowls", 2.0, 7, 5, (178.0, 97.0), 0),
    ("Taco Field", "food", "tacos mexican", 2.6, 8, 5, (226.0, 118.0), 180),
    ("Frites Depot", "food", "fries", 2.8, 7, 5, (226.0, 108.0), 180),
    ("Bao Bus", "food", "bao asian", 2.2, 7, 5, (190.0, 132.0), 270),
    ("Chai & Cake", "cafe", "tea coffee cake", 1.8, 7, 5, (201.0, 132.0), 270),
    ("Falafel Yard", "food", "falafel vegan", 2.0, 7, 5, (212.0, 132.0), 270),
    ("Ice House", "food", "icecream", 1.6, 6, 5, (120, 66), 90),
    ("Morning Roast", "cafe", "coffee", 1.8, 7, 5, (284, 66), 90),
    ("Crepe Corner", "food", "crepes sweet", 1.6, 6, 5, (62, 140), 0),
    ("Paella Pier", "food", "paella rice", 1.8, 8, 5, (301, 213), 232),
    ("Sundown Bar", "bar", "beer wine", 4.5, 18, 8, (96, 232), 320),
    ("Gyros Garden", "food", "greek gyros", 1.8, 7, 5, (109.5, 248.5), 310),
    ("Dal & Rice", "food", "indian vegan", 1.7, 7, 5, (266, 240), 240),
    ("Hot Hoops", "food", "doughnuts sweet", 1.4, 6, 5, (330, 66), 90),
    ("Merch Tent", "merchandise", "shirts posters records", 2.4, 14, 8, (86, 204), 345),
    ("Rain & Sun", "merchandise", "ponchos hats sunscreen", 1.0, 6, 5, (306, 66), 90),
)

TOILETS: tuple[tuple[XY, float], ...] = (((44, 74), 0), ((356, 60), 180), ((44, 164), 0), ((306, 246), 232), ((84, 52), 90), ((352, 152), 190))

PATHS: tuple[tuple[XY, ...], ...] = (
    ((200, 44), (200, 78), (170, 92), (166, 142), (186, 162), (190, 196)),
    ((200, 78), (236, 84), (240, 130), (214, 160), (190, 166)),
    ((38, 196), (70, 194), (104, 176), (136, 140), (166, 128)),
    ((362, 96), (330, 98), (296, 120), (268, 126), (240, 122)),
    ((296, 120), (296, 150)),
    ((166, 112), (130, 104), (106, 110)),
)
"""Trodden ways between gates, stages and the food yard."""


def facing(at: XY, angle_deg: float, along: float, out: float) -> XY:
    """A point `out` metres in front of `at` in the facing direction and `along` metres to its left."""
    a = math.radians(angle_deg)
    return at[0] + out * math.cos(a) - along * math.sin(a), at[1] + out * math.sin(a) + along * math.cos(a)


def block(at: XY, angle_deg: float, width: float, depth: float) -> shapely.Polygon:
    """A box whose front, `width` wide, has its middle at `at` and faces `angle_deg`; it reaches `depth` back."""
    return turned(rectangle(-depth, -width / 2, 0, width / 2), at, angle_deg)


def fan(at: XY, angle_deg: float, near: float, far: float, spread_deg: float) -> shapely.Polygon:
    """The ground in front of a stage: a sector of a ring."""
    steps = [angle_deg + spread_deg * (k / 8 - 1) for k in range(17)]
    return shapely.Polygon([facing(at, a, 0, far) for a in steps] + [facing(at, a, 0, near) for a in reversed(steps)])


def stage(draft: Draft, key: str, name: str, at: XY, angle: float, width: float, depth: float, reach: float) -> None:
    """A stage with wings and back yard, a pit, a mixing tower, and zones for the front and the field."""
    deck = turned(shapely.Polygon([(0, -width / 2), (0, width / 2), (-depth, width * 0.38), (-depth, -width * 0.38)]), at, angle)
    draft.unit(LEVEL, "stage", deck, name=name, unit_id=f"stage-{key}")
    for side in (-1, 1):
        wing = block(facing(at, angle, side * (width / 2 + 3.2), -0.6), angle, 5.0, 4.0)
        draft.unit(LEVEL, "structure", wing, name="PA tower")
    yard = block(facing(at, angle, 0, -depth), angle, width * 0.9, 8.0).difference(deck.buffer(0.01))
    draft.unit(LEVEL, "nonpublic", yard, name="Backstage")
    pit = [facing(at, angle, y, 3.4 + 1.2 * (1 - (2 * y / width) ** 2)) for y in (k * width / 16 - width / 2 for k in range(17))]
    edge = shapely.Polygon([facing(at, angle, -width / 2, 0.0), *pit, facing(at, angle, width / 2, 0.0)])
    draft.unit(LEVEL, "nonpublic", edge, name="Pit")
    tower = facing(at, angle, 0, reach * 0.55)
    draft.unit(LEVEL, "structure", block(facing(tower, angle, 0, 2.5), angle, 6.0, 5.0), name="Mixing tower")
    spread = 27.0
    apex = width / 2 / math.tan(math.radians(spread))
    behind = facing(at, angle, 0, -apex)
    front, field = apex + 0.4 * reach, apex + reach
    draft.zone(f"zone-{key}-front", LEVEL, f"{name}: front", "stage_front", fan(behind, angle, apex + 5.5, front, spread))
    draft.zone(f"zone-{key}-field", LEVEL, f"{name}: field", "stage_field", fan(behind, angle, front, field, spread))


def fences_and_gates(draft: Draft) -> None:
    """The arena fence with gates cut out, lanes in each gate, the entrances outside them."""
    fence: BaseGeometry = shapely.LinearRing(ARENA)
    for at, angle, lanes, code, name in GATES:
        half = lanes * LANE_M / 2
        fence = fence.difference(block(facing(at, angle, 0, 1), angle, 2 * half, 2))
        for k in range(lanes + 1):
            y = k * LANE_M - half
            draft.barrier(LEVEL, [facing(at, angle, y, -6.0), facing(at, angle, y, 3.0)])
        for side in (-1, 1):
            draft.barrier(LEVEL, [facing(at, angle, side * half, -6.0), facing(at, angle, side * (half + 5.0), -13.0)])
        queue = turned(shapely.Polygon([(-6, -half), (-13, -half - 5), (-24, -half - 5), (-24, half + 5), (-13, half + 5), (-6, half)]), at, angle)
        draft.zone(f"zone-{code.replace('_', '-')}-queue", LEVEL, f"{name}: queue", "queue", queue)
        draft.entrance(code, name, LEVEL, facing(at, angle, 0, -31.0))
    for line in shapely.get_parts(shapely.line_merge(fence)):
        draft.barrier(LEVEL, [(x, y) for x, y in line.coords])


def stands(draft: Draft) -> None:
    for name, category, tags, draw, width, depth, at, angle in STANDS:
        unit = draft.unit(LEVEL, "room", block(at, angle, width, depth), name=name, till=True)
        half = 0.36 * width
        draft.opening(unit, facing(at, angle, -half, 0), facing(at, angle, half, 0))
        draft.occupant(unit, name, category, tags.split(), draw)
    for at, angle in TOILETS:
        for k, category in enumerate(("restroom.female", "restroom.male", "restroom.wheelchair")):
            cabin = facing(at, angle, 7.2 * (k - 1), 0)
            toilet = _toilet(draft, cabin, angle, category)
            draft.opening(toilet, facing(cabin, angle, -1.0, 0), facing(cabin, angle, 1.0, 0))


def _toilet(draft: Draft, at: XY, angle: float, category: str) -> str:
    kinds: dict[str, UnitCategory] = {"restroom.female": "restroom.female", "restroom.male": "restroom.male"}
    return draft.unit(LEVEL, kinds.get(category, "restroom.wheelchair"), block(at, angle, 7.2, 4.0))


def services(draft: Draft) -> None:
    """First aid, offices, towers, the wheel, trees and water points."""
    aid = draft.unit(LEVEL, "room", block((128, 268), 300, 12, 7), name="First aid", unit_id="first-aid")
    draft.opening(aid, facing((128, 268), 300, -1.5, 0), facing((128, 268), 300, 1.5, 0))
    draft.amenity(LEVEL, "firstaid", facing((128, 268), 300, 0, -3), name="First aid", unit_id=aid)
    post = draft.unit(LEVEL, "room", block((262, 46), 90, 8, 5), name="First aid, gate", unit_id="first-aid-gate")
    draft.opening(post, facing((262, 46), 90, -1.2, 0), facing((262, 46), 90, 1.2, 0))
    draft.amenity(LEVEL, "firstaid", facing((262, 46), 90, 0, -2), name="First aid", unit_id=post)
    info = draft.unit(LEVEL, "room", block((138, 46), 90, 8, 5), name="Information and lost property", unit_id="information")
    draft.opening(info, facing((138, 46), 90, -1.5, 0), facing((138, 46), 90, 1.5, 0))
    draft.amenity(LEVEL, "information", facing((138, 46), 90, 0, -2), name="Information", unit_id=info)
    draft.unit(LEVEL, "nonpublic", rectangle(40, 4, 110, 18), name="Production office")
    draft.unit(LEVEL, "nonpublic", rectangle(300, 4, 372, 18), name="Deliveries")
    draft.unit(LEVEL, "structure", regular(272, 104, 9.0, 24), name="Big wheel")
    for at in ((148.0, 184.0), (234.0, 184.0), (112.0, 122.0), (286.0, 150.0), (206.0, 84.0)):
        draft.unit(LEVEL, "structure", regular(*at, 1.4, 8, 22.5), name="Light tower")
    trees = [(46 + 5 * math.sin(k), 208 + 6.5 * k) for k in range(6)] + [(352 - 9 * k, 196 + 9.5 * k + 2 * math.sin(3 * k)) for k in range(4)]
    trees += [(128, 84), (136, 90), (144, 82), (258, 140), (250, 148), (264, 150), (128, 196), (122, 204), (272, 58), (176, 58), (346, 84), (340, 76)]
    for at in trees:
        draft.unit(LEVEL, "structure", regular(*at, 1.1, 8), name="Tree")
    draft.unit(LEVEL, "walkway", rectangle(187, 100, 217, 124), name="Picnic tables", unit_id="picnic")
    ways = shapely.union_all([shapely.LineString(path).buffer(3.0, quad_segs=4) for path in PATHS])
    taken = shapely.union_all([shape(unit.polygon) for unit in draft.units]).buffer(0.8, join_style="mitre")
    draft.unit(LEVEL, "walkway", ways.difference(taken), unit_id="paths")
    draft.zone("zone-food-yard", LEVEL, "Food yard", "dining", rectangle(179, 94, 225, 131))
    for at in ((100.0, 70.0), (320.0, 80.0), (60.0, 190.0), (250.0, 226.0)):
        draft.amenity(LEVEL, "drinkingwater", at, name="Water")


def make() -> Venue:
    """The whole venue; the same every time."""
    draft = Draft()
    draft.level(LEVEL, 0, "Ground", shapely.Polygon(SITE))
    stage(draft, "sunfield", "Sunfield", (190.0, 262.0), 270.0, 34.0, 15.0, 88.0)
    stage(draft, "lantern", "Lantern", (322.0, 180.0), 215.0, 18.0, 9.0, 46.0)
    stage(draft, "willow", "Willow", (58.0, 116.0), 8.0, 16.0, 8.0, 40.0)
    fences_and_gates(draft)
    stands(draft)
    services(draft)
    return draft.venue("meadow", "Meadow", "festival", "Europe/Amsterdam", Origin(lat_deg=52.4461, lon_deg=4.8043, bearing_deg=0.0))


if __name__ == "__main__":
    save_venue(make(), PATH)
