"""`esplanade login` against a real API on a socket: the browser's part is played here."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

import httpx
import pytest
from typer.testing import CliRunner

from esplanade.cli.main import _cli
from gateway.api import ApiServer, serve_api
from tests.gateway.identity_stage import CHEAP, Stage

PASSWORD = "correct horse battery staple"


@pytest.fixture
async def served(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Stage, ApiServer]]:
    monkeypatch.setattr("gateway.sign_in.PasswordHasher", lambda: CHEAP)
    stage = Stage()
    await stage.start()
    await stage.operators.add("demo", "ann", "operator", PASSWORD)
    server = await serve_api(stage.app)
    yield stage, server
    await server.stop()
    await stage.stop()


async def printed(task: asyncio.Task[tuple[int, str, str]], read: list[str]) -> str:
    """The address that the command printed for the browser."""
    async with asyncio.timeout(60):
        while not (found := re.search(r"http://127\.0\.0\.1:\S+/v1/authorize\?\S+", "".join(read))):
            assert not task.done(), task.result()
            await asyncio.sleep(0.02)
    return found.group(0)


async def test_a_command_signs_in_with_the_browser_and_a_forged_answer_is_refused(
    served: tuple[Stage, ApiServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, server = served
    for forged in (False, True):
        read: list[str] = []
        monkeypatch.setattr("esplanade.cli.login._err.print", lambda text, read=read, **_: read.append(text))

        def run() -> tuple[int, str, str]:
            result = CliRunner().invoke(_cli, ["login", "--api", f"http://127.0.0.1:{server.port}", "--tenant", "demo", "--wait-s", "60"])
            return result.exit_code, result.stdout.strip(), repr(result.exception)

        command = asyncio.create_task(asyncio.to_thread(run))
        address = await printed(command, read)
        async with httpx.AsyncClient(timeout=60) as browser:
            page = await browser.get(address)
            hidden = dict(re.findall(r'<input type=hidden name="(\w+)" value="([^"]*)">', page.text))
            assert 'value="demo"' in page.text
            if forged:
                assert (await browser.get(f"{hidden['redirect_uri']}favicon.ico")).status_code == 404
                await browser.get(hidden["redirect_uri"], params={"code": "stolen", "state": "forged"})
            else:
                answer = await browser.post(
                    f"http://127.0.0.1:{server.port}/v1/authorize", data=hidden | {"tenant": "demo", "name": "ann", "password": PASSWORD, "otp": ""}
                )
                assert "Signed in" in (await browser.get(answer.headers["location"])).text
        code, out, error = await command
        if forged:
            assert "another request" in error
            assert out == ""
        else:
            assert code == 0, error
            assert (await stage.two.credentials.identify(out)).role == "operator"
