"""Small venues for the crowd's tests: boxes with rooms along a corridor, on one or two levels."""

from __future__ import annotations

from typing import Literal

from spatial.venue import Barrier, Connector, Entrance, Level, MultiPolygon, Occupant, Opening, Origin, Stop, Unit, Venue, Zone

ORIGIN = Origin(lat_deg=52.0, lon_deg=13.0)


def box(x0: float, y0: float, x1: float, y1: float) -> MultiPolygon:
    return ((((x0, y0), (x1, y0), (x1, y1), (x0, y1)),),)


def shop(
    name: str, level: str, x0: float, y0: float, x1: float, y1: float, *, door: tuple[float, float], till: bool = True
) -> tuple[Unit, Opening, Occupant]:
    """A room with its opening from x = door[0] to door[1] in its lower wall (y0)."""
    return (
        Unit(id=name, level_id=level, category="room", polygon=box(x0, y0, x1, y1), till=till),
        Opening(id=f"{name}-door", level_id=level, unit_id=name, a=(door[0], y0), b=(door[1], y0)),
        Occupant(id=f"{name}-occupant", unit_id=name, name=name),
    )


def venue(
    *,
    levels: tuple[tuple[str, MultiPolygon], ...],
    shops: tuple[tuple[Unit, Opening, Occupant], ...],
    entrances: tuple[tuple[float, float], ...],
    units: tuple[Unit, ...] = (),
    connectors: tuple[Connector, ...] = (),
    barriers: tuple[Barrier, ...] = (),
    zones: tuple[Zone, ...] = (),
    occupants: tuple[Occupant, ...] = (),
    kind: Literal["mall", "festival"] = "mall",
) -> Venue:
    first = levels[0][0]
    return Venue(
        id="small",
        name="Small",
        kind=kind,
        origin=ORIGIN,
        levels=tuple(Level(id=name, ordinal=i, name=name, short_name=name, outline=outline) for i, (name, outline) in enumerate(levels)),
        units=(*(part[0] for part in shops), *units),
        openings=tuple(part[1] for part in shops),
        occupants=(*(part[2] for part in shops), *occupants),
        entrances=tuple(Entrance(id=f"e{i}", code=f"e{i}", name=f"e{i}", level_id=first, point=point) for i, point in enumerate(entrances)),
        connectors=connectors,
        barriers=barriers,
        zones=zones,
    )


def corridor() -> Venue:
    """50 m x 4 m with an entrance at the west end, and a shop behind the north wall at the east end."""
    return venue(levels=(("F0", box(0, 0, 50, 10)),), shops=(shop("east", "F0", 40, 4, 50, 10, door=(44, 46)), shop("west", "F0", 0, 4, 10, 10, door=(4, 6))),
                 units=(Unit(id="block", level_id="F0", category="nonpublic", polygon=box(10, 4, 40, 10)),), entrances=((1.0, 2.0), (49.0, 2.0)))  # fmt: skip


def arcade(*, escalators: bool = True, up_only: bool = False, last_till: bool = True) -> Venue:
    """Two levels of 40 m x 16 m, four shops on each; an escalator each way and stairs, or one way up alone."""
    shops = []
    for level in ("F0", "F1"):
        for k in range(4):
            till = last_till or k < 3
            shops.append(shop(f"{level}-s{k}", level, 10 * k, 8, 10 * k + 10, 16, door=(10 * k + 4, 10 * k + 5.5), till=till))
    connectors: list[Connector] = []
    low, high = Stop(level_id="F0", point=(12.0, 3.0)), Stop(level_id="F1", point=(18.0, 3.0))
    if escalators or up_only:
        connectors.append(Connector(id="up", kind="escalator", stops=(low, high), direction="forward"))
    if escalators and not up_only:
        low2, high2 = Stop(level_id="F0", point=(24.0, 3.0)), Stop(level_id="F1", point=(30.0, 3.0))
        connectors.append(Connector(id="down", kind="escalator", stops=(low2, high2), direction="backward"))
        connectors.append(
            Connector(id="stairs", kind="stairs", stops=(Stop(level_id="F0", point=(37.0, 4.0)), Stop(level_id="F1", point=(37.0, 5.0))))
        )
    return venue(
        levels=(("F0", box(0, 0, 40, 16)), ("F1", box(0, 0, 40, 16))),
        shops=tuple(shops),
        entrances=((1.0, 2.0), (39.0, 2.0)),
        connectors=tuple(connectors),
    )


def bottleneck(width: float) -> Venue:
    """A room of 10 m x 8 m whose only opening, of this width, leads to open ground with the entrance."""
    return venue(
        levels=(("F0", box(0, -8, 10, 8)),), shops=(shop("room", "F0", 0, 0, 10, 8, door=(5 - width / 2, 5 + width / 2)),), entrances=((5.0, -7.0),)
    )


def festival() -> Venue:
    """A field of 60 m x 40 m with a stage, a zone in front of it, two bars (solid, visited from outside) and two gates."""
    bars = tuple(Unit(id=f"bar{k}", level_id="F0", category="structure", polygon=box(10 + 20 * k, 2, 16 + 20 * k, 5), till=True) for k in range(2))
    return venue(
        kind="festival",
        levels=(("F0", box(0, 0, 60, 40)),),
        shops=(),
        units=(*bars, Unit(id="stage", level_id="F0", category="stage", polygon=box(20, 34, 40, 40))),
        occupants=tuple(Occupant(id=f"bar{k}-o", unit_id=f"bar{k}", name=f"Bar {k}", category="bar") for k in range(2)),
        entrances=((1.0, 20.0), (59.0, 20.0)),
        zones=(Zone(id="front", level_id="F0", name="Front", category="stage_front", polygon=box(20, 20, 40, 33)),),
    )
