"""What is counted of requests and of calls. tests/server/test_gauges.py has the gauges."""

from collections.abc import Callable, Iterator
from inspect import iscoroutinefunction
from typing import Any

import pytest
from fastapi import APIRouter

from ..conftest import (
    QUESTION,
    Service,
    app,
    ask_without_reading,
    dependencies,
    events,
    keys,
    make_settings,
    openai_service,
    serving,
    wait_until,
)
from .exposition import ATTEMPTS, CHAT, DURATION, TOKENS, Increase
from dev.offline_openai import OfflineOpenAI, Scripted

WEB_KEY = keys.new_key()

pytestmark = pytest.mark.usefixtures("no_backoff")


@pytest.fixture
def locked(serve: Callable[..., Service], offline: OfflineOpenAI) -> Service:
    return serve(service_api_keys=f"web:{keys.digest(WEB_KEY)}")


@pytest.mark.parametrize(
    ("method", "path", "body", "counted"),
    [
        ("POST", "/v1/chat", QUESTION, ("POST", "/v1/chat", "200", "")),
        ("POST", "/v1/chat", {}, ("POST", "/v1/chat", "422", "invalid-request")),
        (
            "POST",
            "/v1/chat",
            QUESTION | {"model": "gpt-other"},
            ("POST", "/v1/chat", "400", "model-not-allowed"),
        ),
        ("POST", "/v1/chat/stream", QUESTION, ("POST", "/v1/chat/stream", "200", "")),
        ("GET", "/readyz", None, ("GET", "/readyz", "200", "")),
        ("GET", "/nowhere/17", None, ("GET", "other", "404", "")),
        ("GET", "/v1/chat", None, ("GET", "other", "405", "")),
        ("PROPFIND", "/v1/chat", None, ("_OTHER", "other", "405", "")),
    ],
)
def test_requests_are_counted_by_template_and_status(
    method: str, path: str, body: object, counted: tuple[str, ...], service: Service
) -> None:
    increase = Increase(service)
    service.client.request(method, path, json=body)
    assert increase.requests() == [counted]


def test_their_duration_is_measured(service: Service, offline: OfflineOpenAI) -> None:
    offline.script(Scripted(delay=0.2))
    increase = Increase(service)
    service.chat()
    durations = {dict(k)["http_route"]: by for k, by in increase.series(f"{DURATION}_sum").items()}
    assert 0.2 <= durations["/v1/chat"] < 2


def test_requests_without_a_key_are_counted_by_their_template_too(locked: Service) -> None:
    increase = Increase(locked)
    assert locked.chat().status_code == 401
    assert locked.client.get("/nowhere").status_code == 401
    assert sorted(increase.requests()) == [
        ("GET", "other", "401", "unauthenticated"),
        ("POST", "/v1/chat", "401", "unauthenticated"),
    ]


def test_requests_over_the_limit_are_counted(
    serve: Callable[..., Service], offline: OfflineOpenAI
) -> None:
    service = serve(rate_limit="1/2days")
    increase = Increase(service)
    assert [service.chat().status_code for _ in "12"] == [200, 429]
    assert ("POST", "/v1/chat", "429", "rate-limited") in increase.requests()


def test_a_stream_whose_client_left_is_counted_as_499(
    service: Service, offline: OfflineOpenAI
) -> None:
    offline.script(Scripted(reply="one two", hang_after=1))
    increase = Increase(service)
    with ask_without_reading(service, "/v1/chat/stream") as client:
        assert client.recv(1)
    assert increase.requests() == [("POST", "/v1/chat/stream", "499", "")]
    assert increase.one(f"{ATTEMPTS}_count") == (CHAT | {"error_type": "cancelled"}, 1)


def test_a_stream_that_fails_after_its_first_event_is_counted_with_its_error(
    service: Service, offline: OfflineOpenAI
) -> None:
    offline.script(Scripted(reply="one two three", error_after=1))
    increase = Increase(service)
    assert events(service.stream())[-1][0] == "error"
    assert increase.requests() == [("POST", "/v1/chat/stream", "200", "upstream-error")]
    assert increase.one(f"{ATTEMPTS}_count") == (CHAT | {"error_type": "upstream-error"}, 1)


def embeddings(prefix: str) -> APIRouter:
    """An owner's endpoint, whose path has a parameter."""
    router = APIRouter(prefix=prefix)

    def send(client: Any) -> Any:
        return client.embeddings.create(model="text-embedding", input="one two three")

    async def embed(item_id: str, service: dependencies.Service) -> str:
        call: Any = service.call(send)
        await call
        return item_id

    def embed_in_thread(item_id: str, service: dependencies.Service) -> str:
        _: Any = service.call(send)
        return item_id

    is_async = iscoroutinefunction(openai_service.OpenAIService.call)
    router.post("/items/{item_id}/embed")(embed if is_async else embed_in_thread)
    return router


