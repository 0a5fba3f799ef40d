"""A client in another language, written from docs/protocol.md alone, against a real gateway."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.actors.parkside import keys, u4
from tests.gateway.mall import TILL, VENUE, running_mall

pytestmark = pytest.mark.services

HERE = Path(__file__).parent / "node_client"
DOOR = ("7.0", "19.5")
OFFER = {"id": "books", "unit_id": TILL, "title": "Books", "audience": {"type": "within", "radius_m": 5.0}}


@pytest.fixture(scope="module")
def node() -> str:
    """The node program, with the client's packages installed; skips with the reason where they are not to be had."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("node and npm are not on this machine")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if int(version.lstrip("v").split(".")[0]) < 20:
        pytest.skip(f"node {version} is older than 20")
    if not (HERE / "node_modules" / "ws").is_dir():
        installed = subprocess.run(
            [npm, "ci", "--no-audit", "--no-fund", "--loglevel=error"], cwd=HERE, capture_output=True, text=True, timeout=200, check=False
        )
        if installed.returncode != 0:
            pytest.skip(f"npm could not install the client's packages: {installed.stderr.strip()[-300:]}")
    return node


async def run_client(node: str, url: str, *arguments: str, top_up: Any) -> list[dict[str, Any]]:
    """The steps that the client said. `top_up(subject)` is awaited once it asks to pay."""
    process = await asyncio.create_subprocess_exec(
        node, str(HERE / "client.mjs"), url, *arguments,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    steps: list[dict[str, Any]] = []
    try:
        async with asyncio.timeout(90):
            async for line in process.stdout:
                steps.append(json.loads(line))
                if steps[-1]["step"] == "push":
                    await top_up(steps[0]["subject"])
                    process.stdin.write(b"go\n")
                    await process.stdin.drain()
            errors = (await process.stderr.read()).decode()
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, (steps, errors)
    return steps


@pytest.mark.parametrize("format", ["msgpack", "json"])
async def test_a_stranger_walks_in_gets_a_push_pays_and_resumes(node: str, format: str) -> None:
    async with running_mall() as mall:
        _, url = await mall.gateway()
        operator = await mall.client(url, 1, "operator")
        await operator.request("create_offer", venue=VENUE, offer=OFFER)

        async def top_up(subject: int) -> None:
            await operator.top_ups(tick=1, key=keys(1), subject=u4(subject), amount=u4(1000), currency="EUR")

        steps = await run_client(node, url, "demo", VENUE, "north_entrance", "0", *DOOR, TILL, "250", "EUR", format, top_up=top_up)
        books = await operator.request("get_books")
    said = {step["step"]: step for step in steps}
    assert list(said) == ["welcome", "walked_in", "push", "paid", "refused", "resumed", "pongs", "done"]
    assert (said["welcome"]["role"], said["welcome"]["token"]) == ("guest", "string")
    assert said["walked_in"]["name"] == "Parkside"
    assert (said["push"]["kind"], said["push"]["title"]) == ("NEARBY", "Books")
    assert (said["paid"]["balance"], said["paid"]["balances"]) == (750, {"EUR": 750})
    assert said["refused"]["code"] == "forbidden"
    assert said["resumed"] == {"step": "resumed", "subject": said["welcome"]["subject"], "resumed": True, "repeated": 0}
    assert (books["tills"], books["payments"], books["total"]) == ({"EUR": 250}, 1, {"EUR": 0})
