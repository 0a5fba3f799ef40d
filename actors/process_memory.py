"""Memory of this process: what a shard with a limit looks at, and how what it has freed goes back to the machine."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from collections.abc import Callable
from typing import Protocol

import psutil


class Memory(Protocol):
    def resident_bytes(self) -> int:
        """What the process holds of the machine's memory."""
        ...

    def give_back(self) -> None:
        """Return what is free inside the process, as far as the allocator can."""
        ...


class ProcessMemory:
    def __init__(self) -> None:
        self._process = psutil.Process()
        self._trim: Callable[[int], int] | None = None
        with contextlib.suppress(AttributeError, OSError):  # not glibc
            self._trim = ctypes.CDLL(None).malloc_trim

    def resident_bytes(self) -> int:
        return int(self._process.memory_info().rss)

    def give_back(self) -> None:
        gc.collect()
        if self._trim is not None:
            self._trim(0)
