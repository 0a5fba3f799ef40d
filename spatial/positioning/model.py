"""The positioning model of a site: ground, radio map, what the survey taught about walkers; fitting and the file.

Owns the file format `esplanade.positioning/1` (a NumPy archive, no pickles). It must never hold a walk.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from esplanade.core.errors import InvalidInput, NotFound
from spatial.positioning.digest import Digest
from spatial.positioning.ground import Floor
from spatial.positioning.labels import surveyed_positions
from spatial.positioning.observations import F8, Walk
from spatial.positioning.pdr import Path as Track
from spatial.positioning.pdr import dead_reckon
from spatial.positioning.radio_map import SILENT_DBM, RadioMap, Survey, choose_transmitters, fit_map, map_cells, map_of
from spatial.positioning.scans import Scans, completed_from_next, scans_of
from spatial.venue_files import write_whole

FORMAT: Final = "esplanade.positioning/1"
OUTSIDE_S: Final = 1.5
MAX_FILE_BYTES: Final = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Tuning:
    """What the filters assume. sharpness: of the scan's likelihood. blend, loudness: share of Dice's dissimilarity
    between floors and within one. turn_rad, stretch: the mean of what turns and stretches a dead-reckoned path to the floor's frame;
    turn_sd_rad: how far a walk's own turn strays. inside_rooms: weight of a cell in a room against one on the walkway. spread_causal, spread_smoothed: factor on the standard deviation that
    makes the 90 % region hold the truth 90 % of the time; floor_m: variance (as sd, m) added to every estimate."""

    sharpness: float = 27.0
    blend: float = 0.2
    loudness: float = 0.06
    turn_rad: float = 0.0
    stretch: float = 1.03
    turn_sd_rad: float = 0.17
    inside_rooms: float = 0.02
    spread_causal: float = 1.0
    spread_smoothed: float = 1.0
    floor_m: float = 0.7


@dataclass(frozen=True, slots=True)
class Model:
    """version: 1 as fitted, one more with each update. digest: what an update needs of the survey."""

    site: str
    floors: tuple[Floor, ...]
    radio: RadioMap
    tuning: Tuning
    walks: int
    version: int = 1
    digest: Digest | None = None

    def floor_index(self, name: str) -> int:
        """Raises NotFound for no such floor."""
        for i, floor in enumerate(self.floors):
            if floor.name == name:
                return i
        raise NotFound(f"floor {name!r}: the model has {[f.name for f in self.floors]}")


@dataclass(frozen=True, slots=True)
class Prepared:
    """A walk cut for the estimators: no waypoints, no floor."""

    name: str
    track: Track
    scans: Scans
    duration_s: float


def prepare(walk: Walk) -> Prepared:
    """What an estimator may see of a walk."""
    return Prepared(walk.name, dead_reckon(walk), scans_of(walk), walk.duration_s)


def fit(site: str, floors: tuple[Floor, ...], walks: Iterable[tuple[Prepared, str | None, F8]], *, tuning: Tuning | None = None) -> Model:
    """Fit a model. walks: (prepared, floor name, waypoints (m, 3)). Walks without waypoints, or of a floor that the plan does not have, teach nothing.

    Raises InvalidInput where no walk is left."""
    number = {floor.name: i for i, floor in enumerate(floors)}
    used = [(replace(p, scans=completed_from_next(p.scans)), number[f], w) for p, f, w in walks if f in number and len(w) >= 2]
    if not used:
        raise InvalidInput(f"{site}: no surveyed walk on the floors {list(number)}; give walks with waypoints in a folder a floor")
    places, outside = [], []
    for p, _, w in used:
        xy, out = surveyed_positions(w, p.track, p.scans.about_s)
        places.append(xy)
        outside.append(out)
    in_venue = [floors[f].to_venue(xy) for (_, f, _), xy in zip(used, places, strict=True)]
    names, dropped = choose_transmitters([p.scans for p, _, _ in used], in_venue, [floors[f].ordinal for _, f, _ in used])
    index = {name: i for i, name in enumerate(names)}
    strength = np.vstack(
        [p.scans.dense(index, SILENT_DBM)[out < OUTSIDE_S] - np.float32(SILENT_DBM) for (p, _, _), out in zip(used, outside, strict=True)]
    )
    kept = [int((out < OUTSIDE_S).sum()) for out in outside]
    survey = Survey(
        strength,
        np.vstack([xy[out < OUTSIDE_S] for xy, out in zip(places, outside, strict=True)]),
        np.repeat(np.array([f for _, f, _ in used], np.int32), kept),
        np.repeat(np.arange(len(used), dtype=np.int32), kept),
    )
    radio = fit_map(survey, names, dropped, floors)
    base = tuning if tuning is not None else Tuning()
    return Model(site, floors, radio, _learn_walkers(base, used, floors, survey), len(used))


def _learn_walkers(tuning: Tuning, used: list[tuple[Prepared, int, F8]], floors: tuple[Floor, ...], survey: Survey) -> Tuning:
    """The turn and stretch from dead reckoning to the floor's frame (median over legs), and how rooms compare with the walkway."""
    ratios = []
    for p, _, w in used:
        if not p.track.steady:
            continue
        moved = np.diff(p.track.at(w[:, 0]), axis=0) @ np.array([1, 1j])
        true = np.diff(w[:, 1:], axis=0) @ np.array([1, 1j])
        far = (np.abs(true) > 4) & (np.abs(moved) > 2)
        ratios.append(true[far] / moved[far])
    flat = np.concatenate(ratios) if ratios else np.zeros(0, np.complex128)
    if len(flat) < 20:
        return tuning
    about = np.angle(np.sum(flat / np.abs(flat)))  # the median is taken around the mean direction: a plan may stand on its head
    middle = float(about + np.median(np.angle(flat * np.exp(-1j * about))))
    by_walk = np.array([np.sum(r) for r in ratios if len(r)])
    sd = float(np.clip(1.4826 * np.median(np.abs(np.angle(by_walk * np.exp(-1j * middle)))), 0.08, 0.35))
    return replace(tuning, turn_rad=middle, stretch=float(np.clip(np.median(np.abs(flat)), 0.7, 1.4)), turn_sd_rad=sd)


