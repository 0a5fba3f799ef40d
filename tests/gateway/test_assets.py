"""Assets by HTTP: an address is a hash, what it names never changes, and a tenant has what it put there."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from esplanade.storage.blobs import BlobStore
from gateway import assets
from gateway.api import ApiSettings, build_api
from gateway.permissions import ROLES, Role, permits
from tests.gateway.mall import Mall, running_mall

LAMP = bytes(range(256)) * 40
NAME = hashlib.sha256(LAMP).hexdigest()
PATH = f"/v1/assets/{NAME}"


@dataclass
class Store:
    mall: Mall
    client: httpx.AsyncClient

    async def ask(
        self, method: str, role: Role = "operator", *, tenant: str = "demo", path: str = PATH, body: bytes = b"", **headers: str
    ) -> httpx.Response:
        bearer = {"authorization": f"Bearer {self.mall.token(5, role, tenant=tenant)}"}
        return await self.client.request(method, path, content=body, headers=bearer | headers)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with running_mall() as mall:
        app = build_api(
            catalogue=mall.catalogue, broker=mall.broker, signer=mall.signer, clock=mall.clock, settings=ApiSettings(ws_url="ws://127.0.0.1:1/"), checks={},
            blobs=BlobStore(tmp_path / "blobs"),
        )  # fmt: skip
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:7000") as client:
            yield Store(mall, client)


async def test_an_asset_is_read_whole_or_in_part_under_an_address_for_good(store: Store) -> None:
    assert (await store.ask("GET")).status_code == 404
    for _ in range(2):
        made = await store.ask("PUT", body=LAMP)
        assert (made.status_code, made.headers["location"]) == (201, PATH)
    whole = await store.ask("GET", "shopper")
    assert (whole.status_code, whole.content) == (200, LAMP)
    assert whole.headers["cache-control"] == "private, max-age=31536000, immutable"
    assert whole.headers["etag"] == f'"{NAME}"'
    assert whole.headers["accept-ranges"] == "bytes"
    part = await store.ask("GET", "shopper", range="bytes=100-299")
    assert (part.status_code, part.content) == (206, LAMP[100:300])
    assert part.headers["content-range"] == f"bytes 100-299/{len(LAMP)}"
    assert (await store.ask("GET", range=f"bytes={len(LAMP)}-")).status_code == 416
    held = await store.ask("GET", **{"if-none-match": f'"{NAME}"'})
    assert (held.status_code, held.content) == (304, b"")
    same = await store.ask("GET", range="bytes=0-9", **{"if-range": f'"{NAME}"'})
    assert (same.status_code, same.content) == (206, LAMP[:10])


async def test_what_differs_from_its_address_is_not_kept(store: Store) -> None:
    refused = await store.ask("PUT", body=LAMP[:-1])
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    assert (await store.ask("GET")).status_code == 404


async def test_a_tenant_has_what_it_put_there_itself(store: Store) -> None:
    assert (await store.ask("PUT", body=LAMP)).status_code == 201
    assert (await store.ask("GET", tenant="other")).status_code == 404
    assert (await store.ask("PUT", tenant="other", body=LAMP)).status_code == 201
    assert (await store.ask("GET", tenant="other")).content == LAMP


@pytest.mark.parametrize("role", ROLES)
async def test_who_may_put_and_read(store: Store, role: Role) -> None:
    assert (await store.ask("PUT", role, body=LAMP)).status_code == (201 if permits(role, "PUT /v1/assets/{sha256}") else 403)
    assert (await store.ask("GET", role)).status_code in ((200, 404) if permits(role, "GET /v1/assets/{sha256}") else (403,))
    for method in ("GET", "PUT"):
        assert (await store.client.request(method, PATH)).status_code == 401


@pytest.mark.parametrize("name", ["x", "A" * 64, "0" * 63])
async def test_an_address_that_is_no_hash_is_refused(store: Store, name: str) -> None:
    for method in ("GET", "PUT"):
        assert (await store.ask(method, path=f"/v1/assets/{name}")).status_code == 422


async def test_an_asset_that_is_too_large_is_refused_before_it_is_here(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets, "MAX_ASSET_BYTES", len(LAMP) - 1)
    refused = await store.ask("PUT", body=LAMP)
    assert (refused.status_code, refused.json()["code"]) == (429, "limit")


async def test_a_page_put_as_an_asset_runs_nowhere_as_ours(store: Store) -> None:
    page = b"<script>alert(1)</script>"
    path = f"/v1/assets/{hashlib.sha256(page).hexdigest()}"
    assert (await store.ask("PUT", path=path, body=page)).status_code == 201
    read = await store.ask("GET", path=path)
    assert read.headers["content-type"] == "application/octet-stream"
    assert "sandbox" in read.headers["content-security-policy"]
    assert read.headers["x-content-type-options"] == "nosniff"
