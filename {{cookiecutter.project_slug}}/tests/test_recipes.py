"""The recipes in docs/recipes.md work as they are printed there."""

import importlib.util
import itertools
import json
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from .conftest import (
    PACKAGE,
    Service,
    app,
    ask_without_reading,
    client,
    events,
    make_settings,
    serving,
    wait_until,
)
from dev.offline_openai import OfflineOpenAI, Scripted

RECIPES = (Path(__file__).parents[1] / "docs" / "recipes.md").read_text(encoding="utf-8")
QUESTION = {"question": "What is a socket?"}

pytestmark = pytest.mark.usefixtures("no_backoff")


def load(name: str, code: str, folder: Path) -> ModuleType:
    """The module as it would be in `api/`."""
    path = folder / f"{name}.py"
    path.write_text(code, encoding="utf-8")
    full_name = f"{PACKAGE}.api.{name}"
    spec = importlib.util.spec_from_file_location(full_name, path)
    assert spec
    assert spec.loader
    sys.modules[full_name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def serving_recipes(settings: Any, folder: Path) -> Iterator[Service]:
    """With all recipes, in the order in which they are printed."""
    blocks = re.findall(
        r"^```python\n(# api/(\w+)\.py\n.+?)^```", RECIPES, re.DOTALL | re.MULTILINE
    )
    application = app.create_app(settings)
    for code, name in blocks:
        application.include_router(load(name, code, folder).router, prefix="/v1")
    with serving(application) as service:
        wait_until(lambda: service.client.get("/readyz").is_success)
        yield service


@pytest.fixture(scope="module")
def service(_offline: OfflineOpenAI, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """With one slot for all of them."""
    settings = make_settings(_offline, max_concurrency=1, max_queue=0)
    with serving_recipes(settings, tmp_path_factory.mktemp("recipes")) as service:
        yield service


def texts(stream: list[tuple[str, Any]], name: str) -> str:
    return "".join(data["delta"] for event, data in stream if event == name)


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


def test_structured_output(service: Service, offline: OfflineOpenAI) -> None:
    offline.script(Scripted(status=500), Scripted(reply='{"city": "Oslo", "celsius": -3}'))
    response = service.client.post("/v1/forecasts", params={"text": "Oslo: -3 °C"})
    assert response.json() == {"city": "Oslo", "celsius": -3}


@pytest.mark.parametrize(
    ("answer", "status", "kind"),
    [
        (Scripted(reply="{", finish_reason="length"), 400, "context-length-exceeded"),
        (Scripted(reply="{", finish_reason="content_filter"), 400, "content-filtered"),
        (Scripted(reply='{"city": "Oslo"}', times=9), 502, "upstream-error"),
    ],
)
def test_structured_output_that_is_none(
    answer: Scripted, status: int, kind: str, service: Service, offline: OfflineOpenAI
) -> None:
    offline.script(answer)
    problem = service.client.post("/v1/forecasts", params={"text": "?"}).json()
    assert (problem["status"], problem["type"]) == (status, f"urn:problem-type:{kind}")


def test_the_log_names_the_field_of_an_output_and_not_its_value(
    service: Service, offline: OfflineOpenAI, caplog: pytest.LogCaptureFixture
) -> None:
    offline.script(Scripted(reply='{"city": "Oslo", "celsius": "secret plan"}', times=9))
    assert service.client.post("/v1/forecasts", params={"text": "?"}).status_code == 502
    assert "celsius (int_parsing)" in caplog.text
    assert "secret plan" not in caplog.text


def test_a_response(service: Service, offline: OfflineOpenAI) -> None:
    offline.script(
        Scripted(path="/v1/responses", status=500), Scripted(path="/v1/responses", reply="An end.")
    )
    assert service.client.post("/v1/responses", params=QUESTION).json() == "An end."
    assert len(offline.received) == 2


def test_a_streamed_response(service: Service, offline: OfflineOpenAI) -> None:
    offline.script(
        Scripted(path="/v1/responses", status=500),
        Scripted(path="/v1/responses", reply="An end of a connection."),
    )
    stream = events(service.client.post("/v1/responses/stream", params=QUESTION))
    assert texts(stream, "response.output_text.delta") == "An end of a connection."
    assert (stream[0][0], stream[-1][0]) == ("response.created", "response.completed")
    assert all(data["type"] == name for name, data in stream)
    assert len(offline.received) == 2


def test_tool_calls(service: Service, offline: OfflineOpenAI) -> None:
    response = service.client.post("/v1/assistant", params={"question": "Sunny?"})
    assert "It is sunny in text." in response.json()
    first, second = (request.body["messages"] for request in offline.received)
    assert [message["role"] for message in second] == ["user", "assistant", "tool"]
    assert second[:1] == first
    assert second[2]["tool_call_id"] == second[1]["tool_calls"][0]["id"]


def test_tool_calls_without_end(service: Service, offline: OfflineOpenAI) -> None:
    assert service.client.post("/v1/assistant", params={"question": "?"}).is_success
    call = json.dumps(
        {"id": "1", "type": "function", "function": {"name": "x", "arguments": '{"city": "Oslo"}'}}
    )
    message = f'{{"role": "assistant", "content": null, "tool_calls": [{call}]}}'
    body = f'{{"choices": [{{"index": 0, "finish_reason": "tool_calls", "message": {message}}}]}}'
    offline.script(Scripted(body=body, times=9))
    response = service.client.post("/v1/assistant", params={"question": "?"})
    assert response.json()["detail"] == "The model calls tools without end."


def test_streamed_rounds_may_begin_after_the_deadline(
    offline: OfflineOpenAI, tmp_path: Path
) -> None:
    """It ends with the first event of the first round."""
    with serving_recipes(make_settings(offline, deadline_seconds=0.6), tmp_path) as service:
        offline.script(Scripted(chunk_delay=0.25))
        asked = service.client.post("/v1/assistant/stream", params={"question": "Sunny?"})
        stream = events(asked)
    assert "It is sunny in text." in texts(stream, "content.delta")
    assert "error" not in [name for name, _ in stream]
    first, second = offline.received[-2:]
    assert second.at - first.at > 0.6


def test_tool_calls_streamed(service: Service, offline: OfflineOpenAI) -> None:
    offline.script(Scripted(status=500))
    stream = events(service.client.post("/v1/assistant/stream", params={"question": "Sunny?"}))
    assert "It is sunny in text." in texts(stream, "content.delta")
    names = [name for name, _ in stream]
    assert names.index("tool_calls.function.arguments.done") < names.index("content.delta")
    _, first, second = (request.body["messages"] for request in offline.received)
    assert [message["role"] for message in second] == ["user", "assistant", "tool"]
    assert second[:1] == first


STREAMS = [("/v1/responses", "/v1/responses/stream"), ("/v1/chat", "/v1/assistant/stream")]


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        ({"error_after": 1}, "upstream-error"),
        ({"error_after": 1, "code": "rate_limit_exceeded"}, "upstream-rate-limited"),
        ({"error_after": 1, "code": "insufficient_quota"}, "upstream-quota-exhausted"),
        ({"cut_after": 1}, "upstream-unreachable"),
    ],
)
def test_a_stream_that_fails_ends_with_a_problem(
    stream: tuple[str, str],
    failure: dict[str, Any],
    kind: str,
    service: Service,
    offline: OfflineOpenAI,
) -> None:
    path, endpoint = stream
    offline.script(Scripted(path=path, message="secret plan", words=9, reply="a b", **failure))
    response = service.client.post(endpoint, params=QUESTION)
    *begun, (name, problem) = events(response)
    assert begun
    assert (name, problem["type"]) == ("error", f"urn:problem-type:{kind}")
    assert "secret plan" not in response.text
    assert len(offline.received) == 1


