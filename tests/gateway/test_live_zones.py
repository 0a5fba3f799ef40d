"""An operator draws a zone, gives an offer terms and measures the venue over a real socket, and sees at once what follows."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from esplanade.core.errors import EsplanadeError, Forbidden, InvalidInput, NotFound
from tests.actors.parkside import rows, u4
from tests.gateway.mall import VENUE, running_mall

pytestmark = pytest.mark.services

ZONE: dict[str, Any] = {"id": "queue", "name": "Queue", "level": 0, "shape": {"type": "circle", "x_m": 10.0, "y_m": 10.0, "radius_m": 5.0}}


async def test_a_zone_is_drawn_watched_and_erased_without_a_restart() -> None:
    async with running_mall() as mall:
        _, url = await mall.gateway()
        operator, shopper = await mall.client(url, 1, "operator"), await mall.client(url, 5)
        await mall.system.take("demo", VENUE, rows((5, 0, 9.0, 9.0), (6, 0, 11.0, 11.0), (7, 0, 30.0, 9.0)), source=None, tick=None)
        with pytest.raises(Forbidden):
            await shopper.request("draw_zone", venue=VENUE, zone=ZONE)
        with pytest.raises(Forbidden):
            await shopper.subscribe(f"venue/{VENUE}/zone/queue")
        with pytest.raises(NotFound):
            await operator.request("get_zone", venue=VENUE, zone="queue")
        await operator.request("draw_zone", venue=VENUE, zone=ZONE, key=b"k" * 16)
        await operator.request("draw_zone", venue=VENUE, zone=ZONE, key=b"k" * 16)
        await operator.subscribe(f"venue/{VENUE}/zone/queue", rate_hz=10)
        seen = await operator.event("zone", timeout_s=60)
        while seen["inside"] < 2:
            seen = await operator.event("zone", timeout_s=60)
        assert (seen["entries"], seen["service"]) == (2, "A")
        assert seen["density_per_m2"] == pytest.approx(2 / (3.14159265 * 25))
        await mall.system.take("demo", VENUE, rows((5, 0, 30.0, 9.0), (7, 0, 10.0, 9.0), (8, 0, 10.0, 10.0)), source=None, tick=None)
        while seen["entries"] < 4:
            seen = await operator.event("zone", timeout_s=60)
        assert (seen["inside"], seen["exits"]) == (3, 1)
        state = await operator.request("get_zone", venue=VENUE, zone="queue")
        assert (state["inside"], state["entries"]) == (3, 4)
        listed = await operator.request("get_zones", venue=VENUE, box={"level": 0, "x0": 0.0, "y0": 0.0, "x1": 6.0, "y1": 12.0})
        assert [zone["id"] for zone in listed["zones"]] == ["queue"]
        await operator.request("erase_zone", venue=VENUE, zone="queue")
        assert (await operator.request("get_zones", venue=VENUE)).get("zones", []) == []
        bow = {"type": "polygon", "polygon": [[[[0, 0], [4, 4], [4, 0], [0, 4]]]]}
        with pytest.raises(EsplanadeError, match="do not cross") as refused:
            await operator.request("draw_zone", venue=VENUE, zone={**ZONE, "shape": bow})
        assert refused.value.code == "invalid_zone"


async def test_an_offer_with_terms_explains_itself_and_a_venue_is_measured() -> None:
    async with running_mall() as mall:
        _, url = await mall.gateway()
        operator, shopper, feed = await mall.client(url, 1, "operator"), await mall.client(url, 5, venue=VENUE), await mall.client(url, 90, "feed")
        await feed.request("set_traits", venue=VENUE, subject=u4(5), segments=(2).to_bytes(8, "little"), language="de")
        await shopper.move(VENUE, 0, 7.0, 19.5, ack=True)
        terms = {"within_s": 30.0, "segments": 2, "languages": ["de"], "budget": 10}
        offer = {"id": "tea", "unit_id": "shop-00", "title": "Tea", "audience": {"type": "inside"}, "terms": terms}
        await operator.request("create_offer", venue=VENUE, offer=offer, timeout_s=120)
        push = await shopper.event("push", timeout_s=120)
        assert push["offer"] == "tea"
        mine = await shopper.request("explain", venue=VENUE, offer="tea")
        assert (mine["subject"], mine["outcome"], mine["pushes"], mine["tick"]) == (5, "pushed", 1, push["tick"])
        theirs = await operator.request("explain", venue=VENUE, offer="tea", subject=77)
        assert (theirs["outcome"], theirs.get("tick")) == ("unseen", None)
        with pytest.raises(Forbidden, match="itself alone"):
            await shopper.request("explain", venue=VENUE, offer="tea", subject=77)
        listed = (await shopper.request("get_offers", venue=VENUE))["offers"]
        assert [one["terms"] for one in listed] == [terms]
        found = await operator.request("measure", venue=VENUE, zone="front", voronoi=True)
        assert (found["inside"], found["service"], found["waiting"]) == (1, "A", "A")
        assert found["density_per_m2"] == pytest.approx(1 / found["ground_m2"])
        heat = await operator.request("get_heat", venue=VENUE, level=0)
        assert len(heat["person_s"]) == 4 * heat["rows"] * heat["cols"]
        counts = [{"gate": "north", "sequence": 1, "entered": 3, "left": 1}]
        compared = await feed.request("count_gates", venue=VENUE, counts=counts)
        assert (compared["taken"], compared["inside"], compared["drift"]) == (0, 2, 2)
        assert (await operator.request("compare_parking", venue=VENUE, moving_at_most=2))["drift"] == 0
        assert (await operator.request("recount", venue=VENUE))["inside"] == 0
        wrong = {**offer, "id": "tee", "terms": {"quiet": [{"from_s": 5.0, "until_s": 1.0}]}}
        with pytest.raises(InvalidInput, match="end after they begin"):
            await operator.request("create_offer", venue=VENUE, offer=wrong)


async def test_the_map_is_edited_and_everything_that_holds_the_venue_follows() -> None:
    async with running_mall() as mall:
        _, url = await mall.gateway()
        operator, shopper = await mall.client(url, 1, "operator"), await mall.client(url, 5)
        await mall.system.take("demo", VENUE, rows((5, 0, 7.0, 22.0)), source=None, tick=None)
        before = await mall.catalogue.venue("demo", VENUE)

        async def door_y_m() -> float:
            goal = {"place": "shop-01"}
            found = await shopper.request("route", venue=VENUE, timeout_s=120, start={"level": 0, "x": 19.0, "y": 3.0}, goal=goal)
            return float(np.frombuffer(found["legs"][-1]["y"], "<f4")[-1])

        assert await door_y_m() == pytest.approx(20.0, abs=0.1)
        with pytest.raises(Forbidden):
            await shopper.request("edit_venue", venue=VENUE, edit={"type": "close_unit", "unit_id": "shop-00"})
        told = await operator.request("edit_venue", venue=VENUE, edit={"type": "relabel", "unit_id": "shop-00", "occupant": "Quetzal"})
        moved = await operator.request("edit_venue", venue=VENUE, edit={"type": "move_unit", "unit_id": "shop-01", "dx_m": 0.0, "dy_m": -5.0})
        assert [one["type"] for one in moved["done"]] == ["relabel", "move_unit"]
        [entry] = [one for one in await mall.catalogue.venues("demo") if one.venue == VENUE]
        assert entry.digest == moved["digest"] != told["digest"]
        found = await shopper.request("search", venue=VENUE, text="quetzal")
        while not found.get("stores"):  # from the next tick on
            await asyncio.sleep(0.1)
            found = await shopper.request("search", venue=VENUE, text="quetzal")
        assert await door_y_m() == pytest.approx(15.0, abs=0.1)
        back = await operator.request("undo_edit", venue=VENUE)
        assert (back["edit"]["type"], back["digest"], back["undone"]) == ("move_unit", told["digest"], 1)
        assert await door_y_m() == pytest.approx(20.0, abs=0.1)
        assert (await operator.request("redo_edit", venue=VENUE))["digest"] == moved["digest"]
        assert (await operator.request("get_edits", venue=VENUE))["digest"] == moved["digest"]
        assert await mall.catalogue.venue("demo", VENUE) != before
        with pytest.raises(EsplanadeError, match="open already") as refused:
            await operator.request("edit_venue", venue=VENUE, edit={"type": "open_unit", "unit_id": "shop-01"})
        assert refused.value.code == "invalid_edit"
