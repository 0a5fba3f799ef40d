from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.services.stack import Esplanade, assert_nothing_left, data_folder

if sys.platform != "linux":
    collect_ignore_glob = ["test_*.py"]  # the warden keeps hold of orphans by a call of Linux


@pytest.fixture(scope="session")
def service() -> Iterator[Esplanade]:
    """`esplanade serve`, ready; tests share it and leave it running. That it leaves nothing behind is asserted at the end."""
    with data_folder() as data, Esplanade(data, "serve") as stack:
        yield stack.ready()
        stack.ctrl_c()
        assert stack.wait() == 0
        assert_nothing_left(stack)
