"""Requests that came to a shard together, and where their answers go: one future a frame, none a request."""

from __future__ import annotations

import asyncio
from typing import Final

from actors.requests import Answer, Refused, Request, refusal
from esplanade.core.errors import EsplanadeError, Fault


class Slot:
    """A request of a frame, and where its answer goes. `count`: of requests that it stands for."""

    __slots__ = ("came_s", "count", "frame", "index", "request")

    def __init__(self, request: Request, frame: Frame, index: int, came_s: float) -> None:
        self.came_s = came_s
        self.count = 1
        self.request = request
        self.frame = frame
        self.index = index

    def refuse(self, refused: Refused) -> None:
        self.frame.answer(self.index, refused)


class NewKeySlot(Slot):
    """Of a PublicAsk whose key is not known yet."""

    __slots__ = ()


class Frame:
    """Requests that came together; `done` when the last is answered."""

    __slots__ = ("answers", "done", "open")

    def __init__(self, size: int, done: asyncio.Future[None]) -> None:
        self.answers: list[Answer] = [_UNANSWERED] * size
        self.open = size
        self.done = done

    def answer(self, index: int, answer: Answer) -> None:
        self.answers[index] = answer
        self.open -= 1
        if self.open == 0 and not self.done.done():
            self.done.set_result(None)

    def release(self, indices: list[int], error: EsplanadeError | None) -> None:
        """The answers kept at these indices may leave, or, where `error` says that what they saw is not known to be durable, are replaced by it."""
        if error is not None:
            for index in indices:
                self.answers[index] = refusal(error)
        self.open -= len(indices)
        if self.open == 0 and not self.done.done():
            self.done.set_result(None)


_UNANSWERED: Final = Refused(Fault.code, "not answered")
