"""What phones in a made venue sense, and a radio map of it: transmitters on the ground, path loss, walls, fading, and phones that differ, wait, lose and stray.

Owns the model of the air and of a phone. Pure and deterministic: the same venue, seed and calls give the same observations. It knows the truth; what it hands out is what a phone would send.

Mean strength: log-distance path loss (exponents of indoor measurements, ITU-R P.1238), WALL_DB for each wall on the straight line up to MOST_WALLS, FLOOR_DB a floor, and a shadowing field that is fixed
in space. A reading adds fading, the phone's own gain and rounding to whole dBm; it is missed below the phone's sensitivity, and now and then above it.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from esplanade.core.errors import InvalidInput
from spatial.columns import LEFT, PositionColumns
from spatial.geofence import FenceSet
from spatial.positioning.ground import Floor, floors_of
from spatial.positioning.model import Model, Tuning
from spatial.positioning.observed import Observed, transmitter_key
from spatial.positioning.radio_map import SILENT_DBM, Survey, fit_map
from spatial.positioning.scans import transmitter_of
from spatial.venue import Venue

F4 = npt.NDArray[np.float32]
F8 = npt.NDArray[np.float64]
I4 = npt.NDArray[np.int32]

CELL_M: Final = 2.0
"""Mean strengths are kept by cells so wide."""
WALL_DB: Final = 4.0
MOST_WALLS: Final = 6
RAY_POINTS: Final = 32
LABEL_M: Final = 1.0
"""Which unit lies where is kept by cells so wide, to count walls."""
STEP_M: Final = 0.75
FLOOR_DB: Final = 16.0
FLOOR_M: Final = 5.0
FLOORS_HEARD: Final = 1
"""A transmitter is not heard more floors away."""
SHADOW_CELLS: Final = 2.5
WIFI_EXPONENT: Final = 2.8
BLE_EXPONENT: Final = 2.2
MAX_TRANSMITTERS: Final = 2_000
SPREAD: Final = 1.4
"""What makes the live filter's 90 % region of such phones hold the truth nine times in ten (measured at Parkside, seed 1)."""


@dataclass(frozen=True, slots=True)
class AirSettings:
    """wifi_m, ble_m: distance between transmitters; *_dbm: mean strength at 1 m; shadow_db: standard deviation of what furniture and the like do to it, fixed in space."""

    wifi_m: float = 22.0
    ble_m: float = 16.0
    wifi_dbm: float = -32.0
    ble_dbm: float = -55.0
    shadow_db: float = 4.0


@dataclass(frozen=True, slots=True)
class PhoneSettings:
    """fading_db, gain_db: standard deviations of a reading and of phones among themselves; missed: share of readings; sensitivity_dbm. scan_s: between Wi-Fi scans (the phone sends every second in between,
    with Bluetooth and steps alone); gap: share of scans that fail. heading_rad, stride: standard deviations of what one phone has wrong all along; step_rad: of each step. no_compass: share of phones
    that cannot tell steps. delay_s: mean of the exponential time on the way; lost: share of messages."""

    fading_db: float = 3.5
    gain_db: float = 4.0
    missed: float = 0.12
    sensitivity_dbm: float = -90.0
    scan_s: float = 3.0
    gap: float = 0.08
    heading_rad: float = 0.15
    stride: float = 0.06
    step_rad: float = 0.12
    no_compass: float = 0.05
    delay_s: float = 0.15
    lost: float = 0.01


@dataclass(frozen=True, slots=True)
class Sensed:
    """One message of a phone. east_m, north_m: path since its last one, None where it cannot tell; transmitter (k,), rssi_dbm (k,)."""

    subject: int
    at_s: float
    path_m: tuple[float, float] | None
    transmitter: npt.NDArray[np.int64]
    rssi_dbm: F4


