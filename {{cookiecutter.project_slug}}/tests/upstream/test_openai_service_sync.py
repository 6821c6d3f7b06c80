"""What `OpenAIService.call` gives to any endpoint; tests/test_recipes.py has more of it."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import aclosing
from importlib import import_module
from typing import Any

import pytest
from fastapi import APIRouter, Request

from ..conftest import (
    PACKAGE,
    Service,
    app,
    dependencies,
    make_settings,
    openai_service,
    serving,
    settings,
    wait_until,
)
from dev.offline_openai import OfflineOpenAI, Scripted

router = APIRouter(prefix="/v1")
pytestmark = pytest.mark.usefixtures("no_backoff")


@router.get("/job")
def job(service: dependencies.Service) -> str:
    found = service.call(lambda client: client.fine_tuning.jobs.retrieve("ftjob-1"))
    return found.status


@router.get("/twice")
def twice(request: Request, service: dependencies.Service) -> int:
    """Two calls, between which the service begins to stop."""
    first = service.call(lambda client: client.models.list())
    request.state.shutdown.is_refusing = True
    try:
        second = service.call(lambda client: client.models.list())
    finally:
        request.state.shutdown.is_refusing = False
    return len(first.data + second.data)


@router.get("/generated")
def generated(service: dependencies.Service) -> object:
    parts = [b'{"model": "m", ', b'"messages": [{"role": "user", "content": "?"}]}']
    return service.call(
        lambda client: client.post(
            "/chat/completions",
            cast_to=object,
            content=iter(parts),
            options={"headers": {"content-type": "application/json"}},
        )
    )


@router.get("/files")
def files(service: dependencies.Service) -> list[str]:
    return [file.id for file in service.call(lambda client: client.files.list())]


@pytest.fixture(scope="module")
def service(_offline: OfflineOpenAI) -> Iterator[Service]:
    application = app.create_app(make_settings(_offline))
    application.include_router(router)
    with serving(application) as service:
        wait_until(lambda: service.client.get("/readyz").is_success)
        yield service


def test_a_resource_may_describe_its_own_failure(service: Service, offline: OfflineOpenAI) -> None:
    """Which is no failure of the call that fetches it."""
    error = '{"code": "invalid_training_file", "message": "It is empty.", "param": null}'
    body = f'{{"id": "ftjob-1", "status": "failed", "error": {error}}}'
    offline.script(Scripted(path="/v1/fine_tuning", body=body))
    assert service.client.get("/v1/job").json() == "failed"
    assert len(offline.received) == 1


def test_a_request_in_flight_may_call_again_while_the_service_stops(service: Service) -> None:
    assert service.client.get("/v1/twice").json() == 2


def test_a_body_of_unknown_length_arrives_whole(service: Service, offline: OfflineOpenAI) -> None:
    assert service.client.get("/v1/generated").is_success
    assert offline.received[0].body["messages"] == [{"role": "user", "content": "?"}]


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


@pytest.fixture
def _no_web_framework(monkeypatch: pytest.MonkeyPatch) -> None:
    """Imports of the package begin anew, and those of a web framework fail."""
    frameworks = ("fastapi", "starlette", "uvicorn")
    for name in list(sys.modules):
        if name.partition(".")[0] in (PACKAGE, *frameworks):
            monkeypatch.delitem(sys.modules, name)
    for name in frameworks:
        monkeypatch.setitem(sys.modules, name, None)


async def call_and_stream(service: Any, known: settings.Settings) -> tuple[int, list[str]]:
    async with service.OpenAIService.open(known) as opened:
        models = await asyncio.to_thread(opened.call, lambda client: client.models.list())
        events = await asyncio.to_thread(
            opened.stream,
            lambda client: client.responses.create(model="m", input="Hello", stream=True),
        )
        async with aclosing(events):
            return len(models.data), [event.type async for event in events]


@pytest.mark.usefixtures("_no_web_framework")
def test_a_script_needs_no_web_framework(offline: OfflineOpenAI) -> None:
    """It gets the retries too. `call` and `stream` run in threads, as in `def` handlers."""
    offline.script(
        Scripted(path="/v1/models", status=500), Scripted(path="/v1/responses", status=500)
    )
    with pytest.raises(ImportError):
        import_module(f"{PACKAGE}.app")
    service = import_module(f"{PACKAGE}.upstream.openai_service")
    number, types = asyncio.run(call_and_stream(service, make_settings(offline)))
    assert (number, types[0], types[-1]) == (1, "response.created", "response.completed")
    assert [request.path for request in offline.received] == [
        *["/v1/models"] * 2,
        *["/v1/responses"] * 2,
    ]
