"""Fingerprint tables without a plan: readers of UJIIndoorLoc and the UCI iBeacon table, and the weighted nearest-neighbour estimator for them.

Owns single scans in one vector a row; walks belong to `grid_filter`. Strengths are dB above the table's silence, powered, compared by the cosine, which is blind to a
phone's gain. Source of the tables: Torres-Sospedra et al., IPIN 2014 (doi:10.24432/C5MS59); Mohammadi and Al-Fuqaha (doi:10.24432/C54G80).
"""

from __future__ import annotations

import csv
import io
import lzma
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from esplanade.core.errors import InvalidInput, NotFound
from spatial.positioning.list_kernels import nearest_by_lists
from spatial.positioning.observations import F4, F8, I4

SILENT_DBM: Final = -104.0
NOT_HEARD: Final = 100.0
BLOCK: Final = 512


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """strength: (n, a) float32 dB above SILENT_DBM, 0 where not heard; xy_m: (n, 2); floor: (n,) building * 10 + floor; user, phone: (n,) who took it. broken: rows left out."""

    strength: F4
    xy_m: F8
    floor: I4
    user: I4
    phone: I4
    broken: int

    def rows(self, which: npt.NDArray[np.bool_]) -> Fingerprints:
        return Fingerprints(self.strength[which], self.xy_m[which], self.floor[which], self.user[which], self.phone[which], 0)


def read_ujiindoorloc(path: Path) -> Fingerprints:
    """A UJIIndoorLoc table (.csv or .csv.xz). Raises NotFound, or InvalidInput where the columns are others; a bad row is counted and left out."""
    header, rows = _table(path)
    radio = [i for i, name in enumerate(header) if name.startswith("WAP")]
    try:
        fields = [header.index(name) for name in ("LONGITUDE", "LATITUDE", "FLOOR", "BUILDINGID", "USERID", "PHONEID")]
    except ValueError as error:
        raise InvalidInput(
            f"{path}: {error}; must be a UJIIndoorLoc table with WAP001.., LONGITUDE, LATITUDE, FLOOR, BUILDINGID, USERID, PHONEID"
        ) from None
    strengths: list[F4] = []
    others: list[list[float]] = []
    broken = 0
    for row in rows:
        try:
            rssi = np.array([row[i] for i in radio], np.float32)
            other = [float(row[i]) for i in fields]
        except (ValueError, IndexError):
            broken += 1
            continue
        strengths.append(np.where(rssi == NOT_HEARD, 0, np.clip(rssi - SILENT_DBM, 0, 110)).astype(np.float32))
        others.append(other)
    if not others:
        raise InvalidInput(f"{path}: no readable row; must hold fingerprints")
    table = np.array(others, np.float64)
    whole = table[:, 2:].astype(np.int32)
    return Fingerprints(np.array(strengths), table[:, :2], whole[:, 1] * 10 + whole[:, 0], whole[:, 2], whole[:, 3], broken)


def read_ble_cells(path: Path) -> Fingerprints:
    """The UCI iBeacon table: `location` is a grid cell (letter column, number row), one unit apart; -200 is not heard. Raises NotFound or InvalidInput."""
    header, rows = _table(path)
    radio = [i for i, name in enumerate(header) if name.startswith("b3")]
    if "location" not in header or not radio:
        raise InvalidInput(f"{path}: columns {header[:4]}...; must be `location`, `date`, `b3001`..")
    place = header.index("location")
    strengths: list[F4] = []
    cells: list[tuple[float, float]] = []
    broken = 0
    for row in rows:
        try:
            name = row[place].strip()
            cells.append((float(ord(name[0].upper()) - ord("A")), float(name[1:])))
            rssi = np.array([row[i] for i in radio], np.float32)
        except (ValueError, IndexError):
            broken += 1
            del cells[len(strengths) :]
            continue
        strengths.append(np.clip(rssi - SILENT_DBM, 0, 110))
    if not cells:
        raise InvalidInput(f"{path}: no readable row; must hold fingerprints")
    nobody = np.zeros(len(cells), np.int32)
    return Fingerprints(np.array(strengths, np.float32), np.array(cells), nobody, nobody, nobody, broken)


