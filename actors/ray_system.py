"""Ray: the only module that imports it. Starts and stops a node, makes processes of plain classes, and carries requests to shards.

A Ray actor here is an operating-system process with one plain object in it (`spawn`); entities live inside shards and are none of Ray's business. A call costs
half a millisecond whatever it carries, so `RaySystem` gathers requests into frames of bytes, a few frames in flight a shard.
"""

from __future__ import annotations

import os
import secrets

# Ray reads these when it is imported. A token keeps other users of the machine away from the node's ports; one of an earlier node must not be taken up.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
# Ray runs its workers at niceness 15; ours are the service, and everything else on the machine would go before them.
os.environ.setdefault("RAY_worker_niceness", "0")

import asyncio
import contextlib
import functools
import importlib
import logging
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol, cast

import psutil
import ray
from ray import exceptions as ray_errors
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors import ray_leftovers
from actors.directory import SHARD_PREFIX, Directory
from actors.follower import Follower
from actors.lane import RequestSystem
from actors.messages import Command, Reply
from actors.ray_leftovers import end_node, is_alive, make_folder, of_node, reclaim
from actors.requests import (
    MAX_FRAME_BYTES,
    MAX_FRAME_REQUESTS,
    Answer,
    Ask,
    Refused,
    Replied,
    Request,
    Take,
    decode_answers,
    encode_requests,
    error_of,
    is_of_commands,
    log_of,
    log_place,
    partitions_at,
)
from actors.system import Then, ThenEach
from esplanade.core import tracing
from esplanade.core.errors import EsplanadeError, Fault, LimitExceeded, Unavailable
from esplanade.core.ids import Address
from esplanade.storage.broker import Broker
from esplanade.storage.journal import Journal

_log = logging.getLogger("esplanade.actors.ray_system")

NAMESPACE: Final = "esplanade"
LOOPBACK: Final = "127.0.0.1"
OBJECT_STORE_BYTES: Final = 100 * 2**20
"""Frames travel inside calls; the object store holds nothing of ours."""

FRAMES_IN_FLIGHT: Final = 4
SPACING_S: Final = 0.005
"""Between two frames of nothing but reads that nobody awaits (`ask_soon`), to one shard, as long as they are few: a call costs both processes a millisecond of processor
time, and a frame for every few requests has them busy with nothing else, at which everybody waits longer. Whoever comes after a pause goes at once."""
FEW: Final = 256
"""Requests that wait so; as many go at once."""
BUNDLES_IN_FLIGHT: Final = 32
"""The same of frames that callers have made (`request_many`): they need no others to wait for, and half of them gather while the other half's flush is under way. A flush costs
PostgreSQL and the shard by its segments, one a partition: with 16, it held half as many turns."""
BUNDLES_A_CALL: Final = 4
"""Of frames that callers have made in the same turn of the loop, so many share a call, and are answered together: they gather for the same flush."""
MAX_QUEUED: Final = 50_000
"""Requests that wait for one shard in one process, at most."""
RETRY_S: Final = 0.05
SWEEP_S: Final = 0.25
"""Between looks at requests whose deadline no timer of their own keeps: they are given up this much late at most."""
YIELD_S: Final = 1.0
LIFELINES: Final = 16
"""Connections that wait to be taken up by a process's lifeline."""
RESTART_S: Final = 0.5
PROFILE_S: Final = 1.0
"""Shorter than a readiness check (`gateway.api.CHECK_S`): a spare that is being restarted must not make a whole service look broken."""
ASK_S: Final = 5.0
STOP_S: Final = 15.0


class Startable(Protocol):
    async def start(self) -> Any: ...

    async def stop(self) -> None: ...


# --- the node ---------------------------------------------------------------------------------------------------------


