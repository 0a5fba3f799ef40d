"""Ray: the node, plain classes as actors, and the system that asks shards through it. The only module that imports ray.

Owns every actor option (one function, `spawn`), the environment that Ray must find before it is imported, and the coalescing of requests into frames: one
call carries what gathered for a shard, a few calls are under way at a time. Ray moves bytes here and decides nothing: ownership is in the lease table.

A local node listens on loopback only, with a token of its own, without dashboard or usage reports, and is gone with its folder after `stop_ray`.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import logging
import os
import secrets
import shutil
import sys
import tempfile
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil

from actors.directory import shard_name, shard_of
from actors.lane import RequestSystem
from actors.requests import (
    MAX_FRAME_BYTES,
    MAX_FRAME_REQUESTS,
    Answer,
    Refused,
    Request,
    Take,
    decode_answers,
    encode_requests,
    log_of,
)
from esplanade.core.clock import SystemClock
from esplanade.core.errors import EsplanadeError, Fault, InvalidInput, LimitExceeded, Unavailable

NAMESPACE: Final = "esplanade"
MAX_QUEUED: Final = 50_000
"""Requests that wait for one shard in one process; beyond it LimitExceeded."""
IN_FLIGHT: Final = 4
"""Calls under way to one shard from one process."""
RETRY_S: Final = 0.1
_STOP_S: Final = 10.0

_ENVIRONMENT: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
}


_spawned: dict[str, Any] = {}  # handles: Ray ends an actor when the last handle to it in its maker's process is gone


def _load_ray(*, local: bool = False) -> Any:
    """Import ray, with the environment it reads on import. A local node binds to loopback and gets a fresh token; processes it starts inherit both."""
    if "ray" not in sys.modules:
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        if local:
            os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # what makes Ray bind to loopback, on Linux too
            os.environ["RAY_AUTH_MODE"] = "token"
            os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    import ray

    return ray


@dataclass(frozen=True, slots=True)
class RayNode:
    """`address`: for `ESPLANADE_RAY_ADDRESS` of other drivers. `folder`: of a local node, else None."""

    address: str
    folder: Path | None
    processes: tuple[psutil.Process, ...] = field(default=())


def start_ray(*, address: str | None = None, cpus: int | None = None, object_store_mb: int = 160) -> RayNode:
    """Start a local node, or join the one at `address`. Call once a process, before anything else uses Ray; blocks for some seconds.

    For an existing cluster, RAY_AUTH_MODE and RAY_AUTH_TOKEN must be set as the cluster has them. Raises Unavailable where the node does not start or answer.
    """
    ray = _load_ray(local=address is None)
    if ray.is_initialized():
        raise InvalidInput("start_ray: Ray is in use in this process already; one node a process")
    common = {"namespace": NAMESPACE, "log_to_driver": False, "logging_level": logging.ERROR}
    if address is not None:
        try:
            ray.init(address=address, **common)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise Unavailable(f"Ray at {address}: {error}; check the address, RAY_AUTH_MODE and RAY_AUTH_TOKEN") from error
        return RayNode(address, None)
    # Sockets lie in this folder, and a socket's path holds about 107 bytes: so not under the user's data.
    folder = Path(tempfile.mkdtemp(prefix="esp-ray-", dir="/tmp"))
    before = set(psutil.Process().children(recursive=True))
    try:
        ray.init(
            num_cpus=cpus or os.cpu_count() or 1,
            include_dashboard=False,
            object_store_memory=object_store_mb * 2**20,
            _temp_dir=str(folder),
            **common,
        )
    except Exception as error:
        _clean(tuple(set(psutil.Process().children(recursive=True)) - before), folder)
        raise Unavailable(f"Ray does not start: {error}; see `esplanade doctor`") from error
    processes = tuple(set(psutil.Process().children(recursive=True)) - before)
    return RayNode(str(ray.get_runtime_context().gcs_address), folder, processes)


def stop_ray(node: RayNode) -> None:
    """Leave the cluster; of a local node, no process and no file is left when this returns."""
    ray = _load_ray()
    children = psutil.Process().children(recursive=True) if node.folder is not None else []
    workers = [process for process in children if _is_rays(process, node)]
    _spawned.clear()
    ray.shutdown()
    if node.folder is not None:
        _clean((*node.processes, *workers), node.folder)


def _is_rays(process: psutil.Process, node: RayNode) -> bool:
    try:
        return any(parent in node.processes for parent in process.parents())
    except psutil.Error:
        return False


def _clean(processes: tuple[psutil.Process, ...], folder: Path) -> None:
    _, alive = psutil.wait_procs(list(processes), timeout=_STOP_S)
    for process in alive:
        process.kill()
    psutil.wait_procs(alive, timeout=_STOP_S)
    shutil.rmtree(folder, ignore_errors=True)


# --- actors -----------------------------------------------------------------------------------------------------------


class Served:
    """What runs in an actor's process: makes an object by a factory (a function, or coroutine, named 'module:function') and calls its methods.

    A factory that fails with a retryable error is tried again; any other failure is raised by every call.
    """

    def __init__(self, factory: str, arguments: dict[str, Any]) -> None:
        self._made = asyncio.get_running_loop().create_task(_make(factory, arguments))

    async def call(self, method: str, *arguments: Any) -> Any:
        made = await asyncio.shield(self._made)
        result = getattr(made, method)(*arguments)
        return await result if inspect.isawaitable(result) else result

    async def pid(self) -> int:
        """Of the process, once the object is made."""
        await asyncio.shield(self._made)
        return os.getpid()


async def _make(factory: str, arguments: dict[str, Any]) -> Any:
    module, _, name = factory.partition(":")
    make = getattr(importlib.import_module(module), name)
    while True:
        try:
            made = make(**arguments)
            return await made if inspect.isawaitable(made) else made
        except EsplanadeError as error:
            if not error.retryable:
                raise
            await asyncio.sleep(RETRY_S)


class Spawned:
    """A handle to an actor made by `spawn`; valid across the actor's restarts."""

    def __init__(self, name: str, handle: Any) -> None:
        self.name = name
        self._handle = handle

    async def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the object; what it raises is raised. Raises Unavailable while the process is away."""
        ray = _load_ray()
        try:
            return await self._handle.call.remote(method, *arguments)
        except ray.exceptions.RayTaskError as error:
            raise _cause(error) from None
        except ray.exceptions.RayError as error:
            raise Unavailable(f"actor {self.name} is away ({type(error).__name__}); ask again") from None

    async def pid(self) -> int:
        """Of the process now; returns when its object is made. Raises Unavailable while it is away."""
        ray = _load_ray()
        try:
            return int(await self._handle.pid.remote())
        except ray.exceptions.RayTaskError as error:
            raise _cause(error) from None
        except ray.exceptions.RayError as error:
            raise Unavailable(f"actor {self.name} is away ({type(error).__name__}); ask again") from None

    def kill(self) -> None:
        """End the actor for good; it is not restarted."""
        _load_ray().kill(self._handle, no_restart=True)
        _spawned.pop(self.name, None)


def _cause(error: Any) -> EsplanadeError:
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, EsplanadeError) else Fault(f"an actor failed: {cause or error}")


def spawn(
    factory: str, name: str, arguments: Mapping[str, object], *, concurrency: int = 10_000, environment: Mapping[str, str] | None = None
) -> Spawned:
    """Run what `factory` ('module:function' or 'module:coroutine function', called with `arguments`) makes as an actor of its own, restarted by Ray for as long as this process lives.

    Returns at once; the object is made as soon as the process is up. `environment`: variables of that process beside the inherited ones.
    """
    ray = _load_ray()
    actor = ray.remote(Served).options(
        name=name,
        namespace=NAMESPACE,
        num_cpus=0,
        max_restarts=-1,
        max_task_retries=0,
        max_concurrency=concurrency,
        runtime_env={"env_vars": dict(environment)} if environment else None,
    )
    _spawned[name] = actor.remote(factory, dict(arguments))
    return Spawned(name, _spawned[name])


def find(name: str) -> Spawned:
    """The actor of this name, from any process of the cluster. Raises Unavailable where there is none."""
    ray = _load_ray()
    try:
        return Spawned(name, ray.get_actor(name, namespace=NAMESPACE))
    except ValueError:
        raise Unavailable(f"no actor {name!r} in the cluster; start the shards first") from None


# --- the system -------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Waiting:
    request: Request
    answer: asyncio.Future[Answer]
    size: int


class _Lane:
    """Requests to one shard: a bounded queue, and a few frames under way."""

    def __init__(self, actor: Spawned) -> None:
        self.actor = actor
        self.queue: deque[_Waiting] = deque()
        self.under_way: set[asyncio.Task[None]] = set()
        self.paused = False

    def put(self, waiting: _Waiting) -> None:
        if len(self.queue) >= MAX_QUEUED:
            raise LimitExceeded(f"{len(self.queue)} requests wait for {self.actor.name}; at most {MAX_QUEUED}, send again")
        self.queue.append(waiting)
        if len(self.queue) == 1:
            # Let what is ready in this turn of the loop gather into the same frame.
            asyncio.get_running_loop().call_soon(self.pump)

    def pump(self) -> None:
        while self.queue and not self.paused and len(self.under_way) < IN_FLIGHT:
            frame: list[_Waiting] = []
            size = 0
            while self.queue and len(frame) < MAX_FRAME_REQUESTS and (not frame or size + self.queue[0].size <= MAX_FRAME_BYTES):
                waiting = self.queue.popleft()
                if not waiting.answer.done():  # given up by its caller
                    frame.append(waiting)
                    size += waiting.size
            if frame:
                task = asyncio.get_running_loop().create_task(self._call(frame))
                self.under_way.add(task)
                task.add_done_callback(self._landed)

    def _landed(self, task: asyncio.Task[None]) -> None:
        self.under_way.discard(task)
        self.pump()

    async def _call(self, frame: list[_Waiting]) -> None:
        try:
            data: bytes = await self.actor.call("frame", encode_requests([waiting.request for waiting in frame]))
            answers = decode_answers(data)
        except Unavailable:
            # The process is away, or was while it had the frame: every request may be sent again, because each has a key or is idempotent.
            self.queue.extendleft(reversed([waiting for waiting in frame if not waiting.answer.done()]))
            if not self.paused:
                self.paused = True
                asyncio.get_running_loop().call_later(RETRY_S, self._resume)
            return
        except EsplanadeError as error:
            answers = [Refused(error.code, error.message)] * len(frame)
        for waiting, answer in zip(frame, answers, strict=True):
            if not waiting.answer.done():
                waiting.answer.set_result(answer)

    def _resume(self) -> None:
        self.paused = False
        self.pump()


class RaySystem(RequestSystem):
    """`System` over the actors shard-0 to shard-(n-1). Make one in each process (driver or actor) and event loop that asks.

    A request refused with `unavailable` (its shard restarts or replays) is sent again, with the same key, until its deadline.
    """

    def __init__(self, shards: int, *, clock: SystemClock) -> None:
        self._clock = clock
        self._lanes = [_Lane(find(shard_name(index))) for index in range(shards)]

    async def request(self, request: Request, *, deadline_s: float) -> Answer:
        lane = self._lanes[shard_of(log_of(request)[1], len(self._lanes))]
        size = 13 * len(request.level) + 64 if isinstance(request, Take) else 256
        expires_s = self._clock.monotonic_s() + deadline_s
        while True:
            waiting = _Waiting(request, asyncio.get_running_loop().create_future(), size)
            lane.put(waiting)
            try:
                async with asyncio.timeout(expires_s - self._clock.monotonic_s()):
                    answer = await waiting.answer
            except TimeoutError:
                raise Unavailable(
                    f"{type(request).__name__}: {lane.actor.name} did not answer within {deadline_s} s; ask again with the same key"
                ) from None
            if not (isinstance(answer, Refused) and answer.code == Unavailable.code) or self._clock.monotonic_s() + RETRY_S >= expires_s:
                return answer
            await asyncio.sleep(RETRY_S)

    async def profile(self) -> list[dict[str, object]]:
        """Of the shards that answer; one that is away is told by its name alone."""
        found: list[dict[str, object]] = []
        for lane in self._lanes:
            try:
                async with asyncio.timeout(2.0):
                    profile = await lane.actor.call("profile")
                found.append(profile.as_dict())
            except (Unavailable, TimeoutError):
                found.append({"shard": lane.actor.name, "away": True})
        return found

    async def close(self) -> None:
        """Stop what is under way; who still waits gets Unavailable at its deadline."""
        tasks = [task for lane in self._lanes for task in lane.under_way]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
