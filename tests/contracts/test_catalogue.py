"""What every catalogue promises."""

from __future__ import annotations

import asyncio
import hashlib

import pytest

from esplanade.core.errors import InvalidInput, NotFound
from esplanade.storage.catalogue import FIRST_SUBJECT, MAX_DOCUMENT_BYTES, RADIO_MAPS_KEPT, Catalogue, RadioMapEntry


def document(venue: str, name: str = "Parkside", kind: str = "mall") -> bytes:
    return b'{"format": "esplanade.venue/1", "id": "%s", "name": "%s", "kind": "%s", "levels": []}' % (venue.encode(), name.encode(), kind.encode())


async def test_tenants_are_added_once_and_listed_by_name(catalogue: Catalogue) -> None:
    assert await catalogue.tenants() == []
    for tenant in ("b", "a", "B", "a"):
        await catalogue.add_tenant(tenant, f"Tenant {tenant}")
    assert await catalogue.tenants() == ["B", "a", "b"]


async def test_a_venue_document_is_kept_byte_for_byte_and_described(catalogue: Catalogue) -> None:
    await catalogue.add_tenant("demo", "Demo")
    kept = document("parkside")
    entry = await catalogue.put_venue("demo", kept)
    assert (entry.tenant, entry.venue, entry.name, entry.kind) == ("demo", "parkside", "Parkside", "mall")
    assert entry.digest == hashlib.sha256(kept).hexdigest()
    assert await catalogue.venue("demo", "parkside") == kept
    assert await catalogue.venues() == [entry]


async def test_a_document_with_the_same_id_replaces_the_former(catalogue: Catalogue) -> None:
    await catalogue.add_tenant("demo", "Demo")
    await catalogue.put_venue("demo", document("parkside"))
    entry = await catalogue.put_venue("demo", document("parkside", name="Parkside 2", kind="festival"))
    assert await catalogue.venues("demo") == [entry]
    assert (entry.name, entry.kind) == ("Parkside 2", "festival")
    assert b"Parkside 2" in await catalogue.venue("demo", "parkside")


async def test_a_tenant_sees_its_own_venues_only(catalogue: Catalogue) -> None:
    for tenant in ("one", "two"):
        await catalogue.add_tenant(tenant, tenant)
    await catalogue.put_venue("one", document("b"))
    await catalogue.put_venue("one", document("a"))
    await catalogue.put_venue("two", document("c"))
    assert [entry.venue for entry in await catalogue.venues("one")] == ["a", "b"]
    assert [(entry.tenant, entry.venue) for entry in await catalogue.venues()] == [("one", "a"), ("one", "b"), ("two", "c")]
    assert await catalogue.venues("three") == []
    with pytest.raises(NotFound):
        await catalogue.venue("one", "c")


@pytest.mark.parametrize(
    "broken",
    [b"", b"no json", b"[]", b'{"id": "a"}', b'{"id": 1, "name": "A", "kind": "mall"}', document("a/b"), document(""), bytes(MAX_DOCUMENT_BYTES + 1)],
    ids=["empty", "text", "list", "part", "number", "slash", "nameless", "big"],
)
async def test_a_document_that_is_no_venue_is_refused(catalogue: Catalogue, broken: bytes) -> None:
    await catalogue.add_tenant("demo", "Demo")
    with pytest.raises(InvalidInput):
        await catalogue.put_venue("demo", broken)
    assert await catalogue.venues() == []


async def test_subject_numbers_are_never_given_twice(catalogue: Catalogue) -> None:
    for tenant in ("one", "two"):
        await catalogue.add_tenant(tenant, tenant)
    numbers = await asyncio.gather(*(catalogue.next_subject("one") for _ in range(50)))
    assert sorted(numbers) == list(range(FIRST_SUBJECT, FIRST_SUBJECT + 50))
    assert await catalogue.next_subject("two") == FIRST_SUBJECT


async def test_an_unknown_tenant_gets_neither_venue_nor_subject(catalogue: Catalogue) -> None:
    with pytest.raises(NotFound, match="add it first"):
        await catalogue.next_subject("nobody")
    with pytest.raises(NotFound, match="add it first"):
        await catalogue.put_venue("nobody", document("a"))


async def test_whoever_asks_first_makes_the_secret_and_all_get_it(catalogue: Catalogue) -> None:
    answers = await asyncio.gather(*(catalogue.secret("signing", b"%d" % n * 8) for n in range(5)))
    assert len(set(answers)) == 1
    assert await catalogue.secret("signing", b"another") == answers[0]
    assert await catalogue.secret("other", b"another") == b"another"


async def test_radio_maps_are_versions_by_content_and_only_the_newest_are_kept(catalogue: Catalogue) -> None:
    await catalogue.add_tenant("demo", "Demo")
    await catalogue.put_venue("demo", document("parkside"))
    assert await catalogue.radio_map_entry("demo", "parkside") is None
    first = await catalogue.put_radio_map("demo", "parkside", b"map 1")
    assert first == RadioMapEntry("parkside", 1, hashlib.sha256(b"map 1").hexdigest())
    assert await catalogue.put_radio_map("demo", "parkside", b"map 1") == first
    for n in range(2, RADIO_MAPS_KEPT + 2):
        assert (await catalogue.put_radio_map("demo", "parkside", b"map %d" % n)).version == n
    again = await catalogue.put_radio_map("demo", "parkside", b"map 1")
    assert (again.version, again.digest) == (RADIO_MAPS_KEPT + 2, first.digest)
    assert await catalogue.radio_map_entry("demo", "parkside") == again
    assert await catalogue.radio_map("demo", "parkside", again.version) == b"map 1"
    assert await catalogue.radio_map("demo", "parkside", 3) == b"map 3"
    with pytest.raises(NotFound, match="not kept"):
        await catalogue.radio_map("demo", "parkside", 2)


async def test_a_radio_map_needs_its_venue_and_is_its_tenants_alone(catalogue: Catalogue) -> None:
    for tenant in ("one", "two"):
        await catalogue.add_tenant(tenant, tenant)
    await catalogue.put_venue("one", document("a"))
    await catalogue.put_radio_map("one", "a", b"map")
    assert await catalogue.radio_map_entry("two", "a") is None
    with pytest.raises(NotFound):
        await catalogue.radio_map("two", "a", 1)
    with pytest.raises(NotFound, match="import it first"):
        await catalogue.put_radio_map("two", "a", b"map")
    with pytest.raises(InvalidInput, match="0 bytes"):
        await catalogue.put_radio_map("one", "a", b"")
