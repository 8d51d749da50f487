"""OpenTelemetry traces: a span a request and one for each stage of a search, when an exporter is configured.

The standard's own variables say so: OTEL_EXPORTER_OTLP_ENDPOINT (or ..._TRACES_ENDPOINT) names a collector that takes
OTLP over HTTP; OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER and the rest mean what they mean everywhere. The packages come
with `carsearch[otel]`; without an endpoint they are not imported.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from model.errors import SettingsInvalid
from service import __version__
from service.http.context import RequestContext

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
HTTP_PROTOCOL = "http/protobuf"
NS_A_MS = 1_000_000


class Tracing:
    """Traces requests."""

    def __init__(self, provider: "TracerProvider") -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("carsearch", __version__)

    @classmethod
    def from_environment(cls) -> "Tracing | None":
        """None when no exporter is configured; raises SettingsInvalid when one is named that cannot be had."""
        if not any(os.environ.get(name) for name in ENDPOINTS) or os.environ.get("OTEL_SDK_DISABLED") == "true":
            return None
        for name in PROTOCOLS:
            if os.environ.get(name, HTTP_PROTOCOL) != HTTP_PROTOCOL:
                raise SettingsInvalid(f"{name} is wrong: traces are sent as {HTTP_PROTOCOL}.")
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ModuleNotFoundError as problem:
            raise SettingsInvalid("Traces are asked for (OTEL_EXPORTER_OTLP_*): install carsearch[otel].") from problem
        about = {"service.version": __version__}
        if "OTEL_SERVICE_NAME" not in os.environ:
            about["service.name"] = "carsearch"
        provider = TracerProvider(resource=Resource.create(about), shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        return cls(provider)

    @contextmanager
    def request(self, context: RequestContext, traceparent: str) -> Iterator[None]:
        """A span around a request; its context gets a `trace_id`, and at the end says what there is to tell."""
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        caller = TraceContextTextMapPropagator().extract({"traceparent": traceparent})
        span = self._tracer.start_span(f"{context.method} {context.route.template}", caller, SpanKind.SERVER)
        context.trace_id = f"{span.get_span_context().trace_id:032x}"
        try:
            yield
        finally:
            self._tell(span, context)
            span.end()

    def _tell(self, span: "Span", context: RequestContext) -> None:
        from opentelemetry.trace import StatusCode, set_span_in_context

        span.set_attributes(
            {
                "http.request.method": context.method,
                "http.route": context.route.template,
                "http.response.status_code": context.status,
                "carsearch.request_id": context.request_id,
                "carsearch.code": context.code,
            }
        )
        if context.status >= 500:
            span.set_status(StatusCode.ERROR)
        at_ns = context.received_ns
        for stage, milliseconds in context.stages_ms.items():  # they follow each other without a gap
            child = self._tracer.start_span(stage, set_span_in_context(span), start_time=at_ns)
            at_ns += int(milliseconds * NS_A_MS)
            child.end(at_ns)

    def close(self) -> None:
        """Sends what is left; a collector that does not answer costs its timeout and nothing else."""
        self._provider.shutdown()
