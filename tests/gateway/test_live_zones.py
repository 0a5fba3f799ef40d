"""An operator draws a zone over a real socket, and sees at once who is in it."""

from __future__ import annotations

from typing import Any

import pytest

from esplanade.core.errors import EsplanadeError, Forbidden, NotFound
from tests.actors.parkside import rows
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
