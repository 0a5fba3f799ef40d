"""Log events of a process, a line of JSON each: when, how severe, which process, what happened (`event`), and what is told with it.

Owns the form of a line and the file: `<folder>/<process>.log`, with at most KEEP former ones of MAX_BYTES. Where there is no folder (a process on another machine) lines go to stderr.
Other packages' own events are written from `warning` on.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

MAX_BYTES: Final = 16 * 2**20
KEEP: Final = 3

_OWN: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
"""What every record has; the rest was told with the event, but for what libraries put into every record for themselves, under names that begin with _ (Ray does)."""


class JsonLines(logging.Formatter):
    """One line a record; its values are text where JSON has no form for them."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": datetime.fromtimestamp(record.created, tz=UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "process": self._process,
            "event": record.getMessage(),
            "by": record.name,
            **{name: value for name, value in record.__dict__.items() if name not in _OWN and not name.startswith("_")},
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


def write_logs(process: str, level: str, folder: Path | None) -> None:
    """From now on this process writes its log events from `level` on (debug, info, warning, error), and no others. Once a process; a later call takes the place of the former."""
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    if folder is not None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handler = logging.handlers.RotatingFileHandler(folder / f"{process}.log", maxBytes=MAX_BYTES, backupCount=KEEP, encoding="utf-8")
    handler.setFormatter(JsonLines(process))
    root = logging.getLogger()
    for former in [each for each in root.handlers if isinstance(each.formatter, JsonLines)]:
        root.removeHandler(former)
        former.close()
    root.addHandler(handler)
    root.setLevel(max(logging.WARNING, logging.getLevelNamesMapping()[level.upper()]))
    logging.getLogger("esplanade").setLevel(level.upper())
