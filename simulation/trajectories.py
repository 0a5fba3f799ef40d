"""Where everybody was, in files: Parquet, and the text that PedPy and JuPedSim read. Owns the recorder and both formats."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from esplanade.core.errors import InvalidInput, NotFound
from simulation.walkers import Walkers
from spatial.measures import Trajectories

F8 = npt.NDArray[np.float64]


class Recorder:
    """Takes down bodies every `every` steps. Memory: 34 bytes a row; cut long runs into parts."""

    def __init__(self, walkers: Walkers, *, every: int = 1) -> None:
        if every < 1:
            raise InvalidInput(f"recorder: every {every} steps; must be 1 or more")
        self._walkers, self._every = walkers, every
        self._parts: list[dict[str, npt.NDArray[Any]]] = []
        self._frame = 0
        self.take()

    @property
    def rate_hz(self) -> float:
        return 1.0 / (self._walkers.step_s * self._every)

    def take(self) -> None:
        """Take down the frame that is now, by id."""
        r = self._walkers.rows
        order = np.argsort(r["id"])
        frame = np.full(len(order), self._frame, np.int64)
        self._parts.append({"frame": frame} | {name: r[name][order] for name in ("id", "x", "y", "level")})
        self._frame += 1

    def run(self, until_s: float) -> None:
        """Step and take frames until nobody is left or riding, or the time comes."""
        w = self._walkers
        while w.time_s < until_s - 1e-9 and (len(w) or w.hops.riders):
            w.step(self._every)
            self.take()

    def recording(self) -> Recording:
        whole = {name: np.concatenate([part[name] for part in self._parts]) for name in ("frame", "id", "x", "y", "level")}
        return Recording(whole["id"], whole["frame"], whole["x"], whole["y"], whole["level"], self.rate_hz, self._frame)


@dataclass(frozen=True, slots=True)
class Recording:
    """Columns (n,), by frame and then id: person, frame, places in metres, level; `rate_hz` frames a second. frames: how many were taken, those in which nobody was
    included (0: unknown, as in a text file, which keeps no more than the rows)."""

    person: npt.NDArray[np.int64]
    frame: npt.NDArray[np.int64]
    x_m: F8
    y_m: F8
    level: npt.NDArray[np.uint8]
    rate_hz: float
    frames: int = 0

    def on(self, level: int = 0) -> Trajectories:
        """The rows of one level, for `spatial.measures`."""
        rows = self.level == level
        return Trajectories.of(self.person[rows], self.frame[rows], self.x_m[rows], self.y_m[rows], rate_hz=self.rate_hz)


def save(recording: Recording, path: Path) -> None:
    """Write `.parquet`, or `.txt` (id frame x y z, z the level, as PedPy and JuPedSim read). Raises InvalidInput for another ending."""
    match path.suffix:
        case ".parquet":
            table = pa.table(
                {"id": recording.person, "frame": recording.frame, "x": recording.x_m, "y": recording.y_m, "level": recording.level},
                metadata={"fps": repr(recording.rate_hz), "frames": str(recording.frames)},
            )
            pq.write_table(table, path)
        case ".txt":
            columns = np.column_stack([recording.person, recording.frame, recording.x_m, recording.y_m, recording.level])
            np.savetxt(path, columns, fmt="%d %d %.4f %.4f %d", header=f"framerate: {recording.rate_hz:g}\nid frame x/m y/m z/m", comments="# ")
        case other:
            raise InvalidInput(f"trajectories: {path} ends in {other!r}; must end in .parquet or .txt")


def load(path: Path) -> Recording:
    """Read what `save` wrote. Raises NotFound, or InvalidInput for a file that is none."""
    if not path.is_file():
        raise NotFound(f"{path}: no such file; give the path of trajectories")
    frames = 0
    try:
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            rate_hz, frames = float(table.schema.metadata[b"fps"]), int(table.schema.metadata.get(b"frames", b"0"))
            column = {name: table[name].to_numpy() for name in ("id", "frame", "x", "y", "level")}
        else:
            first = path.open(encoding="utf-8").readline()
            rate_hz = float(first.split("framerate:")[1].split()[0])
            rows = np.loadtxt(path, comments="#", ndmin=2)
            column = dict(zip(("id", "frame", "x", "y", "level"), rows.T, strict=True))
    except (OSError, KeyError, IndexError, ValueError, TypeError, UnicodeDecodeError, pa.ArrowException) as error:
        raise InvalidInput(f"{path}: not trajectories ({error}); give a file that `esplanade crowd run` wrote") from None
    return Recording(
        column["id"].astype(np.int64), column["frame"].astype(np.int64), column["x"].astype(np.float64), column["y"].astype(np.float64),
        column["level"].astype(np.uint8), rate_hz, frames,
    )  # fmt: skip