def test_a_response_that_fails_ends_with_a_problem(
    service: Service, offline: OfflineOpenAI
) -> None:
    """OpenAI says so by an event of its own."""
    created, failed = (
        {"type": f"response.{name}", "sequence_number": 0, "response": response}
        for name, response in (
            ("created", {"id": "1", "status": "in_progress"}),
            ("failed", {"error": {"code": "rate_limit_exceeded", "message": "secret plan"}}),
        )
    )
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in (created, failed))
    offline.script(Scripted(path="/v1/responses", body=body, content_type="text/event-stream"))
    response = service.client.post("/v1/responses/stream", params=QUESTION)
    (first, _), (name, problem) = events(response)
    assert (first, name) == ("response.created", "error")
    assert problem["type"] == "urn:problem-type:upstream-rate-limited"
    assert "secret plan" not in response.text


@pytest.mark.parametrize(("path", "endpoint"), STREAMS)
def test_a_client_disconnect_aborts_the_stream(
    path: str, endpoint: str, service: Service, offline: OfflineOpenAI
) -> None:
    offline.script(Scripted(path=path, reply="first second", hang_after=1))
    with service.client.stream("POST", endpoint, params=QUESTION) as response:
        texts = response.iter_text()  # kept, for its end would close the connection
        next(texts)
        assert offline.received[0].left_at is None
    wait_until(lambda: offline.received[0].left_at, seconds=1)
    assert service.chat().is_success, "its slot is free"


