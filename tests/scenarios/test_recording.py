"""Recordings: what goes in comes out in order and once; a crash loses the open part only; nothing blocks the gateway."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest

from esplanade.core.errors import Conflict, InvalidInput, NotFound
from scenarios.recording import Recording, RecordingWriter, join_recorders, recorders
from scenarios.recording_tee import RecordingTee
from spatial.columns import LEFT, PositionColumns


def frame(tick: int, subjects: list[int], *, level: int = 0) -> PositionColumns:
    subject = np.array(subjects, np.uint32)
    x = (subject * 10 + tick).astype(np.float32)
    return PositionColumns(subject, np.full(len(subject), level, np.uint8), x, -x)


def read(folder: Path) -> list[tuple[int, list[int], list[float]]]:
    return [(rows.tick, rows.columns.subject.tolist(), rows.columns.x_m.tolist()) for rows in Recording(folder).ticks()]


def test_frames_of_several_sources_come_back_in_tick_and_subject_order(tmp_path: Path) -> None:
    tee = RecordingTee()
    tee.start("run", "v", tmp_path)
    for tick in range(30):
        tee.rows("run", "v", "crowd", tick, frame(tick, [2, 5, 9]))
        tee.rows("run", "v", "clients-0", tick, frame(tick, [7]))
        tee.rows("other", "v", "crowd", tick, frame(tick, [1]))
    manifest = tee.finish("run", "v")
    assert (manifest.rows, manifest.rows_dropped, manifest.complete) == (120, 0, True)
    assert read(tmp_path) == [(t, [2, 5, 7, 9], [float(s * 10 + t) for s in (2, 5, 7, 9)]) for t in range(30)]


def test_what_several_gateways_recorded_is_read_as_one(tmp_path: Path) -> None:
    tees = [RecordingTee() for _ in range(2)]
    for tee, folder in zip(tees, recorders(tmp_path, 2), strict=True):
        tee.start("run", "v", folder)
    for tick in range(30):
        tees[0].rows("run", "v", "crowd", tick, frame(tick, [2, 9]))
        tees[1].rows("run", "v", "clients-0", tick, frame(tick, [7]))
    manifest = join_recorders(tmp_path, [tee.finish("run", "v") for tee in tees])
    assert (manifest.rows, manifest.parts, manifest.complete) == (90, 2, True)
    assert Recording(tmp_path).manifest == manifest
    assert read(tmp_path) == [(t, [2, 7, 9], [float(s * 10 + t) for s in (2, 7, 9)]) for t in range(30)]


def test_rows_sent_again_after_a_rewind_appear_once_and_in_their_place(tmp_path: Path) -> None:
    writer = RecordingWriter(tmp_path, tenant="run", venue="v", row_group_rows=7)
    for tick in [0, 1, 2, 3, 4, 2, 3, 4, 5, 6]:
        writer.rows("crowd", tick, frame(tick, [1, 2, 3]))
    writer.close()
    assert [(tick, subjects) for tick, subjects, _ in read(tmp_path)] == [(t, [1, 2, 3]) for t in range(7)]


def test_the_level_of_leavers_survives(tmp_path: Path) -> None:
    writer = RecordingWriter(tmp_path, tenant="run", venue="v")
    writer.rows("crowd", 4, frame(4, [8], level=LEFT))
    writer.close()
    (rows,) = Recording(tmp_path).ticks()
    assert rows.columns.level.tolist() == [LEFT]


def test_beyond_the_limit_rows_are_dropped_counted_and_the_recording_says_so(tmp_path: Path) -> None:
    writer = RecordingWriter(tmp_path, tenant="run", venue="v", max_queued_rows=10)
    writer.rows("crowd", 0, frame(0, list(range(11))))
    writer.rows("crowd", 1, frame(1, [1, 2]))
    manifest = writer.close()
    assert (manifest.rows, manifest.rows_dropped, manifest.complete) == (2, 11, False)
    assert not Recording(tmp_path).complete


def _write_and_die(folder: str) -> None:
    writer = RecordingWriter(Path(folder), tenant="run", venue="v", row_group_rows=4)
    for tick in range(1000):
        writer.rows("crowd", tick, frame(tick, [1, 2, 3, 4]))
        if tick % 100 == 0:
            while writer._queued_rows:
                pass
    os._exit(9)


def test_after_a_crash_in_the_middle_the_whole_parts_are_readable(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_write_and_die, args=(str(tmp_path / "r"),))
    process.start()
    process.join(60)
    assert process.exitcode == 9
    found = read(tmp_path / "r")
    assert len(found) >= 880
    assert found == [(t, [1, 2, 3, 4], [float(s * 10 + t) for s in (1, 2, 3, 4)]) for t in range(len(found))]
    recording = Recording(tmp_path / "r")
    assert recording.manifest is None
    assert not recording.complete


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    (tmp_path / "part-00000.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(InvalidInput, match=r"part-00000\.parquet: cannot be read"):
        Recording(tmp_path)


def test_an_empty_folder_is_no_recording_and_a_used_one_is_not_written_over(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="holds no part"):
        Recording(tmp_path)
    RecordingWriter(tmp_path, tenant="run", venue="v").close()
    with pytest.raises(Conflict, match="not empty"):
        RecordingWriter(tmp_path, tenant="run", venue="v")
