"""Venue documents on disk: read with one clear error, written whole or not at all. Knows nothing of importers."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from esplanade.core.errors import InvalidInput, NotFound
from spatial.venue import Venue

MAX_BYTES: Final = 64 * 2**20
"""Largest venue document read."""

_SHOWN = 3


def load_venue(path: Path | str) -> Venue:
    """Read a venue document (`esplanade.venue/1`, JSON). Raises NotFound, or InvalidInput with the file, the place and the rule."""
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise InvalidInput(f"{path}: {size} bytes; a venue document has at most {MAX_BYTES}")
        text = path.read_bytes()
    except FileNotFoundError:
        raise NotFound(f"{path}: no such file; give the path of a venue document") from None
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read ({error.strerror}); give the path of a venue document") from None
    return parse_venue(text, str(path))


def parse_venue(text: bytes, where: str) -> Venue:
    """A venue from JSON bytes; `where` names them in errors. Raises InvalidInput."""
    try:
        return Venue.model_validate_json(text)
    except ValidationError as error:
        raise InvalidInput(f"{where}: {explain(error)}") from None


def explain(error: ValidationError) -> str:
    """The first few faults of a pydantic error on one line: place, rule, value."""
    faults = error.errors(include_url=False, include_context=False)
    said = []
    for fault in faults[:_SHOWN]:
        place = ".".join(str(part) for part in fault["loc"]) or "document"
        value = repr(fault.get("input"))
        value = "" if fault["type"] in ("json_invalid", "missing") or len(value) > 60 else f" (got {value})"
        said.append(f"{place}: {fault['msg'].removeprefix('Value error, ')}{value}")
    more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
    return "; ".join(said) + more


def dump_venue(venue: Venue) -> bytes:
    """The venue as compact JSON, fields at their default left out, numbers to the shortest form; equal venues give equal bytes."""
    document = venue.model_dump(mode="json", exclude_defaults=True)
    document = {"format": venue.format, **document}
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def save_venue(venue: Venue, path: Path | str) -> None:
    """Write `dump_venue` to `path`. Raises InvalidInput where the folder cannot be written."""
    write_whole(Path(path), dump_venue(venue))


def write_whole(path: Path, data: bytes) -> None:
    """Write to a temporary file beside `path`, then rename: the file is there whole, or as it was. Raises InvalidInput."""
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be written ({error.strerror}); give a path in an existing, writable folder") from None
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(data)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)
        os.replace(name, path)
    except OSError as error:
        Path(name).unlink(missing_ok=True)
        raise InvalidInput(f"{path}: cannot be written ({error.strerror}); give a path in an existing, writable folder") from None
