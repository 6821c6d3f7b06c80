"""Errors are read by code and type before the status, and also where the status is 200."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import openai
import pytest

from ..conftest import Service, error_bodies, error_mapping, errors, events
from dev.offline_openai import OfflineOpenAI, Scripted

ENDPOINTS = ["/v1/chat", "/v1/chat/stream"]
pytestmark = pytest.mark.usefixtures("no_backoff")

# Status and type of our problem, and whether the call is retried.
Outcome = tuple[tuple[int, str], bool]
SDKError = Callable[..., openai.APIStatusError]

ERROR = (502, "upstream-error")
QUOTA = (503, "upstream-quota-exhausted")
LIMIT = (503, "upstream-rate-limited")
INPUT = (400, "upstream-rejected-input")
KEY = (502, "upstream-credentials")
MODEL = (502, "upstream-model-unavailable")
TIMEOUT = (504, "upstream-timeout")

MONEY: list[dict[str, Any]] = [
    {"code": "billing_not_active", "type": "billing_not_active"},
    {"code": "billing_hard_limit_reached", "type": "invalid_request_error"},
    {"code": "insufficient_quota", "type": None},
    {"code": None, "type": "insufficient_quota"},
    {"code": "rate_limit_exceeded", "type": "insufficient_quota"},
    {"code": "organization_spend_limit_exceeded"},
    {"code": 402},
    {"code": "402"},
    {"code": "Arrearage", "type": "Arrearage"},  # Alibaba
    {"code": None, "type": "billing_error"},  # Anthropic
    {"code": "400", "type": "budget_exceeded"},  # LiteLLM
    {"code": None, "type": "exceeded_current_quota_error"},  # Moonshot
]

# Errors under status 200: what they say, our problem, and whether they are retried.
Hidden = tuple[Any, tuple[int, str], bool]
HIDDEN: list[Hidden] = [
    ({"error": {"message": "busy"}}, ERROR, True),
    ({"error": {"message": "busy", "type": "server_error", "code": None}}, ERROR, True),
    ({"error": "text"}, ERROR, True),
    ({"error": True, "message": "text"}, ERROR, True),
    ({"error": "text", "code": 429}, LIMIT, True),
    ({"error": {"code": 400, "message": "too hot"}}, INPUT, False),
    ({"error": {"code": 401}}, KEY, False),
    ({"error": {"code": 402, "message": "no credits"}}, QUOTA, False),
    ({"error": {"code": 404}}, MODEL, False),
    ({"error": {"code": 408}}, TIMEOUT, True),
    ({"error": {"code": 409}}, ERROR, True),
    ({"error": {"code": 413}}, INPUT, False),
    ({"error": {"code": 429}}, LIMIT, True),
    ({"error": {"code": "429"}}, LIMIT, True),
    ({"error": {"code": 502}}, ERROR, True),
    ({"error": {"code": 7, "message": "a code that is no status"}}, ERROR, True),
    ({"error": {"code": "rate_limit_exceeded"}}, LIMIT, True),
    ({"error": {"code": "invalid_api_key"}}, KEY, False),
    ({"error": {"code": "context_length_exceeded"}}, (400, "context-length-exceeded"), False),
    ({"error": {"type": "insufficient_quota"}}, QUOTA, False),
    ({"error": {"type": "invalid_request_error", "code": None}}, INPUT, False),
    ({"error": {"type": "rate_limit_error"}}, LIMIT, True),
    ({"error": {"type": "overloaded_error"}}, ERROR, True),
    ({"error": {"code": 429}, "choices": []}, LIMIT, True),
    ({"error": {"code": 429}, "choices": [{"delta": {"content": ""}}]}, LIMIT, True),
    ({"choices": [{"error": {"code": 429}, "finish_reason": "error"}]}, LIMIT, True),
    ({"choices": [{"delta": {}, "message": {}, "finish_reason": "error"}]}, ERROR, True),
    ({"object": "error", "message": "long", "type": "BadRequestError", "code": 400}, INPUT, False),
    ({"object": "error", "message": "down", "code": None}, ERROR, True),
    ({"error": {"object": "error", "message": "down", "code": 503}}, ERROR, True),
    ({"error": {"message": "No models available", "type": "invalid_request_error"}}, MODEL, False),
]

# Refusals that are the operator's fault, of whom the client must not be told a 4xx.
OPERATORS_FAULT: list[tuple[int, Any, tuple[int, str]]] = [
    (400, {"error": {"code": "invalid_api_key"}}, KEY),
    (400, {"error": "Incorrect API key provided", "code": "Client specified it"}, KEY),  # xAI
    (
        400,
        [{"error": {"code": 400, "message": "API key not valid.", "status": "INVALID_ARGUMENT"}}],
        KEY,
    ),
    (400, {"error": {"code": 400, "details": [{"reason": "API_KEY_INVALID"}]}}, KEY),
    (400, {"error": {"code": "model_not_found"}}, MODEL),
    (400, {"error": {"message": "Not this one.", "param": "model"}}, MODEL),
    (400, {"error": {"message": "Model Not Exist", "code": "invalid_request_error"}}, MODEL),
    (400, {"error": {"message": "gpt-5x is not a valid model ID", "code": 400}}, MODEL),
    (400, {"object": "error", "message": "Invalid model: x", "type": "invalid_model"}, MODEL),
    (400, {"error": {"code": "unknown_model", "message": "Unknown model: x"}}, MODEL),
    (400, {"error": {"message": "The model `x` has been decommissioned"}}, MODEL),
    (404, {"error": {"code": "DeploymentNotFound"}}, MODEL),
    (400, {"error": {"message": "Your credit balance is too low"}}, QUOTA),
    (402, {"error": {"message": "Insufficient Balance", "type": "unknown_error"}}, QUOTA),
    (
        400,
        {
            "error": {
                "message": "Unsupported parameter: 'max_tokens' is not supported with this model.",
                "param": "max_tokens",
                "code": "unsupported_parameter",
            }
        },
        ERROR,
    ),
    (400, {"error": {"message": "Unrecognized argument supplied: max_completion_tokens"}}, ERROR),
    (400, {"error": {"message": "Unknown parameter: 'stream_options'"}}, ERROR),
    (
        422,
        {
            "detail": [
                {
                    "type": "extra_forbidden",
                    "loc": ["body", "max_completion_tokens"],
                    "msg": "Extra inputs are not permitted",
                }
            ]
        },
        ERROR,
    ),
    (400, "<html>The plain HTTP request was sent to HTTPS port</html>", ERROR),
    (400, "Client sent an HTTP request to an HTTPS server.", ERROR),
    (400, "", ERROR),
    *((status, "<html>", ERROR) for status in (300, 405, 410, 421, 426, 431, 451)),
    (404, "<html>", MODEL),
]

# And these are about what the client sent.
CLIENTS_FAULT: list[tuple[int, Any]] = [
    (400, {"error": {"message": "Bad input: 'How do I get an API key?'"}}),
    (400, {"error": {"message": "max_tokens is too large", "param": "max_tokens"}}),
    (
        400,
        {
            "error": {
                "message": "Unsupported value: 'temperature' does not support 0.5 with this model.",
                "param": "temperature",
                "code": "unsupported_value",
            }
        },
    ),
    (400, {"error": "Invalid content type: this model does not take images."}),
    (400, {"error": "The image's white balance cannot be read."}),
    (413, "<html>"),
    (422, {"detail": [{"loc": ["body", "messages"], "msg": "Too many."}]}),
]


def text(body: Any) -> str:
    return body if isinstance(body, str) else json.dumps(body)


def outcome(error: Exception) -> Outcome:
    ours = error_mapping.translate(error)
    assert isinstance(ours, errors.UpstreamError)
    return (ours.status, ours.type), ours.is_retryable


@pytest.fixture(scope="module")
def sdk_error() -> Iterator[SDKError]:
    """The SDK's exception for a response to a chat."""
    responses: list[httpx2.Response] = []

    def set_status(response: httpx2.Response) -> None:  # as the service's client does
        response.read()
        error_bodies.set_status(response)

    http_client = httpx2.Client(
        transport=httpx2.MockTransport(lambda _: responses.pop()),
        event_hooks={"response": [set_status]},
    )
    with openai.OpenAI(
        api_key="x", base_url="http://openai.test", max_retries=0, http_client=http_client
    ) as client:

        def error(status: int, body: Any, **headers: str) -> openai.APIStatusError:
            headers = {"content-type": "application/json"} | headers
            content = text(body).encode()
            responses.append(httpx2.Response(status, headers=headers, content=content))
            with pytest.raises(openai.APIStatusError) as caught:
                client.post("/chat/completions", cast_to=httpx2.Response)
            return caught.value

        yield error


