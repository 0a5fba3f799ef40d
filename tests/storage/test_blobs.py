"""Blobs are named by what they hold, are there whole or not at all, and say when the disk has changed them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from esplanade.core.errors import Conflict, InvalidInput, NotFound
from esplanade.storage.blobs import BlobStore


def test_a_blob_is_found_by_its_hash_and_put_twice_is_one(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "blobs")
    digest = store.put(b"lamp")
    assert digest == hashlib.sha256(b"lamp").hexdigest() == store.put(b"lamp", expected=digest)
    assert store.get(digest) == b"lamp"
    assert [path.name for path in (tmp_path / "blobs").rglob("*") if path.is_file()] == [digest]


def test_what_differs_from_the_hash_it_came_with_is_not_kept(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    with pytest.raises(Conflict, match="SHA-256"):
        store.put(b"lamp", expected="0" * 64)
    assert not list(tmp_path.iterdir())


def test_a_blob_that_the_disk_has_changed_is_refused(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    digest = store.put(b"lamp")
    store.path(digest).write_bytes(b"lamb")
    with pytest.raises(InvalidInput, match="differs from its name"):
        store.get(digest)


def test_a_head_points_to_the_newest_and_only_to_what_is_here(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    first, second = store.put(b"1"), store.put(b"2")
    with pytest.raises(NotFound, match="nothing has been stored"):
        store.head("maps/demo/parkside/0")
    for digest in (first, second):
        store.point("maps/demo/parkside/0", digest)
        assert store.head("maps/demo/parkside/0") == digest
    with pytest.raises(NotFound, match="there is none"):
        store.point("maps/demo/parkside/0", "0" * 64)
    assert store.head("maps/demo/parkside/0") == second


@pytest.mark.parametrize("digest", ["", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 64 + "\n"])
def test_a_name_that_is_no_hash_reaches_no_file(tmp_path: Path, digest: str) -> None:
    with pytest.raises(InvalidInput, match="64 hexadecimal digits"):
        BlobStore(tmp_path).path(digest)


@pytest.mark.parametrize("head", ["", "/etc", "a/../../b", "a//b", "a b"])
def test_a_head_that_leaves_its_folder_is_refused(tmp_path: Path, head: str) -> None:
    store = BlobStore(tmp_path)
    with pytest.raises(InvalidInput, match="head"):
        store.point(head, store.put(b"1"))
