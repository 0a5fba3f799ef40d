"""Lines of log events: what they hold, from which level on, and that a file does not grow for ever."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from esplanade.core import logs
from esplanade.core.logs import JsonLines, write_logs

LOG = logging.getLogger("esplanade.tests")


@pytest.fixture(autouse=True)
def loggers_as_before() -> Iterator[None]:
    root, own = logging.getLogger(), logging.getLogger("esplanade")
    levels = root.level, own.level
    yield
    for handler in [each for each in root.handlers if isinstance(each.formatter, JsonLines)]:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(levels[0])
    own.setLevel(levels[1])


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_an_event_is_a_line_with_what_was_told_and_why_it_failed(tmp_path: Path) -> None:
    write_logs("shard-0", "info", tmp_path / "logs")
    LOG.info("moved", extra={"partition": 7, "path": tmp_path, "_of_a_library": 1})
    LOG.debug("not asked for")
    try:
        raise ValueError("Zürich\nnew line")
    except ValueError:
        LOG.exception("failed")
    moved, failed = lines(tmp_path / "logs" / "shard-0.log")
    assert moved.pop("at").endswith("+00:00")
    assert moved == {"level": "info", "process": "shard-0", "event": "moved", "by": "esplanade.tests", "partition": 7, "path": str(tmp_path)}
    assert failed["event"] == "failed"
    assert failed["level"] == "error"
    assert "ValueError: Zürich\nnew line" in failed["traceback"]


def test_others_are_heard_from_warnings_on_and_the_last_call_counts(tmp_path: Path) -> None:
    write_logs("a", "info", tmp_path)
    write_logs("b", "debug", tmp_path)
    LOG.debug("ours")
    logging.getLogger("somebody").info("theirs")
    logging.getLogger("somebody").warning("theirs %d", 2)
    assert [line["event"] for line in lines(tmp_path / "b.log")] == ["ours", "theirs 2"]
    assert lines(tmp_path / "a.log") == []


def test_a_file_is_moved_aside_when_it_is_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MAX_BYTES", 1_000)
    write_logs("a", "info", tmp_path)
    for number in range(100):
        LOG.info("again", extra={"number": number})
    kept = sorted(each.name for each in tmp_path.iterdir())
    assert kept == ["a.log", "a.log.1", "a.log.2", "a.log.3"]
    assert sum(each.stat().st_size for each in tmp_path.iterdir()) <= 4_000
    assert lines(tmp_path / "a.log")[-1]["number"] == 99