class RayNode:
    """A connection to Ray: to a node of our own, or to a cluster. `stop` of our own node leaves no process and no file.

    If this process dies instead, a keeper ends the node: a shell that waits on a pipe from here (a megabyte, where Python would be thirty).
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._keeper = None if folder is None else _keeper(folder)
        self._vital: dict[str, psutil.Process] = {}

    @property
    def own(self) -> bool:
        return self.folder is not None

    def pids(self) -> list[int]:
        """Live processes of our own node, its keeper among them."""
        if self.folder is None or self._keeper is None:
            return []
        return [*(process.pid for process in of_node(self.folder)), *([self._keeper.pid] if self._keeper.poll() is None else [])]

    def watch(self) -> None:
        """Begin to mind the processes without which no other works."""
        if self.folder is not None:
            self._vital = {process.name(): process for process in of_node(self.folder) if process.name() in ("gcs_server", "raylet")}

    def broken(self) -> str | None:
        """The process of our own node that has died and cannot be replaced within it; None while all is well."""
        return next((f"{name} (process {process.pid})" for name, process in self._vital.items() if not is_alive(process)), None)

    def stop(self) -> None:
        """Disconnect; end our own node. Blocks for some seconds at most. Idempotent. Raises Unavailable naming the processes that do not end."""
        if self.folder is not None and self.broken() is not None:
            end_node(self.folder, gently=False)  # first: a driver in a half-dead node waits for a minute and aborts
        ray.shutdown()
        if self.folder is None or self._keeper is None:
            return
        # The agents of a node outlive it for a while; nothing of ours is in them.
        left = end_node(self.folder, gently=True)
        keeper, self._keeper = self._keeper, None
        assert keeper.stdin is not None
        keeper.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            keeper.wait(STOP_S)
        if left:
            raise Unavailable(f"Ray: processes {left} of the node in {self.folder} cannot be ended; end them by hand")


def _keeper(folder: Path) -> subprocess.Popen[bytes]:
    """Ends the node in `folder` when this process dies; in a session of its own, so that no signal to our group reaches it."""
    script = 'read -r _; [ -d "$1" ] || exit 0; exec "$2" -I "$3" "$1"'
    command = ["/bin/sh", "-c", script, "esplanade-keeper", str(folder), sys.executable, ray_leftovers.__file__]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", start_new_session=True)


def start_ray(address: str | None = None, *, processes: int = 4) -> RayNode:
    """Connect to the cluster at `address`, or start a node of our own on loopback, without dashboard and usage reports. Blocks for some seconds.

    `processes`: how many actors will be spawned; the node starts as many workers ahead. Raises Unavailable when Ray does not come up.
    """
    if address is not None:
        try:
            _ask(address)
            ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, RuntimeError, ValueError) as error:
            raise Unavailable(f"Ray at {address}: {error}; start the cluster, or unset ESPLANADE_RAY_ADDRESS to use a local node") from error
        return RayNode(None)
    reclaim()
    folder = make_folder()
    node = RayNode(folder)
    try:
        with _true_loopback(), _silent(), _lean():
            ray.init(
                address="local",
                namespace=NAMESPACE,
                num_cpus=processes,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                object_store_memory=OBJECT_STORE_BYTES,
                _node_ip_address=LOOPBACK,
                _temp_dir=str(folder / "r"),  # Ray opens its directory to all users; ours around it stays private
            )
    except BaseException as error:
        node.stop()
        if isinstance(error, (ConnectionError, RuntimeError, ValueError, OSError)):
            raise Unavailable(f"Ray did not start: {error}; `esplanade doctor` says what this machine lacks") from error
        raise
    node.watch()
    return node


def _ask(address: str) -> None:
    """Whether anybody listens at `host:port`: Ray itself asks for minutes. Other forms of address are Ray's to judge."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ASK_S).close()


@contextlib.contextmanager
def _true_loopback() -> Iterator[None]:
    """Ray (2.60) replaces 127.0.0.1 by the machine's outer address and then listens on all interfaces; given the true one it keeps to loopback."""
    from ray._private import services

    kept = services.resolve_ip_for_localhost
    services.resolve_ip_for_localhost = lambda host: host
    try:
        yield
    finally:
        services.resolve_ip_for_localhost = kept


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Ray prints pages of its own logs to the driver's output when a process dies, whatever it is told of logging; who watches the processes says it in a line."""
    from ray._private import worker

    kept = worker.listen_error_messages
    worker.listen_error_messages = lambda *_: None
    try:
        yield
    finally:
        worker.listen_error_messages = kept


@contextlib.contextmanager
def _lean() -> Iterator[None]:
    """Ray starts three processes for what nobody here asks of it: a scaler of clouds, a reader of logs for drivers that want them, and what is left of a dashboard that is
    off. They are a second of a core each, in which our own processes could start, and 60 MB each for good."""
    from ray._private import parameter, services

    kept = parameter.RayParams, services.start_api_server
    parameter.RayParams = functools.partial(kept[0], no_monitor=True, include_log_monitor=None)  # type: ignore[misc, assignment]
    services.start_api_server = lambda *_, **__: ("", None)
    try:
        yield
    finally:
        parameter.RayParams, services.start_api_server = kept  # type: ignore[misc]


# --- processes --------------------------------------------------------------------------------------------------------


