"""How a command, and the API, reach a service that runs on this machine: a Unix socket in the data directory, for its owner alone. Shards come and go by it, and rehearsals begin and end.

One request a connection, a line of JSON each way. Holds no state; what a request does is the cluster's.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final, Literal, Protocol, assert_never

import msgspec

from esplanade.core.errors import Conflict, EsplanadeError, InvalidInput, NotFound, Unavailable
from esplanade.storage.embedded import socket_folder

SOCKET: Final = "esplanade.sock"
MAX_LINE_BYTES: Final = 256 * 1024

Do = Literal["list", "add", "drain", "remove", "restart_gateways", "rehearse", "run", "runs", "stop"]


class Order(msgspec.Struct, frozen=True):
    """`tenant` asks for what follows it: `scenario` (in `venue`, with `faults`) to be rehearsed, or about `run`."""

    do: Do
    shard: str = ""
    tenant: str = ""
    scenario: str = ""
    venue: str | None = None
    faults: bool = False
    run: str = ""


class Outcome(msgspec.Struct, frozen=True):
    """`shards`: what each does now. `runs`: those asked about. `said`: what was done. `error`, `code`: why it was not."""

    shards: dict[str, str] = {}
    said: str = ""
    error: str = ""
    code: str = ""
    retryable: bool = False
    runs: tuple[Any, ...] = ()


class Shards(Protocol):
    """What of a cluster is under control."""

    async def add_shard(self) -> str: ...

    async def drain(self, name: str) -> None: ...

    async def remove_shard(self, name: str) -> None: ...

    async def restart_gateways(self) -> list[str]: ...

    def shards_now(self) -> dict[str, str]: ...


class Rehearsing(Protocol):
    """`scenarios.rehearsals.Rehearsals`."""

    async def start(self, tenant: str, scenario: str, *, venue: str | None = None, faults: bool = False) -> Any: ...

    async def stop(self, tenant: str, run: str) -> Any: ...

    def get(self, tenant: str, run: str) -> Any: ...

    def runs(self, tenant: str) -> Any: ...


@contextlib.asynccontextmanager
async def controlled(shards: Shards, data_dir: Path, rehearsing: Rehearsing | None = None) -> AsyncIterator[None]:
    """Serve requests meanwhile. The data directory's lock is held, so that a socket that is there is nobody's."""
    path, made = _socket(data_dir)
    path.unlink(missing_ok=True)
    before = os.umask(0o177)
    try:
        server = await asyncio.start_unix_server(lambda reader, writer: _serve(shards, rehearsing, reader, writer), path, limit=MAX_LINE_BYTES)
    finally:
        os.umask(before)
    try:
        yield
    finally:
        server.close()
        path.unlink(missing_ok=True)
        _remove(made)


async def _serve(shards: Shards, rehearsing: Rehearsing | None, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        outcome = await _carry_out(shards, rehearsing, await reader.readline())
        with contextlib.suppress(OSError):
            writer.write(msgspec.json.encode(outcome) + b"\n")
            await writer.drain()
    finally:
        writer.close()


async def _carry_out(shards: Shards, rehearsing: Rehearsing | None, line: bytes) -> Outcome:
    try:
        order = msgspec.json.decode(line, type=Order)
        match order.do:
            case "rehearse" | "run" | "runs" | "stop":
                return Outcome(runs=tuple(await _rehearse(rehearsing, order)))
            case _:
                said = await _do(shards, order)
    except msgspec.MsgspecError as error:
        return Outcome(error=f"no request: {error}", code="invalid")
    except EsplanadeError as error:
        return Outcome(error=error.message, code=error.code, retryable=error.retryable)
    return Outcome(shards=shards.shards_now(), said=said)


async def _rehearse(rehearsing: Rehearsing | None, order: Order) -> list[Any]:
    if rehearsing is None:
        raise Unavailable("this service rehearses nothing; start it with `esplanade serve`")
    match order.do:
        case "rehearse":
            return [await rehearsing.start(order.tenant, order.scenario, venue=order.venue, faults=order.faults)]
        case "stop":
            return [await rehearsing.stop(order.tenant, order.run)]
        case "run":
            return [rehearsing.get(order.tenant, order.run)]
        case _:
            return list(rehearsing.runs(order.tenant))


async def _do(shards: Shards, order: Order) -> str:
    match order.do:
        case "list":
            return ""
        case "add":
            return f"{await shards.add_shard()} is at work"
        case "drain":
            await shards.drain(order.shard)
            return f"{order.shard} owns nothing any more"
        case "remove":
            await shards.remove_shard(order.shard)
            return f"{order.shard} is gone"
        case "restart_gateways":
            return f"{', '.join(await shards.restart_gateways())} listen in their place"
        case "rehearse" | "run" | "runs" | "stop":
            raise InvalidInput(f"{order.do}: is about rehearsals, not shards")
        case _:
            assert_never(order.do)


_REFUSALS: Final = {kind.code: kind for kind in (NotFound, Conflict, InvalidInput)}


async def order(data_dir: Path, do: Do, shard: str = "", **more: Any) -> Outcome:
    """Have the service on `data_dir` do it; returns when it is done. `more`: fields of Order. Raises Unavailable where none runs, and what it refused."""
    path, made = _socket(data_dir)
    try:
        reader, writer = await asyncio.open_unix_connection(path, limit=MAX_LINE_BYTES)
    except OSError as error:
        _remove(made)
        raise Unavailable(f"no service answers on {data_dir} ({error.strerror}); start `esplanade serve` there, or name its --data-dir") from error
    try:
        writer.write(msgspec.json.encode(Order(do, shard, **more)) + b"\n")
        line = await reader.readline()
    finally:
        writer.close()
    if not line:
        raise Unavailable(f"the service on {data_dir} ended before it answered; look again when it is back")
    outcome = msgspec.json.decode(line, type=Outcome)
    if outcome.error:
        raise Unavailable(outcome.error) if outcome.retryable else _REFUSALS.get(outcome.code, InvalidInput)(outcome.error)
    return outcome


def _socket(data_dir: Path) -> tuple[Path, list[Path]]:
    """Where the socket is, and the folder that was made for it."""
    folder, made = socket_folder(data_dir.expanduser().resolve(), SOCKET, None)
    return folder / SOCKET, made


def _remove(folders: list[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()
