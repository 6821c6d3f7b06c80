"""The offline OpenAI, as the SDK and bare sockets see it."""

import io
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, redirect_stdout
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import openai
import pytest
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam
from pydantic import BaseModel

from .conftest import wait_until
from dev import offline_openai
from dev.offline_openai import OfflineOpenAI, Received, Scripted, main, running

ROOT = Path(__file__).parent.parent
CHAT = "/v1/chat/completions"
KEY = {"Authorization": "Bearer sk-test"}
MESSAGES: list[ChatCompletionMessageParam] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello there"},
]
ASK: dict[str, Any] = {"model": "gpt-test", "messages": MESSAGES}


@pytest.fixture(scope="module")
def server() -> Iterator[OfflineOpenAI]:
    with running() as offline:
        yield offline


@pytest.fixture
def offline(server: OfflineOpenAI) -> OfflineOpenAI:
    server.reset()
    return server


@pytest.fixture
def http(offline: OfflineOpenAI) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=offline.url.removesuffix("/v1"), headers=KEY) as client:
        yield client


@pytest.fixture(scope="module")
def client(server: OfflineOpenAI) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        api_key="sk-test",
        base_url=server.url,
        max_retries=0,
        timeout=10,  # seconds
        _strict_response_validation=True,  # so that each shape is held against OpenAI's own
    ) as client:
        yield client


@pytest.fixture
def lenient(client: openai.OpenAI) -> openai.OpenAI:
    """For embeddings: a strict client refuses the base64 that the SDK itself has asked for."""
    return client.copy(_extra_kwargs={"_strict_response_validation": False})


@pytest.fixture
def sock(offline: OfflineOpenAI) -> Iterator[socket.socket]:
    address = urlsplit(offline.url)
    with socket.create_connection((str(address.hostname), address.port or 0), timeout=5) as sock:
        yield sock


def request(body: Any, *headers: str, path: str = CHAT, method: str = "POST") -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: x", "Authorization: Bearer k", *headers]
    lines += [f"Content-Length: {len(data)}", "", ""]
    return "\r\n".join(lines).encode() + data


def read_all(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(65536), b""))


def until(condition: Callable[[], object], seconds: float = 5) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.002)


def ask(client: openai.OpenAI, **more: Any) -> Any:
    return client.chat.completions.create(**ASK, **more)


def stream(client: openai.OpenAI, **more: Any) -> list[ChatCompletionChunk]:
    return list(ask(client, stream=True, **more))


def ask_into(chunks: list[ChatCompletionChunk], client: openai.OpenAI, **more: Any) -> None:
    """Keep what a stream says before it goes wrong."""
    for chunk in ask(client, stream=True, **more):
        chunks.append(chunk)  # noqa: PERF402  extend() might keep none of them


