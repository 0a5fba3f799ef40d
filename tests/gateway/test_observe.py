"""Phones that say only what they sense, over a real socket: a dot with an honest radius, offers by radio alone, and a plain word where there is no map or the phone is elsewhere."""

from __future__ import annotations

import asyncio
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.messages import CreateOffer
from esplanade.core.errors import InvalidInput, NotFound
from esplanade.core.ids import Address
from simulation.phone_drill import drill
from simulation.phones import Air, AirSettings, Phones, PhoneSettings, survey
from spatial.offers import Offer, Within
from spatial.positioning.model import save_model
from tests.actors import parkside
from tests.actors.parkside import rows
from tests.gateway.mall import TILL, VENUE, Mall, running_mall

pytestmark = pytest.mark.services

STEADY = PhoneSettings(fading_db=2.0, missed=0.02, gap=0.0, scan_s=1.0, no_compass=0.0, delay_s=0.0, lost=0.0)


@cache
def air() -> Air:
    return Air(parkside.venue(), seed=3, settings=AirSettings(wifi_m=9.0, ble_m=8.0))


@cache
def radio_map(tmp: Path) -> bytes:
    save_model(survey(air(), seed=3, spacing_m=2.0), tmp / "map.npz")
    return (tmp / "map.npz").read_bytes()


def sensed(subject: int, path: list[tuple[int, float, float]]) -> list[dict[str, Any]]:
    """The frames of a phone that is at (level, x, y), a second each."""
    phones = Phones(air(), 3, STEADY)
    return [
        phones.fields(message) for second, (level, x, y) in enumerate(path) for message in phones.sense(float(second), rows((subject, level, x, y)))
    ]


async def published(mall: Mall, body: bytes) -> None:
    await mall.catalogue.put_radio_map("demo", VENUE, body)


async def test_a_shopper_is_found_by_radio_alone_and_what_follows_a_position_follows(tmp_path: Path) -> None:
    async with running_mall() as mall:
        await published(mall, await asyncio.to_thread(radio_map, tmp_path))
        offer = Offer(id="near", unit_id=TILL, title="Near", audience=Within(radius_m=9.0))
        await mall.system.ask(Address("mall", "demo", VENUE), CreateOffer(offer=offer))
        _, url = await mall.gateway()
        shopper = await mall.client(url, 5, venue=VENUE)
        there = (0, 7.0, 17.0)
        frames = sensed(5, [(0, 35.0, 12.0)] * 3 + [(0, 35.0 - 1.4 * k, 12.0) for k in range(20)] + [there] * 6)
        told = [await shopper.observe(VENUE, **fields) for fields in frames]
        assert told[0]["state"] == "settling"
        assert "x" not in told[0]
        last = told[-1]
        assert (last["state"], last["level"], last["map"]) == ("located", 0, 1)
        assert np.hypot(last["x"] - there[1], last["y"] - there[2]) < 4.0
        assert 0 < last["radius_m"] < 10.0
        assert len(last["levels"]) == 2
        assert sum(last["levels"]) == pytest.approx(1.0, abs=0.01)
        push = await shopper.event("push", timeout_s=60)
        assert (push["offer"], push["id"].split(".")[1]) == ("near", "5")
        assert [(source, tick) for source, tick, _ in mall.taken] == [(None, None)] * len(mall.taken)
        assert {int(s) for _, _, columns in mall.taken for s in columns.subject} == {5}
        again = await shopper.observe(VENUE, **frames[-1])
        assert (again["state"], again["x"], again["y"]) == ("repeated", last["x"], last["y"])
        assert (await shopper.observe(VENUE, **frames[0]))["state"] == "late"


async def test_no_map_elsewhere_and_nonsense_are_said_plainly_and_a_new_map_is_taken_up(tmp_path: Path) -> None:
    async with running_mall() as mall:
        _, url = await mall.gateway()
        shopper = await mall.client(url, 6)
        with pytest.raises(NotFound, match="no radio map for this venue"):
            await shopper.observe(VENUE, 0, wifi=[("00:11:22:33:44:55", -50.0)])
        await published(mall, await asyncio.to_thread(radio_map, tmp_path))
        strange = [(f"00:11:22:33:{k:02x}:55", -50.0) for k in range(6)]
        states: list[str] = []
        async with asyncio.timeout(60):
            while len(states) < 4:
                try:
                    states.append((await shopper.observe(VENUE, 1000 * len(states), wifi=strange))["state"])
                except NotFound:  # the new map is seen within five seconds
                    await asyncio.sleep(0.2)
        assert states == ["silent", "silent", "outside", "outside"]
        told = await shopper.observe(VENUE, 4000, wifi=strange)
        assert told["message"].startswith("not in this venue")
        scanned = await shopper.observe(VENUE, 5000, location="upper_entrance")
        assert (scanned["state"], scanned["level"]) == ("located", 1)
        assert np.hypot(scanned["x"] - 5, scanned["y"] - 5) < 2
        with pytest.raises(NotFound, match="no entrance"):
            await shopper.observe(VENUE, 6000, location="nowhere")
        for bad in (
            {"wifi": [("no address", -50.0)]},
            {"wifi": [("00:11:22:33:44:55", 3.0)]},
            {"steps": [(0.0, 99.0)]},
            {"ranges": [{"x": 0.0, "y": 0.0, "range_m": 1.0, "sd_m": 0.0}]},
        ):
            with pytest.raises(InvalidInput):
                await shopper.observe(VENUE, 7000, **bad)
        walking = [shopper.observe(VENUE, 8000 + 1000 * k, steps=[(90.0, 0.7)]) for k in range(10)]
        assert [(await one)["state"] for one in walking] == ["located"] * 10
        await mall.catalogue.put_radio_map("demo", VENUE, b"no model")
        async with asyncio.timeout(60):
            at_ms = 20_000
            refused = ""
            while not refused:
                try:
                    await shopper.observe(VENUE, at_ms, steps=[])
                except InvalidInput as error:
                    refused = str(error)
                at_ms += 1000
                await asyncio.sleep(0.2)
        assert "cannot be read" in refused


async def test_a_crowd_of_phones_at_the_gateway_is_held_against_the_truth(tmp_path: Path) -> None:
    async with running_mall() as mall:
        await published(mall, await asyncio.to_thread(radio_map, tmp_path))
        _, url = await mall.gateway()
        report = await drill(url, "demo", air(), people=6, seconds=12, seed=3, settings=STEADY)
        assert report.errors == {}
        assert report.answered == report.scored.observations >= 6 * 12
        assert report.scored.told > 20
        assert report.scored.level_right > 0.9
        assert report.scored.median_m < 4.0
