"""docs/api.md is run: every example, in order, by a shell with curl, against a live API."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from pathlib import Path

import pytest

from gateway.query_cost import MAX_COST, MAX_DEPTH, MAX_FIELDS, MAX_PAGE
from gateway.streams import HEARTBEAT_S, MAX_OF_SUBJECT
from gateway.webhooks import BACKOFF_S
from tests.gateway.receiver import receiving
from tests.gateway.test_openapi import live

__all__ = ["live"]

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text()


@pytest.mark.skipif(shutil.which("curl") is None or shutil.which("openssl") is None, reason="needs curl and openssl")
async def test_every_example_runs(live) -> None:  # type: ignore[no-untyped-def]
    blocks = re.findall(r"```sh\n(.*?)```", PAGE, re.S)
    assert len(blocks) >= 6
    script = "set -euo pipefail\n" + "\n".join(f"{block}\necho; echo '--- block {i}'" for i, block in enumerate(blocks))
    async with receiving() as receiver:
        values = {"API": live.url, "OPERATOR": live.tokens["operator"], "SHOPPER": live.tokens["shopper"], "PARTNER": receiver.url}
        shell = await asyncio.create_subprocess_exec(
            "bash", "-c", script, env=os.environ | values, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(120):
            out, err = await shell.communicate()
    said = out.decode()
    assert shell.returncode == 0, said + err.decode()
    assert said.count('{"settled":true}') == 2
    assert '"balances": {"EUR": 1000}' in said, "sent twice, credited once"
    assert '"balance":750' in said
    assert "event: offer_state" in said
    assert '"offers":[{"title":"Books"}]' in said or '"name":"Level 1"' in said


def test_its_numbers_are_those_of_the_code() -> None:
    tries = ", ".join(f"{wait:,.0f} s" for wait in BACKOFF_S[:-2])
    for text in (
        f"at most {MAX_DEPTH} levels, {MAX_FIELDS} fields", f"a cost of {MAX_COST:,}", f"1 to {MAX_PAGE}", f"every {HEARTBEAT_S:g} s", f"at most {MAX_OF_SUBJECT} streams",
        f"{tries} and twice an hour",
    ):  # fmt: skip
        assert text in PAGE, text
    assert BACKOFF_S[-2:] == (3600.0, 3600.0)