@pytest.fixture
def owners(offline: OfflineOpenAI) -> Iterator[Service]:
    """A service with a further endpoint, and a key."""
    settings = make_settings(offline, service_api_keys=f"web:{keys.digest(WEB_KEY)}")
    application = app.create_app(settings)
    application.include_router(embeddings("/inner"), prefix="/outer")
    with serving(application) as service:
        service.client.headers["x-api-key"] = WEB_KEY
        wait_until(lambda: service.client.get("/readyz").is_success)
        yield service


def test_a_route_is_its_whole_template_and_has_no_value(owners: Service) -> None:
    increase = Increase(owners)
    assert owners.client.post("/outer/inner/items/4711/embed").json() == "4711"
    assert increase.requests() == [("POST", "/outer/inner/items/{item_id}/embed", "200", "")]


def tokens(kind: str, client_id: str, model: str = "gpt-test") -> frozenset[tuple[str, str]]:
    labels = {"gen_ai_token_type": kind, "gen_ai_request_model": model, "client_id": client_id}
    return frozenset(labels.items())


def test_tokens_are_counted_by_kind_model_and_key(locked: Service, offline: OfflineOpenAI) -> None:
    offline.script(Scripted(reply="one two"), Scripted(reply="one two three"))
    locked.client.headers["x-api-key"] = WEB_KEY
    increase = Increase(locked)
    assert locked.chat().json()["usage"]["input_tokens"] == 4
    assert locked.stream().is_success
    del locked.client.headers["x-api-key"]
    assert increase.series(TOKENS) == {tokens("input", "web"): 8, tokens("output", "web"): 5}


def test_tokens_of_clients_without_a_key_are_counted(service: Service) -> None:
    increase = Increase(service)
    assert service.chat().is_success
    assert increase.series(TOKENS)[tokens("input", "anonymous")] == 4


def test_tokens_of_other_calls_are_counted(owners: Service) -> None:
    increase = Increase(owners)
    assert owners.client.post("/outer/inner/items/1/embed").is_success
    assert increase.series(TOKENS) == {tokens("input", "web", "other"): 3}
    operation = {"gen_ai_operation_name": "call", "gen_ai_request_model": "other"}
    assert increase.one(f"{ATTEMPTS}_count") == (operation | {"error_type": ""}, 1)


@pytest.mark.parametrize(
    ("endpoint", "step", "error_type"),
    [
        ("/v1/chat", Scripted(), ""),
        ("/v1/chat/stream", Scripted(), ""),
        ("/v1/chat", Scripted(status=400), "upstream-rejected-input"),
        ("/v1/chat/stream", Scripted(status=401), "upstream-credentials"),
        ("/v1/chat", Scripted(status=429, code="insufficient_quota"), "upstream-quota-exhausted"),
        ("/v1/chat", Scripted(body="no JSON", times=4), "upstream-error"),
        ("/v1/chat/stream", Scripted(drop=True, times=4), "upstream-unreachable"),
    ],
)
def test_attempts_are_counted_by_outcome(
    endpoint: str, step: Scripted, error_type: str, service: Service, offline: OfflineOpenAI
) -> None:
    offline.script(step)
    increase = Increase(service)
    service.post(endpoint)
    assert increase.one(f"{ATTEMPTS}_count") == (CHAT | {"error_type": error_type}, step.times)


@pytest.mark.parametrize("endpoint", ["/v1/chat", "/v1/chat/stream"])
def test_an_attempt_whose_client_left_is_counted(
    endpoint: str, service: Service, offline: OfflineOpenAI
) -> None:
    offline.script(Scripted(delay=60))
    increase = Increase(service)
    with ask_without_reading(service, endpoint):
        wait_until(lambda: offline.received)
    assert increase.requests() == [("POST", endpoint, "499", "")]
    assert increase.one(f"{ATTEMPTS}_count") == (CHAT | {"error_type": "cancelled"}, 1)


@pytest.mark.parametrize("endpoint", ["/v1/chat", "/v1/chat/stream"])
def test_an_attempt_that_the_deadline_ends_is_counted(
    endpoint: str, serve: Callable[..., Service], offline: OfflineOpenAI
) -> None:
    service = serve(deadline_seconds=0.3)
    offline.script(Scripted(delay=60))
    increase = Increase(service)
    assert service.post(endpoint).status_code == 504
    labels, attempts = increase.one(f"{ATTEMPTS}_count")
    assert (labels["error_type"], attempts) == ("deadline-exceeded", 1)
    _, seconds = increase.one(f"{ATTEMPTS}_sum")
    assert 0.25 < seconds < 2


def test_retries_and_their_waits_are_counted(service: Service, offline: OfflineOpenAI) -> None:
    offline.script(Scripted(status=503, headers={"retry-after-ms": "60"}))
    offline.script(Scripted(status=429, headers={"retry-after-ms": "70"}))
    increase = Increase(service)
    assert service.chat().is_success
    errors = ("upstream-error", "upstream-rate-limited")
    expected = {frozenset({("error_type", error)}) for error in errors}
    assert increase.series("openai_retry_wait_seconds_count") == dict.fromkeys(expected, 1)
    waits = increase.series("openai_retry_wait_seconds_sum").values()
    assert sorted(waits) == pytest.approx([0.06, 0.07])
