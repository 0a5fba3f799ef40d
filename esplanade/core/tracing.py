"""Spans from a frame at the gateway to the commit of what it did, by OpenTelemetry. Off until `start`; then what is not sampled costs next to nothing beyond the gateway.

Owns the connection to OpenTelemetry, which is optional, and the form in which a trace travels between processes (W3C `traceparent`, empty where nothing is traced). Where it
exports, and how much is sampled, is said by OpenTelemetry's own variables: OTEL_TRACES_EXPORTER (otlp, console), OTEL_TRACES_SAMPLER, OTEL_EXPORTER_OTLP_ENDPOINT, ...
"""

from __future__ import annotations

import contextlib
import importlib
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from esplanade.core.errors import InvalidInput

if TYPE_CHECKING:
    from opentelemetry.trace import Span, TracerProvider

EXPORTERS: Final = {
    "otlp": ("opentelemetry.exporter.otlp.proto.http.trace_exporter", "OTLPSpanExporter"),
    "console": ("opentelemetry.sdk.trace.export", "ConsoleSpanExporter"),
}

_provider: TracerProvider | None = None


def on() -> bool:
    """Whether this process makes spans."""
    return _provider is not None


def start(process: str, environment: Mapping[str, str]) -> None:
    """Make spans from now on, where OTEL_TRACES_EXPORTER asks for it. Raises InvalidInput for an exporter that is not known or not installed."""
    name = environment.get("OTEL_TRACES_EXPORTER", "none").strip().lower()
    if name in ("", "none") or environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return
    if name not in EXPORTERS:
        raise InvalidInput(f"OTEL_TRACES_EXPORTER {name!r}: must be one of none, {', '.join(EXPORTERS)}")
    try:
        module, kind = EXPORTERS[name]
        exporter = getattr(importlib.import_module(module), kind)()
        sdk, export, resources = (importlib.import_module(f"opentelemetry.sdk.{part}") for part in ("trace", "trace.export", "resources"))
    except ImportError as error:
        raise InvalidInput(
            f"OTEL_TRACES_EXPORTER {name!r} needs OpenTelemetry's SDK ({error.name} is missing): pip install 'esplanade[trace]'"
        ) from error
    made = sdk.TracerProvider(resource=resources.Resource.create({"service.name": "esplanade", "service.instance.id": process}))
    made.add_span_processor(export.BatchSpanProcessor(exporter))
    use(made)


def use(provider: TracerProvider | None) -> None:
    """Make spans by this provider; None: make none."""
    global _provider
    _provider = provider


def stop() -> None:
    """Hand what is left to the exporter, and make no more."""
    made: Any = _provider
    use(None)
    if made is not None and hasattr(made, "shutdown"):
        made.shutdown()


@contextlib.contextmanager
def span(name: str, **attributes: str | int | float) -> Iterator[None]:
    """The work within is a span, a child of the one around it; an exception is recorded on it."""
    if _provider is None:
        yield
        return
    with _provider.get_tracer("esplanade").start_as_current_span(name, attributes=attributes):
        yield


def outgoing() -> str:
    """The current span for another process to go on from; empty where there is none that is sampled."""
    if _provider is None:
        return ""
    from opentelemetry import trace

    context = trace.get_current_span().get_span_context()
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-01" if context.is_valid and context.trace_flags.sampled else ""


class Part:
    """A span that begins in one place and ends in another. `of`: a traceparent, or the part that this one is within."""

    def __init__(self, name: str, of: str | Part, *, began_ago_s: float = 0.0, **attributes: str | int | float) -> None:
        self._span: Span | None = None
        if _provider is None:
            return
        from opentelemetry import trace

        if isinstance(of, Part):
            if of._span is None:
                return
            context = trace.set_span_in_context(of._span)
        else:
            _, trace_id, span_id, flags = of.split("-")
            parent = trace.SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=trace.TraceFlags(int(flags, 16)))
            context = trace.set_span_in_context(trace.NonRecordingSpan(parent))
        began_ns = time.time_ns() - round(began_ago_s * 1e9)
        self._span = _provider.get_tracer("esplanade").start_span(name, context, attributes=attributes, start_time=began_ns)

    def end(self, failure: str = "", **attributes: str | int | float) -> None:
        """The part is over; `failure` says why it failed."""
        if self._span is None:
            return
        from opentelemetry import trace

        self._span.set_attributes(attributes)
        if failure:
            self._span.set_status(trace.StatusCode.ERROR, failure)
        self._span.end()
