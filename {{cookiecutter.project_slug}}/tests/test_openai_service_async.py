"""What a new endpoint takes: attempts, deadline and problems come with `call`."""

from collections.abc import Iterator

import pytest
from fastapi import APIRouter
from pydantic import BaseModel

from .conftest import Service, app, make_settings, openai_service, serving
from dev.offline_openai import OfflineOpenAI, Scripted

router = APIRouter(prefix="/v1")
pytestmark = pytest.mark.usefixtures("no_backoff")


class EmbeddingsRequest(BaseModel):
    texts: list[str]


@router.post("/embeddings")
async def embeddings(
    request: EmbeddingsRequest, service: openai_service.Service
) -> list[list[float]]:
    result = await service.call(
        lambda client: client.embeddings.create(model="text-embedding-3-small", input=request.texts)
    )
    return [item.embedding for item in result.data]


class Forecast(BaseModel):
    city: str
    celsius: int


@router.post("/forecast")
async def forecast(service: openai_service.Service) -> Forecast | None:
    completion = await service.call(
        lambda client: client.chat.completions.parse(
            model="gpt-test",
            messages=[{"role": "user", "content": "The weather in Oslo?"}],
            response_format=Forecast,
        )
    )
    return completion.choices[0].message.parsed


@router.post("/poem")
async def poem(service: openai_service.Service) -> str:
    response = await service.call(
        lambda client: client.responses.create(
            model="gpt-test", input="A poem, please.", timeout=None
        )
    )
    return response.output_text


@pytest.fixture(scope="module")
def service(_offline: OfflineOpenAI) -> Iterator[Service]:
    application = app.create_app(make_settings(_offline))
    application.include_router(router)
    with serving(application) as service:
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


def test_responses(service: Service, offline: OfflineOpenAI) -> None:
    offline.script(
        Scripted(path="/v1/responses", status=500), Scripted(path="/v1/responses", body=POEM)
    )
    assert service.client.post("/v1/poem").json() == "Roses are red."
