import json
from collections.abc import Callable
from typing import Any

import pytest

from ..conftest import KEY, QUESTION, Service, events
from dev.offline_openai import OfflineOpenAI, Scripted

ENDPOINTS = ["/v1/chat", "/v1/chat/stream"]
JSON = {"content-type": "application/json"}

# Of QUESTION, answered with five words.
USAGE = {
    "input_tokens": 4,
    "output_tokens": 5,
    "total_tokens": 9,
    "cached_tokens": 0,
    "reasoning_tokens": 0,
}

# Values that pydantic would convert to numbers, and some that nothing would.
NO_NUMBERS: list[object] = [True, False, "1", "", []]


def test_chat_answers_with_reply_and_usage(service: Service, offline: OfflineOpenAI) -> None:
    offline.script(Scripted(reply="An end of a connection."))
    response = service.chat()
    assert response.status_code == 200
    assert response.json() == {
        "reply": "An end of a connection.",
        "model": "gpt-test",
        "finish_reason": "stop",
        "usage": USAGE,
    }


def test_chat_sends_what_was_asked(service: Service, offline: OfflineOpenAI) -> None:
    service.chat(temperature=0.5, max_output_tokens=7.0)  # in JSON an integer, too
    (request,) = offline.received
    assert request.body == QUESTION | {
        "model": "gpt-test",
        "temperature": 0.5,
        "max_completion_tokens": 7,
    }
    assert request.headers["authorization"] == f"Bearer {KEY}"


def test_chat_says_why_the_reply_ended(service: Service) -> None:
    assert service.chat(max_output_tokens=2).json()["finish_reason"] == "length"


def test_chat_hands_on_a_refusal(service: Service, offline: OfflineOpenAI) -> None:
    message = '{"role": "assistant", "content": null, "refusal": "I will not."}'
    choice = f'{{"index": 0, "finish_reason": "stop", "message": {message}}}'
    offline.script(Scripted(body=f'{{"model": "gpt-test", "choices": [{choice}]}}'))
    response = service.chat()
    assert response.json() == {
        "reply": "I will not.",
        "model": "gpt-test",
        "finish_reason": "stop",
        "usage": None,
    }


def test_stream_sends_the_text_as_it_arrives_then_done(
    service: Service, offline: OfflineOpenAI
) -> None:
    offline.script(Scripted(reply="An end\n\nof “a” connection.", chunk_delay=0.02))
    response = service.stream()
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    *deltas, last = events(response)
    assert {name for name, _ in deltas} == {"delta"}
    assert "".join(data["text"] for _, data in deltas) == "An end\n\nof “a” connection."
    assert len(deltas) > 1
    assert last == ("done", {"model": "gpt-test", "finish_reason": "stop", "usage": USAGE})


def test_stream_sends_the_first_text_before_the_last_is_there(
    service: Service, offline: OfflineOpenAI
) -> None:
    offline.script(Scripted(reply="first second", hang_after=1))
    with service.client.stream("POST", "/v1/chat/stream", json=QUESTION) as response:
        assert '"first"' in next(response.iter_text())


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize(
    "messages",
    [
        [("user", "")],
        [("system", ""), ("user", "Go on.")],
        [("user", "Say nothing."), ("assistant", ""), ("user", "Go on.")],
        [("assistant", "")],
    ],
)
def test_a_message_may_be_empty(
    endpoint: str, messages: list[tuple[str, str]], service: Service, offline: OfflineOpenAI
) -> None:
    sent = [{"role": role, "content": content} for role, content in messages]
    assert service.client.post(endpoint, json={"messages": sent}).status_code == 200
    assert offline.received[0].body["messages"] == sent


TEXT = {"type": "text", "text": "What is this?"}
IMAGE: dict[str, Any] = {"type": "image_url", "image_url": {"url": "https://example.com/cat.jpg"}}
INLINE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA", "detail": "low"}}


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("role", ["system", "developer", "user", "assistant"])
@pytest.mark.parametrize("content", ["What is this?", [TEXT], [TEXT, IMAGE, INLINE], [IMAGE]])
def test_content_is_sent_as_it_was_asked(
    endpoint: str, role: str, content: object, service: Service, offline: OfflineOpenAI
) -> None:
    """Which roles may have images is for OpenAI to say: other servers differ."""
    sent = [{"role": role, "content": content}]
    assert service.client.post(endpoint, json={"messages": sent}).status_code == 200
    assert offline.received[0].body["messages"] == sent


