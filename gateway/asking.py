"""Who asks, and how a desk asks an entity for them."""

from __future__ import annotations

import hashlib
from typing import Protocol, TypeVar

from actors import messages as m
from actors.system import Key, System
from esplanade.core.ids import Address
from gateway import frames as f
from gateway.auth import Identity
from gateway.hub import Peer as HubPeer
from gateway.read_plans import expect
from gateway.session import Session
from gateway.stale_reads import Read, StaleReads

R = TypeVar("R")


class Caller(Protocol):
    """Who asks, by whichever door. `origin`: where they connect from."""

    @property
    def session(self) -> Session: ...

    @property
    def identity(self) -> Identity: ...

    @property
    def origin(self) -> str: ...


class Peer(HubPeer, Protocol):
    """A connection that asks."""

    @property
    def identity(self) -> Identity: ...

    @property
    def origin(self) -> str: ...

    def send(self, frame: f.ServerFrame) -> None: ...


class Asker:
    """Asks entities, as one caller or another."""

    def __init__(self, system: System, reads: StaleReads) -> None:
        self._system = system
        self._reads = reads

    async def ask(
        self, caller: Caller, address: Address, command: m.Command, kind: type[R], seq: int | None = None, public: bytes | None = None
    ) -> R:
        """The entity's reply, of the kind it must be. A rejection is raised as `Refused`. `public`: the frame's own key, which takes the place of its `seq`."""
        if public is not None:
            own = hashlib.blake2b(public, key=caller.identity.subject.to_bytes(4, "little"), digest_size=16).digest()  # nobody meets another's keys
            return expect(command, await self._system.ask(address, command, public=own), kind)
        key = None if seq is None else Key(client_of(caller), seq)
        return expect(command, await self._system.ask(address, command, key=key), kind)

    async def read(self, address: Address, command: Read, kind: type[R], stale_ms: int) -> R:
        """Likewise of a read, which may be as old as the reader allows."""
        return expect(command, await self._reads.ask(address, command, stale_ms=stale_ms), kind)


def client_of(caller: Caller) -> str:
    """The client part of an idempotency key: the person and their device."""
    return f"{caller.identity.subject}:{caller.session.client}"
