"""A place without a network: its pack fetched, opened, edited offline, and brought together with the service again.

Owns the pack's file and, beside it, the replicas of its scenes as they were last saved: `<pack>.<scene>.replica`. What a pack holds is `ar.pack`, how scenes converge `ar.scene`,
the connection to sync over `gateway.client`. Files are read and written in place: they are the caller's own.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote

import httpx
import msgspec

from ar.anchors import AnchorBook
from ar.maps import SpatialMap
from ar.pack import Pack
from ar.scene import Lost, Scene
from esplanade.core.errors import EsplanadeError, InvalidInput, Unavailable
from gateway.client import Client, error_for

FETCH_S: Final = 60.0
"""The longest wait for more of a pack."""
TRIES: Final = 5


class _Replica(msgspec.Struct, frozen=True):
    """A replica between two sessions: its snapshot, and how many of its own operations the service has."""

    client: str
    sent: int
    snapshot: bytes


async def fetch_pack(
    url: str, tenant: str, venue: str, place: str, *, token: str, to: Path, scenes: Sequence[str] = (), http: httpx.AsyncClient | None = None
) -> str:
    """Fetch the pack of a place (`LEVEL,X,Y,RADIUS_M`) into a file; returns its ETag. What broke off goes on where it was, for as long as the place has not changed.

    `url`: of the API. Raises what the service refuses with, Unavailable where it does not answer in TRIES tries, InvalidInput where what came is no pack.
    """
    part, tagged = to.with_name(f"{to.name}.part"), to.with_name(f"{to.name}.part.etag")
    path = f"{url.rstrip('/')}/v1/venues/{quote(tenant, safe='')}/{quote(venue, safe='')}/packs/{quote(place, safe=',')}"
    async with contextlib.AsyncExitStack() as stack:
        client = http if http is not None else await stack.enter_async_context(httpx.AsyncClient(timeout=FETCH_S))
        for tries in range(1, TRIES + 1):
            headers = {"authorization": f"Bearer {token}"}
            if part.is_file() and tagged.is_file():
                headers |= {"range": f"bytes={part.stat().st_size}-", "if-range": tagged.read_text()}
            try:
                async with client.stream("GET", path, params={"scene": list(scenes)}, headers=headers) as reply:
                    if reply.status_code not in (200, 206, 416):
                        await reply.aread()
                        raise _refused(reply)
                    if reply.status_code == 416:  # all of it is here already, or it has become shorter
                        part.unlink()
                        continue
                    etag = reply.headers["etag"]
                    tagged.write_text(etag)
                    with part.open("ab" if reply.status_code == 206 else "wb") as file:
                        async for data in reply.aiter_bytes():
                            file.write(data)
                break
            except httpx.TransportError as error:
                if tries == TRIES:
                    raise Unavailable(f"{path}: broke off {TRIES} times ({error!r}); ask again, it goes on where it was") from error
        else:
            raise Unavailable(f"{path}: no pack came in {TRIES} tries; ask again")
    tagged.unlink()
    try:
        Pack(part.read_bytes())
    except InvalidInput:
        part.unlink()
        raise
    os.replace(part, to)
    return etag


def _refused(reply: httpx.Response) -> EsplanadeError:
    try:
        said = reply.json()
        return error_for(said["code"], said["detail"])
    except (ValueError, KeyError, TypeError):
        return Unavailable(f"{reply.url}: {reply.status_code}; is it the API of a service?")


class Offline:
    """A pack and the replicas of its scenes, edited under `client`: the name of the connection that will sync them, `<subject>:<client id>`."""

    def __init__(self, file: Path, *, client: str, now_ms: int) -> None:
        self.file = file
        self.client = client
        self.pack = Pack(file.read_bytes())
        self._scenes: dict[str, Scene] = {}
        self._sent: dict[str, int] = {}
        for name in self.pack.names("scene"):
            kept = self._kept(name)
            self._scenes[name] = Scene.load(client, kept.snapshot) if kept is not None else self.pack.scene(name, client, now_ms=now_ms)
            self._sent[name] = kept.sent if kept is not None else self._scenes[name].ack().seen.get(client, 0)

    def anchors(self) -> AnchorBook:
        """Anchors of the place as they were when the pack was made."""
        return self.pack.anchors()

    def tiles(self) -> SpatialMap:
        """The map to localise in (`ar.localisation`). Raises NotFound where the level has none."""
        return self.pack.tiles()

    def asset(self, sha256: str) -> bytes:
        """Raises NotFound."""
        return self.pack.asset(sha256)

    @property
    def scenes(self) -> dict[str, Scene]:
        """Replicas to edit, by name."""
        return dict(self._scenes)

    def save(self) -> None:
        """Write the replicas beside the pack, whole or not at all: a crash later loses what was edited since."""
        for name, scene in self._scenes.items():
            path = self._beside(name)
            new = path.with_name(f".{path.name}.new")
            with new.open("wb") as file:
                file.write(msgspec.msgpack.encode(_Replica(self.client, self._sent[name], scene.snapshot())))
                file.flush()
                os.fsync(file.fileno())
            os.replace(new, path)

    async def sync(self, client: Client, *, now_ms: int) -> dict[str, list[Lost]]:
        """Bring every scene together with the service's, then save. Returns, by scene, what was edited here and found no place there any more. Safe to repeat."""
        lost: dict[str, list[Lost]] = {}
        for name, scene in self._scenes.items():
            try:
                self._sent[name] = await client.sync_scene(self.pack.venue, name, scene, sent=self._sent[name], now_ms=now_ms)
            except EsplanadeError as error:
                if error.code != "scene_too_old":
                    raise
                lost[name] = await client.renew_scene(self.pack.venue, name, scene, now_ms=now_ms)
                self._sent[name] = await client.sync_scene(self.pack.venue, name, scene, sent=self._sent[name], now_ms=now_ms)
        self.save()
        return lost

    def _kept(self, name: str) -> _Replica | None:
        path = self._beside(name)
        if not path.is_file():
            return None
        try:
            kept = msgspec.msgpack.decode(path.read_bytes(), type=_Replica)
        except msgspec.MsgspecError as error:
            raise InvalidInput(f"{path}: is no saved replica ({error}); move it away to begin with the pack's own") from error
        if kept.client != self.client:
            raise InvalidInput(f"{path}: was edited by {kept.client!r}, not by {self.client!r}; open it under that name, or move it away")
        return kept

    def _beside(self, name: str) -> Path:
        return self.file.with_name(f"{self.file.name}.{name}.replica")