def test_images_in_a_message(service: Service, offline: OfflineOpenAI) -> None:
    (body,) = re.findall(r"```json\n(.+?)```", RECIPES, re.DOTALL)
    assert service.client.post("/v1/chat", json=json.loads(body)).is_success
    assert offline.received[0].body["messages"] == json.loads(body)["messages"]


def test_a_call_in_the_background(
    service: Service, offline: OfflineOpenAI, caplog: pytest.LogCaptureFixture
) -> None:
    offline.script(Scripted(path="/v1/responses", reply="They are happy.", delay=0.2))
    with caplog.at_level(logging.INFO):
        response = service.client.post("/v1/feedback", params={"text": "Great!"})
        assert response.status_code == 202
        assert "Summary" not in caplog.text, "the answer does not wait for it"
        wait_until(lambda: "Summary: They are happy." in caplog.text)


def test_a_failure_in_the_background_is_logged(
    service: Service, offline: OfflineOpenAI, caplog: pytest.LogCaptureFixture
) -> None:
    offline.script(Scripted(path="/v1/responses", status=401))
    assert service.client.post("/v1/feedback", params={"text": "Great!"}).status_code == 202
    wait_until(lambda: "No summary: OpenAI refused this service's key" in caplog.text)


def test_a_recipe_cannot_bypass_the_limit(service: Service, offline: OfflineOpenAI) -> None:
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


def test_azure_with_an_entra_token(offline: OfflineOpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a stand-in for azure-identity, whose tokens expire at once."""
    (code,) = re.findall(r"```python\n# upstream/client\.py\n(.+?)```", RECIPES, re.DOTALL)
    is_async = "azure.identity.aio" in code
    tokens = (f"token-{number}" for number in itertools.count(1))

    async def next_token() -> str:
        return next(tokens)

    azure: Any = ModuleType("azure.identity")
    azure.DefaultAzureCredential = object
    azure.get_bearer_token_provider = lambda *_: next_token if is_async else lambda: next(tokens)
    for name in ("azure", "azure.identity", "azure.identity.aio"):
        monkeypatch.setitem(sys.modules, name, azure)
    names = dict(vars(client))
    exec(code, names)  # noqa: S102 - as pasted into the module
    monkeypatch.setattr(client, "api_key", names["api_key"])

    with serving(app.create_app(make_settings(offline, openai_api_key="unused"))) as service:
        wait_until(lambda: service.client.get("/readyz").is_success)
        assert service.chat().is_success
        assert "event: done" in service.stream().text
    sent = [request.headers["authorization"] for request in offline.received]
    assert sent == ["Bearer token-1", "Bearer token-2", "Bearer token-3"]
