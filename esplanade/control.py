"""How a command reaches a service that runs on this machine: a Unix socket in the data directory, for its owner alone. Shards come and go by it.

One request a connection, a line of JSON each way. Holds no state; what a request does is the cluster's.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final, Literal, Protocol, assert_never

import msgspec

from esplanade.core.errors import EsplanadeError, InvalidInput, Unavailable
from esplanade.storage.embedded import socket_folder

SOCKET: Final = "esplanade.sock"
MAX_LINE_BYTES: Final = 64 * 1024

Do = Literal["list", "add", "drain", "remove"]


class Order(msgspec.Struct, frozen=True):
    do: Do
    shard: str = ""


class Outcome(msgspec.Struct, frozen=True):
    """`shards`: what each does now. `said`: what was done. `error`: why it was not."""

    shards: dict[str, str] = {}
    said: str = ""
    error: str = ""
    retryable: bool = False


class Shards(Protocol):
    """What of a cluster is under control."""

    async def add_shard(self) -> str: ...

    async def drain(self, name: str) -> None: ...

    async def remove_shard(self, name: str) -> None: ...

    def shards_now(self) -> dict[str, str]: ...


@contextlib.asynccontextmanager
async def controlled(shards: Shards, data_dir: Path) -> AsyncIterator[None]:
    """Serve requests meanwhile. The data directory's lock is held, so that a socket that is there is nobody's."""
    path, made = _socket(data_dir)
    path.unlink(missing_ok=True)
    before = os.umask(0o177)
    try:
        server = await asyncio.start_unix_server(lambda reader, writer: _serve(shards, reader, writer), path, limit=MAX_LINE_BYTES)
    finally:
        os.umask(before)
    try:
        yield
    finally:
        server.close()
        path.unlink(missing_ok=True)
        _remove(made)


async def _serve(shards: Shards, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        outcome = await _carry_out(shards, await reader.readline())
        with contextlib.suppress(OSError):
            writer.write(msgspec.json.encode(outcome) + b"\n")
            await writer.drain()
    finally:
        writer.close()


async def _carry_out(shards: Shards, line: bytes) -> Outcome:
    try:
        order = msgspec.json.decode(line, type=Order)
        said = await _do(shards, order)
    except msgspec.MsgspecError as error:
        return Outcome(error=f"no request: {error}")
    except EsplanadeError as error:
        return Outcome(error=error.message, retryable=error.retryable)
    return Outcome(shards=shards.shards_now(), said=said)


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
        case _:
            assert_never(order.do)


async def order(data_dir: Path, do: Do, shard: str = "") -> Outcome:
    """Have the service on `data_dir` do it; returns when it is done. Raises Unavailable where none runs, InvalidInput with what it refused."""
    path, made = _socket(data_dir)
    try:
        reader, writer = await asyncio.open_unix_connection(path, limit=MAX_LINE_BYTES)
    except OSError as error:
        _remove(made)
        raise Unavailable(f"no service answers on {data_dir} ({error.strerror}); start `esplanade serve` there, or name its --data-dir") from error
    try:
        writer.write(msgspec.json.encode(Order(do, shard)) + b"\n")
        line = await reader.readline()
    finally:
        writer.close()
    if not line:
        raise Unavailable(f"the service on {data_dir} ended before it answered; look again when it is back")
    outcome = msgspec.json.decode(line, type=Outcome)
    if outcome.error:
        raise Unavailable(outcome.error) if outcome.retryable else InvalidInput(outcome.error)
    return outcome


def _socket(data_dir: Path) -> tuple[Path, list[Path]]:
    """Where the socket is, and the folder that was made for it."""
    folder, made = socket_folder(data_dir.expanduser().resolve(), SOCKET, None)
    return folder / SOCKET, made


def _remove(folders: list[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()
