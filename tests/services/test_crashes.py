"""Whatever process of a running service is killed, the service is whole again by itself, or ends with one line and leaves nothing."""

from __future__ import annotations

from collections.abc import Iterator

import psutil
import pytest

from gateway.client import Client
from tests.actors.parkside import keys, u4
from tests.services.stack import Esplanade, assert_nothing_left, data_folder, eventually

pytestmark = pytest.mark.services

BACK_S = 60.0
"""A limit that only a service that stays broken reaches."""


@pytest.fixture(scope="module")
def stack() -> Iterator[Esplanade]:
    with data_folder() as data, Esplanade(data, "serve") as stack:
        yield stack.ready()


VICTIMS = {
    "gateway-0": lambda stack: stack.listener(stack.ws),
    "api": lambda stack: stack.listener(stack.api),
    "shard-0": lambda stack: psutil.Process(int(stack.metric("shard-0", "pid"))),
    "Redis": lambda stack: stack.named("redis-server"),
    "PostgreSQL": lambda stack: stack.named("postgres"),
}


@pytest.mark.parametrize("number", range(len(VICTIMS)), ids=list(VICTIMS))
async def test_a_killed_process_comes_back_and_what_was_acknowledged_is_there(stack: Esplanade, number: int) -> None:
    name = list(VICTIMS)[number]
    operator = await Client.connect(stack.ws, client=f"operator-{number}", token=stack.token("operator"))
    shopper = await Client.connect(stack.ws, client=f"phone-{number}", token=stack.token("shopper"))
    subject = int(shopper.welcome["subject"])
    await operator.top_ups(tick=1, key=keys(number * 2), subject=u4(subject), amount=u4(700), currency="EUR")

    victim = VICTIMS[name](stack)
    victim.kill()
    stack.says(f"{name} (process {victim.pid}) died")
    stack.says(f"{name} is back after")
    assert eventually(lambda: stack.reads("readyz") == 200, BACK_S), stack.text

    assert await shopper.balance() == {"EUR": 700}
    await operator.top_ups(tick=2, key=keys(number * 2 + 1), subject=u4(subject), amount=u4(1), currency="EUR")
    assert await shopper.balance() == {"EUR": 701}
    for client in (operator, shopper):
        await client.close()


def test_when_ray_loses_its_head_the_service_ends_with_one_line_and_leaves_nothing(stack: Esplanade) -> None:
    """The last test of this file: it ends the service that the others share."""
    victim = stack.named("gcs_server")
    victim.kill()
    assert stack.wait() == 3
    assert [line for line in stack.output if line][-1] == (
        f"unavailable: Ray's gcs_server (process {victim.pid}) died, and its node with it; start again: nothing acknowledged is lost"
    )
    assert "Traceback" not in stack.text
    assert_nothing_left(stack)
