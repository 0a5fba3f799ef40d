"""Who is let in, and when: the door on real sockets."""

from __future__ import annotations

import asyncio
import base64
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgpack
import pytest

from benchmarks.gateway_host import SEED, TENANT, GatewayHost
from benchmarks.socket_readers import masked
from gateway import door as door_module
from gateway import frames as f
from gateway import session as session_module
from gateway.admission import Returns
from gateway.auth import Signer
from gateway.codes import CloseCode
from gateway.door import DirectConnection, Door
from gateway.handshake import Asked, Refusal
from gateway.server import GatewaySettings
from tests.gateway.mall import until

pytestmark = pytest.mark.services


class Hall:
    """Lets in who comes while there is room, and remembers the order."""

    def __init__(self) -> None:
        self.room = True
        self.entered: list[str] = []
        self.away: list[str] = []

    def check(self, asked: Asked, address: str) -> Refusal | None:
        self.entered.append(asked.path)
        return None

    def enter(self, ws: DirectConnection) -> None:
        pass

    def has_room(self) -> bool:
        return self.room

    def turned_away(self, reason: str) -> None:
        self.away.append(reason)


@asynccontextmanager
async def opened(hall: Hall, *, open_timeout_s: float = 60.0, now: Callable[[], float] = time.monotonic) -> AsyncIterator[Door]:
    door = Door(hall, Returns(10.0), now=now, open_timeout_s=open_timeout_s, close_timeout_s=1.0)
    await door.start("127.0.0.1", 0)
    try:
        yield door
    finally:
        await door.stop()


def knock(port: int, says: str | None) -> socket.socket:
    one = socket.create_connection(("127.0.0.1", port), timeout=20)
    if says is not None:
        key = base64.b64encode(b"k" * 16).decode()
        one.sendall(
            f"GET {says} HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: {f.SUBPROTOCOLS[0]}\r\n\r\n".encode()
        )
    return one


async def heard(one: socket.socket) -> bytes:
    """What it says first; nothing where it is closed."""
    try:
        return await asyncio.to_thread(one.recv, 65_536)
    except ConnectionResetError:
        return b""


async def test_who_waited_longest_comes_first() -> None:
    hall = Hall()
    hall.room = False
    async with opened(hall) as door:
        sockets = [knock(door.port, f"/{i}") for i in range(3 * door_module.ACCEPTED_A_TURN)]
        await until(lambda: door._pause is not None)
        assert hall.entered == []
        hall.room = True
        door.open_again()
        await until(lambda: len(hall.entered) == len(sockets))
        assert hall.entered == [f"/{i}" for i in range(len(sockets))]
        for one in sockets:
            one.close()


async def test_who_waited_too_long_is_told_when_to_come_again_at_moments_that_are_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door_module, "PATIENT_S", 0.3)
    hall = Hall()
    hall.room = False
    async with opened(hall) as door:
        sockets = [knock(door.port, f"/{i}") for i in range(40)]
        answers = [await heard(one) for one in sockets]
        assert all(answer.startswith(b"HTTP/1.1 503 ") for answer in answers)
        told = [int(answer.partition(b"Retry-After: ")[2].split(b"\r\n")[0]) for answer in answers]
        assert told == sorted(told), "who came first is told to come first"
        assert max(told) - min(told) >= 2, "forty at ten a second"
        assert (hall.entered, hall.away) == ([], ["late"] * 40)
        hall.room = True
        assert (await heard(knock(door.port, "/fresh"))).startswith(b"HTTP/1.1 101 ")


async def test_after_a_pause_of_its_own_the_door_sends_nobody_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door_module, "PATIENT_S", 0.1)
    hall = Hall()
    async with opened(hall, now=lambda: 1.0) as door:  # of its own time, none passed
        sockets = [knock(door.port, f"/{i}") for i in range(2 * door_module.ACCEPTED_A_TURN)]
        time.sleep(0.3)  # noqa: ASYNC251  the pause
        await until(lambda: len(hall.entered) + len(hall.away) == len(sockets))
        assert hall.away == []
        for one in sockets:
            one.close()


async def test_sockets_that_say_nothing_give_way_to_those_that_speak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door_module, "MAX_SILENT", 3)
    hall = Hall()
    async with opened(hall) as door:
        silent = [knock(door.port, None) for _ in range(5)]
        await until(lambda: hall.away == ["silent"] * 2)
        assert [await heard(one) for one in silent[:2]] == [b"", b""]
        assert (await heard(knock(door.port, "/"))).startswith(b"HTTP/1.1 101 ")
        silent[2].sendall(b"no HTTP\r\n\r\n")
        assert await heard(silent[2]) == b""


async def test_a_request_in_drops_has_its_time_and_the_servers_own_pauses_are_not_in_it() -> None:
    hall = Hall()
    async with opened(hall, open_timeout_s=0.2) as door:
        slow = knock(door.port, None)
        await until(lambda: len(door._silent) == 1)
        await asyncio.sleep(0.3)
        door.poll(stalled_s=100.0)
        slow.sendall(b"GET ")
        assert len(door._silent) == 1
        door._silent = {ws: since - 100.0 for ws, since in door._silent.items()}
        door.poll(stalled_s=0.0)
        assert await heard(slow) == b""
        assert (door._silent, hall.away) == ({}, ["silent"])


async def test_hundreds_join_a_server_that_is_behind_for_longer_than_they_have_for_their_hello(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hello that waited in the server's own backlog was late by the server's clock; its client was cut off, came again, and waited once more."""
    monkeypatch.setattr(session_module, "HELLO_S", 0.1)
    host = GatewayHost("v", GatewaySettings(open_timeout_s=0.1))
    port, server, signer, now = await host.start(), host.server, Signer(SEED), time.time()
    try:
        sockets = [knock(port, "/v1/ws") for _ in range(300)]
        for i, one in enumerate(sockets):
            token = signer.issue(i, TENANT, "shopper", None, 600, now)
            one.sendall(masked(msgpack.packb({"op": "hello", "client": f"c{i}", "token": token})))
        async with asyncio.timeout(60):
            while server.metrics.value("esplanade_gateway_frames_out_total") < len(sockets):
                await asyncio.sleep(0)
                time.sleep(0.12)  # noqa: ASYNC251  a turn of the loop that takes so long
        assert server.connections == len(sockets)
        assert server.metrics.value("esplanade_gateway_disconnects_total", str(int(CloseCode.SILENT))) == 0
        for one in sockets:
            one.close()
        await until(lambda: server.connections == 0)
    finally:
        await server.stop()