class Air:
    """The radio of a venue: who sends where, and the mean strength everywhere. Raises InvalidInput for a venue without free ground, or too large a one for its spacing."""

    def __init__(self, venue: Venue, *, seed: int, settings: AirSettings | None = None) -> None:
        self.venue = venue
        self.settings = settings or AirSettings()
        self.floors: tuple[Floor, ...] = floors_of(venue)
        rng = np.random.default_rng((seed, 1))
        level_of = {level.id: i for i, level in enumerate(venue.levels)}
        units = FenceSet.build(len(venue.levels), [(level_of[unit.level_id], unit.polygon) for unit in venue.units])
        places, sources = [], []
        for level, floor in enumerate(self.floors):
            for kind, spacing_m in (("wifi", self.settings.wifi_m), ("ble", self.settings.ble_m)):
                for number, (x_m, y_m) in enumerate(_spread(floor, spacing_m, rng)):
                    places.append((level, x_m, y_m, kind == "ble"))
                    sources.append(f"b:made-{level}-{number}" if kind == "ble" else f"w:02:e5:{level:02x}:{number >> 8:02x}:{number & 255:02x}:00")
        if not places:
            raise InvalidInput(f"venue {venue.id}: no free ground for a transmitter; `venue check` says what is wrong with the plan")
        if len(places) > MAX_TRANSMITTERS:
            raise InvalidInput(f"venue {venue.id}: {len(places)} transmitters; at most {MAX_TRANSMITTERS}, so let them stand further apart")
        self.sources = tuple(sources)
        """What phones report: a Wi-Fi address or a beacon's name."""
        self.names = tuple(transmitter_of(source) for source in sources)
        self.keys = np.array([transmitter_key(name) for name in self.names], np.uint64)
        self.place = np.array(places, np.float64)
        self._grids = [self._grid(level, units, np.random.default_rng((seed, 2, level))) for level in range(len(self.floors))]

    def mean_dbm(self, level: int, xy_m: F8) -> F4:
        """(n, a) mean strengths at points of a level, venue metres; -inf where a transmitter is too many floors away."""
        corner, table = self._grids[level]
        cell = np.floor((xy_m - corner) / CELL_M).astype(np.int64)
        cell = np.clip(cell, 0, np.array(table.shape[1::-1]) - 1)
        found: F4 = table[cell[:, 1], cell[:, 0]]
        return found

    def _grid(self, level: int, units: FenceSet, rng: np.random.Generator) -> tuple[F8, F4]:
        floor = self.floors[level]
        centres = floor.to_venue(floor.centres())
        corner = np.floor(centres.min(axis=0) / CELL_M) * CELL_M if len(centres) else np.zeros(2)
        size = np.ceil((centres.max(axis=0) - corner) / CELL_M).astype(int) + 1 if len(centres) else np.ones(2, int)
        x = corner[0] + (np.arange(size[0]) + 0.5) * CELL_M
        y = corner[1] + (np.arange(size[1]) + 0.5) * CELL_M
        grid = np.stack(np.meshgrid(x, y), axis=-1)
        label = _labels(units, level, corner, size)
        table = np.full((size[1], size[0], len(self.place)), -np.inf, np.float32)
        for i, (on, tx, ty, ble) in enumerate(self.place):
            apart = abs(int(on) - level)
            if apart > FLOORS_HEARD:
                continue
            noise = ndimage.gaussian_filter(rng.standard_normal((size[1], size[0])), SHADOW_CELLS)
            far = np.sqrt(((grid - (tx, ty)) ** 2).sum(axis=-1) + (FLOOR_M * apart) ** 2 + 1.0)
            loss = 10 * (BLE_EXPONENT if ble else WIFI_EXPONENT) * np.log10(far) + FLOOR_DB * apart
            if apart == 0:
                loss += WALL_DB * np.minimum(_walls_between(label, corner, grid.reshape(-1, 2), np.array([tx, ty])), MOST_WALLS).reshape(far.shape)
            shadow = self.settings.shadow_db * noise / max(float(noise.std()), 1e-9)
            table[:, :, i] = (self.settings.ble_dbm if ble else self.settings.wifi_dbm) - loss + shadow
        return corner, table


def _spread(floor: Floor, spacing_m: float, rng: np.random.Generator) -> F8:
    """(n, 2) venue metres: a jittered grid, each point on the nearest free cell, none twice."""
    centres = floor.to_venue(floor.centres())
    if not len(centres):
        return np.zeros((0, 2))
    low, high = centres.min(axis=0), centres.max(axis=0)
    chosen: set[int] = set()
    for x in np.arange(low[0] + spacing_m / 2, high[0] + spacing_m / 2, spacing_m):
        for y in np.arange(low[1] + spacing_m / 2, high[1] + spacing_m / 2, spacing_m):
            at = np.array([x, y]) + rng.uniform(-0.25, 0.25, 2) * spacing_m
            away = ((centres - at) ** 2).sum(axis=1)
            if away.min() <= (0.7 * spacing_m) ** 2:
                chosen.add(int(away.argmin()))
    return centres[sorted(chosen)]


