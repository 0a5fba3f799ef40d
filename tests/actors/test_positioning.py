"""The positioning stage of a shard: which radio map is in force, and what happens where there is none, a bad one, or too much at once."""

from __future__ import annotations

import asyncio
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from actors import positioning
from actors.topics import Dots
from esplanade.core.errors import InvalidInput, LimitExceeded, NotFound
from simulation.phones import Air, AirSettings, Phones, PhoneSettings, survey
from spatial.positioning.model import save_model
from spatial.positioning.observed import Observed, State
from tests.actors.parkside import rows, venue
from tests.actors.stage import Stage, stage

STEADY = PhoneSettings(missed=0.0, gap=0.0, scan_s=1.0, no_compass=0.0, delay_s=0.0, lost=0.0)
CROWD = rows(*((subject, subject % 2, 4.0 + subject, 12.0) for subject in range(30)))


@cache
def air() -> Air:
    return Air(venue(), seed=3, settings=AirSettings(wifi_m=9.0, ble_m=8.0))


@pytest.fixture(scope="module")
def body(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path: Path = tmp_path_factory.mktemp("map") / "map.npz"
    save_model(survey(air(), seed=3, spacing_m=3.0), path)
    return path.read_bytes()


def said(seconds: int) -> list[Observed]:
    phones = Phones(air(), 3, STEADY)
    return [phones.observed(phones.sense(float(second), CROWD)) for second in range(seconds)]


async def later(at: Stage) -> None:
    """So much later that the catalogue is asked again for the map in force."""
    at.clock.advance(positioning.FRESH_S)
    for shard in at.system.shards:
        await shard.renew()


async def test_rows_reach_the_host_and_a_map_is_taken_up_refused_and_replaced_while_phones_go_on(body: bytes) -> None:
    async with stage() as at:
        system, catalogue = at.system, at.catalogue
        seconds = iter(said(12))
        with pytest.raises(NotFound, match="no radio map for this venue"):
            await system.locate("demo", "parkside", next(seconds))
        await catalogue.put_radio_map("demo", "parkside", body)
        with pytest.raises(NotFound):
            await system.locate("demo", "parkside", next(seconds))  # the catalogue is not asked again at once
        await later(at)
        for _ in range(4):
            answers, version = await system.locate("demo", "parkside", next(seconds))
        assert version == 1
        assert (answers.state == State.LOCATED).all()
        assert (answers.level == CROWD.level).mean() > 0.9
        assert np.median(np.hypot(answers.xy_m[:, 0] - CROWD.x_m, answers.xy_m[:, 1] - CROWD.y_m)) < 4
        host = next(log.hosts["parkside"].host for shard in system.shards for log in shard._logs.values() if "parkside" in log.hosts)
        heard = await at.listen("venue/parkside/dots/0")
        await at.system.watch("demo", "parkside", {"venue/parkside/dots/0": 10.0})
        await at.poll(0.2)
        assert host.spotted(7) is not None
        assert host.crowd.count == 30
        dots = [told for _, told in await heard.all() if isinstance(told, Dots)][-1]
        answered = answers.radius_m[answers.level == 0]
        assert sorted(dots.radius) == np.clip(np.ceil(10 * np.sort(answered)), 1, 255).tolist(), "operators see the radius that the phone is told"
        await system.take("demo", "parkside", rows((0, 0, 4.0, 12.0)), source=None, tick=None)
        await at.poll(0.2)
        dots = [told for _, told in await heard.all() if isinstance(told, Dots)][-1]
        assert dots.radius.count(0) == 1, "who says where they are is as sure as they are"
        await catalogue.put_radio_map("demo", "parkside", b"no model")
        await later(at)
        with pytest.raises(InvalidInput, match="cannot be read"):
            await system.locate("demo", "parkside", next(seconds))
        await catalogue.put_radio_map("demo", "parkside", body)
        await later(at)
        answers, version = await system.locate("demo", "parkside", next(seconds))
        assert version == 3
        assert (answers.state == State.SETTLING).all(), "under another map everybody begins anew"


async def test_too_many_batches_are_refused_and_the_others_are_answered(body: bytes) -> None:
    async with stage() as at:
        await at.catalogue.put_radio_map("demo", "parkside", body)
        [first] = said(1)
        await at.system.clock("demo", "parkside")
        found = await asyncio.gather(
            *(at.system.locate("demo", "parkside", first) for _ in range(positioning.MAX_BATCHES + 5)), return_exceptions=True
        )
        refused = [each for each in found if isinstance(each, LimitExceeded)]
        assert len(refused) == 5
        assert len(found) - len(refused) == positioning.MAX_BATCHES
        assert not [each for each in found if isinstance(each, BaseException) and not isinstance(each, LimitExceeded)]


async def test_a_shard_that_stops_leaves_nobody_waiting(body: bytes) -> None:
    async with stage() as at:
        await at.catalogue.put_radio_map("demo", "parkside", body)
        await at.system.clock("demo", "parkside")
        waiting = [asyncio.ensure_future(at.system.locate("demo", "parkside", first)) for first in said(6)]
        await asyncio.sleep(0)
        await at.system.shards[0].stop()
        async with asyncio.timeout(30):
            await asyncio.gather(*waiting, return_exceptions=True)