@dataclass(frozen=True, slots=True)
class NearestFingerprints:
    """Weighted k nearest fingerprints under the cosine of powered strengths, by an inverted list: a scan is compared only with what hears the same transmitters.

    Fingerprints of transmitter a are the entries first[a]:first[a + 1] of row (int32) and value (float32, rows of unit length)."""

    first: I4
    row: I4
    value: F4
    xy_m: F8
    floor: I4
    k: int
    power: float

    @classmethod
    def fit(cls, known: Fingerprints, *, k: int = 12, power: float = 1.5) -> NearestFingerprints:
        by_transmitter = _unit(known.strength, power).T
        which, row = np.nonzero(by_transmitter)
        first = np.searchsorted(which, np.arange(len(by_transmitter) + 1)).astype(np.int32)
        return cls(first, row.astype(np.int32), by_transmitter[which, row], known.xy_m, known.floor, min(k, len(known.xy_m)), power)

    def locate(self, strength: F4) -> tuple[F8, I4]:
        """(n, 2) positions and (n,) floors of scans (n, a). The floor has the most weight among the neighbours; the position is the weighted mean of those on it."""
        xy, floor = np.empty((len(strength), 2)), np.empty(len(strength), np.int32)
        for begin in range(0, len(strength), BLOCK):
            part = slice(begin, begin + BLOCK)
            scan, which = np.nonzero(strength[part])
            starts = np.searchsorted(scan, np.arange(len(strength[part]) + 1)).astype(np.int32)
            powered = strength[part][scan, which] ** np.float32(self.power)
            near, alike = nearest_by_lists(starts, which.astype(np.int32), powered, self.first, self.row, self.value, len(self.xy_m), self.k)
            weight = 1 / (1.001 - alike).astype(np.float64) ** 2
            floors = self.floor[near]
            votes = (weight[:, :, None] * (floors[:, :, None] == floors[:, None, :])).sum(axis=1)
            best = np.take_along_axis(floors, votes.argmax(axis=1)[:, None], axis=1)
            weight = weight * (floors == best)
            xy[part] = (self.xy_m[near] * weight[:, :, None]).sum(axis=1) / weight.sum(axis=1, keepdims=True)
            floor[part] = best[:, 0]
        return xy, floor


def folds_by_phone(table: Fingerprints, n: int, *, seed: int) -> Iterator[npt.NDArray[np.bool_]]:
    """(rows,) masks of n test sets. Users who share a phone, directly or through others, go together, so that neither phone nor user of a test row is in its training set."""
    group = {("u", int(u)): ("u", int(u)) for u in np.unique(table.user)} | {("p", int(p)): ("p", int(p)) for p in np.unique(table.phone)}

    def root(key: tuple[str, int]) -> tuple[str, int]:
        while group[key] != key:
            key = group[key]
        return key

    for user, phone in {(int(u), int(p)) for u, p in zip(table.user, table.phone, strict=True)}:
        group[root(("u", user))] = root(("p", phone))
    roots = np.array([root(("u", int(u)))[1] for u in table.user])
    names = np.random.default_rng(seed).permutation(np.unique(roots))
    for part in np.array_split(names, min(n, len(names))):
        yield np.isin(roots, part)


def _unit(strength: F4, power: float) -> F4:
    powered = strength ** np.float32(power)
    unit: F4 = powered / np.maximum(np.sqrt((powered * powered).sum(axis=1, keepdims=True)), np.float32(1e-6))
    return unit


def _table(path: Path) -> tuple[list[str], Iterator[list[str]]]:
    try:
        data = path.read_bytes()
        text = (lzma.decompress(data) if path.suffix == ".xz" else data).decode("utf-8", "replace")
    except FileNotFoundError:
        raise NotFound(f"{path}: no such file; give a table of fingerprints (.csv or .csv.xz)") from None
    except (OSError, lzma.LZMAError) as error:
        raise InvalidInput(f"{path}: cannot be read ({str(error)[:80]})") from None
    rows = csv.reader(io.StringIO(text))
    return next(rows, []), rows
