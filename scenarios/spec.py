"""Scenario files: TOML in, a validated `Scenario` out, and from it the demand and the offers of a run in a given venue.

Owns the format (docs/scenarios.md) and the one clear line a mistake gets: file, key, value, rule, remedy. Never reads a clock, opens a socket or
draws a random number: the same file and venue always give the same offers.
"""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from esplanade.core.clock import ticks
from esplanade.core.errors import InvalidInput
from scenarios.metrics import METRICS
from simulation.demand import Demand, FlashPull
from spatial.offers import MAX_OFFERS, Audience, Everyone, Inside, Offer, Within, check_offer
from spatial.venue import Venue

LIBRARY: Final = Path(__file__).parent / "library"
VENUES: Final = Path(__file__).parent / "venues"
MAX_SPEC_BYTES: Final = 1_000_000

Minutes = Annotated[float, Field(ge=0, le=7 * 24 * 60, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
ShortText = Annotated[str, Field(min_length=1, max_length=120)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._\-]{0,63}$")]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Arrivals(_Table):
    """Who comes when: see `simulation.demand.Demand`."""

    hourly: Annotated[list[Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]], Field(min_length=1, max_length=48)]
    open_hour: Annotated[float, Field(ge=0, le=24)] = 8.0
    start_hour: Annotated[float, Field(ge=0, le=48)] = 8.0
    prefill: Annotated[int, Field(ge=0, le=200_000)] = 0
    hold_population: bool = False
    cap: Annotated[int, Field(ge=1, le=200_000)] = 100_000
    settle_s: Annotated[float, Field(ge=0, le=3600)] = 60.0

    @model_validator(mode="after")
    def _holds(self) -> Self:
        if self.prefill > self.cap:
            raise ValueError(f"prefill {self.prefill} is above cap {self.cap}; raise the cap or prefill fewer people")
        if self.hold_population and self.prefill == 0:
            raise ValueError("hold_population keeps the number inside at prefill, which is 0; set prefill to the number to hold")
        return self


class Shopping(_Table):
    """What people do inside: see `simulation.demand.Demand`."""

    stops: Positive = 4.0
    stay_median_s: Positive = 300.0
    stay_sigma: Annotated[float, Field(ge=0, le=3)] = 0.7
    buy_probability: Share = 0.35
    amount_median_minor: Positive = 2400.0
    amount_sigma: Annotated[float, Field(ge=0, le=3)] = 0.8
    speed_mean_mps: Annotated[float, Field(ge=0.5, le=2)] = 1.34
    speed_sd_mps: Annotated[float, Field(ge=0, le=1)] = 0.26


class OfferTable(_Table):
    """One offer, or the same for several shops. `units`: unit ids, "all", "top N" (by popularity) or "category NAME"; {shop} in the texts is the shop's name."""

    id: Name
    units: str | list[str]
    title: ShortText
    text: Annotated[str, Field(max_length=500)] = ""
    within_m: Annotated[float, Field(ge=0.5, le=1000)] | None = None
    audience: Literal["inside", "everyone"] | None = None
    from_minute: Minutes = 0.0
    until_minute: Minutes | None = None
    cooldown_minutes: Minutes = 10.0
    cap: Annotated[int, Field(ge=1, le=255)] = 1

    @model_validator(mode="after")
    def _holds(self) -> Self:
        if (self.within_m is None) == (self.audience is None):
            raise ValueError('give either within_m (metres from the shop) or audience ("inside" or "everyone")')
        if self.until_minute is not None and self.until_minute <= self.from_minute:
            raise ValueError(f"until_minute {self.until_minute} is not after from_minute {self.from_minute}; give a later end")
        return self


class FlashSale(_Table):
    """From `minute` on, everyone inside is told, and a share of them re-plans to the shop: `pull * exp(-distance / decay_m)`."""

    id: Name = "flash"
    minute: Minutes
    lasts_minutes: Annotated[float, Field(gt=0, le=24 * 60)] = 30.0
    unit: str
    title: ShortText
    text: Annotated[str, Field(max_length=500)] = ""
    pull: Share = 0.3
    decay_m: Positive = 120.0


class Parking(_Table):
    """Bay sensors of the venue's parking units: a share occupied at the start, then changes at a steady rate."""

    occupied: Share = 0.6
    changes_per_minute: Annotated[float, Field(ge=0, le=60_000)] = 30.0


class Clients(_Table):
    """People who are WebSocket clients of their own, at 1 Hz; everyone else travels as columns at 10 Hz."""

    people: Annotated[int, Field(ge=0, le=15_000)] = 0
    processes: Annotated[int, Field(ge=1, le=64)] = 1

    @model_validator(mode="after")
    def _holds(self) -> Self:
        if self.people > 15_000 * self.processes:
            raise ValueError(f"{self.people} clients in {self.processes} processes; at most 15000 each, add processes")
        return self


class Wallets(_Table):
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")] = "EUR"
    top_up_minor: Annotated[int, Field(ge=1, le=4_000_000_000)] = 200_000


class Fault(_Table):
    """Something breaks at a minute. kill_shard: SIGKILL to the process that holds the venue's position host."""

    minute: Minutes
    kind: Literal["kill_shard"]


class Threshold(_Table):
    """`metric op value` must hold at the end; metrics are in docs/scenarios.md."""

    metric: str
    op: Literal["<", "<=", "==", ">=", ">", "!="]
    value: float

    @field_validator("metric")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in METRICS:
            raise ValueError(f"no such metric; metrics are {', '.join(METRICS)}")
        return value

    def holds(self, value: float) -> bool:
        match self.op:
            case "<":
                return value < self.value
            case "<=":
                return value <= self.value
            case "==":
                return value == self.value
            case ">=":
                return value >= self.value
            case ">":
                return value > self.value
            case "!=":
                return value != self.value


class Scenario(_Table):
    """A scenario file. `venue` is a library venue's name or a path relative to the file; the command line may override it. `crowd`: shoppers along ways at a
    low cost each, or walkers, bodies on the floor (`simulation.walking_shoppers`)."""

    name: Name
    title: ShortText
    venue: Annotated[str, Field(min_length=1)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 1
    duration_minutes: Annotated[float, Field(ge=0.05, le=24 * 60)]
    speed: Annotated[float, Field(ge=0, le=100)] = 1.0
    crowd: Literal["shoppers", "walkers"] = "shoppers"
    arrivals: Arrivals
    shopping: Shopping = Shopping()
    offers: Annotated[list[OfferTable], Field(max_length=200)] = []
    flash_sales: Annotated[list[FlashSale], Field(max_length=50)] = []
    parking: Parking | None = None
    clients: Clients = Clients()
    wallets: Wallets = Wallets()
    faults: Annotated[list[Fault], Field(max_length=50)] = []
    thresholds: Annotated[list[Threshold], Field(max_length=200)] = []

    @model_validator(mode="after")
    def _times_fit(self) -> Self:
        for what, minute in [("flash sale", s.minute) for s in self.flash_sales] + [("fault", f.minute) for f in self.faults]:
            if minute >= self.duration_minutes:
                raise ValueError(
                    f"{what} at minute {minute} is not before the end, duration_minutes = {self.duration_minutes}; move it or lengthen the run"
                )
        ids = [o.id for o in self.offers] + [s.id for s in self.flash_sales]
        twice = sorted({i for i in ids if ids.count(i) > 1})
        if twice:
            raise ValueError(f"offer id {twice[0]!r} is given twice; ids of offers and flash sales are unique")
        return self

    @model_validator(mode="after")
    def _walkers_can(self) -> Self:
        arrivals = self.arrivals
        if self.crowd == "walkers" and arrivals.hold_population:
            raise ValueError('crowd "walkers" comes by the hour and holds no number inside; leave out hold_population, or take crowd = "shoppers"')
        if self.crowd == "walkers" and arrivals.prefill + sum(arrivals.hourly) > arrivals.cap:
            raise ValueError(
                f'crowd "walkers" turns nobody away, and {arrivals.prefill} inside with {sum(arrivals.hourly):g} arrivals may come to more than the cap, '
                f'{arrivals.cap}; raise the cap, or take crowd = "shoppers"'
            )
        return self

    @property
    def ticks(self) -> int:
        """Venue ticks of the run."""
        return ticks(self.duration_minutes * 60)

    def demand_in(self, venue: Venue) -> Demand:
        """What the crowd is asked for. Raises InvalidInput where a flash sale names a unit that the venue has not."""
        shop = self.shopping
        return Demand(
            open_hour=self.arrivals.open_hour,
            hourly=tuple(self.arrivals.hourly),
            start_hour=self.arrivals.start_hour,
            population_cap=self.arrivals.cap,
            prefill=self.arrivals.prefill,
            hold_population=self.arrivals.hold_population,
            settle_s=self.arrivals.settle_s,
            stops=shop.stops,
            stay_s=(shop.stay_median_s, shop.stay_sigma),
            buy_probability=shop.buy_probability,
            amount_minor=(shop.amount_median_minor, shop.amount_sigma),
            speed_mps=(shop.speed_mean_mps, shop.speed_sd_mps),
            pulls=tuple(
                FlashPull(
                    tick=ticks(sale.minute * 60),
                    unit_id=self._sale_unit(sale, venue),
                    pull=sale.pull,
                    decay_m=sale.decay_m,
                    until_tick=ticks((sale.minute + sale.lasts_minutes) * 60),
                )
                for sale in self.flash_sales
            ),
        )

    def offers_in(self, venue: Venue) -> tuple[Offer, ...]:
        """The run's offers, ascending by id. Raises InvalidInput where a selector finds nothing, or they are too many."""
        made: list[Offer] = []
        names = {occupant.unit_id: occupant.name for occupant in reversed(venue.occupants)}
        for i, table in enumerate(self.offers):
            chosen = _select(table.units, venue, f"{self.name}: offers.{i}.units")
            audience: Audience = Everyone() if table.audience == "everyone" else Inside()
            if table.within_m is not None:
                audience = Within(radius_m=table.within_m)
            made.extend(
                Offer(
                    id=table.id if len(chosen) == 1 else f"{table.id}.{unit}",
                    unit_id=unit,
                    title=table.title.replace("{shop}", names.get(unit, unit))[:120],
                    text=table.text.replace("{shop}", names.get(unit, unit))[:500],
                    audience=audience,
                    starts_tick=ticks(table.from_minute * 60),
                    ends_tick=2**53 if table.until_minute is None else ticks(table.until_minute * 60),
                    cooldown_ticks=ticks(table.cooldown_minutes * 60),
                    cap=table.cap,
                )
                for unit in chosen
            )
        for sale in self.flash_sales:
            unit = self._sale_unit(sale, venue)
            made.append(
                Offer(
                    id=sale.id,
                    unit_id=unit,
                    title=sale.title.replace("{shop}", names.get(unit, unit))[:120],
                    text=sale.text.replace("{shop}", names.get(unit, unit))[:500],
                    audience=Inside(),
                    starts_tick=ticks(sale.minute * 60),
                    ends_tick=ticks((sale.minute + sale.lasts_minutes) * 60),
                    cooldown_ticks=ticks(sale.lasts_minutes * 60) + 1,
                    cap=1,
                    flash=True,
                )
            )
        if len(made) > MAX_OFFERS:
            raise InvalidInput(f"{self.name}: {len(made)} offers; a venue has at most {MAX_OFFERS}, choose fewer units")
        return tuple(sorted((check_offer(offer) for offer in made), key=lambda offer: offer.id))

    def _sale_unit(self, sale: FlashSale, venue: Venue) -> str:
        return _select(sale.unit if sale.unit.startswith(("top ", "category ")) else [sale.unit], venue, f"{self.name}: flash sale {sale.id}: unit")[
            0
        ]


def _select(selector: str | list[str], venue: Venue, key: str) -> list[str]:
    """Unit ids that a selector names, in a fixed order."""
    if isinstance(selector, list):
        known = {unit.id for unit in venue.units}
        for unit in selector:
            if unit not in known:
                raise InvalidInput(f"{key} = {unit!r}: venue {venue.id!r} has no such unit{_near(unit, known)}")
        if not selector:
            raise InvalidInput(f'{key} = []: names no unit; give unit ids, "all", "top N" or "category NAME"')
        return list(dict.fromkeys(selector))
    ranked = sorted(venue.occupants, key=lambda occupant: (-occupant.popularity, occupant.unit_id))
    shops = list(dict.fromkeys(occupant.unit_id for occupant in ranked))
    word, _, rest = selector.partition(" ")
    if selector == "all":
        chosen = shops
    elif word == "top" and rest.isdigit() and int(rest) >= 1:
        chosen = shops[: int(rest)]
    elif word == "category" and rest:
        chosen = list(dict.fromkeys(occupant.unit_id for occupant in ranked if occupant.category == rest))
        if not chosen:
            raise InvalidInput(
                f"{key} = {selector!r}: venue {venue.id!r} has no shop of that category; categories are {sorted({o.category for o in ranked})}"
            )
    else:
        raise InvalidInput(f'{key} = {selector!r}: no such selector; give a list of unit ids, "all", "top N" or "category NAME"')
    if not chosen:
        raise InvalidInput(f"{key} = {selector!r}: venue {venue.id!r} has no occupied unit; name units by id")
    return chosen


def _near(word: str, known: set[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def load_scenario(path: Path) -> Scenario:
    """Read and validate a scenario file.

    Raises InvalidInput with one line: file, key, value, rule, remedy.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read ({error.strerror}); give a scenario file, or one of {', '.join(library())}") from None
    if len(raw) > MAX_SPEC_BYTES:
        raise InvalidInput(f"{path}: {len(raw)} bytes; a scenario file has at most {MAX_SPEC_BYTES}")
    try:
        document = tomllib.loads(raw.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path}: is no TOML: {error}; see docs/scenarios.md") from None
    return parse_scenario(document, where=str(path))


def parse_scenario(document: dict[str, Any], *, where: str) -> Scenario:
    """Validate a scenario document; `where` names it in messages. Raises InvalidInput."""
    try:
        return Scenario.model_validate(document)
    except ValidationError as error:
        raise InvalidInput(_one_line(error, where)) from None


def library() -> list[str]:
    """Names of the scenarios that ship with Esplanade."""
    return sorted(path.stem for path in LIBRARY.glob("*.toml"))


def find_scenario(name_or_path: str) -> Path:
    """The file that a name of the library, or a path, means. Raises InvalidInput for neither."""
    path = Path(name_or_path)
    if path.suffix == ".toml" or path.exists():
        return path
    if name_or_path in library():
        return LIBRARY / f"{name_or_path}.toml"
    raise InvalidInput(
        f"scenario {name_or_path!r}: no such file or library scenario{_near(name_or_path, set(library()))}; the library has {', '.join(library())}"
    )


def venue_path(scenario: Scenario, *, scenario_file: Path, override: Path | None = None) -> Path:
    """Where the venue document of a run lies: the override, a path relative to the scenario file, or a library venue. Raises InvalidInput."""
    if override is not None:
        return override
    if scenario.venue is None:
        raise InvalidInput(f"{scenario_file}: venue is not set, since its data is not in the repository; give one with --venue FILE")
    if scenario.venue.endswith(".json"):
        return (scenario_file.parent / scenario.venue).resolve()
    path = VENUES / f"{scenario.venue}.json"
    if not path.exists():
        have = sorted(p.stem for p in VENUES.glob("*.json"))
        raise InvalidInput(f"{scenario_file}: venue = {scenario.venue!r}: no such library venue; give a .json path or one of {', '.join(have)}")
    return path


def _one_line(error: ValidationError, where: str) -> str:
    """The first mistake as one line, and how many more there are."""
    mistakes = error.errors()
    first = mistakes[0]
    key = ".".join(str(part) for part in first["loc"]) or "scenario"
    value, rule = first["input"], first["msg"].removeprefix("Value error, ")
    shown = repr(value) if not isinstance(value, dict | list) else "..."
    match first["type"]:
        case "extra_forbidden":
            owner = _table_at(first["loc"][:-1])
            text = f"{key}: unknown key{_near(str(first['loc'][-1]), owner)}; keys here are {', '.join(sorted(owner))}"
        case "missing":
            text = f"{key}: is missing; add it (docs/scenarios.md says what it means)"
        case "value_error":
            text = f"{key}: {rule}" if isinstance(value, dict) else f"{key} = {shown[:200]}: {rule}"
        case _:
            text = f"{key} = {shown[:200]}: {rule[:1].lower()}{rule[1:]}; mend the value (docs/scenarios.md)"
    more = f" (and {len(mistakes) - 1} more)" if len(mistakes) > 1 else ""
    return f"{where}: {text}{more}"


TABLES: Final[dict[str, type[_Table]]] = {
    "arrivals": Arrivals,
    "shopping": Shopping,
    "offers": OfferTable,
    "flash_sales": FlashSale,
    "parking": Parking,
    "clients": Clients,
    "wallets": Wallets,
    "faults": Fault,
    "thresholds": Threshold,
}


def _table_at(loc: tuple[int | str, ...]) -> set[str]:
    """Keys of the table at a place in the document."""
    table = TABLES.get(str(loc[0])) if loc else Scenario
    return set((table or Scenario).model_fields)