class _Host:
    """The Ray actor: one plain object, made by a factory and started at once, also when Ray has restarted the process."""

    def __init__(self, factory: str, arguments: Sequence[Any], yields: bool) -> None:
        if yields and ray.get_runtime_context().was_current_actor_reconstructed:
            time.sleep(YIELD_S)  # imports take seconds of a core, which those that take over need now
        module, _, name = factory.partition(":")
        self._make = functools.partial(getattr(importlib.import_module(module), name), *arguments)
        self._object: Startable = self._make()
        self._lifeline = asyncio.ensure_future(asyncio.start_server(_hold, _node_address(), 0, backlog=LIFELINES))
        self._started = asyncio.ensure_future(self._start())

    async def _start(self) -> Any:
        """A first start that fails is the maker's to handle; after a restart by Ray nobody waits for it, so what may succeed later is tried again."""
        restarted: bool = ray.get_runtime_context().was_current_actor_reconstructed
        while True:
            try:
                return await self._object.start()
            except EsplanadeError as error:
                if not (restarted and error.retryable):
                    raise
                await asyncio.sleep(RESTART_S)
                self._object = self._make()

    async def started(self) -> Any:
        """What the object's `start` returned; raises what it raised."""
        return await asyncio.shield(self._started)

    async def call(self, method: str, *arguments: Any) -> Any:
        await asyncio.shield(self._started)
        return await getattr(self._object, method)(*arguments)

    async def frame(self, data: bytes) -> bytes:
        if not self._started.done():
            await asyncio.shield(self._started)
        answer: bytes = await self._object.frame(data)  # type: ignore[attr-defined]
        return answer

    async def frames(self, *frames: bytes) -> list[bytes]:
        """Several, in their order; answered when the last of them is. Arguments of their own: Ray carries each within the call up to 100 KB."""
        return await asyncio.gather(*map(self.frame, frames))

    async def pid(self) -> int:
        return os.getpid()

    async def lifeline(self) -> tuple[str, int]:
        """Where to connect to hear of this process's end: the connection closes with it. It says nothing and listens to nothing."""
        server = await asyncio.shield(self._lifeline)
        host, port = server.sockets[0].getsockname()[:2]
        return host, port

    async def stop(self) -> None:
        with contextlib.suppress(Exception):
            await asyncio.shield(self._started)
        await self._object.stop()


def _node_address() -> str:
    return str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]


async def _hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        await reader.read(1)
    finally:
        writer.close()


