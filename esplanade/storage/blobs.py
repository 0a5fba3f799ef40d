"""Content-addressed bytes: assets, map tiles. A blob is named by the SHA-256 of what it holds and never changes; a head is a name that points to the newest version of something.

Owns the port (`Blobs`) and the folder `blobs` of the data directory (`BlobStore`). Writers and readers may be several
processes: a file is there whole or not at all. On S3-compatible storage: `esplanade.storage.s3_blobs`.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Protocol

from esplanade.core.errors import InvalidInput, NotFound
from esplanade.storage.blob_layout import blob_key, checked_data, head_key, write_whole


class Blobs(Protocol):
    """Blocking; call it in a thread. `where`: what `open_blobs` opens it by again, in another process too; `folder`: of this machine, for files that are made of blobs.

    Raises InvalidInput for what is no name, Unavailable where the storage does not answer.
    """

    where: str
    folder: Path

    def put(self, data: bytes, *, expected: str | None = None) -> str:
        """Keep bytes; returns their SHA-256. Idempotent. Raises Conflict where they differ from the `expected` hash, LimitExceeded above `blob_layout.MAX_BLOB_BYTES`."""
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