def error_in(body: Any) -> openai.APIStatusError | None:
    """As in the data of an event, and in a body that is not sent as JSON."""
    request = httpx2.Request("POST", "http://openai.test/chat/completions")
    return error_bodies.error_in(text(body).encode(), httpx2.Response(200, request=request))


def problem_of(response: Any) -> tuple[int, str]:
    body = response.json()
    assert response.status_code == body["status"]
    return body["status"], body["type"].removeprefix("urn:problem-type:")


def event(body: Any) -> Scripted:
    return Scripted(body=f"data: {text(body)}\n\n", content_type="text/event-stream")


@pytest.mark.parametrize("error", MONEY)
def test_a_quota_is_no_rate_limit_whatever_the_status(
    error: dict[str, Any], sdk_error: SDKError
) -> None:
    for status in (400, 429, 500):
        found = sdk_error(status, {"error": error}, **{"x-should-retry": "true"})
        assert outcome(found) == (QUOTA, False)


@pytest.mark.parametrize("hidden", HIDDEN)
def test_an_error_under_status_200_is_that_error(hidden: Hidden, sdk_error: SDKError) -> None:
    body, *expected = hidden
    found = error_in(body)
    assert found
    assert outcome(found) == tuple(expected)
    assert outcome(sdk_error(200, body)) == tuple(expected)


