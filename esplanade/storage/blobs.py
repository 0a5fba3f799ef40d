"""Content-addressed bytes: assets, map tiles. A blob is named by the SHA-256 of what it holds and never changes; a head is a name that points to the newest version of something.

Owns the port (`Blobs`) and the folder `blobs` of the data directory (`BlobStore`): `<first two digits>/<sha256>` and `heads/<name>`. Writers and readers may be several
processes: a file is there whole or not at all. On S3-compatible storage: `esplanade.storage.s3_blobs`, with the same layout below its prefix.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from pathlib import Path
from typing import Final, Protocol

from esplanade.core.errors import Conflict, InvalidInput, LimitExceeded, NotFound

MAX_BLOB_BYTES: Final = 256 * 2**20
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_HEAD: Final = re.compile(r"[A-Za-z0-9_.:-]{1,128}(/[A-Za-z0-9_.:-]{1,128}){0,5}")


class Blobs(Protocol):
    """Blocking; call it in a thread. `where`: what `open_blobs` opens it by again, in another process too; `folder`: of this machine, for files that are made of blobs.

    Raises InvalidInput for what is no name, Unavailable where the storage does not answer.
    """

    where: str
    folder: Path

    def put(self, data: bytes, *, expected: str | None = None) -> str:
        """Keep bytes; returns their SHA-256. Idempotent. Raises Conflict where they differ from the `expected` hash, LimitExceeded above MAX_BLOB_BYTES."""
        ...

    def path(self, digest: str) -> Path:
        """A file of this machine that holds the blob. Raises NotFound."""
        ...

    def get(self, digest: str) -> bytes:
        """The bytes. Raises NotFound; InvalidInput where they are not what was put."""
        ...

    def point(self, head: str, digest: str) -> None:
        """From now on `head` means this blob. Raises NotFound where it is not here."""
        ...

    def head(self, head: str) -> str:
        """What a head points to. Raises NotFound."""
        ...


def open_blobs(where: str) -> Blobs:
    """The store at a folder, or at a URL s3://bucket/prefix?endpoint=... Raises InvalidInput for a URL that is none, Unavailable without the package that it needs."""
    if not where.startswith("s3://"):
        return BlobStore(Path(where))
    from esplanade.storage.s3_blobs import S3Blobs  # its package is an extra

    return S3Blobs(where)


class BlobStore:
    """Blobs in a folder, made when the first is put."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.where = str(folder)

    def put(self, data: bytes, *, expected: str | None = None) -> str:
        digest = checked_data(data, expected)
        path = self._file(digest)
        if not path.is_file():
            write_whole(path, data)
        return digest

    def path(self, digest: str) -> Path:
        path = self._file(digest)
        if not path.is_file():
            raise NotFound(f"blob {digest}: there is none; put it first")
        return path

    def get(self, digest: str) -> bytes:
        data = self.path(digest).read_bytes()
        if hashlib.sha256(data).hexdigest() != digest:
            raise InvalidInput(f"blob {digest}: its file differs from its name; the disk has changed it, put it again")
        return data

    def point(self, head: str, digest: str) -> None:
        self.path(digest)
        write_whole(self.folder / head_key(head), digest.encode())

    def head(self, head: str) -> str:
        try:
            return (self.folder / head_key(head)).read_text()
        except FileNotFoundError:
            raise NotFound(f"{head}: nothing has been stored under this name") from None

    def _file(self, digest: str) -> Path:
        return self.folder / blob_key(digest)


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
