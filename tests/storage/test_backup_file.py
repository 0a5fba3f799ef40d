"""The file of a backup: what goes in comes out; what was altered, exchanged, cut short or locked with another key does not."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from esplanade.core.errors import Conflict, EsplanadeError, InvalidInput, NotFound
from esplanade.storage.backup_file import CHUNK_BYTES, MAGIC, BackupWriter, Kind, read_backup, read_key

KEY, SALT = bytes(range(32)), b"s" * 16
PIECES: list[tuple[Kind, bytes]] = [(b"t", b'{"table":"a"}'), (b"d", b"first" * 1000), (b"d", b"second" * 1000), (b"m", b"{}")]

keyed = pytest.mark.parametrize("key", [None, KEY], ids=["plain", "encrypted"])
in_one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def write(path: Path, key: bytes | None, pieces: list[tuple[Kind, bytes]] = PIECES, salt: bytes = SALT) -> bytes:
    path.unlink(missing_ok=True)
    with BackupWriter(path, taken_unix_ms=1, key=key, salt=salt) as writer:
        for kind, payload in pieces[:-1]:
            writer.chunk(kind, payload)
        writer.finish(pieces[-1][1])
    return path.read_bytes()


@keyed
@in_one_folder
@given(data=st.data())
def test_what_goes_in_comes_out(tmp_path: Path, key: bytes | None, data: st.DataObject) -> None:
    kinds: st.SearchStrategy[Kind] = st.sampled_from((b"t", b"d"))
    pieces = [*data.draw(st.lists(st.tuples(kinds, st.binary(max_size=200)), max_size=6)), (b"m", data.draw(st.binary(max_size=50)))]
    write(tmp_path / "b", key, pieces)  # type: ignore[arg-type]
    assert list(read_backup(tmp_path / "b", key)) == pieces


@keyed
def test_a_full_chunk_that_cannot_be_compressed_fits(tmp_path: Path, key: bytes | None) -> None:
    pieces: list[tuple[Kind, bytes]] = [(b"d", os.urandom(CHUNK_BYTES)), (b"m", b"")]
    write(tmp_path / "b", key, pieces)
    assert list(read_backup(tmp_path / "b", key)) == pieces


@keyed
@in_one_folder
@given(data=st.data())
def test_any_altered_byte_is_an_error(tmp_path: Path, key: bytes | None, data: st.DataObject) -> None:
    whole = write(tmp_path / "b", key)
    at = data.draw(st.integers(0, len(whole) - 1))
    (tmp_path / "b").write_bytes(whole[:at] + bytes((whole[at] ^ data.draw(st.integers(1, 255)),)) + whole[at + 1 :])
    with pytest.raises(InvalidInput):
        list(read_backup(tmp_path / "b", key))


@keyed
@in_one_folder
@given(data=st.data())
def test_a_file_cut_short_or_with_something_behind_it_is_an_error(tmp_path: Path, key: bytes | None, data: st.DataObject) -> None:
    whole = write(tmp_path / "b", key)
    (tmp_path / "b").write_bytes(data.draw(st.one_of(st.integers(0, len(whole) - 1).map(lambda n: whole[:n]), st.just(whole + b"x"))))
    with pytest.raises(InvalidInput):
        list(read_backup(tmp_path / "b", key))


def chunks_of(whole: bytes) -> tuple[bytes, list[bytes]]:
    """The lines at the top, and the stored chunks with their lengths."""
    top = whole[: whole.index(b"\n", len(MAGIC)) + 1]
    at, found = len(top), []
    while at < len(whole) - 32:
        size = 4 + int.from_bytes(whole[at : at + 4], "big")
        found.append(whole[at : at + size])
        at += size
    return top, found


@pytest.mark.parametrize("order", [(0, 2, 1, 3), (0, 1, 1, 3), (0, 1, 3), (0, 1, 2)], ids=["exchanged", "repeated", "left out", "without its end"])
def test_an_encrypted_file_put_together_anew_is_an_error_even_if_its_checksum_is_right(tmp_path: Path, order: tuple[int, ...]) -> None:
    top, chunks = chunks_of(write(tmp_path / "b", KEY))
    forged = top + b"".join(chunks[i] for i in order)
    (tmp_path / "b").write_bytes(forged + hashlib.sha256(forged).digest())
    with pytest.raises(InvalidInput, match="not as it was written"):
        list(read_backup(tmp_path / "b", KEY))


def test_two_files_of_one_key_share_no_chunk(tmp_path: Path) -> None:
    one, two = (chunks_of(write(tmp_path / "b", KEY, salt=bytes([n]) * 16))[1] for n in (1, 2))
    assert not set(one) & set(two)
    assert b"first" not in b"".join(one)


@pytest.mark.parametrize(
    ("made", "used", "says"),
    [(KEY, b"x" * 32, "another key"), (KEY, None, "name its key file"), (None, KEY, "is not encrypted")],
)
def test_the_wrong_key_is_said_plainly(tmp_path: Path, made: bytes | None, used: bytes | None, says: str) -> None:
    write(tmp_path / "b", made)
    with pytest.raises(InvalidInput, match=says):
        list(read_backup(tmp_path / "b", used))


def test_a_backup_replaces_nothing_and_is_there_only_when_whole(tmp_path: Path) -> None:
    path = tmp_path / "b"
    with BackupWriter(path, taken_unix_ms=1, key=None, salt=SALT) as writer:
        writer.chunk(b"d", b"half")
    assert list(tmp_path.iterdir()) == []
    write(path, None)
    assert [file.name for file in tmp_path.iterdir()] == ["b"]
    assert path.stat().st_mode & 0o777 == 0o600, "it holds secrets"
    with pytest.raises(Conflict, match="exists already"):
        BackupWriter(path, taken_unix_ms=1, key=None, salt=SALT)


@pytest.mark.parametrize(
    ("content", "error"), [(KEY, None), (KEY.hex().encode() + b"\n", None), (b"", InvalidInput), (b"k" * 31, InvalidInput), (None, NotFound)]
)
def test_a_key_file_is_32_bytes_raw_or_in_hexadecimal(tmp_path: Path, content: bytes | None, error: type[EsplanadeError] | None) -> None:
    if content is not None:
        (tmp_path / "key").write_bytes(content)
    if error is None:
        assert read_key(tmp_path / "key") == KEY
    else:
        with pytest.raises(error):
            read_key(tmp_path / "key")
