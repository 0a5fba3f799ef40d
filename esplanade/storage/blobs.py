"""Content-addressed bytes on disk: assets, map tiles. A blob is named by the SHA-256 of what it holds and never changes; a head is a name that points to the newest version of something.

Owns the folder `blobs` of the data directory: `<first two digits>/<sha256>` and `heads/<name>`. Writers and readers may be several processes: a file is there whole or not at all.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from pathlib import Path
from typing import Final

from esplanade.core.errors import Conflict, InvalidInput, LimitExceeded, NotFound

MAX_BLOB_BYTES: Final = 256 * 2**20
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_HEAD: Final = re.compile(r"[A-Za-z0-9_.:-]{1,128}(/[A-Za-z0-9_.:-]{1,128}){0,5}")


class BlobStore:
    """Blocking; call it in a thread. `folder` is made when the first blob is put."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, data: bytes, *, expected: str | None = None) -> str:
        """Keep bytes; returns their SHA-256. Idempotent. Raises Conflict where they differ from the `expected` hash, LimitExceeded above MAX_BLOB_BYTES."""
        if len(data) > MAX_BLOB_BYTES:
            raise LimitExceeded(f"blob of {len(data)} bytes: at most {MAX_BLOB_BYTES}; cut it into parts")
        digest = hashlib.sha256(data).hexdigest()
        if expected is not None and expected != digest:
            raise Conflict(f"blob {expected}: what came has the SHA-256 {digest}; send it again")
        path = self.check(digest)
        if not path.is_file():
            _write_whole(path, data)
        return digest

    def path(self, digest: str) -> Path:
        """The file of a blob. Raises NotFound, InvalidInput for what is no SHA-256 in lower-case hexadecimal digits."""
        path = self.check(digest)
        if not path.is_file():
            raise NotFound(f"blob {digest}: there is none; put it first")
        return path

    def get(self, digest: str) -> bytes:
        """The bytes. Raises NotFound; InvalidInput where the file has changed since it was written."""
        data = self.path(digest).read_bytes()
        if hashlib.sha256(data).hexdigest() != digest:
            raise InvalidInput(f"blob {digest}: its file differs from its name; the disk has changed it, put it again")
        return data

    def point(self, head: str, digest: str) -> None:
        """From now on `head` means this blob. Raises NotFound where it is not here, InvalidInput for a name that is none."""
        self.path(digest)
        _write_whole(self._head(head), digest.encode())

    def head(self, head: str) -> str:
        """What a head points to. Raises NotFound."""
        try:
            return self._head(head).read_text()
        except FileNotFoundError:
            raise NotFound(f"{head}: nothing has been stored under this name") from None

    def check(self, digest: str) -> Path:
        """Where a blob of this name lies, if it is here. Raises InvalidInput for what is no SHA-256 in lower-case hexadecimal digits."""
        if not _DIGEST.fullmatch(digest):
            raise InvalidInput(f"blob {digest[:80]!r}: must be a SHA-256, 64 hexadecimal digits in lower case")
        return self.folder / digest[:2] / digest

    def _head(self, head: str) -> Path:
        if not _HEAD.fullmatch(head) or ".." in head:
            raise InvalidInput(f"head {head[:80]!r}: must be names of letters, digits and _.:- with / between them")
        return self.folder / "heads" / head


def _write_whole(path: Path, data: bytes) -> None:
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