def test_what_is_null_is_not_sent(service: Service, offline: OfflineOpenAI) -> None:
    image = {"type": "image_url", "image_url": IMAGE["image_url"] | {"detail": None}}
    messages = [{"role": "user", "content": [image]}]
    nulls = {"model": None, "temperature": None, "max_output_tokens": None}
    assert service.chat(messages=messages, **nulls).status_code == 200
    sent = [{"role": "user", "content": [IMAGE]}]
    assert offline.received[0].body == {"messages": sent, "model": "gpt-test"}


def test_an_empty_reply_can_be_sent_back_as_history(
    service: Service, offline: OfflineOpenAI
) -> None:
    offline.script(Scripted(reply=""))
    reply = service.chat().json()["reply"]
    assert reply == ""
    history = [*QUESTION["messages"], {"role": "assistant", "content": reply}]
    assert service.chat(messages=[*history, *QUESTION["messages"]]).status_code == 200


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_an_integer_is_a_temperature(
    endpoint: str, service: Service, offline: OfflineOpenAI
) -> None:
    assert service.client.post(endpoint, json=QUESTION | {"temperature": 1}).status_code == 200
    assert offline.received[0].body["temperature"] == 1


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_request_may_name_an_allowed_model(
    endpoint: str, serve: Callable[..., Service], offline: OfflineOpenAI
) -> None:
    service = serve(allowed_models="gpt-other, gpt-third")
    assert service.client.post(endpoint, json=QUESTION | {"model": "gpt-third"}).is_success
    assert offline.received[0].body["model"] == "gpt-third"


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_another_model_is_refused_before_openai_is_asked(
    endpoint: str, service: Service, offline: OfflineOpenAI
) -> None:
    response = service.client.post(endpoint, json=QUESTION | {"model": "gpt-costly"})
    assert response.status_code == 400
    assert response.json()["type"] == "urn:problem-type:model-not-allowed"
    assert offline.received == []


AT_CONTENT = ["body", "messages", 0, "content", "parts"]
NO_CONTENT: list[object] = [None, 3, {}, TEXT, []]


def content_of(content: object) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}]}


def image_of(**image: object) -> dict[str, Any]:
    return content_of([{"type": "image_url", "image_url": image}])


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({}, ["body", "messages"]),
        ({"messages": []}, ["body", "messages"]),
        ({"messages": [{"role": "robot", "content": "?"}]}, ["body", "messages", 0, "role"]),
        *((content_of(content), AT_CONTENT) for content in NO_CONTENT),
        (content_of(["text"]), [*AT_CONTENT, 0]),
        (content_of([TEXT, {"type": "input_audio"}]), [*AT_CONTENT, 1]),
        (content_of([{"type": "text"}]), [*AT_CONTENT, 0, "text", "text"]),
        (content_of([TEXT | {"size": 3}]), [*AT_CONTENT, 0, "text", "size"]),
        *(
            (image_of(url=url), [*AT_CONTENT, 0, "image_url", "image_url", "url"])
            for url in ("", "http://example.com/cat.jpg", "data:text/plain,cat", "cat.jpg", None)
        ),
        (
            image_of(url="https://example.com/cat.jpg", detail="some"),
            [*AT_CONTENT, 0, "image_url", "image_url", "detail"],
        ),
        (QUESTION | {"temperature": 3}, ["body", "temperature"]),
        (QUESTION | {"max_output_tokens": 0}, ["body", "max_output_tokens"]),
        *((QUESTION | {"temperature": no}, ["body", "temperature"]) for no in NO_NUMBERS),
        *(
            (QUESTION | {"max_output_tokens": no}, ["body", "max_output_tokens"])
            for no in [*NO_NUMBERS, 1.5]
        ),
        (QUESTION | {"model": ""}, ["body", "model"]),
        (None, ["body"]),
        ([QUESTION], ["body"]),
        (QUESTION | {"max_tokens": 5}, ["body", "max_tokens"]),
    ],
)
def test_an_invalid_body_is_refused_with_the_place(
    endpoint: str, body: object, where: list[str | int], service: Service
) -> None:
    response = service.client.post(endpoint, content=json.dumps(body), headers=JSON)
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["type"] == "urn:problem-type:invalid-request"
    *others, last = [error["loc"] for error in response.json()["errors"]]
    assert last == where
    # Content may be a string or a list: there is an error for each.
    assert others in ([], [["body", "messages", 0, "content", "text"]])


