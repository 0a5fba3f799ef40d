"""Blobs on S3-compatible storage: `s3://bucket/prefix?endpoint=https://...&region=...&cache=FOLDER&cache_gib=8`.

Owns the layout below the prefix (`esplanade.storage.blob_layout`) and a folder of this machine, in which what was asked for is kept: a blob never changes, so it is fetched once
a machine, checked against its hash, and read from there, in ranges too. Heads are asked for each time. The least lately used files go where the folder grows beyond
`cache_gib`; several processes share it. Credentials are the usual ones (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, or the machine's role), never part of the URL.
Needs the package obstore: `pip install 'esplanade[s3]'`.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from esplanade.core.errors import InvalidInput, NotFound, Unavailable
from esplanade.storage.blob_layout import blob_key, checked_data, head_key, write_whole

ANSWER_S: Final = 30
"""The longest wait for an answer of the storage."""
TRIES: Final = 4
RETRIED_S: Final = 20
"""No new try after so long."""
CACHE_GIB: Final = 8.0
_KNOWN: Final = {"endpoint", "region", "cache", "cache_gib"}


class S3Blobs:
    """One bucket, below one prefix. Blocking."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        given = dict(parse_qsl(parts.query, keep_blank_values=True))
        unknown = sorted(set(given) - _KNOWN)
        if parts.scheme != "s3" or not parts.hostname or "@" in parts.netloc or unknown:
            raise InvalidInput(
                f"blob URL s3://{parts.hostname or ''}{parts.path}: must be s3://bucket/prefix with any of {', '.join(sorted(_KNOWN))} behind a ?, and no "
                f"credentials{f'; it has {unknown}' if unknown else ''}"
            )
        try:
            self._bytes = float(given.get("cache_gib", CACHE_GIB)) * 2**30
        except ValueError:
            raise InvalidInput(f"blob URL: cache_gib {given['cache_gib'][:40]!r} must be a number of GiB") from None
        try:
            self._s3: Any = importlib.import_module("obstore")
            self._errors: Any = importlib.import_module("obstore.exceptions")
            self._missing = (FileNotFoundError, self._errors.NotFoundError)
            store = importlib.import_module("obstore.store").S3Store
        except ImportError as error:
            raise Unavailable("blobs on s3:// need the package obstore: pip install 'esplanade[s3]'") from error
        self.where = url
        named = hashlib.sha256(url.encode()).hexdigest()[:16]
        self.folder = Path(given["cache"]) if given.get("cache") else Path.home() / ".cache" / "esplanade" / f"blobs-{named}"
        endpoint = given.get("endpoint")
        self._store = store(
            parts.hostname,
            prefix=parts.path.strip("/") or None,
            region=given.get("region", "us-east-1"),
            client_options={"allow_http": bool(endpoint and endpoint.startswith("http://")), "timeout": f"{ANSWER_S}s"},
            retry_config={"max_retries": TRIES - 1, "retry_timeout": timedelta(seconds=RETRIED_S)},
            **({"endpoint": endpoint} if endpoint else {}),
        )
        self._trimming = threading.Lock()
        self._fetched = self._bytes  # looked through at the first fetch: others may have filled it

    def put(self, data: bytes, *, expected: str | None = None) -> str:
        """Keep bytes (`Blobs.put`)."""
        digest = checked_data(data, expected)
        key = blob_key(digest)
        with self._asked(digest):
            if not self._holds(key):
                self._s3.put(self._store, key, data)
        return digest

    def path(self, digest: str) -> Path:
        """A file of this machine that holds the blob, fetched where it is not here yet (`Blobs.path`)."""
        key = blob_key(digest)
        path = self.folder / key
        with contextlib.suppress(FileNotFoundError):
            os.utime(path)
            return path
        with self._asked(digest):
            data = bytes(self._s3.get(self._store, key).bytes())
        if hashlib.sha256(data).hexdigest() != digest:
            raise InvalidInput(f"blob {digest}: what the storage holds differs from its name; put it again")
        write_whole(path, data)
        self._trim(len(data))
        return path

    def get(self, digest: str) -> bytes:
        """The bytes (`Blobs.get`); a file of this machine that has changed is fetched anew."""
        data = self.path(digest).read_bytes()
        if hashlib.sha256(data).hexdigest() == digest:
            return data
        self.path(digest).unlink(missing_ok=True)
        return self.path(digest).read_bytes()

    def point(self, head: str, digest: str) -> None:
        """From now on `head` means this blob (`Blobs.point`)."""
        key = blob_key(digest)
        with self._asked(digest):
            if not self._holds(key):
                raise NotFound(f"blob {digest}: there is none; put it first")
            self._s3.put(self._store, head_key(head), digest.encode())

    def head(self, head: str) -> str:
        """What a head points to (`Blobs.head`)."""
        key = head_key(head)
        try:
            with self._asked(head):
                return bytes(self._s3.get(self._store, key).bytes()).decode()
        except NotFound:
            raise NotFound(f"{head}: nothing has been stored under this name") from None

    def _holds(self, key: str) -> bool:
        try:
            self._s3.head(self._store, key)
        except self._missing:
            return False
        return True

    @contextlib.contextmanager
    def _asked(self, what: str) -> Iterator[None]:
        try:
            yield
        except self._missing:
            raise NotFound(f"blob {what}: there is none; put it first") from None
        except self._errors.BaseError as error:
            raise Unavailable(
                f"blob {what}: the storage s3://{urlsplit(self.where).hostname} does not answer or refuses: {str(error)[:300]}"
            ) from error

    def _trim(self, fetched: int) -> None:
        """Every eighth of the limit that was fetched, let the least lately used files go until an eighth is free."""
        with self._trimming:
            self._fetched += fetched
            if self._fetched < self._bytes / 8:
                return
            self._fetched = 0
            files = []
            for path in self.folder.glob("[0-9a-f][0-9a-f]/*"):
                with contextlib.suppress(FileNotFoundError):  # another process let it go
                    found = path.stat()
                    files.append((found.st_mtime, found.st_size, path))
            total = sum(size for _, size, _ in files)
            for _, size, path in sorted(files):
                if total <= self._bytes * 7 / 8:
                    break
                path.unlink(missing_ok=True)
                total -= size
