"""What a new endpoint takes: attempts, deadline and problems come with `call`."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from fastapi import APIRouter, Request
from pydantic import BaseModel

from ..conftest import (
    KEY,
    PACKAGE,
    Service,
    app,
    ask_without_reading,
    dependencies,
    make_settings,
    openai_service,
    serving,
    wait_until,
)
from dev.offline_openai import OfflineOpenAI, Scripted

router = APIRouter(prefix="/v1")
pytestmark = pytest.mark.usefixtures("no_backoff")


class EmbeddingsRequest(BaseModel):
    texts: list[str]


@router.post("/embeddings")
def embeddings(request: EmbeddingsRequest, service: dependencies.Service) -> list[list[float]]:
    result = service.call(
        lambda client: client.embeddings.create(model="text-embedding-3-small", input=request.texts)
    )
    return [item.embedding for item in result.data]


class Forecast(BaseModel):
    city: str
    celsius: int


@router.post("/forecast")
def forecast(service: dependencies.Service) -> Forecast | None:
    completion = service.call(
        lambda client: client.chat.completions.parse(
            model="gpt-test",
            messages=[{"role": "user", "content": "The weather in Oslo?"}],
            response_format=Forecast,
        )
    )
    return completion.choices[0].message.parsed


@router.post("/poem")
def poem(service: dependencies.Service) -> str:
    response = service.call(
        lambda client: client.responses.create(
            model="gpt-test", input="A poem, please.", timeout=None
        )
    )
    return response.output_text


@router.get("/job")
def job(service: dependencies.Service) -> str:
    found = service.call(lambda client: client.fine_tuning.jobs.retrieve("ftjob-1"))
    return found.status


@router.get("/twice")
def twice(request: Request, service: dependencies.Service) -> int:
    """Two calls, between which the service begins to stop."""
    first = service.call(lambda client: client.models.list())
    request.state.shutdown.has_begun = True
    try:
        second = service.call(lambda client: client.models.list())
    finally:
        request.state.shutdown.has_begun = False
    return len(first.data + second.data)


@router.get("/files")
def files(service: dependencies.Service) -> list[str]:
    return [file.id for file in service.call(lambda client: client.files.list())]


@pytest.fixture(scope="module")
def service(_offline: OfflineOpenAI) -> Iterator[Service]:
    application = app.create_app(make_settings(_offline, max_concurrency=1, max_queue=0))
    application.include_router(router)
    with serving(application) as service:
        wait_until(lambda: service.client.get("/readyz").is_success)
        yield service


POEM = """{
    "id": "resp_1", "object": "response", "created_at": 1, "model": "gpt-test", "tools": [],
    "tool_choice": "auto", "parallel_tool_calls": true, "output": [{
        "id": "msg_1", "type": "message", "role": "assistant", "status": "completed",
        "content": [{"type": "output_text", "text": "Roses are red.", "annotations": []}]
    }]
}"""


def test_embeddings(service: Service, offline: OfflineOpenAI) -> None:
    offline.script(Scripted(path="/v1/embeddings", status=500))
    response = service.client.post("/v1/embeddings", json={"texts": ["one", "two"]})
    assert [len(vector) for vector in response.json()] == [8, 8]
    assert len(offline.received) == 2, "a failure is tried again"


@pytest.mark.parametrize(
    ("error", "kind", "attempts"),
    [
        ('{"error": {"code": 429}}', "upstream-rate-limited", 4),
        ('{"error": {"code": 401}}', "upstream-credentials", 1),
        ('{"object": "error", "code": 500}', "upstream-error", 4),
    ],
)
def test_an_error_under_status_200_is_that_error(
    error: str, kind: str, attempts: int, service: Service, offline: OfflineOpenAI
) -> None:
    offline.script(Scripted(path="/v1", body=error, times=4))
    problem = service.client.post("/v1/embeddings", json={"texts": ["one"]}).json()
    assert problem["type"] == f"urn:problem-type:{kind}"
    assert len(offline.received) == attempts


def test_structured_outputs(service: Service, offline: OfflineOpenAI) -> None:
    offline.script(Scripted(status=500), Scripted(reply='{"city": "Oslo", "celsius": -3}'))
    assert service.client.post("/v1/forecast").json() == {"city": "Oslo", "celsius": -3}


@pytest.mark.parametrize(
    ("answer", "status", "kind"),
    [
        (Scripted(reply="{", finish_reason="length"), 400, "context-length-exceeded"),
        (Scripted(reply="{", finish_reason="content_filter"), 400, "content-filtered"),
        (Scripted(reply='{"city": "Oslo"}', times=9), 502, "upstream-error"),
    ],
)
def test_structured_outputs_that_are_none(
    answer: Scripted, status: int, kind: str, service: Service, offline: OfflineOpenAI
) -> None:
    offline.script(answer)
    problem = service.client.post("/v1/forecast").json()
    assert (problem["status"], problem["type"]) == (status, f"urn:problem-type:{kind}")


def test_the_log_names_the_field_of_an_output_and_not_its_value(
    service: Service, offline: OfflineOpenAI, caplog: pytest.LogCaptureFixture
) -> None:
    offline.script(Scripted(reply='{"city": "Oslo", "celsius": "secret plan"}', times=9))
    assert service.client.post("/v1/forecast").status_code == 502
    assert "celsius (int_parsing)" in caplog.text
    assert "secret plan" not in caplog.text


def test_responses(service: Service, offline: OfflineOpenAI) -> None:
    offline.script(
        Scripted(path="/v1/responses", status=500), Scripted(path="/v1/responses", body=POEM)
    )
    assert service.client.post("/v1/poem").json() == "Roses are red."


def test_an_endpoint_cannot_bypass_the_limit(service: Service, offline: OfflineOpenAI) -> None:
    """The limit is inside `call`: an endpoint has nothing to declare."""
    offline.script(Scripted(delay=60), Scripted(path="/v1/embeddings", delay=60))
    with ask_without_reading(service, "/v1/chat"):
        wait_until(lambda: offline.received)
        response = service.client.post("/v1/embeddings", json={"texts": ["one"]})
        assert response.json()["type"] == "urn:problem-type:overloaded"
    service.settle()
    with ask_without_reading(service, "/v1/embeddings", {"texts": ["one"]}):
        wait_until(lambda: len(offline.received) == 2)
        assert service.chat().json()["type"] == "urn:problem-type:overloaded"
    service.settle()


def test_a_resource_may_describe_its_own_failure(service: Service, offline: OfflineOpenAI) -> None:
    """Which is no failure of the call that fetches it."""
    error = '{"code": "invalid_training_file", "message": "It is empty.", "param": null}'
    body = f'{{"id": "ftjob-1", "status": "failed", "error": {error}}}'
    offline.script(Scripted(path="/v1/fine_tuning", body=body))
    assert service.client.get("/v1/job").json() == "failed"
    assert len(offline.received) == 1


def test_a_request_in_flight_may_call_again_while_the_service_stops(service: Service) -> None:
    assert service.client.get("/v1/twice").json() == 2


PAGE = """{
    "object": "list", "has_more": %s, "data": [{
        "id": "%s", "object": "file", "bytes": 1, "created_at": 1, "filename": "a",
        "purpose": "batch", "status": "processed"
    }]
}"""


def test_further_pages_can_be_read_after_the_call(service: Service, offline: OfflineOpenAI) -> None:
    """They have neither slot nor deadline then, and leave no connection behind."""
    assert service.chat().is_success
    before = set(offline.connections)
    for _ in range(2):
        offline.script(Scripted(path="/v1/files", body=PAGE % ("true", "one")))
        offline.script(Scripted(path="/v1/files", body=PAGE % ("false", "two")))
        assert service.client.get("/v1/files").json() == ["one", "two"]
        assert service.chat().is_success
    assert offline.connections <= before


def test_calls_outside_of_a_request_queue_and_retry_too(offline: OfflineOpenAI) -> None:
    """As a script or a thread of one's own makes them, which no client can disconnect from."""
    offline.script(Scripted(path="/v1/models", status=500))
    known = make_settings(offline, max_concurrency=1)
    opened = openai_service.OpenAIService.open(known)

    async def count() -> list[int]:
        async with opened as service:
            calls = [asyncio.to_thread(count_models, service) for _ in range(3)]
            return await asyncio.gather(*calls)

    def count_models(service: openai_service.OpenAIService) -> int:
        return len(service.call(lambda client: client.models.list()).data)

    assert asyncio.run(count()) == [1, 1, 1]
    assert len(offline.received) == 4


