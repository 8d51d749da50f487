"""OpenTelemetry traces: a span a request and one for each stage of a search, when an exporter is configured.

The standard's own variables say so: OTEL_EXPORTER_OTLP_ENDPOINT (or ..._TRACES_ENDPOINT) names a collector that takes
OTLP over HTTP; OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER and the rest mean what they mean everywhere. The packages come
with `carsearch[otel]`; without an endpoint they are not imported.
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.types import Scope

from model.errors import SettingsInvalid
from service import __version__

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
HTTP_PROTOCOL = "http/protobuf"
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"}
NS_A_MS = 1_000_000


class Tracing:
    """Traces requests, or does nothing when no exporter is configured."""

    def __init__(self, provider: "TracerProvider | None" = None) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("carsearch", __version__) if provider else None

    @classmethod
    def from_environment(cls) -> "Tracing":
        """Raises SettingsInvalid when an exporter is named that cannot be had."""
        if not any(os.environ.get(name) for name in ENDPOINTS) or os.environ.get("OTEL_SDK_DISABLED") == "true":
            return cls()
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

    def request(self, scope: Scope) -> AbstractContextManager[None]:
        """A span around a request; `scope` gets `trace_id`, and at the end says what there is to tell."""
        return nullcontext() if self._tracer is None else self._traced(scope, self._tracer)

    @contextmanager
    def _traced(self, scope: Scope, tracer: "Tracer") -> Iterator[None]:
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        caller = TraceContextTextMapPropagator().extract({"traceparent": Headers(scope=scope).get("traceparent", "")})
        span = tracer.start_span(method_of(scope), caller, SpanKind.SERVER)
        scope["trace_id"] = f"{span.get_span_context().trace_id:032x}"
        try:
            yield
        finally:
            self._tell(span, scope)
            span.end()

    def _tell(self, span: "Span", scope: Scope) -> None:
        from opentelemetry.trace import StatusCode, set_span_in_context

        route, status = route_of(scope), scope.get("answer_status", 0)
        span.update_name(f"{method_of(scope)} {route}")
        span.set_attributes(
            {
                "http.request.method": method_of(scope),
                "http.route": route,
                "http.response.status_code": status,
                "carsearch.request_id": scope["request_id"],
                "carsearch.code": scope.get("problem_code", "ok"),
            }
        )
        if status >= 500:
            span.set_status(StatusCode.ERROR)
        assert self._tracer is not None  # noqa: S101  # there would be no span
        at_ns: int = scope.get("received_ns", 0)
        for stage, milliseconds in scope.get("stages_ms", {}).items():  # they follow each other without a gap
            child = self._tracer.start_span(stage, set_span_in_context(span), start_time=at_ns)
            at_ns += int(milliseconds * NS_A_MS)
            child.end(at_ns)

    def close(self) -> None:
        """Sends what is left; a collector that does not answer costs its timeout and nothing else."""
        if self._provider is not None:
            self._provider.shutdown()


def route_of(scope: Scope) -> str:
    """The template of the route that answered, "none" for addresses that lead nowhere: no new one is ever made up."""
    found: str = getattr(scope.get("route"), "path", None) or scope.get("refused_route", "none")
    return found


def method_of(scope: Scope) -> str:
    """The method when it is one that HTTP knows, else the word that OpenTelemetry has for the others."""
    return scope["method"] if scope["method"] in METHODS else "_OTHER"
