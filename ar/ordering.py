"""Order keys: byte strings between any two others, so that a child is put anywhere among its siblings without touching them.

Source: fractional indexing (Wallace, 2017). Keys end in no zero byte, so that there is always room below.
"""

from __future__ import annotations

from typing import Final

from esplanade.core.errors import Conflict, InvalidInput

_HEAD: Final = 3
MAX_KEY: Final = 512


def between(low: bytes, high: bytes | None, salt: int) -> bytes:
    """A key above `low` (b"" for the start) and below `high` (None for the end); `salt`, 0 to 255, sets apart keys made at once by others.

    Raises InvalidInput where `low` is not below `high`, Conflict where the key would pass MAX_KEY bytes.
    """
    if high is None:
        head = int.from_bytes(low[:_HEAD].ljust(_HEAD, b"\0"), "big") if low else 1 << 23
        step = head + 1 + salt % 16
        if step < 1 << 24:
            return step.to_bytes(_HEAD, "big").rstrip(b"\0") or b"\1"
    elif low >= high:
        raise InvalidInput(f"order keys {low.hex()} and {high.hex()}: the first must be below the second")
    out = bytearray()
    at = 0
    while True:
        a = low[at] if at < len(low) else 0
        b = 256 if high is None else (high[at] if at < len(high) else 0)
        if a == b:
            out.append(a)
        elif b - a > 1:
            out.append((a + b) // 2)
            out.append(salt % 255 + 1)
            break
        else:
            # One apart: keep the lower byte; everything longer that begins so is below `high`.
            out.append(a)
            high = None
        at += 1
    if len(out) > MAX_KEY:
        raise Conflict(f"order key of {len(out)} bytes: at most {MAX_KEY}; too many siblings were put in one place, move them apart")
    return bytes(out)
