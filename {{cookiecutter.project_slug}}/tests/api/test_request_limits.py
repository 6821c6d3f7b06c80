"""The limits of a single request: MAX_MESSAGES and its like, ALLOWED_MODELS."""

from collections.abc import Callable
from typing import Any

import pytest

from ..conftest import Service
from dev.offline_openai import OfflineOpenAI

ENDPOINTS = ["/v1/chat", "/v1/chat/stream"]


def message(content: object) -> dict[str, Any]:
    return {"role": "user", "content": content}


def text(length: int) -> dict[str, Any]:
    return {"type": "text", "text": "é" * length}


@pytest.fixture
def limited(serve: Callable[..., Service], offline: OfflineOpenAI) -> Service:
    return serve(
        max_messages=2, max_message_characters=5, max_output_tokens=40, allowed_models="gpt-other"
    )


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"messages": [message("a")] * 3}, "At most 2 messages; the request has 3."),
        (
            {"messages": [message("a"), message("é" * 6)]},
            "At most 5 characters in a message; the request has 6.",
        ),
        (  # parts would be a way around it
            {"messages": [message([text(3), text(4)])]},
            "At most 5 characters in a message; the request has 7.",
        ),
        (
            {"messages": [message("a")], "max_output_tokens": 41},
            "At most 40 max_output_tokens; the request has 41.",
        ),
    ],
)
def test_a_request_over_a_limit_is_refused(
    endpoint: str, body: dict[str, Any], detail: str, limited: Service, offline: OfflineOpenAI
) -> None:
    problem = limited.client.post(endpoint, json=body).json()
    assert (problem["status"], problem["type"]) == (422, "urn:problem-type:invalid-request")
    assert problem["detail"] == detail
    assert not offline.received


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_request_at_the_limits_is_answered(
    endpoint: str, limited: Service, offline: OfflineOpenAI
) -> None:
    body = {"messages": [message("é" * 5)] * 2, "max_output_tokens": 40}
    assert limited.client.post(endpoint, json=body).is_success
    assert offline.received[0].body["max_completion_tokens"] == 40


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize(
    ("changed", "parameter"),
    [({}, "max_completion_tokens"), ({"max_tokens_parameter": "max_tokens"}, "max_tokens")],
)
def test_a_request_that_names_no_output_gets_the_most(
    endpoint: str,
    changed: dict[str, str],
    parameter: str,
    serve: Callable[..., Service],
    offline: OfflineOpenAI,
) -> None:
    service = serve(max_output_tokens=40, **changed)
    assert service.client.post(endpoint, json={"messages": [message("a")]}).is_success
    assert offline.received[0].body[parameter] == 40


def test_without_limits_no_output_is_sent(service: Service, offline: OfflineOpenAI) -> None:
    assert service.chat(messages=[message("a" * 10_000)] * 50).is_success
    assert not {"max_completion_tokens", "max_tokens"} & set(offline.received[0].body)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_only_allowed_models_are_called(
    endpoint: str, limited: Service, offline: OfflineOpenAI
) -> None:
    body = {"messages": [message("a")]}
    for model in ("gpt-test", "gpt-other"):
        assert limited.client.post(endpoint, json=body | {"model": model}).is_success
        assert offline.received[-1].body["model"] == model
    for model in ("gpt-test-2", "GPT-OTHER", "gpt-other "):
        problem = limited.client.post(endpoint, json=body | {"model": model}).json()
        assert (problem["status"], problem["type"]) == (400, "urn:problem-type:model-not-allowed")
    assert len(offline.received) == 2
