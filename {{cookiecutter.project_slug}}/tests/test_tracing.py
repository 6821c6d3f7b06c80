"""Spans, as an OpenTelemetry SDK sees them.

In a process of its own: a process has one provider, and the other tests have none.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from .conftest import NO_CERTIFICATES, PACKAGE, QUESTION, Service, events, wait_until
from .processes import Process, answers, env, process
from dev.offline_openai import OfflineOpenAI, Scripted, running

ENDPOINTS = ["/v1/chat", "/v1/chat/stream"]
PARENT_ID = "b7ad6b7169203331"

Span = dict[str, Any]

# What `opentelemetry-instrument` would do, with spans that a client can read.
OWNERS = f"""
import json, uvicorn
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)

from {PACKAGE}.app import create_app

app = create_app()

@app.get("/spans")
async def spans():
    return [json.loads(span.to_json()) for span in exporter.get_finished_spans()]

uvicorn.run(app, port=0, loop="asyncio", log_config=None, access_log=False)
"""


@dataclass
class Traced:
    process: Process
    client: httpx2.Client
    offline: OfflineOpenAI
    count: int = 0

    def begin(self) -> tuple[str, dict[str, str]]:
        """The id of a trace that a client begins, and its header."""
        self.count += 1
        trace_id = f"{self.count:032x}"
        return trace_id, {"traceparent": f"00-{trace_id}-{PARENT_ID}-01"}

    def post(self, endpoint: str) -> tuple[httpx2.Response, str]:
        """The response, and the id of its trace."""
        trace_id, headers = self.begin()
        return self.client.post(endpoint, json=QUESTION, headers=headers), trace_id

    def spans(self, trace_id: str) -> tuple[Span, list[Span], list[Span]]:
        """The request's span, those of attempts, and all of the trace, once the request ended."""

        def read() -> list[Span]:
            every = self.client.get("/spans").json()
            found = [span for span in every if span["context"]["trace_id"] == f"0x{trace_id}"]
            return found if any(span["kind"] == "SpanKind.SERVER" for span in found) else []

        wait_until(read)
        found = read()
        (request,) = [span for span in found if span["kind"] == "SpanKind.SERVER"]
        return request, [span for span in found if span["kind"] == "SpanKind.CLIENT"], found


@pytest.fixture(scope="module")
def _traced() -> Iterator[Traced]:
    with running() as offline, process("-c", OWNERS, **env(offline, LOG_FORMAT="json")) as service:
        url = service.url()
        with httpx2.Client(base_url=url, verify=NO_CERTIFICATES, timeout=60) as client:
            wait_until(lambda: answers(f"{url}/readyz"), seconds=60)
            yield Traced(service, client, offline)


@pytest.fixture
def traced(_traced: Traced) -> Traced:
    _traced.offline.reset()
    return _traced


def seconds(span: Span) -> float:
    begun, ended = (
        time.mktime(time.strptime(span[name][:19], "%Y-%m-%dT%H:%M:%S")) + float(span[name][19:-1])
        for name in ("start_time", "end_time")
    )
    return ended - begun


