"""The offline OpenAI as the SDK and bare sockets see it: test_offline_openai.py runs this."""

import asyncio
import enum
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import openai
import pytest
from pydantic import BaseModel

from dev import offline_openai
from dev.offline_openai import OfflineOpenAI, Scripted, main, running

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
KEY = {"Authorization": "Bearer sk-test"}
ECHO = "This is the offline OpenAI, not a model. You said: "
ASK: dict[str, Any] = {
    "model": "gpt-test",
    "messages": [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "Hello there"},
    ],
}
PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
FUNCTION = {"name": "weather", "strict": True, "parameters": PARAMETERS}
TOOLS: Any = [{"type": "function", "function": FUNCTION}]
RESPONSE_TOOLS: Any = [{"type": "function"} | FUNCTION]


class Unit(enum.StrEnum):
    CELSIUS = "celsius"


class Place(BaseModel):
    name: str
    population: int


class Report(BaseModel):
    places: list[Place]
    unit: Unit
    degrees: float
    is_sunny: bool
    comment: str | None


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
def sock(offline: OfflineOpenAI) -> Iterator[socket.socket]:
    address = urlsplit(offline.url)
    with socket.create_connection((str(address.hostname), address.port or 0), timeout=5) as sock:
        yield sock


def request(body: Any) -> bytes:
    data = json.dumps(body).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nApi-Key: k\r\nContent-Length: {len(data)}\r\n\r\n"
    return head.encode() + data


def until(holds: Callable[[], object]) -> None:
    ends_at = time.monotonic() + 5
    while not holds():
        assert time.monotonic() < ends_at, "it did not happen in time"
        time.sleep(0.002)


def ask(client: openai.OpenAI, **more: Any) -> Any:
    return client.chat.completions.create(**ASK, **more)


def read(chunks: list[Any], stream: Any) -> str:
    """The text of a stream; `chunks` keeps what came before it went wrong."""
    for chunk in stream:
        chunks.append(chunk)  # noqa: PERF402  extend() might keep none of them
    return text(chunks)


def text(chunks: list[Any]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


# --- Chat --------------------------------------------------------------------------------------


def test_a_reply_echoes_the_question_and_counts_words(client: openai.OpenAI) -> None:
    reply = ask(client)
    assert (reply.model, reply.choices[0].finish_reason) == ("gpt-test", "stop")
    assert reply.choices[0].message.content == f"{ECHO}Hello there"
    usage = reply.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (4, 12, 16)
    assert usage.prompt_tokens_details.cached_tokens == 2
    assert usage.completion_tokens_details.reasoning_tokens == 0


def test_content_may_come_in_parts(client: openai.OpenAI) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    messages: Any = [{"role": "user", "content": [{"type": "text", "text": "What?"}, image]}]
    reply = client.chat.completions.create(model="m", messages=messages)
    assert reply.choices[0].message.content == f"{ECHO}What? [image_url]"


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("name", ["max_completion_tokens", "max_tokens"])
def test_a_token_limit_cuts_the_reply(client: openai.OpenAI, name: str, is_stream: bool) -> None:
    reply = ask(client, stream=is_stream, **{name: 2})
    chunks: list[Any] = []
    said = read(chunks, reply) if is_stream else reply.choices[0].message.content
    assert said == "This is"
    assert (chunks[-1] if is_stream else reply).choices[0].finish_reason == "length"


def test_a_stream_has_role_words_reason_and_done(
    client: openai.OpenAI, http: httpx2.Client, offline: OfflineOpenAI
) -> None:
    offline.script(Scripted(reply="one two"))
    chunks = [(c.choices[0].delta, c.choices[0].finish_reason) for c in ask(client, stream=True)]
    assert [delta.role for delta, _ in chunks] == ["assistant", None, None, None]
    assert [delta.content for delta, _ in chunks] == ["", "one", " two", None]
    assert [reason for _, reason in chunks] == [None, None, None, "stop"]
    answer = http.post(CHAT, json=ASK | {"stream": True})
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.text.endswith("\n\ndata: [DONE]\n\n")
    assert "usage" not in answer.text


def test_a_stream_ends_with_its_usage_if_asked(client: openai.OpenAI) -> None:
    *chunks, last = ask(client, stream=True, stream_options={"include_usage": True})
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)
    assert (last.choices, last.usage.total_tokens) == ([], 16)