class ProcessHandle:
    """A spawned process."""

    def __init__(self, name: str, actor: Any) -> None:
        self.name = name
        self._actor = actor

    async def started(self) -> Any:
        """Wait until it has started; returns what `start` returned, raises what it raised (Unavailable where the process died)."""
        try:
            return await self._actor.started.remote()
        except ray_errors.RayTaskError as error:
            raise _cause(error) from error
        except ray_errors.RayError as error:
            raise Unavailable(f"process {self.name} did not start: {error}") from error

    async def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the object. Raises Unavailable while the process is away."""
        return await _result(self.name, self._actor.call.remote(method, *arguments))

    async def pid(self) -> int:
        return int(await _result(self.name, self._actor.pid.remote()))

    async def ended(self) -> None:
        """Returns when the process that runs now has ended: its connection closes with it (20 ms; Ray itself says so after 1.4 s). Raises Unavailable."""
        host, port = await _result(self.name, self._actor.lifeline.remote())
        try:
            reader, writer = await asyncio.open_connection(host, port)
            try:
                await reader.read()
            finally:
                writer.close()
        except OSError:
            return

    async def kill(self) -> None:
        """End the process that runs now, also one that hangs; Ray starts another in its place. Raises Unavailable."""
        try:
            await asyncio.to_thread(ray.kill, self._actor, no_restart=False)
        except ray_errors.RayError as error:
            raise Unavailable(f"process {self.name} cannot be ended: {error}") from error

    async def stop(self) -> None:
        """Ask the object to stop (bounded), then end the process."""
        with contextlib.suppress(TimeoutError, ray_errors.RayError, Unavailable):
            async with asyncio.timeout(STOP_S):
                await self._actor.stop.remote()
        with contextlib.suppress(ray_errors.RayError):
            ray.kill(self._actor, no_restart=True)


def spawn(factory: str, name: str, *arguments: Any, yields: bool = False, here: bool = False, nth: int | None = None) -> ProcessHandle:
    """Make an operating-system process of a plain class: `factory` is "module:name", called with the arguments there; its `start` runs at once.

    Ray restarts it whenever it dies. All actor options of the project are here: it takes no CPU slot, runs on any node of the cluster (`here`: on this
    one, for what listens at an address of this machine; `nth`: the nth process goes to the nth node, round and round, as far as Ray follows), may have many calls under way, and a call that a death interrupted is not repeated by Ray (the caller does, with
    the same key). `yields`: another process takes over when this one dies, so its restart waits a moment.
    """
    where: NodeAffinitySchedulingStrategy | str = "SPREAD"  # by Ray's best effort, which may leave a node without any
    if here:
        where = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    elif nth is not None:
        nodes = sorted(node["NodeID"] for node in ray.nodes() if node["Alive"])  # type: ignore[no-untyped-call]
        where = NodeAffinitySchedulingStrategy(nodes[nth % len(nodes)], soft=True)
    actor = (
        ray.remote(_Host)
        .options(
            name=name,
            namespace=NAMESPACE,
            num_cpus=0,
            max_restarts=-1,
            max_task_retries=0,
            max_concurrency=1000,
            lifetime=None,
            scheduling_strategy=where,
        )
        .remote(factory, list(arguments), yields)
    )
    return ProcessHandle(name, actor)


def _worked(function: str, data: bytes) -> bytes:
    """The Ray task: a function of this project, of bytes to bytes."""
    module, _, name = function.partition(":")
    done: bytes = getattr(importlib.import_module(module), name)(data)
    return done


async def run_task(function: str, data: bytes, *, deadline_s: float) -> bytes:
    """Heavy pure work in one of Ray's workers, which keeps what it has loaded for the next: "module:name" of bytes to bytes.

    Raises what it raised; Unavailable past the deadline, when the worker is ended, or where it died. Nothing is tried twice.
    """
    reference = ray.remote(_worked).options(num_cpus=1, max_retries=0).remote(function, data)
    try:
        async with asyncio.timeout(deadline_s):
            return bytes(await _result(function, reference))
    except TimeoutError:
        await asyncio.to_thread(ray.cancel, reference, force=True)
        raise Unavailable(f"{function} took more than {deadline_s:.1f} s and was ended; ask again") from None


async def _result(name: str, reference: Awaitable[Any]) -> Any:
    try:
        return await reference
    except ray_errors.RayTaskError as error:
        raise _cause(error) from error
    except ray_errors.RayError as error:
        raise Unavailable(f"process {name} is away: {str(error).splitlines()[0]}; ask again") from error


def _cause(error: ray_errors.RayTaskError) -> Exception:
    return error.cause if isinstance(error.cause, Exception) else Fault(str(error))


# --- the system -------------------------------------------------------------------------------------------------------


class _Waiting:
    """A request, its answer to be, and the lane that has it now (an answer of an earlier one still counts, a refusal does not).

    `expires_s`: when to give it up, of the loop's time; 0 where its caller sees to that.
    """

    __slots__ = ("_done", "expires_s", "lane", "partition", "request")

    patient: ClassVar[bool] = False
    """Whether it may wait for others to travel with (SPACING_S)."""

    def __init__(self, request: Request, partition: int, done: asyncio.Future[Answer]) -> None:
        self.request = request
        self.partition = partition
        self.expires_s = 0.0
        self.lane: _Lane | None = None
        self._done = done

    @property
    def size(self) -> int:
        """Requests."""
        return 1

    def is_over(self) -> bool:
        """Whether it has its answer, or nobody waits for it any more."""
        return self._done.done()

    def answer(self, answer: Answer) -> None:
        self._done.set_result(answer)

    def fail(self, error: EsplanadeError) -> None:
        self._done.set_exception(error)


class _Soon(_Waiting):
    """A request whose answer goes to `then`, where nobody awaits: one object, so that the collector has little to walk through."""

    __slots__ = ("_ask", "_system", "_then")

    patient = True

    def __init__(self, system: RaySystem, ask: Ask, partition: int, then: Then, expires_s: float) -> None:
        self.request = self._ask = ask
        self.partition = partition
        self.expires_s = expires_s
        self.lane = None
        self._system = system
        self._then: Then | None = then

    def is_over(self) -> bool:
        return self._then is None

    def answer(self, answer: Answer) -> None:
        if type(answer) is Replied:
            then, self._then = self._then, None
            assert then is not None
            try:
                then(answer.reply)
            except Exception:  # stops nobody else's answer
                _log.exception("then_failed")
        elif not isinstance(answer, Refused):
            self._call(Fault(f"{self._ask.address} answered {type(answer).__name__} to {type(self._ask.command).__name__}"))
        elif answer.code != Unavailable.code or not self._again():
            self._call(error_of(answer))

    def fail(self, error: EsplanadeError) -> None:
        self._call(error)

    def _again(self) -> bool:
        """Ask again in a moment, by a task of its own, where there is time for it."""
        loop = asyncio.get_running_loop()
        left_s = self.expires_s - loop.time() - RETRY_S
        if left_s <= 0:
            return False
        then, self._then = self._then, None
        assert then is not None
        loop.call_later(RETRY_S, functools.partial(self._system.ask_slowly, self._ask.address, self._ask.command, then, left_s))
        return True

    def _call(self, outcome: Reply | EsplanadeError) -> None:
        then, self._then = self._then, None
        assert then is not None
        try:
            then(outcome)
        except Exception:  # stops nobody else's answer
            _log.exception("then_failed")


class _Block(_Waiting):
    """Asks of one partition that came together, and are queued, carried and answered together. `places`: those of the asks among all that their caller made."""

    __slots__ = ("_places", "_system", "_then", "asks")

    patient = True

    def __init__(self, system: RaySystem, asks: list[Ask], places: Sequence[int], partition: int, then: ThenEach, expires_s: float) -> None:
        self.request = asks[0]
        self.asks = asks
        self.partition = partition
        self.expires_s = expires_s
        self.lane = None
        self._system = system
        self._places = places
        self._then: ThenEach | None = then

    @property
    def size(self) -> int:
        return len(self.asks)

    def is_over(self) -> bool:
        return self._then is None

    def answer_all(self, answers: Sequence[Answer]) -> None:
        """Of each ask, in their order. Those that their owner cannot serve now are asked again one by one, where there is time for it."""
        then, self._then = self._then, None
        assert then is not None
        if {*map(type, answers)} == {Replied}:
            _tell(then, self._places, [answer.reply for answer in cast(Sequence[Replied], answers)])
            return
        for place, ask, answer in zip(self._places, self.asks, answers, strict=True):
            _Soon(self._system, ask, self.partition, functools.partial(_tell_one, then, place), self.expires_s).answer(answer)

    def fail(self, error: EsplanadeError) -> None:
        then, self._then = self._then, None
        assert then is not None
        _tell(then, self._places, [error] * len(self.asks))


def _tell(then: ThenEach, places: Sequence[int], outcomes: Sequence[Reply | EsplanadeError]) -> None:
    try:
        then(places, outcomes)
    except Exception:  # stops nobody else's answer
        _log.exception("then_failed")


def _tell_one(then: ThenEach, place: int, outcome: Reply | EsplanadeError) -> None:
    then((place,), (outcome,))


class _Lane:
    """Requests to one process: a queue, a few frames in flight. `again(requests)` is called with what a death of the process left open."""

    def __init__(self, name: str, again: Callable[[list[_Waiting]], None]) -> None:
        self.name = name
        self.queue: deque[_Waiting] = deque()
        self.queued = 0  # requests in it
        self.bundles = asyncio.Semaphore(BUNDLES_IN_FLIGHT)
        self.away_until_s = 0.0  # of the loop's time: found dead just now
        self._again = again
        self._frames: set[asyncio.Task[None]] = set()
        self._in_flight: dict[int, list[_Waiting]] = {}
        self._number = 0
        self._bundled: list[tuple[bytes, asyncio.Future[bytes]]] = []  # made in this turn of the loop
        self._actor: Any = None
        self._woken = False
        self._hurried = False  # something in the queue cannot wait for others
        self._sent_s = 0.0
        self._pause: asyncio.TimerHandle | None = None

    def put(self, waiting: _Waiting) -> None:
        waiting.lane = self
        self.queue.append(waiting)
        self.queued += waiting.size
        if not waiting.patient:
            self._hurried = True
        if not self._woken:
            self._wake()

    def take_out(self, partitions: frozenset[int]) -> list[_Waiting]:
        """Requests for these partitions, queued or on their way, that nobody has answered yet: the lane forgets them."""
        out = [waiting for waiting in self.queue if waiting.partition in partitions]
        if out:
            self.queue = deque(waiting for waiting in self.queue if waiting.partition not in partitions)
            self.queued -= sum(waiting.size for waiting in out)
        flying = [waiting for frame in self._in_flight.values() for waiting in frame if waiting.partition in partitions and waiting.lane is self]
        return [waiting for waiting in (*flying, *out) if not waiting.is_over()]

    def unanswered(self) -> Iterator[_Waiting]:
        """All that is queued or on its way."""
        yield from self.queue
        for frame in self._in_flight.values():
            yield from frame

    def _wake(self) -> None:
        if self._woken or len(self._in_flight) >= FRAMES_IN_FLIGHT:
            return
        loop = asyncio.get_running_loop()
        if not self._hurried and self.queued < FEW and loop.time() < self._sent_s + SPACING_S:
            if self._pause is None:
                self._pause = loop.call_at(self._sent_s + SPACING_S, self._paused)
            return
        self._woken = True
        loop.call_soon(self._send)

    def _paused(self) -> None:
        self._pause = None
        if not self._woken and len(self._in_flight) < FRAMES_IN_FLIGHT:
            self._send()

    def _send(self) -> None:
        self._woken = False
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        self._sent_s = asyncio.get_running_loop().time()
        while self.queue and len(self._in_flight) < FRAMES_IN_FLIGHT:
            frame: list[_Waiting] = []
            count = size = 0
            while self.queue and size < MAX_FRAME_BYTES and (not frame or count + self.queue[0].size <= MAX_FRAME_REQUESTS):
                waiting = self.queue.popleft()
                self.queued -= waiting.size
                if waiting.is_over():
                    continue
                frame.append(waiting)
                count += waiting.size
                if isinstance(waiting.request, Take):
                    size += 13 * len(waiting.request.level)
            if frame:
                self._number += 1
                self._in_flight[self._number] = frame
                task = asyncio.ensure_future(self._carry(self._number, frame))
                self._frames.add(task)
                task.add_done_callback(self._frames.discard)
        if not self.queue:
            self._hurried = False

    async def _carry(self, number: int, frame: list[_Waiting]) -> None:
        try:
            requests: list[Request] = []
            for waiting in frame:
                if isinstance(waiting, _Block):
                    requests += waiting.asks
                else:
                    requests.append(waiting.request)
            answers = decode_answers(await self.call("frame", encode_requests(requests)))
            if len(answers) != len(requests):
                raise Fault(f"{len(answers)} answers to {len(requests)} requests")
            del requests
            at = 0
            for waiting in frame:
                if isinstance(waiting, _Block):
                    mine = answers[at : at + waiting.size]
                    if not waiting.is_over() and (waiting.lane is self or Refused not in {*map(type, mine)}):
                        waiting.answer_all(mine)
                elif not waiting.is_over() and (waiting.lane is self or not isinstance(answers[at], Refused)):
                    waiting.answer(answers[at])
                at += waiting.size
        except Unavailable:
            # The process died or is being restarted, so what became of the frame is unknown. Every request may be repeated: it carries its key, or changes nothing twice.
            await asyncio.sleep(RETRY_S)
            self._again([waiting for waiting in frame if not waiting.is_over() and waiting.lane is self])
        except Exception as error:
            for waiting in frame:
                if not waiting.is_over():
                    waiting.fail(Fault(f"{self.name} broke on a frame: {type(error).__name__}: {error}"))
        finally:
            del self._in_flight[number]
            if self.queue:
                self._wake()

    def bundle(self, frame: bytes) -> asyncio.Future[bytes]:
        """A frame that a caller has made, to its answers; raises Unavailable where the process is away. Of Commands, it shares a call with others that are made now: Ray takes
        a millisecond of processor time a call over both processes. Other requests may take their time, so each goes by itself."""
        if not is_of_commands(frame):
            return asyncio.ensure_future(self.call("frame", frame))
        loop = asyncio.get_running_loop()
        done: asyncio.Future[bytes] = loop.create_future()
        if not self._bundled:
            loop.call_soon(self._send_bundles)
        self._bundled.append((frame, done))
        return done

    def _send_bundles(self) -> None:
        bundles, self._bundled = [bundle for bundle in self._bundled if not bundle[1].done()], []
        for i in range(0, len(bundles), BUNDLES_A_CALL):
            task = asyncio.ensure_future(self._carry_bundles(bundles[i : i + BUNDLES_A_CALL]))
            self._frames.add(task)
            task.add_done_callback(self._frames.discard)

    async def _carry_bundles(self, bundles: list[tuple[bytes, asyncio.Future[bytes]]]) -> None:
        try:
            answers = await self.call("frames", *[frame for frame, _ in bundles])
        except Exception as error:
            for _, done in bundles:
                if not done.done():
                    done.set_exception(error)
        else:
            for (_, done), answer in zip(bundles, answers, strict=True):
                if not done.done():
                    done.set_result(answer)

    async def call(self, method: str, *arguments: Any) -> Any:
        """Raises Unavailable where the process is away."""
        try:
            if self._actor is None:
                self._actor = ray.get_actor(self.name, namespace=NAMESPACE)
            return await getattr(self._actor, method).remote(*arguments)
        except (ray_errors.RayActorError, ray_errors.RaySystemError, ValueError) as error:
            self._actor = None
            raise Unavailable(f"process {self.name} is away; ask again") from error


class RaySystem(RequestSystem):
    """`System` over the processes that own the partitions, as a directory says. Usable in the driver and in spawned processes; belongs to one event loop.

    A request that its owner refuses with `unavailable` (it replays, has just lost a flush, or owns the partition no more) is sent again with the same key until the
    deadline, as is one whose owner died. When a partition moves, what was on its way to the former owner goes to the new one at once.
    """

    def __init__(self, directory: Directory | None = None) -> None:
        self.directory = directory or Directory()
        self._lanes: dict[str, _Lane] = {}
        self._homeless: deque[_Waiting] = deque()  # for partitions without a known owner
        self._homeless_requests = 0
        self._bundles: dict[asyncio.Future[Any], tuple[str, frozenset[int]]] = {}
        self._follower: Follower | None = None
        self._sweeping: asyncio.TimerHandle | None = None
        self.directory.when_moved(self._moved)

    async def follow(self, journal: Journal, broker: Broker) -> None:
        """Read the directory and keep it up to date until `stop`. Raises Unavailable."""
        self._follower = Follower(self.directory, journal, broker)
        await self._follower.start()

    async def stop(self) -> None:
        if self._sweeping is not None:
            self._sweeping.cancel()
        if self._follower is not None:
            await self._follower.stop()

    async def request(self, request: Request, *, deadline_s: float) -> Answer:
        loop = asyncio.get_running_loop()
        expires_s = loop.time() + deadline_s
        partition = log_of(request)[1]
        while True:
            done: asyncio.Future[Answer] = loop.create_future()
            waiting = _Waiting(request, partition, done)
            self._put(waiting)
            expiry = loop.call_at(expires_s, _expire, waiting)
            try:
                answer = await done
            finally:
                expiry.cancel()
            if not (isinstance(answer, Refused) and answer.code == Unavailable.code) or loop.time() + RETRY_S >= expires_s:
                return answer
            self._doubt()
            await asyncio.sleep(RETRY_S)

    def ask_soon(self, address: Address, command: Command, then: Then, *, deadline_s: float = 5.0) -> None:
        """No task, future or timer a request: frames bring answers, and a sweep finds those that nobody answered in time."""
        if tracing.on():
            self.ask_slowly(address, command, then, deadline_s)  # a span needs a task
            return
        loop = asyncio.get_running_loop()
        soon = _Soon(self, Ask(address, command, None, round(deadline_s * 1000)), log_place(address)[1], then, loop.time() + deadline_s)
        try:
            self._put(soon)
        except LimitExceeded as error:
            loop.call_soon(soon.fail, error)
            return
        if self._sweeping is None:
            self._sweeping = loop.call_later(SWEEP_S, self._sweep)

    def ask_each_soon(self, asks: Sequence[tuple[Address, Command]], then: ThenEach, *, deadline_s: float = 5.0) -> None:
        """No object a request but the Ask itself; likewise."""
        if tracing.on() or len(asks) == 1:
            super().ask_each_soon(asks, then, deadline_s=deadline_s)
            return
        loop = asyncio.get_running_loop()
        expires_s, within_ms = loop.time() + deadline_s, round(deadline_s * 1000)
        made = [Ask(address, command, None, within_ms) for address, command in asks]
        partitions = partitions_at(made)
        blocks: list[_Block] = []
        if len({*partitions}) == 1:
            blocks.append(_Block(self, made, range(len(made)), partitions[0], then, expires_s))
        else:
            places_of: dict[int, list[int]] = {}
            for place, partition in enumerate(partitions):
                places_of.setdefault(partition, []).append(place)
            blocks += [_Block(self, [made[place] for place in places], places, partition, then, expires_s) for partition, places in places_of.items()]
        for block in blocks:
            try:
                self._put(block)
            except LimitExceeded as error:
                loop.call_soon(block.fail, error)
        if self._sweeping is None:
            self._sweeping = loop.call_later(SWEEP_S, self._sweep)

    def ask_slowly(self, address: Address, command: Command, then: Then, deadline_s: float) -> None:
        """`ask_soon` by a task, which asks again and again until the deadline."""
        super().ask_soon(address, command, then, deadline_s=deadline_s)

    def _sweep(self) -> None:
        """Give up what nobody has answered in time; again in a while, as long as any is left."""
        self._sweeping = None
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        timed = [waiting for lane in self._lanes.values() for waiting in lane.unanswered() if waiting.expires_s]
        timed += [waiting for waiting in self._homeless if waiting.expires_s]
        for waiting in [waiting for waiting in timed if waiting.expires_s <= now_s]:
            _expire(waiting)
        if timed:
            self._sweeping = loop.call_later(SWEEP_S, self._sweep)

    async def request_many(self, requests: Sequence[Request], *, deadline_s: float) -> list[Answer]:
        """One call a process and MAX_FRAME_REQUESTS, without a future and a timer for each request. What an owner refuses as unavailable or leaves open is
        sent again, to whoever owns it then, until the deadline; a frame whose owner is away waits as it is."""
        loop = asyncio.get_running_loop()
        expires_s = loop.time() + deadline_s
        places = partitions_at(requests)
        answers: list[Answer] = [_AWAY] * len(requests)
        left: Sequence[int] = range(len(requests))

        async def carry(name: str, indices: Sequence[int]) -> Sequence[int]:
            """Answers some; which of them are to be asked again."""
            every = len(indices) == len(requests)
            partitions = frozenset(places if every else [places[i] for i in indices])

            @functools.cache
            def frame() -> bytes:
                return encode_requests(requests if every else [requests[i] for i in indices])

            while (found := await self._bundle(self._lane(name), frame, partitions, expires_s)) is None:
                if loop.time() + RETRY_S >= expires_s:
                    return indices
                self._doubt()
                await asyncio.sleep(RETRY_S)
                owners = {self.directory.owner_of(partition) for partition in partitions}
                owner = owners.pop()
                if owners or owner is None:
                    return indices
                name = owner
            if every:
                answers[:] = found
            else:
                for index, answer in zip(indices, found, strict=True):
                    answers[index] = answer
            if Refused not in {*map(type, found)}:
                return []
            return [index for index in indices if isinstance(answer := answers[index], Refused) and answer.code == Unavailable.code]

        while True:
            owners = {partition: self.directory.owner_of(partition) for partition in {places[index] for index in left}}
            distinct = {*owners.values()}
            if None not in distinct and len(distinct) == 1 and len(left) <= MAX_FRAME_REQUESTS:
                left = await carry(cast(str, distinct.pop()), left)
            else:
                names = [owners[places[index]] for index in left]
                again = [index for index, name in zip(left, names, strict=True) if name is None]
                carried = []
                for name in dict.fromkeys(names):
                    if name is not None:
                        indices = [index for index, owner in zip(left, names, strict=True) if owner == name]
                        carried += [carry(name, indices[i : i + MAX_FRAME_REQUESTS]) for i in range(0, len(indices), MAX_FRAME_REQUESTS)]
                again += [index for indices in await asyncio.gather(*carried) for index in indices]
                left = sorted(again)
            if not left or loop.time() + RETRY_S >= expires_s:
                return answers
            self._doubt()
            await asyncio.sleep(RETRY_S)

    async def _bundle(self, lane: _Lane, frame: Callable[[], bytes], partitions: frozenset[int], expires_s: float) -> Sequence[Answer] | None:
        """The answers to a frame of one caller, which is made when its turn has come; None where the process dies, hands a partition over, takes too long, or was found dead a moment ago."""
        loop = asyncio.get_running_loop()
        async with lane.bundles:
            if loop.time() < lane.away_until_s or any(self.directory.owner_of(partition) != lane.name for partition in partitions):
                return None  # they moved while this bundle waited its turn
            call = lane.bundle(frame())
            self._bundles[call] = lane.name, partitions
            try:
                async with asyncio.timeout_at(expires_s):
                    return decode_answers(await call)
            except Unavailable:
                lane.away_until_s = loop.time() + RETRY_S / 2  # looking for it takes a call to Ray: not one for each frame that waits
                return None
            except TimeoutError:
                return None
            except asyncio.CancelledError:
                if call.cancelled() and not _cancelling():
                    return None
                raise
            finally:
                del self._bundles[call]

    def _doubt(self) -> None:
        if self._follower is not None:
            self._follower.doubt()

    def _put(self, waiting: _Waiting) -> None:
        name = self.directory.owner_of(waiting.partition)
        if name is None:
            if self._homeless_requests >= MAX_QUEUED:
                raise LimitExceeded(f"{MAX_QUEUED} requests wait for partitions without an owner in this process; send again")
            self._homeless.append(waiting)
            self._homeless_requests += waiting.size
            self._doubt()
            return
        lane = self._lanes.get(name) or self._lane(name)
        if lane.queued >= MAX_QUEUED:
            raise LimitExceeded(f"{MAX_QUEUED} requests wait for {name} in this process; send again")
        lane.put(waiting)

    def _lane(self, name: str) -> _Lane:
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = _Lane(name, self._again)
        return lane

    def _again(self, left_open: list[_Waiting]) -> None:
        self._doubt()
        for waiting in left_open:
            try:
                self._put(waiting)
            except LimitExceeded as error:
                waiting.fail(error)

    def _moved(self, partitions: frozenset[int]) -> None:
        homeless, self._homeless, self._homeless_requests = self._homeless, deque(), 0
        left_open = [waiting for waiting in homeless if not waiting.is_over()]
        for call, (name, carried) in list(self._bundles.items()):
            if any(self.directory.owner_of(partition) != name for partition in carried & partitions):
                call.cancel()
        for lane in list(self._lanes.values()):
            elsewhere = frozenset(partition for partition in partitions if self.directory.owner_of(partition) != lane.name)
            left_open += lane.take_out(elsewhere)
        for waiting in left_open:
            try:
                self._put(waiting)
            except LimitExceeded as error:
                waiting.fail(error)

    async def profile(self) -> list[dict[str, object]]:
        """Of every process that shards run in, spares too, as far as they answer within PROFILE_S."""

        async def one(name: str) -> dict[str, object] | None:
            try:
                async with asyncio.timeout(PROFILE_S):
                    return dict(await self._lane(name).call("call", "profile"))
            except (TimeoutError, Unavailable, ray_errors.RayError):
                return None

        found = await asyncio.gather(*(one(name) for name in await asyncio.to_thread(_shards)))
        return [counters for counters in found if counters is not None]


def _shards() -> list[str]:
    names: list[str] = [each["name"] for each in ray.util.list_named_actors(all_namespaces=True) if each["namespace"] == NAMESPACE]
    return sorted((name for name in names if name.startswith(SHARD_PREFIX)), key=lambda name: (len(name), name))


_AWAY: Final = Refused(Unavailable.code, "its process is away; ask again with the same key")


def _cancelling() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _expire(waiting: _Waiting) -> None:
    if not waiting.is_over():
        name = "the partition has no owner, which" if waiting.lane is None else waiting.lane.name
        waiting.fail(Unavailable(f"{type(waiting.request).__name__}: {name} did not answer in time; ask again with the same key"))
