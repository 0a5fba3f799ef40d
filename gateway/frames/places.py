"""Frames about zones, what is measured in them, parking, and the venue's own map."""

from __future__ import annotations

from typing import Annotated

import msgspec

from actors.messages import BayChange, GateCount, Key, LiveEdit
from gateway.frames.base import Coordinate, Frame, Id, LevelIndex, Place, Seq, StaleMs
from spatial.measures import Band
from spatial.zone_shapes import DrawnZone


class DrawZone(Frame, frozen=True, kw_only=True, tag="draw_zone"):
    """Operators: watch a zone from the next tick on; one of the same id is drawn anew."""

    seq: Seq
    venue: Id
    zone: DrawnZone
    key: Key | None = None


class EraseZone(Frame, frozen=True, kw_only=True, tag="erase_zone"):
    seq: Seq
    venue: Id
    zone: Id
    key: Key | None = None


class Box(msgspec.Struct, frozen=True):
    """A rectangle of a level."""

    level: LevelIndex
    x0: Coordinate
    y0: Coordinate
    x1: Coordinate
    y1: Coordinate


class GetZones(Frame, frozen=True, kw_only=True, tag="get_zones"):
    """Operators: the zones drawn; with `box` those whose ground meets it."""

    seq: Seq
    venue: Id
    box: Box | None = None


class Measure(Frame, frozen=True, kw_only=True, tag="measure"):
    """Operators: density, service, flow and stays of a zone or unit now; `voronoi`: the Voronoi density too. Answered with Measures."""

    seq: Seq
    venue: Id
    zone: Id
    voronoi: bool = False


class GetHeat(Frame, frozen=True, kw_only=True, tag="get_heat"):
    """Operators: where people have spent their time on a level. Answered with Heat."""

    seq: Seq
    venue: Id
    level: LevelIndex


class CountGates(Frame, frozen=True, kw_only=True, tag="count_gates"):
    """Operators and feeds: totals of car park gates. Answered with ParkingCompared."""

    seq: Seq
    venue: Id
    counts: Annotated[tuple[GateCount, ...], msgspec.Meta(max_length=1_000)]
    key: Key | None = None


class CompareParking(Frame, frozen=True, kw_only=True, tag="compare_parking"):
    """Operators: bays against gates; `moving_at_most` cars between them are no disagreement. Answered with ParkingCompared."""

    seq: Seq
    venue: Id
    moving_at_most: Annotated[int, msgspec.Meta(ge=0, le=100_000)] = 0


class Recount(Frame, frozen=True, kw_only=True, tag="recount"):
    """Operators: take what the bays say, and `moving` cars that are in none, as what is inside. Answered with ParkingCompared."""

    seq: Seq
    venue: Id
    moving: Annotated[int, msgspec.Meta(ge=0, le=100_000)] = 0
    key: Key | None = None


class EditVenue(Frame, frozen=True, kw_only=True, tag="edit_venue"):
    """Operators: open, close, move or re-label a unit of the map; from the next tick on. Answered with Edited."""

    seq: Seq
    venue: Id
    edit: LiveEdit
    key: Key | None = None


class UndoEdit(Frame, frozen=True, kw_only=True, tag="undo_edit"):
    seq: Seq
    venue: Id
    key: Key | None = None


class RedoEdit(Frame, frozen=True, kw_only=True, tag="redo_edit"):
    seq: Seq
    venue: Id
    key: Key | None = None


class GetEdits(Frame, frozen=True, kw_only=True, tag="get_edits"):
    seq: Seq
    venue: Id


class GetZone(Frame, frozen=True, kw_only=True, tag="get_zone"):
    """Operators: occupancy of a unit or zone by id."""

    seq: Seq
    venue: Id
    zone: Id
    stale_ms: StaleMs = 0


class SetBays(Frame, frozen=True, kw_only=True, tag="set_bays"):
    """Operators and feeds: parking bay sensors."""

    seq: Seq
    venue: Id
    bays: Annotated[tuple[BayChange, ...], msgspec.Meta(max_length=10_000)]
    key: Key | None = None


