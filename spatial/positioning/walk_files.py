"""Reads walks in the malls' trace format: `unix_ms TAB TYPE TAB values`, `#` headers, as `.txt` files or `.tar.xz` archives of them.

Owns the text format. A line that cannot be read is counted, never fatal; nothing is guessed from a file's name or place but the floor (its folder).

Clock policy: file order is the order of events. Where the clock steps by more than CLOCK_JUMP_S from one record to the next, the step is taken out of all later
records and counted. Smaller disorder is sorted. Exact repeats of a radio reading (one measurement told in several scans) are kept once.
"""

from __future__ import annotations

import lzma
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

import numpy as np

from esplanade.core.errors import InvalidInput, NotFound
from spatial.positioning.observations import F8, Radio, ReadAccount, Series, Walk

CLOCK_JUMP_S: Final = 60.0
MAX_AGE_S: Final = 60.0
"""A reading's own time of measurement is believed when it lies at most this far before its delivery; otherwise delivery time stands for it."""
MAX_FILE_BYTES: Final = 512 * 1024 * 1024
RSSI_RANGE: Final = (-120.0, -1.0)

SERIES: Final[dict[str, tuple[str, int]]] = {
    "TYPE_ACCELEROMETER": ("accel", 3),
    "TYPE_GYROSCOPE": ("gyro", 3),
    "TYPE_MAGNETIC_FIELD": ("magnetic", 3),
    "TYPE_ROTATION_VECTOR": ("rotation", 3),
    "TYPE_PRESSURE": ("pressure", 1),
    "TYPE_GNSS": ("gnss", 3),
    "TYPE_UWB_RANGE": ("ranges", 4),
    "TYPE_QR": ("fixes", 2),
}
"""The last three are ours, for observations that the malls' recorder does not have."""

IGNORED: Final = frozenset(
    {"TYPE_BLU4", "TYPE_DIST1", "TYPE_DIST2", "TYPE_ACCELEROMETER_UNCALIBRATED", "TYPE_GYROSCOPE_UNCALIBRATED", "TYPE_MAGNETIC_FIELD_UNCALIBRATED"}
)  # known and of no use here: repeats of other records, or undocumented numbers (DIST) and zeros (BLU4)
LIMIT: Final = {"accel": 200.0, "gyro": 50.0, "magnetic": 5000.0, "rotation": 1.01, "pressure": 1200.0, "gnss": 1e6, "ranges": 1e6, "fixes": 1e6}


