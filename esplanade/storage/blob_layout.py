"""Names of blobs and heads, and where they lie below a store, of whatever kind it is: `<first two digits>/<sha256>` and `heads/<name>`."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from pathlib import Path
from typing import Final

from esplanade.core.errors import Conflict, InvalidInput, LimitExceeded

MAX_BLOB_BYTES: Final = 256 * 2**20
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_HEAD: Final = re.compile(r"[A-Za-z0-9_.:-]{1,128}(/[A-Za-z0-9_.:-]{1,128}){0,5}")


def checked_data(data: bytes, expected: str | None) -> str:
    """The SHA-256 of bytes that may be put. Raises Conflict where it is not the `expected` one, LimitExceeded above MAX_BLOB_BYTES."""
    if len(data) > MAX_BLOB_BYTES:
        raise LimitExceeded(f"blob of {len(data)} bytes: at most {MAX_BLOB_BYTES}; cut it into parts")
    digest = hashlib.sha256(data).hexdigest()
    if expected is not None and expected != digest:
        raise Conflict(f"blob {expected}: what came has the SHA-256 {digest}; send it again")
    return digest


def check_digest(digest: str) -> None:
    """Raises InvalidInput for what is no SHA-256 in lower-case hexadecimal digits."""
    if not _DIGEST.fullmatch(digest):
        raise InvalidInput(f"blob {digest[:80]!r}: must be a SHA-256, 64 hexadecimal digits in lower case")


def blob_key(digest: str) -> str:
    """Where a blob lies, below the store. Raises InvalidInput as `check_digest`."""
    check_digest(digest)
    return f"{digest[:2]}/{digest}"


def head_key(head: str) -> str:
    """Where a head lies, below the store. Raises InvalidInput for a name that is none."""
    if not _HEAD.fullmatch(head) or ".." in head:
        raise InvalidInput(f"head {head[:80]!r}: must be names of letters, digits and _.:- with / between them")
    return f"heads/{head}"


def write_whole(path: Path, data: bytes) -> None:
    """A file that others see whole, and durable, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        with new.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)
