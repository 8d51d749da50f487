"""Traces reach a real receiver of OTLP over HTTP: a span a request, its stages below it, the caller's trace kept."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from indexer.versions import IndexDirectory
from tests.support.calls import search
from tests.support.photos import car_photo
from tests.support.servers import Server, running_server

CALLER = "4bf92f3577b34da6a3ce929d0e0e4736"


class Collector:
    """Takes what is sent to it, as an OpenTelemetry collector would."""

    def __init__(self) -> None:
        self.received = received = list[ExportTraceServiceRequest]()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                received.append(ExportTraceServiceRequest.FromString(_unpacked(body, self.headers["Content-Encoding"])))
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # its name in the base class
                """Nothing to standard error."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    @property
    def spans(self) -> list[Span]:
        resources = [resource for request in self.received for resource in request.resource_spans]
        return [span for resource in resources for scope in resource.scope_spans for span in scope.spans]

    def resource(self) -> dict[str, str]:
        attributes = self.received[0].resource_spans[0].resource.attributes
        return {one.key: one.value.string_value for one in attributes}


def _unpacked(body: bytes, encoding: str | None) -> bytes:
    import gzip

    return gzip.decompress(body) if encoding == "gzip" else body


@pytest.fixture
def collector() -> Iterator[Collector]:
    running = Collector()
    thread = threading.Thread(target=running.server.serve_forever)
    thread.start()
    yield running
    running.server.shutdown()
    thread.join()
    running.server.server_close()


def attributes(span: Span) -> dict[str, object]:
    return {one.key: one.value.string_value or one.value.int_value for one in span.attributes}


def traced(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "carsearch")


def test_a_search_is_a_span_with_its_stages_in_the_trace_of_its_caller(
    tmp_path: Path, fake_index: IndexDirectory, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced(monkeypatch, collector.url)
    with running_server(fake_index.root, tmp_path / "log", LOG_FORMAT="json") as server:
        ask(server)
        server.client.get("/metrics")
    roots = [span for span in collector.spans if span.kind == Span.SPAN_KIND_SERVER]
    assert [span.name for span in roots] == ["POST /search", "POST /search"]  # what is polled is not traced
    found, refused = roots
    assert found.trace_id.hex() == CALLER
    assert found.parent_span_id.hex() == "00f067aa0ba902b7"
    told = attributes(found)
    assert (told["http.route"], told["http.response.status_code"], told["carsearch.code"]) == ("/search", 200, "ok")
    assert told["carsearch.request_id"] == "traced-1"
    stages = [span for span in collector.spans if span.parent_span_id == found.span_id]
    assert [span.name for span in stages] == ["queue", "decode", "forward", "search"]
    moments = [found.start_time_unix_nano, *(span.start_time_unix_nano for span in stages), found.end_time_unix_nano]
    assert moments == sorted(moments)
    assert attributes(refused)["carsearch.code"] == "empty_file"
    assert refused.trace_id.hex() != CALLER
    assert collector.resource().items() >= {"service.name": "carsearch"}.items()
    assert f'"trace_id": "{CALLER}"' in server.log


def ask(server: Server) -> None:
    headers = {"traceparent": f"00-{CALLER}-00f067aa0ba902b7-01", "X-Request-Id": "traced-1"}
    server.client.post("/search", files={"file": car_photo(0, 0)}, headers=headers).raise_for_status()
    assert server.client.post("/search", files={"file": b""}).status_code == 422


def test_a_collector_that_is_not_there_costs_no_answer(
    tmp_path: Path, fake_index: IndexDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced(monkeypatch, "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    with running_server(fake_index.root, tmp_path / "log") as server:
        assert search(server, car_photo(1, 0))["nearest"]["class"] == "car 1"
    assert server.process.returncode == -15