def text(chunks: list[ChatCompletionChunk]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def events(answer: str) -> list[str]:
    return [line.removeprefix("data: ") for line in answer.split("\n\n") if line]


# --- OpenAI's shapes ---------------------------------------------------------------------------


def test_models_are_listed(client: openai.OpenAI) -> None:
    assert [model.object for model in client.models.list()] == ["model"]


@pytest.mark.parametrize("name", ["gpt-test", "ft:gpt-4o:org::id", "owner/model"])
def test_every_model_exists(client: openai.OpenAI, name: str) -> None:
    assert client.models.retrieve(name).id == name


def test_a_reply_echoes_the_question_and_says_that_it_comes_from_no_model(
    client: openai.OpenAI,
) -> None:
    reply = ask(client)
    assert reply.model == "gpt-test"
    assert reply.object == "chat.completion"
    assert reply.choices[0].finish_reason == "stop"
    assert reply.choices[0].message.role == "assistant"
    assert (
        reply.choices[0].message.content
        == "This is the offline OpenAI, not a model. You said: Hello there"
    )


def test_usage_counts_words(client: openai.OpenAI) -> None:
    usage = ask(client).usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (4, 12, 16)


def test_content_may_come_in_parts(client: openai.OpenAI) -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    messages: Any = [{"role": "user", "content": parts}]
    reply = client.chat.completions.create(model="m", messages=messages)
    assert str(reply.choices[0].message.content).endswith("You said: one two")


def test_a_conversation_without_a_user_is_answered(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(model="m", messages=MESSAGES[:1])
    assert str(reply.choices[0].message.content).endswith("You said: ")


@pytest.mark.parametrize("name", ["max_completion_tokens", "max_tokens"])
def test_a_token_limit_cuts_the_reply(client: openai.OpenAI, name: str) -> None:
    reply = ask(client, **{name: 2})
    assert reply.choices[0].message.content == "This is"
    assert reply.choices[0].finish_reason == "length"
    assert reply.usage.completion_tokens == 2


def test_a_stream_has_the_role_then_words_then_the_reason(
    client: openai.OpenAI, offline: OfflineOpenAI
) -> None:
    offline.script(Scripted(reply="one two three"))
    deltas = [(c.choices[0].delta, c.choices[0].finish_reason) for c in stream(client)]
    assert [delta.role for delta, _ in deltas] == ["assistant", None, None, None, None]
    assert [delta.content for delta, _ in deltas] == ["", "one", " two", " three", None]
    assert [reason for _, reason in deltas] == [None, None, None, None, "stop"]


def test_a_stream_ends_with_done_and_has_no_usage_unless_asked(http: httpx2.Client) -> None:
    answer = http.post(CHAT, json=ASK | {"stream": True})
    *chunks, done = events(answer.text)
    assert answer.headers["content-type"] == "text/event-stream"
    assert done == "[DONE]"
    assert not any("usage" in json.loads(chunk) for chunk in chunks)


def test_a_stream_ends_with_its_usage_if_asked(http: httpx2.Client) -> None:
    wanted = ASK | {"stream": True, "stream_options": {"include_usage": True}}
    *chunks, last = [json.loads(event) for event in events(http.post(CHAT, json=wanted).text)[:-1]]
    assert all(chunk["usage"] is None and chunk["choices"] for chunk in chunks)
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == 16


@pytest.mark.parametrize(
    "reply", ["", " ", "word", "two  words\n", "\n lead\t and tail \n", "é 漢字 🙂\r\n\r\ndata: x"]
)
def test_the_deltas_of_a_stream_make_up_the_reply(
    client: openai.OpenAI, offline: OfflineOpenAI, reply: str
) -> None:
    offline.script(Scripted(reply=reply, times=2))
    assert text(stream(client)) == reply
    assert ask(client).choices[0].message.content == reply


def test_half_a_surrogate_pair_is_replaced(http: httpx2.Client) -> None:
    body = b'{"model": "m", "messages": [{"role": "user", "content": "\\ud83d"}]}'
    reply = http.post(CHAT, content=body).json()["choices"][0]["message"]["content"]
    assert reply.endswith("You said: ?")


def test_a_stream_is_cut_at_the_token_limit(client: openai.OpenAI) -> None:
    chunks = stream(client, max_completion_tokens=2)
    assert text(chunks) == "This is"
    assert chunks[-1].choices[0].finish_reason == "length"


def test_embeddings_are_the_same_in_both_encodings(lenient: openai.OpenAI) -> None:
    decoded = lenient.embeddings.create(model="e", input=["one", "two words"])
    floats = lenient.embeddings.create(
        model="e", input=["one", "two words"], encoding_format="float"
    )
    assert [len(item.embedding) for item in decoded.data] == [8, 8]
    assert [item.embedding for item in decoded.data] == [item.embedding for item in floats.data]
    assert decoded.data[0].embedding != decoded.data[1].embedding
    assert decoded.usage.total_tokens == 3


def test_embeddings_have_the_length_1_and_as_many_dimensions_as_asked(
    lenient: openai.OpenAI,
) -> None:
    answer = lenient.embeddings.create(model="e", input="one", dimensions=256)
    assert len(answer.data[0].embedding) == 256
    assert sum(x * x for x in answer.data[0].embedding) == pytest.approx(1)


def test_structured_output_parses_a_scripted_reply(
    client: openai.OpenAI, offline: OfflineOpenAI
) -> None:
    class City(BaseModel):
        name: str

    offline.script(Scripted(reply='{"name": "Bern"}'))
    reply = client.chat.completions.parse(**ASK, response_format=City)
    assert reply.choices[0].message.parsed == City(name="Bern")


# --- OpenAI's errors ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("GET", "/v1/nothing", b"", (404, None)),
        ("GET", "/offline/nothing", b"", (404, None)),
        ("GET", CHAT, b"", (405, None)),
        ("DELETE", "/v1/models/one", b"", (405, None)),
        ("POST", CHAT, b"", (400, None)),
        ("POST", CHAT, b"{", (400, None)),
        ("POST", CHAT, b'"text"', (400, None)),
        ("POST", CHAT, b"[]", (400, None)),
        ("POST", CHAT, b'{"model": "m"}', (400, "messages")),
        ("POST", CHAT, b'{"messages": [{"role": "user", "content": "x"}]}', (400, "model")),
        ("POST", CHAT, b'{"messages": ["x"], "model": "m"}', (400, None)),
        ("POST", "/v1/embeddings", b'{"model": "m"}', (400, "input")),
        ("POST", "/v1/embeddings", b'{"model": "m", "input": [[1, 2]]}', (400, None)),
    ],
)
def test_a_wrong_request_gets_an_error_of_openais_shape(
    http: httpx2.Client, method: str, path: str, body: bytes, expected: tuple[int, str | None]
) -> None:
    answer = http.request(method, path, content=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == expected
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"].endswith((".", ")"))
    assert error["type"] == "invalid_request_error"


