"""Starting and ending: whatever ends `esplanade`, and whenever, nothing of it lives on and nothing acknowledged is lost."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Callable

import psutil
import pytest

from gateway.client import Client
from tests.actors.parkside import keys, u4
from tests.services.stack import Esplanade, assert_nothing_left, data_folder, eventually

pytestmark = pytest.mark.services

GONE_S = 15.0


async def test_after_sigkill_nothing_lives_on_and_the_next_start_has_the_data() -> None:
    with data_folder() as data:
        with Esplanade(data, "serve") as killed:
            killed.ready()
            token = killed.token("shopper")
            operator = await Client.connect(killed.ws, client="operator", token=killed.token("operator"))
            shopper = await Client.connect(killed.ws, client="phone", token=token)
            subject = int(shopper.welcome["subject"])
            await operator.top_ups(tick=1, key=keys(1), subject=u4(subject), amount=u4(1234), currency="EUR")
            assert await shopper.balance() == {"EUR": 1234}
            await operator.close()
            await shopper.close()
            killed.signal(signal.SIGKILL)
            assert killed.wait() == -signal.SIGKILL
            assert eventually(lambda: not killed.family(), GONE_S), killed.family()
            # A lock is the kernel's and its file may stay, and so may a socket that nobody listens at.
            assert [path for path in killed.files() if not path.endswith((".lock", "esplanade.sock"))] == []
        with Esplanade(data, "serve") as again:
            again.ready()
            shopper = await Client.connect(again.ws, client="phone", token=token)
            assert await shopper.balance() == {"EUR": 1234}
            await shopper.close()
            again.signal(signal.SIGTERM)
            again.signal(signal.SIGTERM)  # an impatient second one does not break into the ending
            again.ctrl_c()
            assert again.wait() == 0, again.text
            assert "SIGTERM" not in again.text
            assert_nothing_left(again)


def runs(stack: Esplanade, name: str) -> bool:
    for process in stack.family():
        with contextlib.suppress(psutil.NoSuchProcess):  # one may end between the list and the question
            if process.name() == name:
                return True
    return False


MOMENTS: dict[str, Callable[[Esplanade], bool]] = {
    "while modules are imported": lambda stack: any("msgspec" in mapped.path for mapped in psutil.Process(stack.pid).memory_maps()),
    "with the lock taken": lambda stack: (stack.data / "esplanade.lock").exists(),
    "while Ray starts": lambda stack: runs(stack, "gcs_server"),
    "while shards start": lambda stack: runs(stack, "ray::_Host"),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_an_interrupted_start_leaves_nothing(moment: str) -> None:
    with data_folder() as data, Esplanade(data, "serve") as stack:
        assert eventually(lambda: MOMENTS[moment](stack), 60)
        if moment == "while Ray starts":
            stack.signal(signal.SIGTERM)
        else:
            stack.ctrl_c()
        # Python itself may be interrupted before it has begun with ours.
        assert stack.wait() in ((130, -signal.SIGINT) if moment == "while modules are imported" else (130,))
        assert "ready" not in stack.text
        assert "Traceback" not in stack.text
        assert_nothing_left(stack)


def test_a_start_killed_half_way_leaves_nothing() -> None:
    with data_folder() as data, Esplanade(data, "serve") as stack:
        assert eventually(lambda: runs(stack, "raylet"), 60)
        stack.signal(signal.SIGKILL)
        assert stack.wait() == -signal.SIGKILL
        assert eventually(lambda: not stack.family(), GONE_S), stack.family()
        assert [path for path in stack.files() if not path.endswith(".lock")] == []


NOWHERE = {
    "ESPLANADE_POSTGRES_URL": "postgresql://nobody@/none?host={}",
    "ESPLANADE_REDIS_URL": "unix://{}/none.sock",
    "ESPLANADE_RAY_ADDRESS": "127.0.0.1:1",
}


@pytest.mark.parametrize(("setting", "url"), NOWHERE.items(), ids=NOWHERE.keys())
def test_a_server_that_is_not_there_is_said_in_one_line(setting: str, url: str) -> None:
    with data_folder() as data, Esplanade(data, "serve", env={setting: url.format(data)}) as stack:
        assert stack.wait() == 3
        assert one_line(stack).startswith("unavailable: ")
        assert setting in one_line(stack)
        assert_nothing_left(stack)


@pytest.mark.parametrize(("setting", "what"), [("ESPLANADE_GATEWAY_PORT", "gateway"), ("ESPLANADE_API_PORT", "API")])
def test_a_port_that_is_taken_is_said_in_one_line(setting: str, what: str) -> None:
    with data_folder() as data, socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with Esplanade(data, "serve", env={setting: str(port)}) as stack:
            assert stack.wait() == 2
            assert (
                one_line(stack)
                == f"conflict: {what}: port {port} on 127.0.0.1 is taken; stop what listens there, or set {setting} to another (0: a free one)"
            )
            assert_nothing_left(stack)


def one_line(stack: Esplanade) -> str:
    said = [line for line in stack.output if line.strip()]
    assert len(said) == 1, stack.text
    return said[0]