@pytest.mark.parametrize("reply", ["", " ", "\n lead\t and tail \n", "é 漢字 🙂\r\n\r\ndata: x"])
def test_the_deltas_make_up_the_reply(
    client: openai.OpenAI, offline: OfflineOpenAI, reply: str
) -> None:
    offline.script(Scripted(reply=reply, times=2))
    assert read([], ask(client, stream=True)) == reply
    assert ask(client).choices[0].message.content == reply


def test_half_a_surrogate_pair_is_replaced(http: httpx2.Client) -> None:
    body = b'{"model": "m", "messages": [{"role": "user", "content": "\\ud83d"}]}'
    assert "You said: ?" in http.post(CHAT, content=body).text


def test_structured_output_validates(client: openai.OpenAI) -> None:
    parse = client.chat.completions.parse
    parsed = parse(**ASK, response_format=Report).choices[0].message.parsed
    assert parsed == Report(
        places=[Place(name="text", population=1)],
        unit=Unit.CELSIUS,
        degrees=1,
        is_sunny=True,
        comment="text",
    )


def test_the_first_tool_is_called_until_its_output_comes(client: openai.OpenAI) -> None:
    choice = ask(client, tools=TOOLS).choices[0]
    (call,) = choice.message.tool_calls
    assert choice.finish_reason == "tool_calls"
    assert (call.function.name, call.function.arguments) == ("weather", '{"city": "text"}')
    with client.chat.completions.stream(**ASK, tools=TOOLS) as stream:
        streamed = stream.get_final_completion().choices[0]
    assert streamed.finish_reason == "tool_calls"
    assert streamed.message.tool_calls
    assert streamed.message.tool_calls[0].function.arguments == call.function.arguments
    output = {"role": "tool", "tool_call_id": call.id, "content": "21 degrees"}
    messages = [*ASK["messages"], choice.message.model_dump(exclude_none=True), output]
    reply = client.chat.completions.create(model="m", messages=messages, tools=TOOLS)
    assert reply.choices[0].message.content == f"{ECHO}21 degrees"


# --- Responses, embeddings, models -------------------------------------------------------------