def test_a_request_without_a_key_is_unauthenticated(offline: OfflineOpenAI) -> None:
    assert httpx2.get(offline.url + "/models").status_code == 401


def test_every_answer_has_an_id_of_its_own(client: openai.OpenAI, http: httpx2.Client) -> None:
    reply = client.chat.completions.with_raw_response.create(**ASK)
    ids = [answer.headers["x-request-id"] for answer in (reply, http.get("/nothing"))]
    assert all(request_id.startswith("req_offline_") for request_id in ids)
    assert len(set(ids)) == 2


# --- Misbehaviour ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, openai.BadRequestError),
        (401, openai.AuthenticationError),
        (403, openai.PermissionDeniedError),
        (404, openai.NotFoundError),
        (409, openai.ConflictError),
        (422, openai.UnprocessableEntityError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
        (529, openai.InternalServerError),  # a status that the standard library has no name for
    ],
)
def test_a_scripted_status_is_an_error_of_its_class(
    client: openai.OpenAI, offline: OfflineOpenAI, status: int, error: type[openai.APIStatusError]
) -> None:
    offline.script(Scripted(status=status, code="c", headers={"Retry-After": "7"}))
    with pytest.raises(error) as caught:
        ask(client)
    kind = "invalid_request_error" if status < 500 else "server_error"
    assert (caught.value.status_code, caught.value.code, caught.value.type) == (status, "c", kind)
    assert caught.value.response.headers["retry-after"] == "7"
    assert str(caught.value.request_id).startswith("req_offline_")


def test_a_scripted_error_may_say_its_type_and_message(
    client: openai.OpenAI, offline: OfflineOpenAI
) -> None:
    offline.script(Scripted(status=429, type="insufficient_quota", message="No money."))
    with pytest.raises(openai.RateLimitError, match=r"No money\.") as caught:
        ask(client)
    assert caught.value.type == "insufficient_quota"


def test_a_status_below_400_is_sent_with_the_usual_answer(
    http: httpx2.Client, offline: OfflineOpenAI
) -> None:
    offline.script(Scripted(status=202))
    answer = http.post(CHAT, json=ASK)
    assert (answer.status_code, answer.json()["object"]) == (202, "chat.completion")


def test_a_scripted_header_replaces_ours(http: httpx2.Client, offline: OfflineOpenAI) -> None:
    offline.script(Scripted(headers={"X-Request-ID": "mine"}))
    assert http.post(CHAT, json=ASK).headers.get_list("x-request-id") == ["mine"]


def test_a_delay_passes_before_anything_is_sent(
    client: openai.OpenAI, offline: OfflineOpenAI
) -> None:
    offline.script(Scripted(delay=0.05))
    begin = time.monotonic()
    ask(client)
    assert time.monotonic() - begin >= 0.05


def test_a_delay_beyond_the_timeout_times_out(
    client: openai.OpenAI, offline: OfflineOpenAI
) -> None:
    offline.script(Scripted(delay=60))
    with pytest.raises(openai.APITimeoutError):
        ask(client, timeout=0.05)
    wait_until(lambda: offline.received)  # a late one would be answered in the next test


def test_a_dropped_connection_is_a_connection_error(
    client: openai.OpenAI, offline: OfflineOpenAI
) -> None:
    offline.script(Scripted(drop=True))
    with pytest.raises(openai.APIConnectionError) as caught:
        ask(client)
    assert type(caught.value) is openai.APIConnectionError
    assert (offline.received[0].finished, offline.received[0].left_at) == (False, None)


def test_a_scripted_body_is_sent_as_it_stands(http: httpx2.Client, offline: OfflineOpenAI) -> None:
    offline.script(Scripted(path="/", body="<p>Hi</p>", content_type="text/html"))
    answer = http.get("/anything")
    assert (answer.status_code, answer.text) == (200, "<p>Hi</p>")
    assert answer.headers["content-type"] == "text/html"


