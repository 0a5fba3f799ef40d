"""Where a running service can be reached, for other commands on the same data directory: a small file that is there while it is ready.

Owns the file's name and form. A file that a kill left behind names a process that is gone; whoever reads it finds that nobody answers.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import msgspec

from esplanade.core.errors import Fault, NotFound

FILE_NAME: Final = "service.json"


class Whereabouts(msgspec.Struct, frozen=True):
    """Addresses of a service, and the process that started it."""

    api_url: str
    ws_url: str
    pid: int


def announce(data_dir: Path, here: Whereabouts) -> None:
    """Say where the service is; whoever reads meanwhile sees the former file or the new one, never a part."""
    path = data_dir.expanduser() / FILE_NAME
    new = path.with_suffix(f".{here.pid}")
    new.write_bytes(msgspec.json.encode(here) + b"\n")
    os.replace(new, path)


def withdraw(data_dir: Path) -> None:
    """The service ends here. Idempotent."""
    (data_dir.expanduser() / FILE_NAME).unlink(missing_ok=True)


def find(data_dir: Path) -> Whereabouts:
    """Raises NotFound where no service is ready on this directory."""
    path = data_dir.expanduser() / FILE_NAME
    try:
        return msgspec.json.decode(path.read_bytes(), type=Whereabouts)
    except FileNotFoundError:
        raise NotFound(f"no service is ready on {data_dir}; start one with `esplanade serve`, or name its --data-dir or --api") from None
    except (msgspec.DecodeError, OSError) as error:
        raise Fault(f"{path}: {error}; restart the service") from error