def test_a_response_and_its_stream(client: openai.OpenAI) -> None:
    response = client.responses.create(model="m", input="Hello there")
    assert (response.status, response.output_text) == ("completed", f"{ECHO}Hello there")
    assert response.usage
    assert response.usage.input_tokens_details.cached_tokens == 0
    assert response.usage.output_tokens_details.reasoning_tokens == 0
    events = list(client.responses.create(model="m", input="Hello there", stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[0].type == "response.created"
    assert events[-1].type == "response.completed"
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert (len(deltas), "".join(deltas)) == (12, response.output_text)


def test_a_response_is_incomplete_at_its_limit(client: openai.OpenAI) -> None:
    response = client.responses.create(model="m", input="Hello", max_output_tokens=2)
    assert (response.status, response.output_text) == ("incomplete", "This is")


def test_a_response_parses(client: openai.OpenAI) -> None:
    parsed = client.responses.parse(model="m", input="Hello", text_format=Report).output_parsed
    with client.responses.stream(model="m", input="Hello", text_format=Report) as stream:
        assert stream.get_final_response().output_parsed == parsed
    assert parsed
    assert parsed.unit is Unit.CELSIUS


def test_a_response_calls_the_first_tool_until_its_output_comes(client: openai.OpenAI) -> None:
    first = client.responses.create(model="m", input="Hello", tools=RESPONSE_TOOLS)
    with client.responses.stream(model="m", input="Hello", tools=RESPONSE_TOOLS) as stream:
        (streamed,) = stream.get_final_response().output
    (call,) = first.output
    assert call.type == streamed.type == "function_call"
    assert call.arguments == streamed.arguments == '{"city": "text"}'
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "21 degrees"}
    items: Any = [{"role": "user", "content": "Hello"}, call.model_dump(exclude_none=True), output]
    second = client.responses.create(model="m", input=items, tools=RESPONSE_TOOLS)
    assert second.output_text == f"{ECHO}21 degrees"


def test_a_response_stream_ends_with_an_error_event(
    client: openai.OpenAI, offline: OfflineOpenAI
) -> None:
    offline.script(Scripted(path=RESPONSES, error_after=1, code="c"))
    *_, delta, error = client.responses.create(model="m", input="Hello", stream=True)
    assert delta.type == "response.output_text.delta"
    assert error.type == "error"
    assert error.code == "c"


def test_the_async_client_is_answered_too(offline: OfflineOpenAI) -> None:
    async def run() -> None:
        async with openai.AsyncOpenAI(api_key="k", base_url=offline.url) as client:
            embeddings = await client.embeddings.create(model="e", input="one")
            assert len(embeddings.data[0].embedding) == 8
            stream = await client.responses.create(model="m", input="Hello", stream=True)
            assert [event.type async for event in stream][-1] == "response.completed"
            async with client.chat.completions.stream(**ASK, response_format=Place) as chat:
                message = (await chat.get_final_completion()).choices[0].message
            assert message.parsed == Place(name="text", population=1)

    asyncio.run(run())


def test_embeddings_are_the_same_in_both_encodings(client: openai.OpenAI) -> None:
    # A strict client refuses the base64 that the SDK itself has asked for.
    lenient = client.copy(_extra_kwargs={"_strict_response_validation": False})
    wanted: Any = {"model": "e", "input": ["one", "two words"], "dimensions": 16}
    packed = lenient.embeddings.create(**wanted)
    floats = lenient.embeddings.create(**wanted, encoding_format="float")
    vectors = [item.embedding for item in packed.data]
    assert vectors == [item.embedding for item in floats.data]
    assert [len(vector) for vector in vectors] == [16, 16]
    assert sum(x * x for x in vectors[0]) == pytest.approx(1)
    assert vectors[0] != vectors[1]
    assert packed.usage.total_tokens == 3


def test_every_model_exists(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["offline"]
    assert client.models.retrieve("owner/ft:gpt-4o::id").id == "owner/ft:gpt-4o::id"


def unknown(value: Any) -> Iterator[str]:
    """The fields that OpenAI's types do not have."""
    if isinstance(value, BaseModel):
        yield from (f"{type(value).__name__}.{name}" for name in value.model_extra or {})
        for name in type(value).model_fields:
            yield from unknown(getattr(value, name))
    elif isinstance(value, list):
        for item in value:
            yield from unknown(item)


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("more", [{}, {"tools": True}, {"limit": 1}])
def test_replies_have_no_field_that_openai_does_not_have(
    client: openai.OpenAI, more: dict[str, Any], is_stream: bool
) -> None:
    tools = (TOOLS, RESPONSE_TOOLS) if "tools" in more else (openai.omit, openai.omit)
    limit = more.get("limit", openai.omit)
    chat = ask(client, stream=is_stream, tools=tools[0], max_completion_tokens=limit)
    response: Any = client.responses.create(
        model="m", input="Hi", stream=is_stream, tools=tools[1], max_output_tokens=limit
    )
    for answer in (chat, response):
        assert list(unknown(list(answer) if is_stream else [answer])) == []


def test_models_and_embeddings_have_no_field_that_openai_does_not_have(
    client: openai.OpenAI,
) -> None:
    vectors = client.embeddings.create(model="e", input="Hi", encoding_format="float")
    assert list(unknown([vectors, *client.models.list(), client.models.retrieve("m")])) == []


# --- Errors and misbehaviour -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/v1/nothing", b"", 404),
        ("GET", CHAT, b"", 405),
        ("POST", CHAT, b"{", 400),
        ("POST", CHAT, b"[]", 400),
        ("POST", CHAT, b'{"model": "m"}', 400),
        ("POST", CHAT, b'{"messages": [], "model": "m"}', 400),
        ("POST", CHAT, b'{"messages": ["x"], "model": "m"}', 400),
        ("POST", RESPONSES, b'{"model": "m"}', 400),
        ("POST", "/v1/embeddings", b'{"model": "m", "input": [[1, 2]]}', 400),
    ],
)
def test_a_wrong_request_gets_an_error_of_openais_shape(
    http: httpx2.Client, method: str, path: str, body: bytes, status: int
) -> None:
    answer = http.request(method, path, content=body)
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_a_request_needs_a_key_of_any_kind(offline: OfflineOpenAI) -> None:
    assert httpx2.get(f"{offline.url}/models").status_code == 401
    assert httpx2.get(f"{offline.url}/models", headers={"api-key": "k"}).status_code == 200


