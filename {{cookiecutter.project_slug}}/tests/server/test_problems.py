"""The table of problems: for both endpoints, before the first chunk and after it."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
from fastapi import HTTPException
from fastapi.exceptions import RequestValidationError, ResponseValidationError
from fastapi.responses import StreamingResponse

from ..conftest import KEY, Service, app, events, make_settings, serving, streamed_reply
from dev.offline_openai import OfflineOpenAI, Scripted

ENDPOINTS = ["/v1/chat", "/v1/chat/stream"]

Raising = Callable[[Exception], httpx2.Response]

# Each of these is an answer of OpenAI's, with the status and the type of our problem.
PROBLEMS = [
    (Scripted(status=400), (400, "upstream-rejected-input")),
    (Scripted(status=413), (400, "upstream-rejected-input")),
    (Scripted(status=422), (400, "upstream-rejected-input")),
    (Scripted(status=400, code="context_length_exceeded"), (400, "context-length-exceeded")),
    (Scripted(status=400, code="content_filter"), (400, "content-filtered")),
    (Scripted(status=400, code="content_policy_violation"), (400, "content-filtered")),
    (Scripted(status=401, code="invalid_api_key"), (502, "upstream-credentials")),
    (Scripted(status=403), (502, "upstream-credentials")),
    (Scripted(status=404, code="model_not_found"), (502, "upstream-model-unavailable")),
    (Scripted(status=405), (502, "upstream-error")),
    (Scripted(status=408), (504, "upstream-timeout")),
    (Scripted(status=409), (502, "upstream-error")),
    (Scripted(status=429, code="rate_limit_exceeded"), (503, "upstream-rate-limited")),
    (Scripted(status=429, type="insufficient_quota"), (503, "upstream-quota-exhausted")),
    (Scripted(status=429, code="project_spend_limit_exceeded"), (503, "upstream-quota-exhausted")),
    (Scripted(status=500), (502, "upstream-error")),
    (Scripted(status=503), (502, "upstream-error")),
    (Scripted(drop=True), (502, "upstream-unreachable")),
    (Scripted(delay=60), (504, "upstream-timeout")),
]

BROKEN_REPLIES = [
    "[" * 100_000,
    '{"error":' * 100_000,
    "<html>Sign in to the hotel's network</html>",
    "{",
    "[]",
    "{}",
    '{"model": "gpt-test", "choices": [{}]}',
    '{"model": "gpt-test", "choices": [{"message": {"content": 3}}]}',
    '{"model": "gpt-test", "choices": "none"}',
    '{"model": "gpt-test", "choices": [null]}',
    '{"model": "gpt-test", "choices": [{"message": "Hello."}]}',
]

BROKEN_STREAMS = [
    "data: " + "[" * 100_000 + "\n\n",
    "<html>Sign in to the hotel's network</html>",
    "data: {\n\n",
    "data: []\n\n",
    "data: \udcff\n\n",
    "data: [DONE]\n\n",
    ": only a comment\n\n",
]

# Half a character, escaped in JSON.
HALF = r'{"content": "one \ud83d two"}, "finish_reason": "stop"}], "model": "\ud83d"}'


@pytest.fixture
def hasty(serve: Callable[..., Service], offline: OfflineOpenAI) -> Service:
    """A service that does not try again."""
    return serve(max_attempts=1, attempt_timeout_seconds=0.5)


@pytest.fixture(scope="module")
def raising(_offline: OfflineOpenAI) -> Iterator[Raising]:
    """The response of an endpoint that raises this."""
    raised: list[Exception] = []
    application = app.create_app(make_settings(_offline))

    @application.get("/raise")
    async def endpoint() -> None:
        raise raised.pop()

    def ask(error: Exception) -> httpx2.Response:
        raised.append(error)
        return service.client.get("/raise")

    with serving(application) as service:
        yield ask


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize(("answer", "problem"), PROBLEMS)
def test_a_failure_of_openai_becomes_a_problem(
    endpoint: str,
    answer: Scripted,
    problem: tuple[int, str],
    hasty: Service,
    offline: OfflineOpenAI,
) -> None:
    offline.script(answer)
    status, kind = problem
    response = hasty.post(endpoint)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert (body["status"], body["type"]) == (status, f"urn:problem-type:{kind}")
    assert body["title"]
    assert body["request_id"] == response.headers["x-request-id"]


@pytest.mark.parametrize("body", BROKEN_REPLIES)
def test_a_reply_that_is_none_becomes_a_problem(
    body: str, hasty: Service, offline: OfflineOpenAI
) -> None:
    offline.script(Scripted(body=body))
    response = hasty.chat()
    assert response.status_code == 502
    assert response.json()["type"] == "urn:problem-type:upstream-error"


@pytest.mark.parametrize("body", BROKEN_STREAMS)
def test_a_stream_that_is_none_becomes_a_problem(
    body: str, hasty: Service, offline: OfflineOpenAI
) -> None:
    offline.script(Scripted(body=body, content_type="text/event-stream"))
    response = hasty.stream()
    assert response.status_code == 502
    assert response.json()["type"] == "urn:problem-type:upstream-error"


def test_an_address_where_nobody_listens_becomes_a_problem(offline: OfflineOpenAI) -> None:
    known = make_settings(offline, openai_base_url="http://127.0.0.1:9/v1", max_attempts=1)
    with serving(app.create_app(known)) as service:
        for endpoint in ENDPOINTS:
            assert service.post(endpoint).json()["type"] == "urn:problem-type:upstream-unreachable"


@pytest.mark.parametrize("odd", ["[]", "{}", "1", "null", '"\\u0000"'])
def test_an_error_body_may_have_anything_in_it(
    odd: str, hasty: Service, offline: OfflineOpenAI
) -> None:
    error = f'{{"message": {odd}, "type": {odd}, "param": {odd}, "code": {odd}}}'
    for body in (f'{{"error": {odd}}}', f'{{"error": {error}}}'):
        offline.script(Scripted(status=400, body=body))
        assert hasty.chat().json()["type"] == "urn:problem-type:upstream-rejected-input"
    event = f'data: {{"error": {error}}}\n\n'
    offline.script(Scripted(body=event, content_type="text/event-stream"))
    assert hasty.stream().json()["type"] == "urn:problem-type:upstream-error"


@pytest.mark.parametrize(
    "chunk",
    [
        '{"choices": [{"delta": "Hello."}]}',
        '{"choices": [{"delta": {"content": 3}}]}',
        '{"choices": [{"delta": {"content": [{"type": "text", "text": 3}]}}]}',
        "{",
    ],
)
def test_a_chunk_whose_text_cannot_be_read_ends_the_stream(
    chunk: str, hasty: Service, offline: OfflineOpenAI
) -> None:
    first = '{"choices": [{"delta": {"content": "one"}}]}'
    body = "".join(f"data: {data}\n\n" for data in (first, chunk, "[DONE]"))
    offline.script(Scripted(body=body, content_type="text/event-stream"))
    *deltas, (name, problem) = events(hasty.stream())
    assert [data["text"] for _, data in deltas] == ["one"]
    assert (name, problem["type"]) == ("error", "urn:problem-type:upstream-error")


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        ("/v1/chat", '{"choices": [{"message": ' + HALF),
        ("/v1/chat/stream", 'data: {"choices": [{"delta": ' + HALF + "\n\n"),
    ],
)
def test_half_a_character_does_not_spoil_the_rest(
    endpoint: str, body: str, hasty: Service, offline: OfflineOpenAI
) -> None:
    """JSON can hold it; UTF-8, and so an answer of ours, cannot."""
    offline.script(Scripted(body=body, content_type="text/event-stream"))
    response = hasty.post(endpoint)
    assert response.status_code == 200
    assert "one ? two" in response.text
    assert "error" not in response.text


@pytest.mark.parametrize(
    ("how", "status", "kind"),
    [
        ({"cut_after": 2}, 502, "upstream-unreachable"),
        ({"end_after": 2}, 502, "upstream-error"),
        ({"hang_after": 2}, 504, "upstream-timeout"),
        ({"error_after": 2, "type": "server_error"}, 502, "upstream-error"),
        ({"error_after": 2, "code": "rate_limit_exceeded"}, 503, "upstream-rate-limited"),
        ({"error_after": 2, "code": "insufficient_quota"}, 503, "upstream-quota-exhausted"),
    ],
)
def test_a_failure_inside_a_stream_becomes_its_last_event(
    how: dict[str, Any], status: int, kind: str, hasty: Service, offline: OfflineOpenAI
) -> None:
    offline.script(Scripted(reply="one two three", **how))
    response = hasty.stream()
    assert response.status_code == 200
    *deltas, (name, problem) = events(response)
    assert "".join(data["text"] for _, data in deltas).strip() == "one two"
    assert name == "error"
    assert (problem["status"], problem["type"]) == (status, f"urn:problem-type:{kind}")
    assert problem["request_id"] == response.headers["x-request-id"]


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_clients_get_openais_request_id_but_not_its_words(
    endpoint: str, hasty: Service, offline: OfflineOpenAI
) -> None:
    offline.script(Scripted(status=401, code="invalid_api_key", message=f"Wrong key: {KEY}"))
    response = hasty.post(endpoint)
    assert response.json()["upstream_request_id"].startswith("req_offline_")
    assert KEY not in response.text
    assert "Wrong key" not in response.text


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_clients_get_no_malformed_request_id(
    endpoint: str, hasty: Service, offline: OfflineOpenAI
) -> None:
    offline.script(Scripted(status=401, headers={"x-request-id": KEY}))
    assert KEY not in hasty.post(endpoint).text


def test_openais_words_inside_a_stream_stay_here(hasty: Service, offline: OfflineOpenAI) -> None:
    offline.script(Scripted(error_after=1, message=f"Wrong key: {KEY}"))
    assert "Wrong key" not in hasty.stream().text


def test_the_log_has_what_an_operator_needs(
    hasty: Service, offline: OfflineOpenAI, caplog: pytest.LogCaptureFixture
) -> None:
    offline.script(Scripted(status=400, code="unsupported_value", message="no temperature"))
    with caplog.at_level(logging.INFO):
        problem = hasty.chat().json()
    (record,) = [r for r in caplog.records if "upstream-rejected-input" in r.getMessage()]
    assert "no temperature" in record.getMessage()
    fields = vars(record)
    assert fields["upstream_status"] == 400
    assert fields["upstream_code"] == "unsupported_value"
    assert fields["upstream_request_id"] == problem["upstream_request_id"]


def test_the_log_does_not_quote_what_openai_says_at_length(
    hasty: Service, offline: OfflineOpenAI, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    offline.script(Scripted(status=400, message="long " * 1000))
    offline.script(Scripted(body='{"choices": [{"message": {"content": {"a": "secret plan"}}}]}'))
    hasty.chat()
    hasty.chat()
    assert "long long" in caplog.text
    assert max(len(record.getMessage()) for record in caplog.records) < 1000
    assert "secret plan" not in caplog.text


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/nowhere", 404), ("GET", "/v1/chat", 405)]
)
def test_what_no_endpoint_answers_is_a_problem_too(
    method: str, path: str, status: int, service: Service
) -> None:
    response = service.client.request(method, path)
    assert response.headers["content-type"] == "application/problem+json"
    assert (response.json()["type"], response.json()["status"]) == ("about:blank", status)


RAISED = [
    (HTTPException(400, "Too late."), (400, "Bad Request", "Too late.")),
    (HTTPException(404), (404, "Not Found", "Not Found")),
    (HTTPException(400, {"code": "x"}), (400, "Bad Request", '{"code": "x"}')),
    (HTTPException(400, ["a", 1]), (400, "Bad Request", '["a", 1]')),
    (HTTPException(400, 7), (400, "Bad Request", "7")),
    (HTTPException(400, False), (400, "Bad Request", "false")),
    (HTTPException(400, {1}), (400, "Bad Request", '"{1}"')),
    (HTTPException(400, {"half": "\ud800"}), (400, "Bad Request", '{"half": "\\ud800"}')),
    (HTTPException(499, "Gone."), (499, "Error", "Gone.")),
    (HTTPException(503, "Full.", {"retry-after": "7"}), (503, "Service Unavailable", "Full.")),
]


@pytest.mark.parametrize(("raised", "problem"), RAISED, ids=repr)
def test_an_http_exception_of_an_endpoint_is_a_problem(
    raised: HTTPException, problem: tuple[int, str, str], raising: Raising
) -> None:
    response = raising(raised)
    body = response.json()
    assert response.status_code == body["status"] == problem[0]
    assert response.headers["content-type"] == "application/problem+json"
    assert (body["type"], body["title"], body["detail"]) == ("about:blank", *problem[1:])
    assert response.headers.items() >= (raised.headers or {}).items()


@pytest.mark.parametrize("status", [204, 205, 304])
def test_a_status_without_a_body_has_none(status: int, raising: Raising) -> None:
    response = raising(HTTPException(status, headers={"etag": '"x"'}))
    assert (response.status_code, response.content) == (status, b"")
    assert response.headers["etag"] == '"x"'
    assert "content-type" not in response.headers
    assert raising(HTTPException(404)).status_code == 404, "the connection is out of step"


@pytest.mark.parametrize(
    ("errors", "shown"),
    [
        ([{"loc": ("body", 0, "n"), "msg": "No."}], [{"loc": ["body", 0, "n"], "msg": "No."}]),
        ([], []),
    ],
)
def test_an_endpoint_may_refuse_a_request_as_invalid(
    errors: list[Any], shown: list[dict[str, Any]], raising: Raising
) -> None:
    response = raising(RequestValidationError(errors))
    assert response.status_code == 422
    assert response.json()["type"] == "urn:problem-type:invalid-request"
    assert response.json()["errors"] == shown


def test_an_answer_that_does_not_validate_is_a_bug_of_ours(raising: Raising) -> None:
    response = raising(ResponseValidationError([{"input": "what nobody should see"}]))
    assert response.json()["type"] == "urn:problem-type:internal-error"
    assert "nobody" not in response.text


def test_an_endpoint_may_find_a_body_too_large_itself(offline: OfflineOpenAI) -> None:
    application = app.create_app(make_settings(offline))

    @application.get("/large")
    async def large() -> None:
        raise HTTPException(413, "At most three pictures.", {"x-limit": "3"})

    with serving(application) as service:
        response = service.client.get("/large")
    assert response.json()["detail"] == "At most three pictures."
    assert response.headers["x-limit"] == "3"


def test_no_part_of_a_key_is_left_where_a_text_is_cut(
    serve: Callable[..., Service], offline: OfflineOpenAI, caplog: pytest.LogCaptureFixture
) -> None:
    key = "a-key-of-another-shape-0123456789"
    service = serve(openai_api_key=key)
    caplog.set_level(logging.INFO)
    for length in range(430, 470):
        offline.script(Scripted(status=400, message=f"{length * 'x'} {key}"))
        service.chat()
    assert caplog.text.count("upstream-rejected-input") == 40
    assert key[:6] not in caplog.text


def test_a_bug_inside_a_stream_is_its_last_event(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("what nobody should see")

    monkeypatch.setattr(streamed_reply.StreamedReply, "to_done", broken)
    response = service.stream()
    name, problem = events(response)[-1]
    assert (name, problem["type"]) == ("error", "urn:problem-type:internal-error")
    assert "nobody" not in response.text
    assert "what nobody should see" in caplog.text


def test_a_bug_after_the_answer_began_ends_the_connection(
    offline: OfflineOpenAI, caplog: pytest.LogCaptureFixture
) -> None:
    application = app.create_app(make_settings(offline))

    @application.get("/half")
    async def half() -> StreamingResponse:
        return StreamingResponse(iter(["half", 1]))  # type: ignore[arg-type] # the bug

    with serving(application) as service, pytest.raises(httpx2.RemoteProtocolError):
        service.client.get("/half")
    assert "AttributeError" in caplog.text


def test_a_bug_of_ours_is_a_problem_without_its_text(
    offline: OfflineOpenAI, caplog: pytest.LogCaptureFixture
) -> None:
    application = app.create_app(make_settings(offline))

    @application.get("/bug")
    async def bug() -> None:
        raise ValueError("what nobody should see")

    with serving(application) as service:
        response = service.client.get("/bug", headers={"x-request-id": "the-bug"})
        assert service.client.get("/livez").is_success, "the connection was closed"
    assert response.status_code == 500
    assert response.json()["type"] == "urn:problem-type:internal-error"
    assert "nobody" not in response.text
    assert response.headers["x-request-id"] == response.json()["request_id"] == "the-bug"
    assert "what nobody should see" in caplog.text