SCRIPT = f"""
import asyncio
import sys
from contextlib import aclosing

for name in ("fastapi", "starlette", "uvicorn"):
    sys.modules[name] = None  # importing it fails

from {PACKAGE}.settings import load_settings
from {PACKAGE}.upstream.openai_service import OpenAIService


async def main():
    settings = load_settings()
    model = settings.openai_model
    async with OpenAIService.open(settings) as service:
        models = await asyncio.to_thread(service.call, lambda client: client.models.list())
        events = await asyncio.to_thread(
            service.stream,
            lambda client: client.responses.create(model=model, input="Hello", stream=True),
        )
        async with aclosing(events):
            types = [event.type async for event in events]
    print(len(models.data), types[0], types[-1])


asyncio.run(main())
"""


def test_a_script_needs_no_web_framework(offline: OfflineOpenAI) -> None:
    """It gets the retries too. `call` and `stream` run in threads, as in `def` handlers."""
    offline.script(
        Scripted(path="/v1/models", status=500), Scripted(path="/v1/responses", status=500)
    )
    environment = {
        "OPENAI_API_KEY": KEY,
        "OPENAI_BASE_URL": offline.url,
        "OPENAI_MODEL": "gpt-test",
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout == "1 response.created response.completed\n"
    assert [request.path for request in offline.received] == [
        *["/v1/models"] * 2,
        *["/v1/responses"] * 2,
    ]
