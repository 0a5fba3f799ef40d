"""A reader of publications, as the hub and what stands beside it see one: a WebSocket connection, or an event stream over HTTP."""

from __future__ import annotations

from typing import Protocol

from gateway.session import Action, Session


class Peer(Protocol):
    session: Session

    def perform(self, actions: list[Action]) -> None: ...

    def write(self, encoded: bytes) -> None:
        """Queue an encoded frame; never waits."""
        ...

    def backlog(self) -> int:
        """Bytes queued and not yet sent."""
        ...
