"""Recordings: every column frame that reaches a gateway, teed to Parquet, and read back tick by tick.

Owns the files of a recording. The writer never blocks the gateway: frames wait in a bounded queue for one background thread; what does not fit is dropped,
counted and marks the recording incomplete. A recording is a folder of parts; a part is written under a temporary name and renamed when it is whole, so that
a crash loses the open part and nothing before it. `recording.json` is written last: without it the recording was cut short.

Columns: tick u4, subject u4, level u1 (255: has left), x_m f4, y_m f4 (metres, venue frame), source (dictionary).
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from esplanade.core.errors import Conflict, Fault, InvalidInput, NotFound
from spatial.columns import PositionColumns

SCHEMA: Final = pa.schema(
    [
        ("tick", pa.uint32()),
        ("subject", pa.uint32()),
        ("level", pa.uint8()),
        ("x_m", pa.float32()),
        ("y_m", pa.float32()),
        ("source", pa.dictionary(pa.int16(), pa.string())),
    ]
)
ROW_GROUP_ROWS: Final = 500_000
ROW_GROUPS_A_PART: Final = 8
MAX_QUEUED_ROWS: Final = 20_000_000
"""Rows that wait for the writer at most (some 400 MB); beyond, frames are dropped and counted."""
FREE_TICK: Final = 2**32 - 1
"""Tick of rows that came without one (a venue nobody drives)."""
MANIFEST: Final = "recording.json"


class Manifest(msgspec.Struct, frozen=True):
    """What a closed recording says of itself."""

    format: str
    tenant: str
    venue: str
    rows: int
    rows_dropped: int
    parts: int
    complete: bool
    error: str | None = None


@dataclass(frozen=True, slots=True)
class _Frame:
    source: str
    tick: int
    columns: PositionColumns


class RecordingWriter:
    """Writes one venue's recording into `folder`. `rows` may be called from any one thread; `close` once.

    Raises Conflict where the folder already holds a recording.
    """

    def __init__(
        self, folder: Path, *, tenant: str, venue: str, max_queued_rows: int = MAX_QUEUED_ROWS, row_group_rows: int = ROW_GROUP_ROWS
    ) -> None:
        if folder.exists() and any(folder.iterdir()):
            raise Conflict(f"recording {folder}: the folder is not empty; give each run a folder of its own")
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._tenant, self._venue = tenant, venue
        self._max_queued_rows, self._row_group_rows = max_queued_rows, row_group_rows
        self._queue: queue.SimpleQueue[_Frame | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._queued_rows = 0
        self._rows = 0
        self._dropped = 0
        self._parts = 0
        self._error: str | None = None
        self._manifest: Manifest | None = None
        self._thread = threading.Thread(target=self._write_all, name=f"recording-{venue}", daemon=True)
        self._thread.start()

    @property
    def rows_dropped(self) -> int:
        return self._dropped

    def rows(self, source: str | None, tick: int | None, columns: PositionColumns) -> None:
        """Take a frame. Never blocks and never raises: a frame beyond the limit, or after an error of the disk, is dropped and counted."""
        n = len(columns)
        if not n:
            return
        with self._lock:
            if self._error is not None or self._manifest is not None or self._queued_rows + n > self._max_queued_rows:
                self._dropped += n
                return
            self._queued_rows += n
        self._queue.put(_Frame(source or "", FREE_TICK if tick is None else tick, columns))

    def close(self) -> Manifest:
        """Write what waits, close the last part, write the manifest. Idempotent."""
        if self._manifest is None:
            self._queue.put(None)
            self._thread.join()
            self._manifest = Manifest(
                format="esplanade.recording/1",
                tenant=self._tenant,
                venue=self._venue,
                rows=self._rows,
                rows_dropped=self._dropped,
                parts=self._parts,
                complete=self._dropped == 0 and self._error is None,
                error=self._error,
            )
            _write_manifest(self.folder, self._manifest)
        return self._manifest

    # --- the background thread ----------------------------------------------------------------------------------------

    def _write_all(self) -> None:
        writer: Any = None
        groups = 0
        pending: list[_Frame] = []
        pending_rows = 0
        try:
            while True:
                frame = self._queue.get()
                if frame is not None:
                    pending.append(frame)
                    pending_rows += len(frame.columns)
                if pending_rows >= self._row_group_rows or (frame is None and pending):
                    if writer is None:
                        writer = self._open_part()
                    writer.write_table(_table(pending), row_group_size=pending_rows)
                    groups += 1
                    with self._lock:
                        self._queued_rows -= pending_rows
                    self._rows += pending_rows
                    pending, pending_rows = [], 0
                if writer is not None and (frame is None or groups >= ROW_GROUPS_A_PART):
                    self._close_part(writer)
                    writer, groups = None, 0
                if frame is None:
                    return
        except (OSError, pa.ArrowException) as error:
            with self._lock:
                self._error = f"{type(error).__name__}: {error}"
                self._dropped += pending_rows
            while (rest := self._queue.get()) is not None:
                with self._lock:
                    self._dropped += len(rest.columns)

    def _part(self, suffix: str) -> Path:
        return self.folder / f"part-{self._parts:05d}.parquet{suffix}"

    def _open_part(self) -> Any:
        return pq.ParquetWriter(
            self._part(".partial"),
            SCHEMA,
            compression="zstd",
            compression_level=1,
            use_dictionary=["source", "level", "tick"],
            use_byte_stream_split=["x_m", "y_m"],
        )

    def _close_part(self, writer: Any) -> None:
        writer.close()
        self._part(".partial").rename(self._part(""))
        self._parts += 1


def _table(frames: list[_Frame]) -> Any:
    lengths = [len(frame.columns) for frame in frames]
    sources = sorted({frame.source for frame in frames})
    code = {source: i for i, source in enumerate(sources)}
    joined = PositionColumns.concat([frame.columns for frame in frames])
    source = pa.DictionaryArray.from_arrays(
        pa.array(np.repeat(np.array([code[frame.source] for frame in frames], np.int16), lengths)), pa.array(sources, pa.string())
    )
    tick = np.repeat(np.array([frame.tick for frame in frames], np.uint32), lengths)
    return pa.table(
        [pa.array(tick), pa.array(joined.subject), pa.array(joined.level), pa.array(joined.x_m), pa.array(joined.y_m), source], schema=SCHEMA
    )


def recorders(folder: Path, gateways: int) -> list[Path]:
    """Where each gateway records, for a recording of several."""
    return [folder] if gateways == 1 else [folder / f"gateway-{i}" for i in range(gateways)]


def join_recorders(folder: Path, told: Sequence[Manifest]) -> Manifest:
    """What the recordings of all gateways are together, written into `folder`; their parts stay where they are."""
    if len(told) == 1:
        return told[0]
    errors = [one.error for one in told if one.error is not None]
    whole = msgspec.structs.replace(
        told[0], rows=sum(one.rows for one in told), rows_dropped=sum(one.rows_dropped for one in told), parts=sum(one.parts for one in told),
        complete=all(one.complete for one in told), error="; ".join(errors) or None,
    )  # fmt: skip
    _write_manifest(folder, whole)
    return whole


def _write_manifest(folder: Path, manifest: Manifest) -> None:
    partial = folder / f"{MANIFEST}.partial"
    partial.write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
    partial.rename(folder / MANIFEST)


# --- reading ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TickRows:
    """What was observed at one tick: each subject once, ascending."""

    tick: int
    columns: PositionColumns


@dataclass(frozen=True, slots=True)
class _Group:
    part: Path
    index: int
    first_tick: int
    last_tick: int


class Recording:
    """A recording on disk. Whole parts are read, also where the writer died before it closed.

    Raises NotFound where the folder holds no part, InvalidInput where a part is damaged or has other columns.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        parts = sorted(folder.rglob("part-*.parquet"))
        if not parts:
            raise NotFound(f"recording {folder}: holds no part-*.parquet; give the folder that a run wrote")
        manifest = folder / MANIFEST
        self.manifest = msgspec.json.decode(manifest.read_bytes(), type=Manifest) if manifest.exists() else None
        self._groups = sorted((group for part in parts for group in _groups_of(part)), key=lambda g: (g.first_tick, g.part.name, g.index))

    @property
    def complete(self) -> bool:
        """Whether the recording was closed and nothing was dropped."""
        return self.manifest is not None and self.manifest.complete

    def ticks(self) -> Iterator[TickRows]:
        """Observed ticks in ascending order; rows that were sent again appear once. Holds a few row groups in memory at a time."""
        held = _Rows.empty()
        for i, group in enumerate(self._groups):
            held = held.join(_read_group(group))
            bound = self._groups[i + 1].first_tick if i + 1 < len(self._groups) else None
            held = held.in_order()
            cut = len(held.key) if bound is None else int(np.searchsorted(held.key, np.uint64(bound) << np.uint64(32)))
            yield from held.head(cut).by_tick()
            held = held.tail(cut)