def test_bad_json_is_an_error_of_the_sdk(client: openai.OpenAI, offline: OfflineOpenAI) -> None:
    offline.script(Scripted(body='{"choices": ['))
    with pytest.raises((openai.OpenAIError, ValueError)):
        ask(client)


def test_a_finish_reason_may_be_scripted(client: openai.OpenAI, offline: OfflineOpenAI) -> None:
    offline.script(Scripted(finish_reason="content_filter", times=2))
    assert ask(client).choices[0].finish_reason == "content_filter"
    assert stream(client)[-1].choices[0].finish_reason == "content_filter"


def test_a_reply_may_have_a_length_in_words(client: openai.OpenAI, offline: OfflineOpenAI) -> None:
    offline.script(Scripted(reply="a b", words=5))
    assert ask(client).choices[0].message.content == "a b a b a"


def test_chunk_delay_passes_between_the_events_of_a_stream(
    client: openai.OpenAI, offline: OfflineOpenAI
) -> None:
    offline.script(Scripted(reply="a b", chunk_delay=0.02))
    begin = time.monotonic()
    assert text(stream(client)) == "a b"
    assert time.monotonic() - begin >= 0.06


def test_chunk_delay_makes_another_answer_trickle(
    client: openai.OpenAI, offline: OfflineOpenAI
) -> None:
    offline.script(Scripted(path="/v1/models", chunk_delay=0.0005))
    begin = time.monotonic()
    assert client.models.retrieve("m").id == "m"
    assert time.monotonic() - begin >= 0.03  # for more than 60 bytes


def test_a_cut_answer_is_a_connection_error(client: openai.OpenAI, offline: OfflineOpenAI) -> None:
    offline.script(Scripted(cut_after=10))
    with pytest.raises(openai.APIConnectionError):
        ask(client)
    assert (offline.received[0].finished, offline.received[0].left_at) == (False, None)


@pytest.mark.parametrize(("after", "said"), [(0, ""), (1, "a"), (2, "a b"), (9, "a b c")])
def test_a_cut_stream_is_a_connection_error_after_its_chunks(
    client: openai.OpenAI, offline: OfflineOpenAI, after: int, said: str
) -> None:
    offline.script(Scripted(reply="a b c", cut_after=after))
    chunks: list[ChatCompletionChunk] = []
    with pytest.raises(openai.APIConnectionError):
        ask_into(chunks, client)
    assert text(chunks) == said
    assert (offline.received[0].finished, offline.received[0].left_at) == (False, None)


@pytest.mark.parametrize(("after", "count"), [(0, 0), (2, 3)])
def test_an_ended_stream_has_neither_reason_nor_done(
    http: httpx2.Client, offline: OfflineOpenAI, after: int, count: int
) -> None:
    offline.script(Scripted(reply="a b c", end_after=after))
    answer = events(http.post(CHAT, json=ASK | {"stream": True}).text)
    assert len(answer) == count
    assert "[DONE]" not in answer
    assert all(json.loads(event)["choices"][0]["finish_reason"] is None for event in answer)
    assert offline.received[0].finished


@pytest.mark.parametrize(("after", "said"), [(0, ""), (2, "a b")])
def test_an_error_inside_a_stream_is_an_api_error(
    client: openai.OpenAI, offline: OfflineOpenAI, after: int, said: str
) -> None:
    offline.script(Scripted(reply="a b c", error_after=after, message="Broken.", code="c"))
    chunks: list[ChatCompletionChunk] = []
    with pytest.raises(openai.APIError, match=r"Broken\.") as caught:
        ask_into(chunks, client)
    assert (type(caught.value), caught.value.code) == (openai.APIError, "c")
    assert caught.value.type == "server_error"
    assert text(chunks) == said
    assert bool(chunks) == bool(after)


def test_a_hanging_stream_times_out_after_its_chunks(
    client: openai.OpenAI, offline: OfflineOpenAI
) -> None:
    offline.script(Scripted(reply="a b c", hang_after=2))
    chunks: list[ChatCompletionChunk] = []
    with pytest.raises(openai.APITimeoutError):
        ask_into(chunks, client, timeout=0.5)
    assert text(chunks) == "a b"
    until(lambda: offline.received[0].left_at)


