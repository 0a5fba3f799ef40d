"""Spans of a traced request within its shard: the turn, with its time in the mailbox, and the flush until its answer may leave. Owns their names and attributes."""

from __future__ import annotations

from actors.flusher import Release
from actors.requests import Answer, Refused, TracedAsk
from esplanade.core.errors import EsplanadeError
from esplanade.core.tracing import Part


def trace_turn(ask: TracedAsk, waited_s: float, shard: str) -> Part:
    """Begin the span of a turn that is about to run, `waited_s` after its request came."""
    return Part("turn", ask.trace, began_ago_s=waited_s, shard=shard, actor=str(ask.address), command=type(ask.command).__name__, mailbox_s=waited_s)


def trace_flush(turn: Part, answer: Answer, release: Release, traced: list[Part] | None) -> Release:
    """End the turn's span; `release` will end that of the flush. `traced`: the batch whose commit belongs to it, None where there is nothing to wait for."""
    flush = Part("flush", turn) if traced is not None else None
    if traced is not None and flush is not None:
        traced.append(flush)
    turn.end(answer.message if isinstance(answer, Refused) else "")

    def released(error: EsplanadeError | None) -> None:
        if flush is not None:
            flush.end("" if error is None else error.message)
        release(error)

    return released
