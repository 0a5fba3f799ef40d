"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Directory of the embedded servers (ESPLANADE_DATA_DIR).")]
Config = Annotated[Path | None, typer.Option("--config", help="TOML file of settings (ESPLANADE_CONFIG).")]
