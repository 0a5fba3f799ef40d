"""A scene edited through the gateway while every shard is killed in turn: no acknowledged edit is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from ar.scene import Scene
from esplanade.core.errors import EsplanadeError
from gateway.client import Client
from tests.proof.house import BACK_S, House
from tests.proof.payers import TENANT
from tests.services.stack import data_folder

pytestmark = pytest.mark.services

VENUE, SCENE = "parkside", "hall"
EDITORS = 3


def now_ms() -> int:
    return int(time.time() * 1000)


class Editor:
    """Somebody who edits on and on, and knows how many of their operations were acknowledged."""

    def __init__(self, client: Client, name: str) -> None:
        self.client = client
        self.replica = Scene(f"{client.welcome['subject']}:{name}")
        self.acked = 0

    async def edit(self) -> None:
        """One edit, sent until it is acknowledged: what a client does that does not know what became of it."""
        nodes = list(self.replica.nodes())
        if nodes:
            self.replica.set(nodes[self.acked % len(nodes)], "n", self.acked, now_ms=now_ms())
        self.replica.create(now_ms=now_ms())
        async with asyncio.timeout(BACK_S):
            while True:
                try:
                    self.acked = await self.client.sync_scene(VENUE, SCENE, self.replica, sent=self.acked, now_ms=now_ms())
                except EsplanadeError as error:
                    if not error.retryable:
                        raise
                    await asyncio.sleep(0.05)
                else:
                    return

    async def go_on(self, until: asyncio.Event) -> None:
        while not until.is_set():
            await self.edit()
            await asyncio.sleep(0.02)


async def until_true(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(BACK_S):
        while not await asyncio.to_thread(holds):
            await asyncio.sleep(0.05)


async def test_no_acked_edit_is_lost_when_every_shard_is_killed_amid_edits() -> None:
    with data_folder() as folder, House(folder, seed=1, ways=()) as house:
        editors = []
        for i in range(EDITORS):
            name = f"editor-{i}"
            token = house.operator if i == 0 else house.stack.token("shopper", TENANT)
            editors.append(Editor(await Client.connect(house.stack.ws, client=name, token=token, reconnects=100), name))
        await editors[0].edit()
        done = asyncio.Event()
        tasks = [asyncio.create_task(editor.go_on(done)) for editor in editors]
        for victim in house.shards():  # the scene's is among them
            before = [editor.acked for editor in editors]
            victim.kill()

            def gone_on(before: list[int] = before) -> bool:
                return all(editor.acked > was for editor, was in zip(editors, before, strict=True))

            await until_true(gone_on)
            await until_true(house.whole)
        done.set()
        await asyncio.gather(*tasks)
        acked = {editor.replica.client: editor.acked for editor in editors}
        reader = Scene("0:reader")
        await editors[0].client.sync_scene(VENUE, SCENE, reader, sent=0, now_ms=now_ms())
        assert reader.ack().seen == acked
        for editor in editors:
            await editor.client.sync_scene(VENUE, SCENE, editor.replica, sent=editor.acked, now_ms=now_ms())
            assert editor.replica.digest() == reader.digest()
            await editor.client.close()
        assert min(acked.values()) > EDITORS