def _labels(units: FenceSet, level: int, corner: F8, size: npt.NDArray[np.int64]) -> I4:
    """(rows, columns) unit at the middle of each cell of LABEL_M, -1 for none."""
    columns, rows = (np.ceil(size * CELL_M / LABEL_M)).astype(int)
    x = corner[0] + (np.arange(columns) + 0.5) * LABEL_M
    y = corner[1] + (np.arange(rows) + 0.5) * LABEL_M
    flat = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2).astype(np.float32)
    found: I4 = units.locate(np.full(len(flat), level, np.uint8), np.ascontiguousarray(flat[:, 0]), np.ascontiguousarray(flat[:, 1]))[:, 0].reshape(
        rows, columns
    )
    return found


def _walls_between(label: I4, corner: F8, points: F8, at: F8) -> npt.NDArray[np.int64]:
    """(n,) how often the straight line from `at` to each point goes from one unit (or the walkway) into another."""
    share = np.linspace(0.0, 1.0, RAY_POINTS)
    line = ((at - corner) / LABEL_M + (points - at)[:, None, :] / LABEL_M * share[None, :, None]).astype(np.int32)
    unit = label[np.clip(line[:, :, 1], 0, label.shape[0] - 1), np.clip(line[:, :, 0], 0, label.shape[1] - 1)]
    crossed: npt.NDArray[np.int64] = (unit[:, 1:] != unit[:, :-1]).sum(axis=1)
    return crossed


def survey(air: Air, *, seed: int, spacing_m: float = 5.0, scans: int = 3, settings: PhoneSettings | None = None) -> Model:
    """A positioning model of the venue, from a survey by one phone that stops every `spacing_m` or so on every level and scans a few times."""
    how = settings or PhoneSettings()
    rng = np.random.default_rng((seed, 3))
    strengths, places, floors = [], [], []
    for level, floor in enumerate(air.floors):
        stops = _spread(floor, spacing_m, rng)
        if not len(stops):
            continue
        heard = np.mean([np.maximum(_reading(air.mean_dbm(level, stops), 0.0, how, rng) - SILENT_DBM, 0.0) for _ in range(scans)], axis=0)
        strengths.append(heard.astype(np.float32))
        places.append(floor.from_venue(stops))
        floors.append(np.full(len(stops), level, np.int32))
    floor_of = np.concatenate(floors)
    survey_rows = Survey(np.vstack(strengths), np.vstack(places), floor_of, floor_of.copy())
    radio = fit_map(survey_rows, air.names, {"rare": 0, "moving": 0}, air.floors)
    return Model(air.venue.id, air.floors, radio, Tuning(stretch=1.0, spread_causal=SPREAD, inside_rooms=1.0), len(air.floors))


def _reading(mean_dbm: F4, gain_db: float | F4, how: PhoneSettings, rng: np.random.Generator) -> F4:
    """Strengths as a phone reports them, -inf where it hears nothing."""
    rssi = np.rint(mean_dbm + gain_db + rng.normal(0.0, how.fading_db, mean_dbm.shape))
    heard = (rssi >= how.sensitivity_dbm) & (rng.random(mean_dbm.shape) >= how.missed)
    reading: F4 = np.where(heard, np.minimum(rssi, -20.0), -np.inf).astype(np.float32)
    return reading


@dataclass(slots=True)
class _Phone:
    x_m: float
    y_m: float
    level: int
    gain_db: float
    heading_rad: float
    stride: float
    compass: bool
    next_scan_s: float
    path: complex = 0j


@dataclass(slots=True)
class _Account:
    sent: int = 0
    lost: int = 0