def test_scripts_are_used_in_order_each_as_often_as_it_says(
    client: openai.OpenAI, offline: OfflineOpenAI
) -> None:
    offline.script(Scripted(reply="a", times=2), Scripted(reply="b"))
    replies = [ask(client).choices[0].message.content for _ in range(4)]
    assert replies[:3] == ["a", "a", "b"]
    assert str(replies[3]).startswith("This is the offline OpenAI")


def test_a_script_leaves_other_paths_alone(client: openai.OpenAI, offline: OfflineOpenAI) -> None:
    offline.script(Scripted(path="/v1/models", status=500), Scripted(reply="a"))
    assert ask(client).choices[0].message.content == "a"
    with pytest.raises(openai.InternalServerError):
        client.models.retrieve("m")


# --- The record --------------------------------------------------------------------------------


def test_a_request_is_on_record(client: openai.OpenAI, offline: OfflineOpenAI) -> None:
    begin = time.monotonic()
    client.models.list(extra_query={"a": "b"})
    ask(client)
    models, chat = offline.received
    assert (models.method, models.path, models.body) == ("GET", "/v1/models?a=b", None)
    assert (chat.method, chat.path, chat.body["messages"]) == ("POST", CHAT, MESSAGES)
    assert chat.headers["authorization"] == "Bearer sk-test"
    assert begin <= models.at <= chat.at <= time.monotonic()
    assert models.finished
    assert chat.finished
    assert (models.left_at, chat.left_at) == (None, None)


def test_only_the_latest_requests_are_kept(
    http: httpx2.Client, offline: OfflineOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offline_openai, "KEPT", 2)
    for name in "abc":
        http.get(f"/v1/models/{name}")
    assert [one.path for one in offline.received] == ["/v1/models/b", "/v1/models/c"]


def arrived(offline: OfflineOpenAI) -> Received:
    until(lambda: offline.received)
    return offline.received[0]


def test_a_client_who_leaves_during_the_delay_is_seen(
    sock: socket.socket, offline: OfflineOpenAI
) -> None:
    offline.script(Scripted(delay=60))
    sock.sendall(request(ASK))
    received = arrived(offline)
    assert received.left_at is None
    sock.close()
    until(lambda: received.left_at)
    assert not received.finished


def test_a_client_who_leaves_between_chunks_is_seen(
    sock: socket.socket, offline: OfflineOpenAI
) -> None:
    offline.script(Scripted(chunk_delay=60))
    sock.sendall(request(ASK | {"stream": True}))
    assert b'"role":"assistant"' in sock.recv(65536)
    sock.close()
    until(lambda: arrived(offline).left_at)
    assert not arrived(offline).finished


def test_a_client_who_resets_the_connection_is_seen(
    sock: socket.socket, offline: OfflineOpenAI
) -> None:
    offline.script(Scripted(words=1_000_000))
    sock.sendall(request(ASK | {"stream": True}))
    sock.recv(1)
    sock.close()  # with data unread: the next write of the server fails
    until(lambda: arrived(offline).left_at)


def test_a_client_who_does_not_read_is_waited_for_and_seen_to_leave(
    sock: socket.socket, offline: OfflineOpenAI
) -> None:
    offline.script(Scripted(body="x" * 20_000_000))  # more than the kernel's buffers hold
    sock.sendall(request(ASK))
    sock.recv(1)
    assert arrived(offline).left_at is None
    sock.close()
    until(lambda: arrived(offline).left_at)
    assert not arrived(offline).finished


def test_a_slow_reader_gets_everything(sock: socket.socket, offline: OfflineOpenAI) -> None:
    offline.script(Scripted(body="x" * 20_000_000))
    sock.sendall(request(ASK, "Connection: close"))
    arrived(offline)
    assert read_all(sock).count(b"x" * 1000) == 20_000
    assert arrived(offline).finished


# --- HTTP itself -------------------------------------------------------------------------------


def test_requests_sent_ahead_are_answered_in_order(
    sock: socket.socket, offline: OfflineOpenAI
) -> None:
    sock.sendall(
        request(b"", path="/v1/models/a", method="GET")
        + request(b"", "Connection: close", path="/v1/models/b", method="GET")
    )
    answer = read_all(sock)
    assert answer.index(b'"id":"a"') < answer.index(b'"id":"b"')


