"""The file of a backup or an archive: chunks in order, compressed, optionally encrypted, under one checksum. Knows nothing of tables or databases.

Layout: the line `ESPLANADE BACKUP 1` (or `ARCHIVE`), a line of JSON (`Heading`), chunks (u32 length, big-endian, then as many bytes), and SHA-256 of everything before. A chunk is a kind
(`t` a table begins or an index, `d` a piece of rows, `m` the manifest, always last) and its zlib-compressed payload. Written to `<name>.partial`, synchronised, then renamed.

Encrypted, each chunk is sealed by AES-256-GCM. The key of the file is derived (HKDF-SHA256) from the key file and a salt drawn for this file, so no two files share a key and the
nonce can be a counter: one byte that says whether this is the last chunk, eleven bytes of number. The lines at the top are authenticated with every chunk. Chunks that were
changed, exchanged, repeated or left out, and a file that was cut short, are errors.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from esplanade.core.errors import Conflict, InvalidInput, NotFound

MAGIC: Final = b"ESPLANADE BACKUP 1\n"
CHUNK_BYTES: Final = 2**20
"""Payload of a chunk before compression."""

MAX_STORED_BYTES: Final = 2 * CHUNK_BYTES
MAX_HEADING_BYTES: Final = 4_096
KEY_BYTES: Final = 32
_LEVEL: Final = 1  # a fifth of the size at about 100 MB/s; higher levels are slower than what they save

Kind = Literal[b"t", b"d", b"m"]


class Heading(msgspec.Struct, frozen=True):
    """What can be read without the key. `salt` and `key_id`: hex, empty in a file that is not encrypted."""

    taken_unix_ms: int
    encryption: Literal["none", "AES-256-GCM"] = "none"
    salt: str = ""
    key_id: str = ""


def read_key(path: Path) -> bytes:
    """The 32 bytes of a key file: raw, or as 64 hexadecimal digits (`openssl rand -hex 32`). Raises NotFound or InvalidInput."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise NotFound(f"key file {path}: not there; make one with `openssl rand -hex 32`, and keep it where the backups are not") from None
    except OSError as error:
        raise InvalidInput(f"key file {path}: cannot be read ({error.strerror}); name a readable file") from error
    if len(data) == KEY_BYTES:
        return data
    try:
        key = bytes.fromhex(data.decode().strip())
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise InvalidInput(
            f"key file {path}: must hold {KEY_BYTES} bytes, or {2 * KEY_BYTES} hexadecimal digits; make one with `openssl rand -hex 32`"
        )
    return key


def _derived(key: bytes, salt: bytes, purpose: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=salt, info=b"esplanade.backup/1 " + purpose).derive(key)


class _Cipher:
    """Seals and opens chunks by their number."""

    def __init__(self, key: bytes, salt: bytes, top: bytes) -> None:
        self._gcm = AESGCM(_derived(key, salt, b"chunks"))
        self._top = hashlib.sha256(top).digest()

    def seal(self, number: int, last: bool, data: bytes) -> bytes:
        return self._gcm.encrypt(_nonce(number, last), data, self._top)

    def open(self, number: int, last: bool, data: bytes) -> bytes:
        return self._gcm.decrypt(_nonce(number, last), data, self._top)


def _nonce(number: int, last: bool) -> bytes:
    return bytes((last,)) + number.to_bytes(11, "big")


