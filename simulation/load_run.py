"""The load generator seen from the runner: start its processes, hear what they say, say go, end them.

Owns the children: none outlives this object, however the run ends. Never looks into what they do.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import signal
import threading
import time
from collections.abc import AsyncIterator, Iterator
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Final

from esplanade.core.errors import Fault
from simulation.load import LoadPlan, source_name
from simulation.load_clients import clients_process
from simulation.load_feed import NAME, feed_process
from simulation.load_process import Failed, Finished, Go, Message, Stop

LEAD_S: Final = 1.0
"""From `go` to the first tick."""
END_S: Final = 5.0
"""How long children may take to end by themselves before they are killed."""


@contextlib.contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Children begun meanwhile do not hear SIGINT, which a terminal sends to them too: whether and how the run ends is the runner's to say."""
    resource_tracker.ensure_running()  # lifts the mask when it starts
    kept = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, kept)


class LoadRun:
    """The processes of one run. Use: `start`, read `messages` until each was Ready, `go`, read on until each is Finished, `stop` in any case."""

    def __init__(self, plan: LoadPlan) -> None:
        context = multiprocessing.get_context("spawn")
        self._plan = plan
        self.names = (NAME, *(source_name(w) for w in range(plan.processes)))
        ours, theirs = zip(*(context.Pipe() for _ in self.names), strict=True)
        pipes = [context.Pipe(duplex=False) for _ in range(plan.processes)]
        down, up = [pipe[0] for pipe in pipes], [pipe[1] for pipe in pipes]
        self._lines: dict[str, Connection] = dict(zip(self.names, ours, strict=True))
        self._given: list[Connection] = [*theirs, *down, *up]
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        self._processes = {NAME: context.Process(target=feed_process, args=(theirs[0], up), name=NAME, daemon=True)}
        for w in range(plan.processes):
            name = source_name(w)
            self._processes[name] = context.Process(target=clients_process, args=(w, theirs[w + 1], down[w]), name=name, daemon=True)

    def start(self) -> None:
        """Start the children; call from the event loop's thread."""
        loop = asyncio.get_running_loop()
        with _deaf_to_interrupts():
            for process in self._processes.values():
                process.start()
        for conn in self._given:
            conn.close()
        for name, line in self._lines.items():
            threading.Thread(target=self._listen, args=(loop, name, line), name=f"load-{name}", daemon=True).start()

    def _listen(self, loop: asyncio.AbstractEventLoop, name: str, line: Connection) -> None:
        last: Message | None = None
        try:
            # Not an argument of the process: Python writes those, however large, while it holds both ends of the pipe, and a child that dies while it is
            # being born would leave us writing for ever.
            line.send(self._plan)
            while True:
                last = line.recv()
                loop.call_soon_threadsafe(self._messages.put_nowait, last)
        except (EOFError, OSError):
            if isinstance(last, Finished | Failed):
                return
        except RuntimeError:
            return  # the loop has ended
        message = Failed(name, "the process ended before its work was done; see the log")
        try:
            loop.call_soon_threadsafe(self._messages.put_nowait, message)
        except RuntimeError:
            return

    async def messages(self) -> AsyncIterator[Message]:
        """What the processes say, as it comes. Raises Fault when one fails."""
        while True:
            message = await self._messages.get()
            if isinstance(message, Failed):
                raise Fault(f"load generator, {message.process}: {message.message}")
            yield message

    def go(self) -> int:
        """Start the clock; the time of the first tick, monotonic nanoseconds."""
        start_ns = time.monotonic_ns() + int(LEAD_S * 1e9)
        for line in self._lines.values():
            line.send(Go(start_ns))
        return start_ns

    async def stop(self) -> None:
        """End the children: those still running are told, then killed. Idempotent."""
        for name, line in self._lines.items():
            if self._processes[name].is_alive():
                try:
                    line.send(Stop())
                except OSError:
                    continue
        deadline = time.monotonic() + END_S
        for process in self._processes.values():
            if process.pid is None:
                continue
            await asyncio.to_thread(process.join, max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                process.kill()
                await asyncio.to_thread(process.join, END_S)
        for line in self._lines.values():
            line.close()
