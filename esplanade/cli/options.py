"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from esplanade.core.errors import InvalidInput

DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Directory of the embedded servers (ESPLANADE_DATA_DIR).")]
Config = Annotated[Path | None, typer.Option("--config", help="TOML file of settings (ESPLANADE_CONFIG).")]
Encrypt = Annotated[Path | None, typer.Option("--encrypt", help="Key file: 32 bytes, or 64 hexadecimal digits.")]
ArchiveKey = Annotated[Path | None, typer.Option("--archive-key", help="Key file of the archived files that are encrypted.")]

_UNITS_MS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000}


def age_ms(text: str) -> int:
    """Milliseconds of `90d`, `12h`, `30m` or `45s`. Raises InvalidInput."""
    number, unit = text[:-1], text[-1:]
    if unit not in _UNITS_MS or not number.isascii() or not number.isdigit() or len(number) > 6:
        raise InvalidInput(f"{text!r} is no time and no age; write a time as 2026-11-25T10:00, an age as 90d, 12h, 30m or 45s")
    return int(number) * _UNITS_MS[unit]