class BackupWriter:
    """Writes a backup; use as a context. What is there at `path` after the context is whole: without `finish` there is nothing. Never replaces a file."""

    def __init__(self, path: Path, *, taken_unix_ms: int, key: bytes | None = None, salt: bytes = b"", magic: bytes = MAGIC) -> None:
        """`salt`: with a key, 16 random bytes, drawn anew for each file. Raises Conflict where `path` or its partial file exists, InvalidInput where it cannot be made."""
        self._path = path
        self._partial = path.with_name(f"{path.name}.partial")
        if path.exists():
            raise Conflict(f"{path}: exists already; name a new file, a backup never replaces one")
        try:
            handle = os.open(self._partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            raise Conflict(f"{self._partial}: another backup writes it, or was interrupted; remove it once none runs") from None
        except OSError as error:
            raise InvalidInput(f"{path}: cannot be written ({error.strerror}); name a file in an existing, writable folder") from error
        self._file = os.fdopen(handle, "wb", buffering=4 * 2**20)
        self._digest = hashlib.sha256()
        self._chunks = 0
        self.checksum = b""
        """SHA-256 of the file without these last bytes of it, once finished."""
        encrypted = Heading(taken_unix_ms, "AES-256-GCM", salt.hex(), _derived(key, salt, b"key id")[:8].hex()) if key is not None else None
        top = magic + msgspec.json.encode(encrypted or Heading(taken_unix_ms)) + b"\n"
        self._cipher = _Cipher(key, salt, top) if key is not None else None
        self._put(top)

    def _put(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)

    def chunk(self, kind: Kind, payload: bytes) -> None:
        """Append a chunk of at most CHUNK_BYTES."""
        body = kind + zlib.compress(payload, _LEVEL)
        if self._cipher is not None:
            body = self._cipher.seal(self._chunks, kind == b"m", body)
        self._chunks += 1
        self._put(len(body).to_bytes(4, "big") + body)

    def finish(self, manifest: bytes) -> None:
        """Append the manifest and the checksum, make both durable, give the file its name."""
        self.chunk(b"m", manifest)
        self.checksum = self._digest.digest()
        self._put(self.checksum)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        try:
            os.link(self._partial, self._path)  # unlike a rename it never replaces what came there meanwhile
        except FileExistsError:
            raise Conflict(f"{self._path}: came into being meanwhile; {self._partial} is the whole backup, rename it") from None
        except OSError:  # a file system without hard links
            os.rename(self._partial, self._path)
        else:
            self._partial.unlink()
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if not self._file.closed:
            self._file.close()
            self._partial.unlink(missing_ok=True)


def read_backup(path: Path, key: bytes | None = None, *, magic: bytes = MAGIC, plain_too: bool = False) -> Iterator[tuple[Kind, bytes]]:
    """The chunks of a file in order, each checked as far as it can be alone; returns only where the whole file is as it was written.

    `plain_too`: a file that is not encrypted is read although there is a key; for readers that know its checksum.

    Raises NotFound, or InvalidInput: no backup, another key, altered, damaged or cut short.
    """
    try:
        file = path.open("rb", buffering=4 * 2**20)
    except FileNotFoundError:
        raise NotFound(f"{path}: no such file; name a file that Esplanade wrote") from None
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read ({error.strerror}); name a file that Esplanade wrote") from error
    with file:
        first = file.read(len(magic))
        if first != magic:
            raise InvalidInput(f"{path}: does not begin with {magic.decode().strip()!r}; name a file that Esplanade wrote as such")
        line = file.readline(MAX_HEADING_BYTES)
        try:
            heading = msgspec.json.decode(line, type=Heading)
            salt = bytes.fromhex(heading.salt)
        except ValueError as error:  # msgspec's errors are ValueErrors
            raise _damaged(path, "its heading") from error
        digest = hashlib.sha256(magic + line)
        cipher = _cipher_for(path, heading, salt, None if plain_too and heading.encryption == "none" else key, magic + line)
        number, last = 0, False
        while not last:
            length = file.read(4)
            size = int.from_bytes(length, "big")
            stored = file.read(size) if len(length) == 4 and 0 < size <= MAX_STORED_BYTES else b""
            if not stored or len(stored) < size:
                raise _damaged(path, f"chunk {number}")
            digest.update(length + stored)
            kind, payload, last = _open_chunk(path, number, stored, cipher)
            number += 1
            yield kind, payload
        if file.read(33) != digest.digest():
            raise _damaged(path, "its checksum")


def _cipher_for(path: Path, heading: Heading, salt: bytes, key: bytes | None, top: bytes) -> _Cipher | None:
    if heading.encryption == "none":
        if key is not None:
            raise InvalidInput(f"{path}: is not encrypted; leave the key file out")
        return None
    if key is None:
        raise InvalidInput(f"{path}: is encrypted; name its key file")
    if _derived(key, salt, b"key id")[:8].hex() != heading.key_id:
        raise InvalidInput(f"{path}: was encrypted with another key (id {heading.key_id}); name the key file it was made with")
    return _Cipher(key, salt, top)


def _open_chunk(path: Path, number: int, stored: bytes, cipher: _Cipher | None) -> tuple[Kind, bytes, bool]:
    last = False
    body = stored
    if cipher is not None:
        try:
            body = cipher.open(number, False, stored)
        except InvalidTag:
            try:
                body, last = cipher.open(number, True, stored), True
            except InvalidTag as error:
                raise _damaged(path, f"chunk {number}") from error
    kind = body[:1]
    known: Kind
    if kind == b"d":
        known = b"d"
    elif kind == b"t":
        known = b"t"
    elif kind == b"m":
        known = b"m"
    else:
        raise _damaged(path, f"chunk {number}")
    if cipher is not None and last != (known == b"m"):
        raise _damaged(path, f"chunk {number}")
    inflate = zlib.decompressobj()
    try:
        payload = inflate.decompress(body[1:], CHUNK_BYTES + 1)
    except zlib.error as error:
        raise _damaged(path, f"chunk {number}") from error
    if len(payload) > CHUNK_BYTES or not inflate.eof:
        raise _damaged(path, f"chunk {number}")
    return known, payload, known == b"m"


def _damaged(path: Path, where: str) -> InvalidInput:
    return InvalidInput(f"{path}: {where} is not as it was written; the file was altered, damaged or cut short: use another copy")
