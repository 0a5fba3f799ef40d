"""A scenario of walkers in a file: ground or a venue, goals, connectors, who comes when and what they want. Owns the format and the clock of a study.

The file is TOML; `docs/crowd.md` has every key, `scenarios/studies` whole ones.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from esplanade.core.errors import InvalidInput, NotFound

Ring = list[tuple[float, float]]
Spot = tuple[int, float, float]
"""Level, x, y: metres."""

WHEELCHAIR_M: Final = 0.4
"""Half of the length of an occupied wheelchair of 0.7 m x 1.2 m lies between 0.35 and 0.6 m; a disc of 0.8 m passes the doors that a wheelchair passes (ISO 7176-5)."""
WHEELCHAIR_MPS: Final = (0.69, 0.2)
"""Manual wheelchairs on the level: 0.69 m/s in the mean (Boyce, Shields, Silcock 1999, Fire Technology 35, table 1); the deviation is ours."""
PRAM_M: Final = 0.4
PRAM_MPS: Final = (1.1, 0.2)
"""Ours: no published figure was found."""


class GroundSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A level: its outline, and holes that nobody enters; metres."""

    outline: Ring
    holes: list[Ring] = []


class GoalSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where people walk to. With a popularity above 0 visitors choose it, stay there for stay_s (median, sigma), and with `till` queue at that service with
    probability `buys` before they go on. price: they need so much left of their budget. room: people inside and on the way at most (0: any number)."""

    name: str
    area: Ring
    level: int = 0
    leave: bool = True
    popularity: float = 0.0
    category: str = ""
    stay_s: tuple[float, float] = (300.0, 0.7)
    room: int = 0
    price: float = 0.0
    till: str = ""
    buys: float = 0.35


class HopSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"start": "from", "end": "to"}):
    id: str
    from_level: int
    start: tuple[float, float]
    to_level: int
    end: tuple[float, float]
    seconds: float
    every_s: float = 1.0
    room_for: int = 12


class SlopeSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    area: Ring
    factor: float
    level: int = 0


class PeopleSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """count people spread over an area; speed_mps: mean and deviation; start_s: pre-movement times, uniform between both, or premovement_s: log-normal, median
    and sigma. via: goals and services on the way. group_sizes, prams, wheelchairs: as visitors'. radius_m: 0: what goes with the model's parameters."""

    count: int
    area: Ring
    goal: str
    level: int = 0
    speed_mps: tuple[float, float] = (1.34, 0.26)
    radius_m: float = 0.0
    start_s: tuple[float, float] = (0.0, 0.0)
    premovement_s: tuple[float, float] = (0.0, 0.0)
    via: list[str] = []
    group_sizes: list[float] = []
    prams: float = 0.0
    wheelchairs: float = 0.0


class LiftSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: str
    stops: list[Spot]
    capacity: int = 12
    storey_s: float = 3.0
    start_s: float = 3.0
    door_s: float = 2.5
    board_s: float = 1.2
    dwell_s: float = 3.0


class EscalatorSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"start": "from", "end": "to"}):
    id: str
    start: Spot
    end: Spot
    length_m: float = 12.0
    speed_mps: float = 0.5
    width_m: float = 1.0
    walking_share: float = 0.0


class StairsSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: str
    bottom: Spot
    top: Spot
    length_m: float = 9.0
    width_m: float = 2.0
    slope_deg: float = 30.0


class DoorSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An area across a way that nobody passes from `closes` to `opens` (never again where it is empty)."""

    id: str
    area: Ring
    closes: str
    opens: str = ""
    level: int = 0


class ServiceSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A till, bar, gate or toilet: counters, and the line before them from its head on. service_s: median and sigma. popularity, category: as goals'."""

    name: str
    counters: Ring
    line: Ring
    service_s: tuple[float, float] = (60.0, 0.5)
    level: int = 0
    popularity: float = 0.0
    category: str = ""


class VisitorsSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """People who come by the clock and choose where to go.

    hourly: counts from `from` on; inside: so many are in the places at the start. exits: goals by which they come and leave (all that are left by where empty).
    stops: mean number of places; time_s: median and sigma of the time they have; budget: the same of what they may spend (against the goals' `price`).
    likes: factors by category. range_m: a place loses a factor e with so many metres. closes: when all leave, after egress_s (median, sigma).
    group_sizes: weights of groups of 1, 2, 3 ... people (empty: all alone); prams: share of the groups of two and more that push one; wheelchairs: share of the people.
    radius_m: 0: what goes with the model's parameters.
    """

    hourly: list[float] = []
    start: str = msgspec.field(default="", name="from")
    inside: int = 0
    exits: list[str] = []
    stops: float = 4.0
    time_s: tuple[float, float] = (5400.0, 0.5)
    budget: tuple[float, float] = (8000.0, 0.8)
    likes: dict[str, float] = {}
    range_m: float = 120.0
    closes: str = ""
    egress_s: tuple[float, float] = (60.0, 0.7)
    group_sizes: list[float] = []
    prams: float = 0.0
    wheelchairs: float = 0.0
    speed_mps: tuple[float, float] = (1.34, 0.26)
    radius_m: float = 0.0


class OfferSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A flash sale: from `at` until `until` each visitor inside, and each who comes, goes there with probability pull * exp(-way / decay_m)."""

    place: str
    at: str
    until: str
    pull: float = 0.3
    decay_m: float = 120.0
    room: int = 0


class ActSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"start": "from"}):
    """A concert at a place (a goal before the stage): of the visitors a `share` comes within lead_s before it begins and stays until it ends."""

    place: str
    start: str
    until: str
    share: float = 0.3
    lead_s: float = 600.0


class AlarmSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An alarm: everybody leaves by the nearest exit after a pre-movement time, log-normal (median, sigma). closes: connectors that stop then."""

    at: str
    premovement_s: tuple[float, float] = (60.0, 0.7)
    exits: list[str] = []
    closes: list[str] = []


class CrowdSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A scenario. starts: time of day at second 0. jam_s: see `simulation.walkers.Walkers`; 0: the shortest ways for ever. record_s: seconds between two frames of
    the trajectories. venue: a venue document instead of ground, with its shops, entrances and connectors; a path relative to the file. stay_s: median and sigma of
    the time in a venue's shops."""

    ground: list[GroundSpec] = []
    goals: list[GoalSpec] = []
    people: list[PeopleSpec] = []
    hops: list[HopSpec] = []
    venue: str = ""
    stay_s: tuple[float, float] = (300.0, 0.7)
    starts: str = "00:00"
    lifts: list[LiftSpec] = []
    escalators: list[EscalatorSpec] = []
    stairs: list[StairsSpec] = []
    doors: list[DoorSpec] = []
    services: list[ServiceSpec] = []
    visitors: list[VisitorsSpec] = []
    offers: list[OfferSpec] = []
    acts: list[ActSpec] = []
    alarm: AlarmSpec | None = None
    slopes: list[SlopeSpec] = []
    model: str = "collision_free_speed"
    parameter_set: str = "calibrated"
    parameters: dict[str, float] = {}
    step_s: float = 0.05
    cell_m: float = 0.2
    seconds: float = 600.0
    seed: int = 1
    jam_s: float = 0.0
    record_s: float = 0.5


def read_spec(path: Path, settings: Sequence[str] = ()) -> CrowdSpec:
    """A scenario from a TOML file, with settings `key=value` put over it: `jam_s=2`, `offers.0.place="shoes"`; a value is written as in TOML.

    Raises NotFound, or InvalidInput with the file, the key and the rule.
    """
    try:
        document: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        for setting in settings:
            _put(document, setting)
        spec = msgspec.convert(document, CrowdSpec)
    except FileNotFoundError:
        raise NotFound(f"{path}: no such file; give the path of a crowd scenario") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidInput(f"{path}: cannot be read ({error}); a crowd scenario is TOML in UTF-8") from None
    except msgspec.ValidationError as error:
        raise InvalidInput(f"{path}: {error}{_how_to_write(str(error))}; docs/crowd.md shows every key") from None
    return msgspec.structs.replace(spec, venue=str((path.parent / spec.venue).resolve())) if spec.venue else spec


def _how_to_write(error: str) -> str:
    """What TOML is written for what was expected, where those who write it by hand go wrong most."""
    key = error.rpartition("`$.")[2].rstrip("`").partition("[")[0]
    if error.startswith("Expected `array`, got `object`") and "." not in key:
        return f"; {key} is a list, begin each of its entries with [[{key}]]"
    if error.startswith("Expected `object | null`, got `array`"):
        return f"; there is one {key} at most, begin it with [{key}]"
    if error.startswith("Expected `str`, got `int`") and error.endswith((".from`", ".at`", ".until`", ".closes`", ".opens`", "`$.starts`")):
        return '; a time is written in quotation marks: "14:00", or seconds from the start, "3600"'
    return ""


def _put(document: dict[str, Any], setting: str) -> None:
    """Put one setting into a document. Raises InvalidInput for one that is no `key=value`, or whose key leads through something that is not there."""
    key, equals, text = setting.partition("=")
    if not equals:
        raise InvalidInput(f'setting {setting!r}: must be key=value, such as offers.0.place="shoes"')
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    at: Any = document
    *way, last = key.strip().split(".")
    try:
        for part in way:
            at = at[int(part)] if isinstance(at, list) else at.setdefault(part, {})
        if isinstance(at, list):
            at[int(last)] = value
        else:
            at[last] = value
    except (ValueError, IndexError, TypeError, AttributeError):
        raise InvalidInput(f"setting {setting!r}: {key!r} leads to nothing in this scenario; number the entries of a list from 0") from None


def seconds_after(start: str, moment: str, what: str) -> float:
    """Seconds from `start` (hh:mm or hh:mm:ss of the venue's day) to a moment: such a time, or seconds from the start. Raises InvalidInput for anything else."""

    def of_day(text: str) -> float | None:
        found = re.fullmatch(r"(\d{1,2}):([0-5]\d)(?::([0-5]\d))?", text)
        return None if found is None else 3600.0 * int(found[1]) + 60.0 * int(found[2]) + float(found[3] or 0)

    begins = of_day(start)
    if begins is None:
        raise InvalidInput(f"starts = {start!r}; must be a time of day, hh:mm")
    at = of_day(moment)
    if at is not None:
        return at - begins
    try:
        return float(moment)
    except ValueError:
        raise InvalidInput(f"{what} = {moment!r}; must be a time of day (hh:mm) or seconds from the start") from None
