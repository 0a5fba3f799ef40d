"""Several gateway processes on one port, and new ones put in their place while people are connected: nobody is refused, nothing is missed or doubled."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from subprocess import run

import psutil
import pytest

from gateway.client import Client
from spatial.venue_files import load_venue
from tests.services.stack import COMMAND, ROOT, Esplanade, connections, data_folder, environment

pytestmark = pytest.mark.services

GATEWAYS = 2
PHONES = 24


@pytest.fixture(scope="module")
def service() -> Iterator[Esplanade]:
    with (
        data_folder() as data,
        Esplanade(data, "serve", env={"ESPLANADE_GATEWAYS": str(GATEWAYS), "ESPLANADE_SHARDS": "1", "ESPLANADE_SPARES": "0"}) as stack,
    ):
        yield stack.ready()


def listeners(service: Esplanade) -> set[int]:
    port = int(service.ws.rstrip("/").rsplit(":", 1)[1])
    return {
        process.pid
        for process in service.family()
        if any(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in connections(process))
    }


def clients_of(service: Esplanade, pid: int) -> int:
    port = int(service.ws.rstrip("/").rsplit(":", 1)[1])
    return sum(one.status == psutil.CONN_ESTABLISHED and one.laddr.port == port for one in connections(psutil.Process(pid)))


async def test_two_gateways_share_the_people_and_give_way_to_new_ones(service: Esplanade) -> None:
    before = listeners(service)
    assert len(before) == GATEWAYS
    unit = load_venue(ROOT / "scenarios" / "venues" / "parkside_mall.json").occupants[0].unit_id
    operator = await Client.connect(service.ws, client="ops", token=service.token("operator"), reconnects=30)
    phones = [await Client.connect(service.ws, client=f"phone-{i}", guest_of="demo", venue="parkside", reconnects=30) for i in range(PHONES)]
    for phone in phones:
        await phone.subscribe("venue/parkside/offers")
    assert all(clients_of(service, pid) for pid in before), "the system gave one of them everybody"

    told: list[list[str]] = [[] for _ in phones]
    again = [0] * PHONES

    async def listen(i: int) -> None:
        async for frame in phones[i].events():
            if frame["op"] == "offer_state":
                told[i].append(frame["offer"]["id"])
            again[i] += frame["op"] == "_reconnected"

    async def knock() -> int:
        """Newcomers, one after the other; raises where one is not let in at once."""
        served = 0
        while not restarted.is_set():
            async with await Client.connect(service.ws, client=f"new-{served}", guest_of="demo", reconnects=0):
                served += 1
            await asyncio.sleep(0.1)
        return served

    listening = [asyncio.create_task(listen(i)) for i in range(PHONES)]
    restarted = asyncio.Event()
    knocking = asyncio.create_task(knock())
    restart = [*COMMAND, "gateways", "restart", "--data-dir", str(service.data)]
    command = asyncio.create_task(
        asyncio.to_thread(run, restart, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=150, check=False)
    )
    made = []
    while not command.done():
        made.append(f"offer-{len(made)}")
        offer = {"id": made[-1], "unit_id": unit, "title": "Today", "audience": {"type": "everyone"}}
        await operator.request("create_offer", venue="parkside", offer=offer, timeout_s=60)
        await asyncio.sleep(0.3)
    done = await command
    restarted.set()
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "gateway-2, gateway-3 listen in their place"
    assert await asyncio.wait_for(knocking, 60) > 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(60):  # who was told to come back comes within some seconds, when all offers may long have been heard
            while any(len(one) < len(made) for one in told) or not all(again):
                await asyncio.sleep(0.1)
    assert told == [made] * PHONES
    assert min(again) >= 1, "somebody kept a connection to a gateway that is gone"
    after = listeners(service)
    assert len(after) == GATEWAYS
    assert not after & before
    status, body = service.get("readyz")
    assert (status, json.loads(body)["checks"]["gateways"]) == (200, "ok")
    for task in listening:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    for client in (operator, *phones):
        await client.close()
