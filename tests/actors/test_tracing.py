"""A traced request leaves spans from the one who asks to the commit, each within the one before; one that is not traced leaves none and travels without a trace."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.context import Context

from actors.messages import GetBalance, TopUps
from actors.requests import Ask, TracedAsk, decode_requests, encode_requests
from esplanade.core import tracing
from esplanade.core.errors import InvalidInput, Unavailable
from esplanade.core.ids import Address
from tests.actors.parkside import keys, u4
from tests.actors.stage import stage

LEDGER = Address("ledger", "demo", "0")


class Recorded(trace.NonRecordingSpan):
    """A span that remembers."""

    def __init__(self, context: trace.SpanContext, name: str, parent: trace.SpanContext, attributes: dict[str, Any]) -> None:
        super().__init__(context)
        self.name, self.parent, self.attributes = name, parent, dict(attributes)
        self.ended = False
        self.failure: str | None = None

    def set_attributes(self, attributes: Any) -> None:
        self.attributes.update(attributes)

    def set_status(self, status: Any, description: str | None = None) -> None:
        self.failure = description

    def end(self, end_time: int | None = None) -> None:
        self.ended = True


class Recorder(trace.TracerProvider):
    """OpenTelemetry's API with a memory in the place of its SDK."""

    def __init__(self, share: float = 1.0) -> None:
        self.spans: list[Recorded] = []
        self.flags = trace.TraceFlags(trace.TraceFlags.SAMPLED if share else trace.TraceFlags.DEFAULT)
        self._ids = itertools.count(1)

    def get_tracer(self, *args: Any, **kwargs: Any) -> trace.Tracer:
        return _Tracer(self)

    def make(self, name: str, context: Context | None, attributes: Any) -> Recorded:
        parent = trace.get_current_span(context).get_span_context()
        number = next(self._ids)
        own = trace.SpanContext(parent.trace_id if parent.is_valid else 1000 + number, number, is_remote=False, trace_flags=self.flags)
        span = Recorded(own, name, parent, dict(attributes or {}))
        self.spans.append(span)
        return span


class _Tracer(trace.NoOpTracer):
    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def start_span(self, name: str, context: Context | None = None, *args: Any, attributes: Any = None, **kwargs: Any) -> trace.Span:
        return self._recorder.make(name, context, attributes)

    def start_as_current_span(self, name: str, context: Context | None = None, *args: Any, attributes: Any = None, **kwargs: Any) -> Any:
        return trace.use_span(self._recorder.make(name, context, attributes), end_on_exit=True)


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    made = Recorder()
    tracing.use(made)
    yield made
    tracing.use(None)


def line(recorder: Recorder) -> list[str]:
    """Names of the spans, each with the name of the one it is within."""
    names = {span.get_span_context().span_id: span.name for span in recorder.spans}
    return [f"{names.get(span.parent.span_id, '')} > {span.name}" for span in recorder.spans]


def top_up(key: int) -> TopUps:
    return TopUps(tick=0, key=keys(key), subject=u4(8), amount=u4(100), currency="EUR")


async def test_spans_lead_from_the_frame_to_the_commit(recorder: Recorder) -> None:
    async with stage() as at:
        with tracing.span("frame top_ups"):
            await at.system.ask(LEDGER, top_up(1))
    assert line(recorder) == [" > frame top_ups", "frame top_ups > ask TopUps", "ask TopUps > turn", "turn > flush", "flush > commit"]
    assert all(span.ended and span.failure is None for span in recorder.spans)
    turn = recorder.spans[2]
    assert turn.attributes == {"shard": "shard-0", "actor": "ledger/demo/0", "command": "TopUps", "mailbox_s": 0.0}
    assert len({span.get_span_context().trace_id for span in recorder.spans}) == 1


async def test_a_read_of_what_is_durable_waits_for_no_flush(recorder: Recorder) -> None:
    async with stage() as at:
        await at.system.ask(LEDGER, GetBalance(subject=8))
    assert [span.name for span in recorder.spans] == ["ask GetBalance", "turn"]


async def test_a_failed_commit_is_told_by_its_span(recorder: Recorder) -> None:
    async with stage() as at:
        at.journals[0].fail_next_flush("before_commit")
        with pytest.raises(Unavailable):
            await at.system.ask(LEDGER, top_up(1))
    failed = {span.name: span.failure for span in recorder.spans}
    assert failed["commit"] == "flush failed before commit, as the test asked"
    assert failed["flush"] is not None
    assert all(span.ended for span in recorder.spans)


async def test_what_is_not_sampled_travels_without_a_trace(recorder: Recorder) -> None:
    recorder.flags = trace.TraceFlags(trace.TraceFlags.DEFAULT)
    async with stage() as at:
        await at.system.ask(LEDGER, top_up(1))
    assert [span.name for span in recorder.spans] == ["ask TopUps"]


def test_a_trace_crosses_processes_and_its_absence_costs_no_byte() -> None:
    plain = Ask(LEDGER, GetBalance(subject=1))
    traced = TracedAsk(LEDGER, GetBalance(subject=1), None, 0, "00-" + "1" * 32 + "-" + "2" * 16 + "-01")
    assert decode_requests(encode_requests([plain, traced])) == [plain, traced]
    assert b"trace" not in encode_requests([plain])


def test_tracing_is_off_unless_asked_for_and_says_what_it_misses(monkeypatch: pytest.MonkeyPatch) -> None:
    for environment in ({}, {"OTEL_TRACES_EXPORTER": "none"}, {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "true"}):
        tracing.start("test", environment)
        assert not tracing.on()
    with pytest.raises(InvalidInput, match="must be one of none, otlp, console"):
        tracing.start("test", {"OTEL_TRACES_EXPORTER": "jaeger"})
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.sdk.trace.export", None)
    with pytest.raises(InvalidInput, match="esplanade\\[trace\\]"):
        tracing.start("test", {"OTEL_TRACES_EXPORTER": "console"})