@dataclass(slots=True)
class Phones:
    """Everybody's phone. Call `sense` about once a second of venue time with where everybody is; it returns the messages that arrive by then, in order of arrival."""

    air: Air
    seed: int
    settings: PhoneSettings = field(default_factory=PhoneSettings)
    account: _Account = field(default_factory=_Account)
    _phones: dict[int, _Phone] = field(default_factory=dict)
    _under_way: list[tuple[float, int, Sensed]] = field(default_factory=list)

    def sense(self, at_s: float, where: PositionColumns) -> list[Sensed]:
        """`where`: rows of the crowd at that time; one of level LEFT takes the phone away."""
        how = self.settings
        for subject in where.subject[where.level == LEFT].tolist():
            self._phones.pop(subject, None)
        inside = where.take(where.level != LEFT)
        rng = np.random.default_rng((self.seed, 4, round(at_s * 1000)))
        mean = np.empty((len(inside), len(self.air.names)), np.float32)
        xy = np.column_stack([inside.x_m, inside.y_m]).astype(np.float64)
        for level in np.unique(inside.level).tolist():
            at = inside.level == level
            mean[at] = self.air.mean_dbm(int(level), xy[at])
        phones = [
            self._phone(subject, level, x, y, at_s)
            for subject, level, (x, y) in zip(inside.subject.tolist(), inside.level.tolist(), xy.tolist(), strict=True)
        ]
        gain = np.array([phone.gain_db for phone in phones], np.float32)
        readings = _reading(mean, gain[:, None], how, rng)
        beacon = self.air.place[:, 3] > 0
        for phone, subject, level, (x_m, y_m), reading in zip(
            phones, inside.subject.tolist(), inside.level.tolist(), xy.tolist(), readings, strict=True
        ):
            moved = complex(x_m - phone.x_m, y_m - phone.y_m) if level == phone.level else 0j
            if moved:
                phone.path += moved * phone.stride * np.exp(1j * (phone.heading_rad + rng.normal(0.0, how.step_rad)))
            phone.x_m, phone.y_m, phone.level = x_m, y_m, level
            scanned = at_s >= phone.next_scan_s
            if scanned:
                phone.next_scan_s = at_s + how.scan_s
                scanned = rng.random() >= how.gap
            heard = np.flatnonzero(np.isfinite(reading) & (beacon | scanned))
            path = (float(phone.path.real), float(phone.path.imag)) if phone.compass else None
            phone.path = 0j
            self.account.sent += 1
            if rng.random() < how.lost:
                self.account.lost += 1
                continue
            message = Sensed(subject, at_s, path, heard, reading[heard])
            heapq.heappush(self._under_way, (at_s + rng.exponential(how.delay_s), self.account.sent, message))
        arrived = []
        while self._under_way and self._under_way[0][0] <= at_s + 1e-9:
            arrived.append(heapq.heappop(self._under_way)[2])
        return arrived

    def rest(self) -> list[Sensed]:
        """What is still under way."""
        return [heapq.heappop(self._under_way)[2] for _ in range(len(self._under_way))]

    def _phone(self, subject: int, level: int, x_m: float, y_m: float, at_s: float) -> _Phone:
        phone = self._phones.get(subject)
        if phone is None:
            how, rng = self.settings, np.random.default_rng((self.seed, 5, subject))
            phone = self._phones[subject] = _Phone(
                x_m, y_m, level, float(rng.normal(0, how.gain_db)), float(rng.normal(0, how.heading_rad)), float(rng.normal(1, how.stride)),
                bool(rng.random() >= how.no_compass), at_s + float(rng.uniform(0, how.scan_s)),
            )  # fmt: skip
        return phone

    def observed(self, batch: list[Sensed]) -> Observed:
        """Messages as the columns that a gateway makes of them."""
        n = len(batch)
        first = np.concatenate([[0], np.cumsum([len(message.transmitter) for message in batch])]).astype(np.int32)
        path = np.array([message.path_m or (0.0, 0.0) for message in batch], np.float32).reshape(n, 2)
        readings = np.concatenate([message.transmitter for message in batch]) if n else np.zeros(0, np.int64)
        rssi = np.concatenate([message.rssi_dbm for message in batch]) if n else np.zeros(0, np.float32)
        return Observed(
            np.array([message.subject for message in batch], np.uint32), np.array([message.at_s for message in batch]), np.ascontiguousarray(path[:, 0]),
            np.ascontiguousarray(path[:, 1]), np.array([message.path_m is not None for message in batch], np.uint8), first, self.air.keys[readings], rssi,
            np.zeros(n + 1, np.int32), np.zeros((0, 5)),
        )  # fmt: skip

    def fields(self, message: Sensed) -> dict[str, Any]:
        """A message as the fields of an `observe` frame, but for the venue: its path as one long step or several."""
        wifi: list[tuple[str, float]] = []
        ble: list[tuple[str, float]] = []
        for i, dbm in zip(message.transmitter.tolist(), message.rssi_dbm.tolist(), strict=True):
            source = self.air.sources[i]
            (wifi if source.startswith("w:") else ble).append((source[2:], dbm))
        fields: dict[str, Any] = {"at_ms": round(message.at_s * 1000), "wifi": wifi[:128], "ble": ble[:128]}
        if message.path_m is not None:
            path = complex(*message.path_m)
            heading = float(np.degrees(np.arctan2(path.real, path.imag)))
            n = int(np.ceil(abs(path) / STEP_M))
            fields["steps"] = [(heading, abs(path) / max(n, 1))] * min(n, 128)
        return fields