def ancestors(span: Span, spans: list[Span]) -> Iterator[str]:
    parents = {one["context"]["span_id"]: one["parent_id"] for one in spans}
    parent = span["parent_id"]
    while parent in parents:
        yield parent
        parent = parents[parent]


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_request_has_a_span_and_each_attempt_one_below_it(endpoint: str, traced: Traced) -> None:
    traced.offline.script(Scripted(status=500, headers={"retry-after-ms": "1"}), Scripted(words=3))
    response, trace_id = traced.post(endpoint)
    assert response.is_success
    request, attempts, found = traced.spans(trace_id)
    assert request["name"] == f"POST {endpoint}"
    assert request["parent_id"] == f"0x{PARENT_ID}", "it continues the client's trace"
    assert request["attributes"]["http.route"] == endpoint
    assert request["attributes"]["http.response.status_code"] == 200
    common = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-test",
    }
    failed, succeeded = attempts
    for attempt in attempts:
        assert attempt["name"] == "chat gpt-test"
        assert request["context"]["span_id"] in ancestors(attempt, found)
        assert attempt["attributes"].items() >= common.items()
    assert failed["attributes"]["error.type"] == "upstream-error"
    assert failed["status"]["status_code"] == "ERROR"
    assert "error.type" not in succeeded["attributes"]
    assert succeeded["status"]["status_code"] == "UNSET"
    assert succeeded["attributes"]["gen_ai.usage.input_tokens"] == 4
    assert succeeded["attributes"]["gen_ai.usage.output_tokens"] == 3


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_openai_gets_the_trace_of_the_attempt(endpoint: str, traced: Traced) -> None:
    traced.offline.script(Scripted(status=500, headers={"retry-after-ms": "1"}))
    _, trace_id = traced.post(endpoint)
    _, attempts, _ = traced.spans(trace_id)
    sent = [request.headers["traceparent"] for request in traced.offline.received]
    ids = [attempt["context"]["span_id"].removeprefix("0x") for attempt in attempts]
    assert sent == [f"00-{trace_id}-{span_id}-01" for span_id in ids]


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_the_log_has_the_trace(endpoint: str, traced: Traced) -> None:
    """In each line, also of what runs in threads."""
    traced.offline.script(Scripted(status=500, headers={"retry-after-ms": "1"}))
    response, trace_id = traced.post(endpoint)
    request_id = response.headers["x-request-id"]

    def lines() -> list[dict[str, Any]]:
        whole, _, _ = traced.process.log.read_text().rpartition("\n")
        found = [json.loads(line) for line in whole.splitlines()]
        return [line for line in found if line["request_id"] == request_id]

    wait_until(lambda: any(line["message"].startswith("POST ") for line in lines()))
    assert [line.get("trace_id") for line in lines()] == [trace_id, trace_id]


def test_the_span_of_a_stream_lasts_until_its_end(traced: Traced) -> None:
    traced.offline.script(Scripted(words=3, chunk_delay=0.1))
    _, trace_id = traced.post("/v1/chat/stream")
    request, (attempt,), _ = traced.spans(trace_id)
    assert 0.3 < seconds(attempt) <= seconds(request) < 3


def test_a_stream_that_fails_has_its_error(traced: Traced) -> None:
    traced.offline.script(Scripted(words=3, error_after=1))
    response, trace_id = traced.post("/v1/chat/stream")
    assert events(response)[-1][0] == "error"
    _, (attempt,), _ = traced.spans(trace_id)
    assert attempt["attributes"]["error.type"] == "upstream-error"


@pytest.mark.parametrize(
    ("endpoint", "step"),
    [
        ("/v1/chat", Scripted(delay=60)),
        ("/v1/chat/stream", Scripted(delay=60)),
        ("/v1/chat/stream", Scripted(words=3, hang_after=1)),
    ],
)
def test_a_span_ends_when_the_client_leaves(endpoint: str, step: Scripted, traced: Traced) -> None:
    traced.offline.script(step)
    trace_id, headers = traced.begin()
    client = httpx2.Client(base_url=traced.client.base_url, verify=NO_CERTIFICATES, timeout=0.5)
    with client, pytest.raises(httpx2.ReadTimeout):
        client.post(endpoint, json=QUESTION, headers=headers)
    _, (attempt,), _ = traced.spans(trace_id)
    assert attempt["attributes"]["error.type"] == "cancelled"
    assert seconds(attempt) < 5


def test_spans_have_nothing_of_a_conversation(traced: Traced) -> None:
    traced.offline.script(Scripted(reply="a special reply"))
    _, trace_id = traced.post("/v1/chat")
    _, _, found = traced.spans(trace_id)
    assert "special" not in json.dumps(found)
    assert QUESTION["messages"][0]["content"] not in json.dumps(found)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_without_an_sdk_openai_gets_no_trace(
    endpoint: str, service: Service, offline: OfflineOpenAI
) -> None:
    """Not even the client's."""
    headers = {"traceparent": f"00-{1:032x}-{PARENT_ID}-01"}
    assert service.client.post(endpoint, json=QUESTION, headers=headers).is_success
    assert not {"traceparent", "tracestate", "baggage"} & offline.received[0].headers.keys()