def save_model(model: Model, path: Path) -> int:
    """Write the model, whole or not at all; returns its size in bytes. Fields are kept as bytes a transmitter, sorted, and compressed."""
    head = {
        "format": FORMAT, "site": model.site, "walks": model.walks, "version": model.version, "tuning": asdict(model.tuning), "dropped": model.radio.dropped,
        "transmitters": model.radio.transmitters,
        "floors": [
            {"name": f.name, "ordinal": f.ordinal, "corner_m": f.corner_m, "cell_m": f.cell_m, "offset_m": f.offset_m, "scale": f.scale,
             "shape": f.free.shape, "ways_m": f.ways_m.tolist(), "surveyed": bool((cells >= 0).any())}
            for f, cells in zip(model.floors, model.radio.cell_of, strict=True)
        ],
    } | ({} if model.digest is None else {"digest": model.digest.names})  # fmt: skip
    arrays = {"head": np.frombuffer(json.dumps(head).encode(), np.uint8), "field": model.radio.strength}
    for i, floor in enumerate(model.floors):
        arrays[f"free{i}"], arrays[f"rooms{i}"] = np.packbits(floor.free), np.packbits(floor.rooms)
    if model.digest is not None:
        arrays |= {f"digest_{name}": array for name, array in model.digest.arrays().items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    write_whole(path, buffer.getvalue())
    return buffer.tell()


def load_model(path: Path) -> Model:
    """Raises NotFound where there is no such file, InvalidInput where it is no model of this format."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InvalidInput(f"{path}: larger than {MAX_FILE_BYTES} bytes; a model must be smaller")
        with np.load(path, allow_pickle=False) as data:
            head = json.loads(data["head"].tobytes())
            if head.get("format") != FORMAT:
                raise InvalidInput(f"{path}: format {head.get('format')!r}; must be {FORMAT}, so fit the model again")
            floors, cell_of, first = [], [], 0
            for i, f in enumerate(head["floors"]):
                shape = tuple(f["shape"])
                free, rooms = (np.unpackbits(data[f"{key}{i}"], count=shape[0] * shape[1]).astype(bool).reshape(shape) for key in ("free", "rooms"))
                ways = np.array(f["ways_m"], np.float64).reshape(-1, 2)
                floor = Floor(f["name"], f["ordinal"], tuple(f["corner_m"]), f["cell_m"], free, rooms, tuple(f["offset_m"]), tuple(f["scale"]), ways)
                floors.append(floor)
                cells, centres = map_cells(floor)
                cell_of.append(np.where(cells >= 0, cells + first, -1).astype(np.int32) if f["surveyed"] else np.full(shape, -1, np.int32))
                first += len(centres) if f["surveyed"] else 0
            strength = np.ascontiguousarray(data["field"])
            if strength.shape != (len(head["transmitters"]), first):
                raise InvalidInput(
                    f"{path}: fields of {strength.shape} for {len(head['transmitters'])} transmitters and {first} cells; the file is damaged, so fit the model again"
                )
            radio = map_of(tuple(head["transmitters"]), strength, tuple(cell_of), head["dropped"])
            digest = Digest.of(tuple(head["digest"]), {name: data[f"digest_{name}"] for name in Digest.ARRAYS}) if "digest" in head else None
            return Model(head["site"], tuple(floors), radio, Tuning(**head["tuning"]), head["walks"], head.get("version", 1), digest)
    except FileNotFoundError:
        raise NotFound(f"{path}: no such file; make one with `esplanade positioning fit SITE_DIR --out MODEL`") from None
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise InvalidInput(f"{path}: cannot be read as a positioning model ({str(error)[:120]}); fit it again") from None