@pytest.mark.parametrize(
    "body",
    [
        '{"messages": [{"role": "user", "content": "\\ud800"}]}',
        '{"messages": [{"role": "user", "content": [{"type": "text", "text": "\\ud800"}]}]}',
        '{"messages": [{"role": "user", "content": "?"}], "model": "\\ud800"}',
        '{"messages": [{"role": "user", "content": "?"}], "\\ud800": 1}',
        '{"messages": [{"role": "user", "content": "?"}], "temperature": NaN}',
    ],
)
def test_what_cannot_be_sent_on_is_refused(body: str, service: Service) -> None:
    response = service.client.post("/v1/chat", content=body, headers=JSON)
    assert response.status_code == 422
    assert response.json()["type"] == "urn:problem-type:invalid-request"


@pytest.mark.parametrize("body", [b'{"messages": "\xff"}', b"[" * 100_000])
def test_a_body_that_cannot_be_parsed_is_a_bad_request(body: bytes, service: Service) -> None:
    response = service.client.post("/v1/chat", content=body, headers=JSON)
    assert (response.status_code, response.json()["title"]) == (400, "Bad Request")


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [0] * 100_000},
        {"messages": [{"role": "user", "content": [0] * 100_000}]},
        dict.fromkeys(map(str, range(9999))),
    ],
)
def test_a_body_full_of_errors_is_refused_in_few_words(
    body: dict[str, object], service: Service
) -> None:
    response = service.client.post("/v1/chat", json=body)
    assert response.status_code == 422
    assert len(response.content) < 5000


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("chunked", [False, True])
def test_a_large_body_is_refused(endpoint: str, chunked: bool, service: Service) -> None:
    content = b'{"messages": "%s"}' % (b"x" * 1_100_000)
    headers = {"content-type": "application/json"}
    body = iter([content]) if chunked else content
    response = service.client.post(endpoint, content=body, headers=headers)
    assert response.status_code == 413
    assert response.json()["type"] == "urn:problem-type:body-too-large"


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize(
    "content_type",
    [None, "", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ";"],
)
def test_a_body_that_is_not_sent_as_json_is_refused_with_the_header_that_it_needs(
    endpoint: str, content_type: str | None, service: Service
) -> None:
    headers = {} if content_type is None else {"content-type": content_type}
    response = service.client.post(endpoint, content=json.dumps(QUESTION), headers=headers)
    assert response.status_code == 422
    assert response.json()["type"] == "urn:problem-type:invalid-request"
    assert "Content-Type: application/json" in response.json()["detail"]


@pytest.mark.parametrize(
    "content_type",
    ["application/json; charset=utf-8", "Application/JSON", "application/problem+json"],
)
def test_a_body_may_be_any_kind_of_json(content_type: str, service: Service) -> None:
    headers = {"content-type": content_type}
    response = service.client.post("/v1/chat", content=json.dumps(QUESTION), headers=headers)
    assert response.status_code == 200


@pytest.mark.parametrize("headers", [JSON, {}])
def test_no_body_at_all_is_refused(headers: dict[str, str], service: Service) -> None:
    response = service.client.post("/v1/chat", headers=headers)
    assert response.status_code == 422
    assert "detail" not in response.json()
    assert response.json()["errors"] == [{"loc": ["body"], "msg": "Field required"}]


def test_a_body_that_is_no_json_is_refused_without_its_text(service: Service) -> None:
    headers = {"content-type": "application/json"}
    response = service.client.post("/v1/chat", content='{"secret"', headers=headers)
    assert response.status_code == 422
    assert "secret" not in response.text
