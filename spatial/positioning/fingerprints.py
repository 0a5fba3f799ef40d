"""Fingerprint tables without a plan: readers of UJIIndoorLoc and the UCI iBeacon table, and the weighted nearest-neighbour estimator for them.

Owns single scans in one vector a row; walks belong to `grid_filter`. Strengths are dB above the table's silence. Source of the tables: Torres-Sospedra et al., IPIN 2014 (doi:10.24432/C5MS59); Mohammadi and Al-Fuqaha (doi:10.24432/C54G80).
"""

from __future__ import annotations

import csv
import io
import lzma
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from esplanade.core.errors import InvalidInput, NotFound
from spatial.positioning.list_kernels import Lists, locate_by_lists
from spatial.positioning.observations import F4, F8, I4

SILENT_DBM: Final = -104.0
NOT_HEARD: Final = 100.0
STRONGEST: Final = 16
CANDIDATES: Final = 3
"""A scan is compared with so many times k fingerprints, those most alike over its so many strongest transmitters."""
PLACES: Final = 1.5
LEAST_K: Final = 12
MOST_K: Final = 30
"""As many neighbours as have been taken at so many places, within these bounds."""
PART: Final = 256
"""So many scans are a thread's turn."""


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
    """Weighted nearest fingerprints under the mean of the cosine of strengths and Sorensen's likeness of their squares (Torres-Sospedra et al. 2015, doi:10.1016/j.eswa.2015.08.013), searched by
    inverted lists. The cosine is blind to a phone's gain, Sorensen's is not, and they err at different places."""

    lists: Lists
    k: int
    sharpness: float

    @classmethod
    def fit(cls, known: Fingerprints, *, k: int | None = None, sharpness: float = 20.0) -> NearestFingerprints:
        """k left out: 12, more where many fingerprints were taken at each place. Raises InvalidInput for an empty table."""
        if not len(known.xy_m):
            raise InvalidInput("fingerprints: the table is empty; give at least one row")
        if k is None:
            _, taken = np.unique(np.column_stack([known.floor, known.xy_m]), axis=0, return_counts=True)
            k = int(np.clip(PLACES * np.median(taken), LEAST_K, MOST_K))
        square = (known.strength * known.strength).sum(axis=1)
        length = np.sqrt(square)
        i, at = np.nonzero(known.strength)
        a, row = np.nonzero(known.strength.T)
        rows, transmitters = known.strength.shape
        unit = known.strength[row, a] / np.maximum(length[row], np.float32(1e-6))
        lists = Lists(
            np.searchsorted(a, np.arange(transmitters + 1)).astype(np.uint32), row.astype(np.uint32), unit,
            np.searchsorted(i, np.arange(rows + 1)).astype(np.uint32), at.astype(np.uint32), known.strength[i, at],
            length, square, known.xy_m, known.floor,
        )  # fmt: skip
        return cls(lists, min(k, rows), sharpness)

    def locate(self, strength: F4, *, threads: int = 1) -> tuple[F8, I4]:
        """(n, 2) positions and (n,) floors of scans (n, a), dB above silence. The scans are dealt to `threads` threads; the answers do not depend on it."""
        if strength.shape[1] != len(self.lists.first) - 1:
            raise InvalidInput(f"scans of {strength.shape[1]} transmitters; the fingerprints have {len(self.lists.first) - 1}, in the same order")
        candidates = min(CANDIDATES * self.k, len(self.lists.floor))

        def located(part: F4) -> tuple[F8, I4]:
            return locate_by_lists(part, self.lists, STRONGEST, candidates, self.k, self.sharpness)[:2]

        asked = np.ascontiguousarray(strength, np.float32)
        if threads <= 1 or len(asked) < PART:
            return located(asked)
        located(asked[:1])  # a kernel is compiled or loaded by one thread
        with ThreadPoolExecutor(threads, "fingerprints") as crew:
            found = list(crew.map(located, [asked[first : first + PART] for first in range(0, len(asked), PART)]))
        return np.concatenate([xy for xy, _ in found]), np.concatenate([floor for _, floor in found])


def folds_by_phone(table: Fingerprints, n: int, *, seed: int) -> Iterator[npt.NDArray[np.bool_]]:
    """(rows,) masks of n test sets, fewer where there are fewer groups to leave out: of UJIIndoorLoc sixteen. Users who share a phone, directly or through others, go together, so that neither phone nor user of a test row is in its training set."""
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