@pytest.mark.parametrize("status", [400, 429, 500, 529])
def test_a_status_is_an_error(client: openai.OpenAI, offline: OfflineOpenAI, status: int) -> None:
    headers = {"Retry-After": "7", "X-Request-ID": "mine"}
    offline.script(Scripted(status=status, code="c", message="No.", headers=headers))
    with pytest.raises(openai.APIStatusError, match=r"No\.") as caught:
        ask(client)
    kind = "invalid_request_error" if status < 500 else "server_error"
    assert (caught.value.status_code, caught.value.code, caught.value.type) == (status, "c", kind)
    assert caught.value.response.headers.get_list("x-request-id") == ["mine"]


@pytest.mark.parametrize(
    ("step", "error"),
    [
        (Scripted(delay=60), openai.APITimeoutError),
        (Scripted(drop=True), openai.APIConnectionError),
        (Scripted(cut_after=10), openai.APIConnectionError),
        (Scripted(body='{"choices": ['), Exception),
    ],
)
def test_an_answer_may_fail(
    client: openai.OpenAI, offline: OfflineOpenAI, step: Scripted, error: type[Exception]
) -> None:
    offline.script(step)
    with pytest.raises(error) as caught:
        ask(client, timeout=0.3)
    until(lambda: offline.received)
    assert type(caught.value) is error or error is Exception
    assert offline.received[0].finished is bool(step.body)


@pytest.mark.parametrize(("after", "said"), [(0, ""), (2, "a b")])
@pytest.mark.parametrize("how", ["cut_after", "error_after", "hang_after", "end_after"])
def test_a_stream_may_fail_after_its_chunks(
    client: openai.OpenAI, offline: OfflineOpenAI, how: str, after: int, said: str
) -> None:
    errors = {
        "cut_after": openai.APIConnectionError,
        "error_after": openai.APIError,
        "hang_after": openai.APITimeoutError,
    }
    step: dict[str, Any] = {"reply": "a b c", how: after}
    offline.script(Scripted(**step))
    chunks: list[Any] = []
    raised = None
    try:
        read(chunks, ask(client, stream=True, timeout=0.5))
    except openai.APIError as error:
        raised = type(error)
    assert raised is errors.get(how)
    assert (text(chunks), bool(chunks)) == (said, bool(after))
    assert all(chunk.choices[0].finish_reason is None for chunk in chunks)
    if how == "hang_after":
        until(lambda: offline.received[0].left_at)
    assert offline.received[0].finished is (how in ("error_after", "end_after"))
    assert bool(offline.received[0].left_at) is (how == "hang_after")


def test_delays_pass(client: openai.OpenAI, offline: OfflineOpenAI) -> None:
    offline.script(
        Scripted(reply="a b", delay=0.02, chunk_delay=0.02),
        Scripted(path="/v1/models", chunk_delay=0.0005),
    )
    begun = time.monotonic()
    assert read([], ask(client, stream=True)) == "a b"
    assert time.monotonic() - begun >= 0.1  # before the stream, and between its five events
    begun = time.monotonic()
    client.models.retrieve("m")
    assert time.monotonic() - begun >= 0.03  # for more than 60 bytes