@pytest.mark.parametrize(("status", "body", "problem"), OPERATORS_FAULT)
def test_what_the_operator_got_wrong_is_not_blamed_on_the_client(
    status: int, body: Any, problem: tuple[int, str], sdk_error: SDKError
) -> None:
    assert outcome(sdk_error(status, body)) == (problem, False)


@pytest.mark.parametrize(("status", "body"), CLIENTS_FAULT)
def test_what_the_client_got_wrong_is_told(status: int, body: Any, sdk_error: SDKError) -> None:
    assert outcome(sdk_error(status, body)) == (INPUT, False)


@pytest.mark.parametrize("code", ["invalid_api_key", "model_not_found", "content_filter"])
def test_a_permanent_failure_is_not_retried_under_a_status_that_is(
    code: str, sdk_error: SDKError
) -> None:
    problem, is_retried = outcome(sdk_error(500, {"error": {"code": code}}))
    assert problem != ERROR
    assert not is_retried


# Over HTTP: one that is retried and one that is not.
OVER_HTTP: list[Hidden] = [
    ({"error": {"code": 429}}, LIMIT, True),
    ({"error": {"code": 401}}, KEY, False),
]


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("hidden", OVER_HTTP)
def test_a_body_with_an_error_becomes_its_problem(
    endpoint: str, hidden: Hidden, service: Service, offline: OfflineOpenAI
) -> None:
    body, problem, is_retried = hidden
    offline.script(Scripted(body=text(body), times=4))
    assert problem_of(service.post(endpoint)) == problem
    assert len(offline.received) == (4 if is_retried else 1)


@pytest.mark.parametrize("hidden", OVER_HTTP)
def test_a_first_event_with_an_error_becomes_its_problem(
    hidden: Hidden, service: Service, offline: OfflineOpenAI
) -> None:
    body, problem, is_retried = hidden
    offline.script(*[event(body)] * 4)
    assert problem_of(service.stream()) == problem
    assert len(offline.received) == (4 if is_retried else 1)


@pytest.mark.parametrize("prefix", ["", "event: error\n"])
@pytest.mark.parametrize("hidden", OVER_HTTP)
def test_a_later_event_with_an_error_ends_the_stream(
    prefix: str,
    hidden: Hidden,
    service: Service,
    offline: OfflineOpenAI,
) -> None:
    body, (status, kind), _ = hidden
    first = {"choices": [{"delta": {"content": "Hel"}}]}
    blocks = [f"data: {text(first)}", f"{prefix}data: {text(body)}", "data: [DONE]"]
    offline.script(Scripted(body="\n\n".join(blocks), content_type="text/event-stream"))
    delta, (name, data) = events(service.stream())
    assert delta == ("delta", {"text": "Hel"})
    assert (name, data["status"]) == ("error", status)
    assert data["type"] == f"urn:problem-type:{kind}"
    assert len(offline.received) == 1


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize(
    ("refusal", "problem"),
    [
        (Scripted(status=400, body='{"error": {"param": "model"}}'), MODEL),
        (Scripted(status=422, body='{"detail": [{"loc": ["body", "messages"]}]}'), INPUT),
        (
            Scripted(status=500, code="insufficient_quota", headers={"x-should-retry": "true"}),
            QUOTA,
        ),
        (Scripted(status=500, code="invalid_api_key"), KEY),
    ],
)
def test_a_refusal_becomes_its_problem_and_is_not_retried(
    endpoint: str,
    refusal: Scripted,
    problem: tuple[int, str],
    service: Service,
    offline: OfflineOpenAI,
) -> None:
    offline.script(refusal)
    assert problem_of(service.post(endpoint)) == problem
    assert len(offline.received) == 1


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_an_error_under_status_200_says_when_to_ask_again(
    endpoint: str, service: Service, offline: OfflineOpenAI
) -> None:
    body, headers = text({"error": {"code": 429}}), {"retry-after": "100"}
    offline.script(Scripted(body=body, headers=headers))
    response = service.post(endpoint)
    assert (problem_of(response), response.headers["retry-after"]) == (LIMIT, "100")
    assert len(offline.received) == 1


def test_a_reply_may_speak_of_an_error(service: Service, offline: OfflineOpenAI) -> None:
    said = 'It is {"error": {"code": 429}}, "error".'
    offline.script(Scripted(reply=said, times=2))
    assert service.chat().json()["reply"] == said
    assert "event: done" in service.stream().text
    assert len(offline.received) == 2


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_redirect_is_not_followed(
    endpoint: str, service: Service, offline: OfflineOpenAI
) -> None:
    """It would cost a request each, and may turn the POST into a GET."""
    offline.script(Scripted(status=307, body="", headers={"location": "/v1/chat/completions"}))
    assert problem_of(service.post(endpoint)) == ERROR
    assert len(offline.received) == 1
