"""Blobs are named by what they hold, are there whole or not at all, and say when the storage has changed them: on a disk and on S3-compatible storage."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from esplanade.core.errors import Conflict, InvalidInput, NotFound, Unavailable
from esplanade.storage.blobs import Blobs, BlobStore, open_blobs

needs_s3 = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("obstore", "moto", "flask_cors")),
    reason="the packages obstore, moto[s3] and flask-cors (the extra dev) are not installed here",
)
BOTH = ["disk", pytest.param("s3", marks=needs_s3)]


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """An S3 server of this process, with a bucket `malls`."""
    server = importlib.import_module("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    given = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    importlib.import_module("httpx").put(f"{url}/malls").raise_for_status()
    yield url
    server.stop()
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


def s3(endpoint: str, cache: Path, prefix: str = "a/b", **more: Any) -> Blobs:
    return open_blobs(f"s3://malls/{prefix}?endpoint={endpoint}&cache={cache}" + "".join(f"&{key}={value}" for key, value in more.items()))


@pytest.fixture(params=BOTH)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    if request.param == "disk":
        return BlobStore(tmp_path / "blobs")
    return s3(request.getfixturevalue("endpoint"), tmp_path / "blobs", prefix=tmp_path.name)


def test_a_blob_is_found_by_its_hash_and_put_twice_is_one(store: Blobs) -> None:
    digest = store.put(b"lamp")
    assert digest == hashlib.sha256(b"lamp").hexdigest() == store.put(b"lamp", expected=digest)
    assert store.get(digest) == b"lamp"
    assert store.path(digest).read_bytes() == b"lamp"
    assert [path.name for path in store.folder.rglob("*") if path.is_file()] == [digest]
    assert open_blobs(store.where).get(digest) == b"lamp"


def test_what_differs_from_the_hash_it_came_with_is_not_kept(store: Blobs) -> None:
    with pytest.raises(Conflict, match="SHA-256"):
        store.put(b"lamp", expected="0" * 64)
    with pytest.raises(NotFound):
        store.get(hashlib.sha256(b"lamp").hexdigest())


def test_a_blob_that_the_disk_has_changed_is_refused(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    digest = store.put(b"lamp")
    store.path(digest).write_bytes(b"lamb")
    with pytest.raises(InvalidInput, match="differs from its name"):
        store.get(digest)


def test_a_head_points_to_the_newest_and_only_to_what_is_here(store: Blobs) -> None:
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
def test_a_name_that_is_no_hash_reaches_no_file(store: Blobs, digest: str) -> None:
    for ask in (store.path, store.get):
        with pytest.raises(InvalidInput, match="64 hexadecimal digits"):
            ask(digest)


@pytest.mark.parametrize("head", ["", "/etc", "a/../../b", "a//b", "a b"])
def test_a_head_that_leaves_its_folder_is_refused(store: Blobs, head: str) -> None:
    with pytest.raises(InvalidInput, match="head"):
        store.point(head, store.put(b"1"))


@needs_s3
def test_two_machines_share_what_one_has_put_and_each_fetches_it_once(endpoint: str, tmp_path: Path) -> None:
    here, there = s3(endpoint, tmp_path / "here"), s3(endpoint, tmp_path / "there")
    digest = here.put(b"map tile")
    here.point("maps/x", digest)
    assert there.get(there.head("maps/x")) == b"map tile"
    before = there.path(digest).stat().st_ino
    assert there.path(digest).stat().st_ino == before
    there.path(digest).write_bytes(b"garbled!")
    assert there.get(digest) == b"map tile", "what the machine's own folder has changed is fetched anew"
    with pytest.raises(NotFound):
        s3(endpoint, tmp_path / "other", prefix="other").get(digest)


@needs_s3
def test_what_a_machine_keeps_of_the_storage_stays_within_its_limit(endpoint: str, tmp_path: Path) -> None:
    kib = 1 / 2**20
    store = s3(endpoint, tmp_path, prefix="many", cache_gib=64 * kib)
    digests = [store.put(bytes([i]) * 4096) for i in range(40)]
    for digest in digests:
        assert len(store.get(digest)) == 4096
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert 4 <= len(kept) <= 16
    assert digests[-1] in {path.name for path in kept}


@needs_s3
@pytest.mark.parametrize("url", ["s3://", "s3:///prefix", "s3://malls?colour=red", "s3://key:secret@malls/x", "s3://malls?cache_gib=many"])
def test_a_url_that_is_none_is_refused_and_no_secret_is_repeated(url: str) -> None:
    with pytest.raises(InvalidInput, match="blob URL") as refused:
        open_blobs(url)
    assert "secret" not in str(refused.value)


@needs_s3
@pytest.mark.usefixtures("endpoint")
def test_storage_that_does_not_answer_is_said_and_not_waited_for_without_end(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="s3://malls"):
        s3("http://127.0.0.1:9", tmp_path).put(b"1")