class Measures(Frame, frozen=True, kw_only=True, tag="measures"):
    """As of `tick`. `service`, `waiting`: Fruin's band for people who walk and who stand. Flow and stays are those of drawn zones."""

    seq: Seq
    zone: str
    tick: int
    inside: int
    ground_m2: float
    density_per_m2: float
    service: Band
    waiting: Band
    mean_stay_s: float
    voronoi_per_m2: float | None = None
    entries_per_min: float | None = None
    exits_per_min: float | None = None
    stays_s: tuple[int, ...] = ()
    stays: tuple[int, ...] = ()


class Heat(Frame, frozen=True, kw_only=True, tag="heat"):
    """person_s (rows, cols) f4, row 0 at y0; counted since `since_tick`."""

    seq: Seq
    venue: str
    level: int
    tick: int
    x0_m: float
    y0_m: float
    cell_m: float
    cols: int
    rows: int
    person_s: bytes
    since_tick: int | None = None


class ParkingCompared(Frame, frozen=True, kw_only=True, tag="parking_compared"):
    """`taken`: by bays; `inside`: by gates; `drift`: how many cars the gates say more (below 0: fewer) than moving cars explain."""

    seq: Seq
    venue: str
    total: int
    taken: int
    inside: int
    drift: int


class Edited(Frame, frozen=True, kw_only=True, tag="edited"):
    """`edit`: made, taken back or done again; `digest`: of the venue document now; `done`: what can be taken back, oldest first; `undone`: how many can be done again."""

    seq: Seq
    venue: str
    digest: str
    done: tuple[LiveEdit, ...]
    undone: int
    edit: LiveEdit | None = None


class ZoneList(Frame, frozen=True, kw_only=True, tag="zone_list"):
    seq: Seq
    zones: tuple[DrawnZone, ...]


class ZoneState(Frame, frozen=True, kw_only=True, tag="zone_state"):
    seq: Seq
    tick: int
    inside: int
    entries: int
    exits: int
    dwells: int
    stayed_s: float
    crossed: int = 0
    ground_m2: float = 0.0


class Dots(Frame, frozen=True, kw_only=True, tag="dots"):
    """Operators: people on a level: pseudonym (n,) u4, x, y (n,) f4; radius (n,) u1, decimetres within which nine in ten are right, 0 where not known, or nothing."""

    venue: str
    level: int
    tick: int
    pseudonym: bytes
    x: bytes
    y: bytes
    radius: bytes = b""


class DotsView(Frame, frozen=True, kw_only=True, tag="dots_view"):
    """Operators: what changed in the rectangle looked at: who came or moved: pseudonym (n,) u4, x, y (n,) u2, steps of `step_m` from `x0_m`, `y0_m`;
    radius (n,) u1 as in Dots, or nothing; who left: (m,) u4. `whole`: forget whom you held. Clusters of people too many to be told, all of them each time: middle x, y and count (k,) u2."""

    venue: str
    level: int
    tick: int
    number: int
    x0_m: float
    y0_m: float
    step_m: float
    pseudonym: bytes
    x: bytes
    y: bytes
    left: bytes = b""
    whole: bool = False
    cluster_m: float = 0.0
    cluster_x: bytes = b""
    cluster_y: bytes = b""
    cluster_count: bytes = b""
    radius: bytes = b""


class Density(Frame, frozen=True, kw_only=True, tag="density"):
    """count (rows, cols) u2, row 0 at y0; for shoppers, cells with fewer than 3 people read 0."""

    venue: str
    level: int
    tick: int
    x0_m: float
    y0_m: float
    cell_m: float
    cols: int
    rows: int
    count: bytes


class Zone(Frame, frozen=True, kw_only=True, tag="zone"):
    """To subscribers of venue/<v>/zone/<zone>. `service`: Fruin's band of walkways for `density_per_m2`."""

    venue: str
    zone: str
    tick: int
    inside: int
    entries: int
    exits: int
    dwells: int
    crossed: int
    stayed_s: float
    density_per_m2: float
    service: Band


class Stats(Frame, frozen=True, kw_only=True, tag="stats"):
    venue: str
    tick: int
    inside: tuple[int, ...]
    pushes: int
    entries: int
    exits: int
    dwells: int
    tick_ms: float
    zones: dict[str, int]


class Parking(Frame, frozen=True, kw_only=True, tag="parking"):
    """`place`: where to resume; not in answers."""

    venue: str
    total: int
    free: int
    seq: Seq | None = None
    place: Place | None = None