def _groups_of(part: Path) -> list[_Group]:
    try:
        file = pq.ParquetFile(part)
    except (OSError, pa.ArrowException) as error:
        raise InvalidInput(f"{part}: cannot be read as Parquet ({error}); remove the damaged part to read the others") from None
    with file:
        if file.schema_arrow.names != SCHEMA.names:
            raise InvalidInput(f"{part}: columns {file.schema_arrow.names}; a recording has {SCHEMA.names}")
        found = []
        for index in range(file.metadata.num_row_groups):
            statistics = file.metadata.row_group(index).column(0).statistics
            if statistics is None:
                raise InvalidInput(f"{part}: row group {index} has no statistics of its ticks; record it anew")
            found.append(_Group(part, index, int(statistics.min), int(statistics.max)))
        return found


def _read_group(group: _Group) -> _Rows:
    with pq.ParquetFile(group.part) as file:
        table = file.read_row_group(group.index, columns=["tick", "subject", "level", "x_m", "y_m"])
    tick, subject, level, x_m, y_m = (table.column(name).to_numpy() for name in ("tick", "subject", "level", "x_m", "y_m"))
    return _Rows((tick.astype(np.uint64) << np.uint64(32)) | subject.astype(np.uint64), level, x_m, y_m)


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows by key (tick << 32 | subject)."""

    key: npt.NDArray[np.uint64]
    level: npt.NDArray[np.uint8]
    x_m: npt.NDArray[np.float32]
    y_m: npt.NDArray[np.float32]

    @classmethod
    def empty(cls) -> _Rows:
        return cls(np.empty(0, np.uint64), np.empty(0, np.uint8), np.empty(0, np.float32), np.empty(0, np.float32))

    def join(self, other: _Rows) -> _Rows:
        return _Rows(*(np.concatenate(pair) for pair in zip(self._columns(), other._columns(), strict=True)))

    def head(self, cut: int) -> _Rows:
        return _Rows(*(column[:cut] for column in self._columns()))

    def tail(self, cut: int) -> _Rows:
        return _Rows(*(column[cut:].copy() for column in self._columns()))

    def _columns(self) -> tuple[npt.NDArray[Any], ...]:
        return self.key, self.level, self.x_m, self.y_m

    def in_order(self) -> _Rows:
        """Ascending by (tick, subject); of rows with the same key the first recorded stays."""
        order = np.argsort(self.key, kind="stable")
        key = self.key[order]
        first = np.ones(len(key), bool)
        first[1:] = key[1:] != key[:-1]
        kept = order[first]
        return _Rows(self.key[kept], self.level[kept], self.x_m[kept], self.y_m[kept])

    def by_tick(self) -> Iterator[TickRows]:
        if not len(self.key):
            return
        tick = self.key >> np.uint64(32)
        subject = (self.key & np.uint64(0xFFFFFFFF)).astype(np.uint32)
        starts = np.flatnonzero(np.r_[True, tick[1:] != tick[:-1]])
        ends = np.r_[starts[1:], len(tick)]
        previous = -1
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            number = int(tick[start])
            if number <= previous:
                raise Fault(f"recording: tick {number} after {previous}")
            previous = number
            yield TickRows(number, PositionColumns(subject[start:end], self.level[start:end], self.x_m[start:end], self.y_m[start:end]))