def test_scripts_are_used_in_order_by_path(client: openai.OpenAI, offline: OfflineOpenAI) -> None:
    offline.script(
        Scripted(path="/v1/models", status=500),
        Scripted(reply="a b", words=3, times=2),
        Scripted(reply="c", finish_reason="content_filter"),
    )
    choices = [ask(client).choices[0] for _ in range(4)]
    replies = [choice.message.content for choice in choices]
    assert replies == ["a b a", "a b a", "c", f"{ECHO}Hello there"]
    assert choices[2].finish_reason == "content_filter"
    with pytest.raises(openai.InternalServerError):
        client.models.retrieve("m")


# --- The record, and the server ----------------------------------------------------------------


def test_requests_are_on_record(
    client: openai.OpenAI, offline: OfflineOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offline_openai, "KEPT", 2)
    for _ in range(3):
        client.models.list(extra_query={"a": "b"})
    ask(client)
    models, chat = offline.received
    assert (models.method, models.path, models.body) == ("GET", "/v1/models?a=b", None)
    assert (chat.method, chat.path, chat.body) == ("POST", CHAT, ASK)
    assert chat.headers["authorization"] == "Bearer sk-test"
    assert models.at <= chat.at <= time.monotonic()
    assert (chat.finished, chat.left_at) == (True, None)


@pytest.mark.parametrize(
    "step",
    [Scripted(delay=60), Scripted(chunk_delay=60), Scripted(body="x" * 20_000_000)],
    ids=["delay", "between chunks", "does not read"],
)
def test_a_disconnect_is_seen(sock: socket.socket, offline: OfflineOpenAI, step: Scripted) -> None:
    offline.script(step)
    sock.sendall(request(ASK | {"stream": True}))
    if not step.delay:
        sock.recv(1)
    until(lambda: offline.received)
    assert offline.received[0].left_at is None
    sock.close()
    until(lambda: offline.received[0].left_at)
    assert not offline.received[0].finished


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
    default = Scripted(words=3, chunk_delay=30)  # seconds; an answer that is no stream has no delay
    with running(default) as offline, httpx2.Client(base_url=offline.url, headers=KEY) as http:
        reply = http.post("/chat/completions", json=ASK).json()
        assert reply["choices"][0]["message"]["content"] == "This is the"
        assert http.get("/models").status_code == 200


def test_it_is_controlled_over_http(http: httpx2.Client, offline: OfflineOpenAI) -> None:
    steps = [{"status": 503, "delay": 0, "headers": {"a": "b"}}]
    assert http.post("/offline/script", json=steps).status_code == 200
    assert http.post(CHAT, json=ASK).headers["a"] == "b"
    (received,) = http.get("/offline/received").json()
    assert set(received) == {"method", "path", "headers", "body", "at", "left_at", "finished"}
    http.post("/offline/script", json=steps)
    assert http.delete("/offline").status_code == 200
    assert offline.received == []
    assert http.post(CHAT, json=ASK).status_code == 200


@pytest.mark.parametrize("step", [{"status": "500"}, {"bogus": 1}, 1])
def test_a_wrong_script_is_refused_whole(http: httpx2.Client, step: Any) -> None:
    answer = http.post("/offline/script", json=[{"reply": "a"}, step])
    assert answer.status_code == 400
    assert next(iter(step)) in answer.text if isinstance(step, dict) else answer.text
    assert "You said" in http.post(CHAT, json=ASK).text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_until_a_signal(number: signal.Signals) -> None:
    command = [sys.executable, "-m", "dev.offline_openai", "--port", "0", "--words", "3"]
    with subprocess.Popen(
        command,
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stderr
        line = process.stdout.readline()
        url = line.rpartition("OPENAI_BASE_URL=")[2].strip()
        reply = httpx2.post(url + "/chat/completions", json=ASK, headers=KEY).json()
        process.send_signal(number)
        assert process.wait(timeout=10) == 0
        assert (process.stdout.read(), process.stderr.read()) == ("", "")
    assert "no model" in line
    assert reply["choices"][0]["message"]["content"] == "This is the"


def test_a_port_in_use_is_one_sentence_and_status_1(
    offline: OfflineOpenAI, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--port", str(urlsplit(offline.url).port)]) == 1
    printed = capsys.readouterr()
    assert (printed.out, printed.err.count("\n")) == ("", 1)
    assert printed.err.startswith("Cannot listen on 127.0.0.1:")
