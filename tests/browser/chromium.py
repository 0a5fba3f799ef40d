"""Finding and starting Chromium for tests: a real browser, software-drawn WebGL, nothing from the network."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

ARGS = [
    "--headless", "--no-sandbox", "--disable-gpu-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


def chromium_path() -> str | None:
    """ESPLANADE_CHROMIUM, else a Chromium or Chrome that is installed."""
    named = os.environ.get("ESPLANADE_CHROMIUM")
    if named:
        return named if Path(named).exists() else None
    for name in ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"):
        found = shutil.which(name)
        if found:
            return found
    return None