def test_a_request_may_come_in_pieces(sock: socket.socket, offline: OfflineOpenAI) -> None:
    data = request(ASK, "Connection: close")
    for piece in (data[:20], data[20:-10], data[-10:]):
        time.sleep(0.005)
        sock.sendall(piece)
    assert b"You said: Hello there" in read_all(sock)


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        request(b"", "Transfer-Encoding: chunked"),
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: many\r\n\r\n",
    ],
)
def test_what_cannot_be_read_is_refused(sock: socket.socket, data: bytes) -> None:
    sock.sendall(data)
    answer = read_all(sock)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"x-request-id: req_offline_" in answer


def test_leaving_the_context_closes_open_connections() -> None:
    with running() as offline:
        address = urlsplit(offline.url)
        offline.script(Scripted(delay=60))
        sock = socket.create_connection((str(address.hostname), address.port or 0), timeout=5)
        sock.sendall(request(ASK))
        until(lambda: offline.received)
    with closing(sock):
        assert sock.recv(1) == b""
    assert offline.received[0].left_at is None
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((str(address.hostname), address.port or 0), timeout=5)


def test_a_default_answers_what_nothing_is_scripted_for() -> None:
    default = Scripted(words=3, chunk_delay=30)  # seconds; what is no stream does not trickle
    with (
        running(default) as offline,
        httpx2.Client(base_url=offline.url, headers=KEY) as http,
    ):
        reply = http.post("/chat/completions", json=ASK).json()
        assert reply["choices"][0]["message"]["content"] == "This is the"
        assert http.get("/models").status_code == 200


# --- Control over HTTP -------------------------------------------------------------------------


def test_a_script_may_come_over_http(
    http: httpx2.Client, client: openai.OpenAI, offline: OfflineOpenAI
) -> None:
    answer = http.post("/offline/script", json=[{"status": 503, "delay": 0}, {"reply": "a"}])
    assert answer.status_code == 200
    with pytest.raises(openai.InternalServerError):
        ask(client)
    assert ask(client).choices[0].message.content == "a"


@pytest.mark.parametrize("steps", [[{"reply": "a"}, {"status": "500"}], {"reply": "a"}, [1]])
def test_a_wrong_script_is_refused_whole(http: httpx2.Client, steps: Any) -> None:
    answer = http.post("/offline/script", json=steps)
    assert answer.status_code == 400
    assert "script" in answer.json()["error"]["message"]
    assert "You said" in http.post(CHAT, json=ASK).text


def test_an_unknown_field_of_a_script_is_named(http: httpx2.Client) -> None:
    error = http.post("/offline/script", json=[{"bogus": 1}]).json()["error"]
    assert "bogus" in error["message"]


def test_the_record_may_be_read_over_http(http: httpx2.Client) -> None:
    http.post(CHAT, json=ASK)
    (received,) = http.get("/offline/received").json()
    assert set(received) == {"method", "path", "headers", "body", "at", "left_at", "finished"}
    assert received["body"] == ASK


def test_a_reset_forgets_scripts_and_record(http: httpx2.Client, offline: OfflineOpenAI) -> None:
    offline.script(Scripted(path="/", status=500, times=2))
    http.get("/v1/models")
    assert http.delete("/offline").status_code == 200
    assert offline.received == []
    assert http.get("/v1/models").status_code == 200


# --- The command line --------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_until_a_signal_and_stops_with_status_0(number: signal.Signals) -> None:
    command = [sys.executable, "-m", "dev.offline_openai", "--port", "0", "--words", "3"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stderr
        line = process.stdout.readline()
        url = line.rpartition("OPENAI_BASE_URL=")[2].strip()
        reply = httpx2.post(url + "/chat/completions", json=ASK, headers=KEY).json()
        assert reply["choices"][0]["message"]["content"] == "This is the"
        process.send_signal(number)
        assert process.wait(timeout=10) == 0
        assert (process.stdout.read(), process.stderr.read()) == ("", "")
    assert "no model" in line


@pytest.fixture
def handlers() -> Iterator[None]:
    """Puts the signal handlers back that the command replaces for its process."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    saved = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, saved, strict=True):
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
def test_the_command_says_where_it_listens() -> None:
    class StopAtFirstLine(io.StringIO):
        def flush(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    with redirect_stdout(StopAtFirstLine()) as output:
        assert main(["--port", "0"]) == 0
    assert "OPENAI_BASE_URL=http://127.0.0.1:" in output.getvalue()
    assert output.getvalue().count("\n") == 1


def test_a_port_in_use_is_one_sentence_and_status_1(
    offline: OfflineOpenAI, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--port", str(urlsplit(offline.url).port)]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("Cannot listen on 127.0.0.1:")
    assert printed.err.count("\n") == 1
