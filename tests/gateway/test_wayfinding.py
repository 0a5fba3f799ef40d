"""Directions over real sockets: from a place, a point or where I am, under what is closed now."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from actors.messages import Access, Crowded, GetAccess
from esplanade.core.errors import EsplanadeError, Forbidden, InvalidInput, LimitExceeded, NotFound
from esplanade.core.ids import Address
from gateway.client import Client
from spatial.columns import PositionColumns
from spatial.directions import Guide, english
from spatial.live import Crowding, Live, crowd_factor
from spatial.profiles import WHEELCHAIR
from spatial.routes import At, Route
from spatial.routing import Router
from spatial.venue_files import load_venue
from tests.gateway.mall import Mall, running_mall

pytestmark = [pytest.mark.services, pytest.mark.asyncio(loop_scope="module")]

DOCUMENT = Path(__file__).parents[2] / "scenarios" / "venues" / "parkside_mall.json"
MALL = "grand"
LIFTS = ["lift-north-1", "lift-north-2", "lift-south-1", "lift-south-2"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mall() -> AsyncIterator[Mall]:
    async with running_mall() as running:
        await running.catalogue.put_venue("demo", DOCUMENT.read_bytes().replace(b'"id":"parkside"', b'"id":"grand"', 1))
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(mall: Mall) -> str:
    return (await mall.gateway())[1]


async def route(client: Client, goal: dict[str, Any], **more: Any) -> dict[str, Any]:
    return await client.request("route", venue=MALL, goal=goal, timeout_s=120, **more)


def xs(leg: dict[str, Any]) -> np.ndarray[Any, Any]:
    return np.stack([np.frombuffer(leg["x"], "<f4"), np.frombuffer(leg["y"], "<f4")], axis=1)


async def test_a_route_is_the_librarys_with_legs_and_words(mall: Mall, url: str) -> None:
    client = await mall.client(url, 7)
    found = await route(client, {"place": "L2-room-1"}, start={"place": "north_entrance"})
    router = Router.build(load_venue(DOCUMENT))
    expected = router.route("north_entrance", "L2-room-1")
    assert isinstance(expected, Route)
    assert found["op"] == "route_is"
    assert found["metres"] == pytest.approx(expected.length_m)
    assert found["seconds"] == pytest.approx(expected.seconds)
    walks = [leg for leg in found["legs"] if leg["type"] == "walk"]
    rides = [leg for leg in found["legs"] if leg["type"] == "ride"]
    assert [leg["level"] for leg in walks] == [walk.level for walk in expected.walks]
    assert [leg["connector"] for leg in rides] == [ride.connector_id for ride in expected.rides] != []
    for leg in walks:
        assert np.hypot(*np.diff(xs(leg), axis=0).T).sum() == pytest.approx(leg["metres"], abs=1e-2)
    assert tuple(found["words"]) == english(Guide(router).steps(expected, "north_entrance", "L2-room-1"))


async def test_a_wheelchair_takes_the_lift_until_it_is_closed_and_then_another_and_then_none(mall: Mall, url: str) -> None:
    client, operator = await mall.client(url, 8), await mall.client(url, 1, "operator")
    asked: dict[str, Any] = {"goal": {"place": "L2-room-1"}, "start": {"place": "north_entrance"}, "profile": "wheelchair"}
    taken: set[str] = set()
    for _ in LIFTS:
        found = await route(client, **asked)
        [lift] = [leg["connector"] for leg in found["legs"] if leg["type"] == "ride"]
        assert lift in set(LIFTS) - taken
        taken.add(lift)
        assert (await operator.request("set_access", venue=MALL, close=[lift]))["closed"] == sorted(taken)
    found = await route(client, **asked)
    assert (found["op"], found["reason"]) == ("no_route", "closed")
    assert (await client.request("get_access", venue=MALL))["closed"] == LIFTS
    await operator.request("set_access", venue=MALL, open=LIFTS)
    assert (await route(client, **asked))["op"] == "route_is"


async def test_what_is_closed_survives_the_death_of_its_shard(mall: Mall, url: str) -> None:
    operator = await mall.client(url, 2, "operator")
    await operator.request("set_access", venue=MALL, close=["stairs-south", "L0-room-1"])
    for index in range(mall.count):
        await mall.kill(index)
    assert (await operator.request("get_access", venue=MALL))["closed"] == ["L0-room-1", "stairs-south"]
    found = await route(operator, {"place": "L0-room-1"}, start={"place": "north_entrance"})
    assert (found["op"], found["reason"]) == ("no_route", "closed")
    await operator.request("set_access", venue=MALL, open=["stairs-south", "L0-room-1"])


async def test_from_where_i_am_to_the_nearest_of_a_category(mall: Mall, url: str) -> None:
    client = await mall.client(url, 9)
    with pytest.raises(InvalidInput, match="not seen in this venue"):
        await route(client, {"category": "cafe"})
    await client.move(MALL, 1, 90.0, 75.0, ack=True)
    begun = (await mall.system.clock("demo", MALL)).tick
    async with asyncio.timeout(60):
        while (await mall.system.clock("demo", MALL)).tick <= begun + 1:
            await asyncio.sleep(0.02)
    found = await route(client, {"category": "cafe"})
    assert xs(found["legs"][0])[0] == pytest.approx([90.0, 75.0], abs=1e-3)
    here = {"level": 1, "x": 90.0, "y": 75.0}
    cafes = [o.unit_id for o in load_venue(DOCUMENT).occupants if o.category == "cafe"]
    each = {cafe: (await route(client, {"place": cafe}, start=here))["seconds"] for cafe in cafes}
    assert found["goal"] == min(cafes, key=lambda cafe: each[cafe])
    assert found["seconds"] == pytest.approx(min(each.values()))


async def test_ways_are_forbidden_by_the_request(mall: Mall, url: str) -> None:
    client = await mall.client(url, 10)
    ways = {"escalator_up": "forbid", "escalator_down": "forbid", "elevator": "forbid"}
    found = await route(client, {"place": "L2-room-1"}, start={"place": "north_entrance"}, ways=ways)
    assert {leg["way"] for leg in found["legs"] if leg["type"] == "ride"} == {"stairs_up"}
    found = await route(client, {"place": "L2-room-1"}, start={"place": "north_entrance"}, ways={**ways, "stairs_up": "forbid", "ramp": "forbid"})
    assert (found["op"], found["reason"]) == ("no_route", "forbidden")


async def test_an_isochrone_grows_with_time_and_names_its_places(mall: Mall, url: str) -> None:
    client = await mall.client(url, 11)
    cells, places = [], []
    for within_s in (30, 120):
        found = await client.request("isochrone", venue=MALL, start={"place": "north_entrance"}, within_s=within_s, timeout_s=120)
        seconds = np.frombuffer(found["seconds"], "<f4")
        assert len(seconds) == len(found["level"]) == len(found["x"]) // 4 == len(found["y"]) // 4
        assert seconds.max() <= within_s
        assert max(found["places"].values()) <= within_s
        cells.append(len(seconds))
        places.append(set(found["places"]))
    assert 0 < cells[0] < cells[1]
    assert places[0] < places[1]


@pytest.mark.parametrize(
    ("asked", "error", "said"),
    [
        ({"goal": {"place": "attic"}, "start": {"place": "north_entrance"}}, NotFound, "attic"),
        ({"goal": {"category": "submarines"}, "start": {"place": "north_entrance"}}, NotFound, "submarines"),
        ({"goal": {"place": "L0-room-1", "category": "cafe"}, "start": {"place": "north_entrance"}}, InvalidInput, "one of"),
        ({"goal": {"place": "L0-room-1"}, "start": {"level": 1, "x": 3.0}}, InvalidInput, "all three"),
        ({"goal": {"place": "L0-room-1"}, "start": {"level": 9, "x": 3.0, "y": 4.0}}, InvalidInput, "level must be 0 to 3"),
        ({"goal": {"place": "L0-room-1"}, "start": {"category": "cafe"}}, InvalidInput, "for a goal a category"),
        ({"goal": {"place": "L0-room-1"}, "start": {"place": "north_entrance"}, "profile": "stilts"}, InvalidInput, "wheelchair"),
        ({"goal": {"place": "L0-room-1"}, "start": {"place": "north_entrance"}, "ways": {"ladder": "avoid"}}, InvalidInput, "ladder"),
    ],
)
async def test_a_request_that_cannot_be_says_why(mall: Mall, url: str, asked: dict[str, Any], error: type[EsplanadeError], said: str) -> None:
    client = await mall.client(url, 12)
    with pytest.raises(error, match=said):
        await route(client, **asked)


async def test_closing_is_for_operators_and_for_what_is_there(mall: Mall, url: str) -> None:
    operator, client = await mall.client(url, 3, "operator"), await mall.client(url, 13)
    with pytest.raises(Forbidden):
        await client.request("set_access", venue=MALL, close=LIFTS[:1])
    with pytest.raises(EsplanadeError, match="no connector, opening or unit") as refused:
        await operator.request("set_access", venue=MALL, close=["lift-north-1", "lift-to-the-moon"])
    assert refused.value.code == "place_not_found"
    assert (await operator.request("get_access", venue=MALL))["closed"] == []


async def test_distances_of_many_are_the_librarys_and_have_a_limit(mall: Mall, url: str) -> None:
    client = await mall.client(url, 12)
    router = Router.build(load_venue(DOCUMENT))
    targets = ["L2-room-1", "L0-room-1", "north_entrance"]
    told = await client.request(
        "distances", venue=MALL, sources=[{"place": "north_entrance"}, {"level": 1, "x": 90.0, "y": 75.0}], targets=[{"place": one} for one in targets],
        profile="wheelchair", timeout_s=120,
    )  # fmt: skip
    expected = router.matrix(["north_entrance", At(1, 90.0, 75.0)], targets, profile=WHEELCHAIR)
    assert (told["op"], told["sources"], told["targets"]) == ("distances_are", 2, 3)
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(np.frombuffer(told["cost"], "<f4").reshape(2, 3), expected, rtol=1e-6)
    each = [{"place": "north_entrance"}]
    with pytest.raises(LimitExceeded, match="at most 100000"):
        await client.request("distances", venue=MALL, sources=each * 400, targets=each * 300)
    with pytest.raises(InvalidInput, match="give one of a place"):
        await client.request("distances", venue=MALL, sources=[{"place": "north_entrance", "level": 1}], targets=each)
    with pytest.raises(NotFound, match="attic"):
        await client.request("distances", venue=MALL, sources=each, targets=[{"place": "attic"}])


async def test_a_route_that_avoids_crowds_goes_round_one_and_tells_what_the_way_through_it_takes(mall: Mall, url: str) -> None:
    """Six hundred people stand on the way, four a square metre: who asks for it is led elsewhere, by the library's answer for that crowd; others are not."""
    client = await mall.client(url, 13)
    ends: dict[str, Any] = {"goal": {"level": 1, "x": 118.0, "y": 40.0}, "start": {"level": 1, "x": 20.0, "y": 40.0}}
    plain = await route(client, **ends)
    middle = xs(plain["legs"][0]).mean(axis=0)
    router = Router.build(load_venue(DOCUMENT))
    at = np.random.default_rng(1).uniform(middle - 6.0, middle + 6.0, (600, 2)).astype(np.float32)
    columns = PositionColumns(np.arange(5000, 5600, dtype=np.uint32), np.full(600, 1, np.uint8), at[:, 0].copy(), at[:, 1].copy())
    await mall.system.take("demo", MALL, columns, source=None, tick=None)
    crowds: list[Crowded] = []
    async with asyncio.timeout(60):
        while not crowds:
            await asyncio.sleep(0.02)
            access = await mall.system.ask(Address("mall", "demo", MALL), GetAccess(crowding=True))
            assert isinstance(access, Access)
            crowds = [one for one in access.crowding if one.level == 1 and np.frombuffer(one.count, "<u2").sum() >= len(columns)]
    around = await route(client, **ends, avoid_crowds=True)
    again = await route(client, **ends)
    assert again["seconds"] == pytest.approx(plain["seconds"])
    assert around["seconds"] > plain["seconds"]
    [crowd] = crowds
    people = np.frombuffer(crowd.count, "<u2").reshape(crowd.rows, crowd.cols)
    slow = Crowding(crowd.x0_m, crowd.y0_m, crowd.cell_m, crowd_factor(people / crowd.cell_m**2))
    expected = router.with_live(Live(crowding={1: slow})).route(At(1, 20.0, 40.0), At(1, 118.0, 40.0))
    assert isinstance(expected, Route)
    assert around["seconds"] == pytest.approx(expected.seconds, rel=1e-3)
    through = slow.factor[tuple(((middle - [crowd.x0_m, crowd.y0_m]) // crowd.cell_m).astype(int)[::-1])]
    assert through > 2, "or the crowd would not have stood on the way"