def parse_walk(data: bytes, *, name: str, floor: str | None = None) -> Walk:
    """One walk from the bytes of a trace file. Never raises for content; see `Walk.account`."""
    account = ReadAccount()
    rows: dict[str, list[tuple[float, ...]]] = {field: [] for field, _ in SERIES.values()}
    waypoints: list[tuple[float, float, float]] = []
    heard: dict[tuple[str, int, float], tuple[float, float]] = {}
    start: int | None = None
    last = 0
    shift = 0
    end = 0.0
    for line in data.decode("utf-8", "replace").split("\n"):
        if not line.strip():
            continue
        account.read += 1
        if line[0] == "#":
            account.headers += 1
            continue
        part = line.rstrip("\r").split("\t")
        if len(part) < 2 or line.count("TYPE_") != 1 or not part[0].isdigit() or len(part[0]) > 15:
            account.broken += 1
            continue
        now = int(part[0])
        if start is None:
            start = last = now
        if abs(now - last) > CLOCK_JUMP_S * 1000:
            account.clock_jumps += 1
            shift += now - last
        last = now
        t_s = (now - shift - start) / 1000.0
        end = max(end, t_s)
        kind = part[1]
        try:
            if (series := SERIES.get(kind)) is not None:
                field, width = series
                value = tuple(map(float, part[2 : 2 + width]))
                if len(value) != width:
                    raise ValueError
                if not all(abs(v) <= LIMIT[field] for v in value):
                    account.out_of_range += 1
                    continue
                rows[field].append((t_s, *value))
                account.used += 1
            elif kind in ("TYPE_WIFI", "TYPE_BEACON", "TYPE_BLUE"):
                if kind == "TYPE_WIFI":
                    source, rssi, seen = "w:" + part[3].lower(), float(part[4]), part[6] if len(part) > 6 else ""
                elif kind == "TYPE_BEACON":
                    source, rssi, seen = "b:" + part[8].lower(), float(part[6]), ""
                else:
                    source, rssi, seen = "b:" + part[3].lower(), float(part[4]), ""
                if len(source) != 19:
                    raise ValueError
                if not RSSI_RANGE[0] <= rssi <= RSSI_RANGE[1]:
                    account.out_of_range += 1
                    continue
                age = (now - int(seen)) / 1000.0 if seen.isdigit() else 0.0
                measured = t_s - age if 0.0 <= age <= MAX_AGE_S else t_s
                key = (source, round(measured * 1000), rssi)
                if key in heard:
                    account.repeated += 1
                    if heard[key][0] <= t_s:
                        continue
                else:
                    account.used += 1
                heard[key] = (t_s, measured)
            elif kind == "TYPE_WAYPOINT":
                x, y = float(part[2]), float(part[3])
                if not (abs(x) < 1e5 and abs(y) < 1e5):
                    account.out_of_range += 1
                    continue
                waypoints.append((t_s, x, y))
                account.used += 1
            elif kind in IGNORED or kind.endswith("_ACCURACY_CHANGED"):
                account.ignored += 1
            else:
                account.ignored += 1
                if len(account.unknown_types) < 64 or kind in account.unknown_types:
                    account.unknown_types[kind[:64]] = account.unknown_types.get(kind[:64], 0) + 1
        except (ValueError, IndexError):
            account.broken += 1
    names = sorted({key[0] for key in heard})
    index = {source: i for i, source in enumerate(names)}
    readings = sorted((told, measured, index[key[0]], key[2]) for key, (told, measured) in heard.items())
    radio = Radio(
        np.array([r[1] for r in readings], np.float64),
        np.array([r[0] for r in readings], np.float64),
        np.array([r[2] for r in readings], np.int32),
        np.array([r[3] for r in readings], np.float32),
        tuple(names),
    )
    sensors = {field: _series(rows[field], width) for field, width in SERIES.values()}
    points = np.array(sorted(waypoints), np.float64).reshape(-1, 3)
    return Walk(name=name, floor=floor, start_ms=start or 0, duration_s=end, radio=radio, waypoints=points, account=account, **sensors)


def read_walks(folder: Path) -> Iterator[Walk]:
    """Every walk below `folder`: `<floor>/**/*.txt` and `<floor>/**/*.tar.xz`; the floor is the name of the folder directly below `folder`.

    In order of path. Raises NotFound for no such folder, InvalidInput for an archive that cannot be read or a member beyond MAX_FILE_BYTES."""
    if not folder.is_dir():
        raise NotFound(f"{folder}: no such folder; give one with a folder a floor (F1, F2, ...) that holds walks (.txt or .tar.xz)")
    for floor in sorted(path for path in folder.iterdir() if path.is_dir()):
        for path in sorted(floor.rglob("*")):
            if path.suffix == ".txt" and path.is_file():
                if path.stat().st_size > MAX_FILE_BYTES:
                    raise InvalidInput(f"{path}: larger than {MAX_FILE_BYTES} bytes; a walk must be smaller")
                yield parse_walk(path.read_bytes(), name=path.stem, floor=floor.name)
            elif path.name.endswith(".tar.xz"):
                yield from read_archive(path, floor=floor.name)


def read_archive(path: Path, *, floor: str | None = None) -> Iterator[Walk]:
    """Every `.txt` member of a `.tar.xz` archive. Nothing is unpacked to disk. Raises InvalidInput."""
    try:
        with tarfile.open(path, "r:xz") as archive:
            for member in archive:
                if not (member.isfile() and member.name.endswith(".txt")):
                    continue
                if member.size > MAX_FILE_BYTES:
                    raise InvalidInput(f"{path}: {member.name} is larger than {MAX_FILE_BYTES} bytes; a walk must be smaller")
                stream = archive.extractfile(member)
                if stream is not None:
                    yield parse_walk(stream.read(), name=PurePosixPath(member.name).stem, floor=floor)
    except (tarfile.TarError, lzma.LZMAError, EOFError, OSError) as error:
        raise InvalidInput(f"{path}: cannot be read as tar.xz ({str(error)[:120]}); pack the walks again") from None


def _series(rows: list[tuple[float, ...]], width: int) -> Series:
    table: F8 = np.array(rows, np.float64).reshape(-1, width + 1)
    order = np.argsort(table[:, 0], kind="stable")
    table = table[order]
    keep = np.ones(len(table), bool)
    keep[1:] = np.diff(table[:, 0]) > 0  # of samples at one instant the first stands
    return Series(table[keep, 0], table[keep, 1:])
