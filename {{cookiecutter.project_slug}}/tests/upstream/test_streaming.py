"""What lies between a stream of OpenAI and one of ours."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, aclosing, suppress
from inspect import isawaitable
from typing import Any, NoReturn

import pytest

from ..conftest import (
    QUESTION,
    Service,
    app,
    dependencies,
    errors,
    events,
    make_settings,
    openai_service,
    serving,
    streaming,
    wait_until,
)
from dev.offline_openai import OfflineOpenAI, Scripted

CHUNKS = [
    {"choices": [{"delta": {"role": "assistant", "content": ""}}]},
    {"model": "gpt-test", "choices": [{"delta": {"content": "“ä”"}}], "obfuscation": "x"},
    {"choices": [{"delta": {"refusal": " no"}, "finish_reason": "stop"}]},
    {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}},
]
USAGE = {
    "input_tokens": 1,
    "output_tokens": 2,
    "total_tokens": 3,
    "cached_tokens": None,
    "reasoning_tokens": None,
}
DONE = {"model": "gpt-test", "finish_reason": "stop", "usage": USAGE}

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def stream_of(*chunks: object, line_end: str = "\n", end: str = "data: [DONE]\n\n") -> str:
    blocks = [f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n" for chunk in chunks]
    return ": ping\n\n".join([*blocks, end]).replace("\n", line_end)


@pytest.mark.parametrize(("line_end", "chunk_delay"), [("\n", 0), ("\r\n", 0.0005)])
def test_a_stream_in_any_legal_form_is_relayed(
    line_end: str, chunk_delay: float, service: Service, offline: OfflineOpenAI
) -> None:
    """Also if it comes byte by byte."""
    body = stream_of(*CHUNKS, line_end=line_end)
    offline.script(Scripted(body=body, content_type="text/event-stream", chunk_delay=chunk_delay))
    *deltas, last = events(service.stream())
    assert "".join(data["text"] for _, data in deltas) == "“ä” no"
    assert last == ("done", DONE)


def test_a_stream_may_end_without_done(service: Service, offline: OfflineOpenAI) -> None:
    body = stream_of(*CHUNKS, end="")
    offline.script(Scripted(body=body, content_type="text/event-stream"))
    assert events(service.stream())[-1] == ("done", DONE)


def test_the_text_before_an_error_is_not_lost(service: Service, offline: OfflineOpenAI) -> None:
    body = stream_of(*CHUNKS[:2], {"error": {"code": "insufficient_quota", "message": "none"}})
    offline.script(Scripted(body=body, content_type="text/event-stream"))
    delta, (name, problem) = events(service.stream())
    assert delta == ("delta", {"text": "“ä”"})
    assert (name, problem["type"]) == ("error", "urn:problem-type:upstream-quota-exhausted")


def test_what_has_come_together_goes_on_together(service: Service, offline: OfflineOpenAI) -> None:
    """An event of ours for each of OpenAI's would cost more than it is worth."""
    chunk = {"choices": [{"delta": {"content": "one "}, "finish_reason": "stop"}]}
    body = stream_of(*[chunk] * 500)
    offline.script(Scripted(body=body, content_type="text/event-stream"))
    *deltas, _ = events(service.stream())
    assert "".join(data["text"] for _, data in deltas) == "one " * 500
    assert len(deltas) < 100


def test_a_client_that_pauses_gets_the_whole_stream(
    serve: Callable[..., Service], offline: OfflineOpenAI
) -> None:
    """Meanwhile all buffers are full; then they are emptied and filled again."""
    service = serve(attempt_timeout_seconds=20, deadline_seconds=20)
    offline.script(Scripted(reply="x" * 100_000, words=200))
    with service.client.stream("POST", "/v1/chat/stream", json=QUESTION) as response:
        received = response.iter_bytes()
        first = next(received)
        time.sleep(0.3)
        assert not offline.received[0].finished
        whole = first + b"".join(received)
    assert whole.count(b"x" * 100_000) == 200
    assert b"event: done" in whole


def broken(listener: socket.socket) -> None:
    """Serve a stream that breaks HTTP after its first chunk, and then goes silent."""
    event = b'data: {"choices": [{"delta": {"content": "one"}}]}\n\n'
    with suppress(OSError), ExitStack() as kept:
        while True:
            client = kept.enter_context(listener.accept()[0])
            client.recv(65536)
            client.sendall(HEAD + b"%x\r\n%b\r\n" % (len(event), event))
            time.sleep(0.1)  # in a segment of its own
            client.sendall(b"no size\r\n")


def test_an_upstream_that_breaks_http_does_not_keep_the_client(offline: OfflineOpenAI) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        threading.Thread(target=broken, args=(listener,), daemon=True).start()
        settings = make_settings(offline, openai_base_url=url, attempt_timeout_seconds=0.3)
        with serving(app.create_app(settings)) as service:
            first, (name, _) = events(service.stream())
        listener.shutdown(socket.SHUT_RDWR)
    assert first == ("delta", {"text": "one"})
    assert name == "error"


def test_connections_are_used_again(service: Service, offline: OfflineOpenAI) -> None:
    for _ in range(3):
        assert "event: done" in service.stream().text
        assert service.chat().is_success
    before = set(offline.connections)
    for _ in range(5):
        assert "event: done" in service.stream().text
        assert service.chat().is_success
    assert offline.connections <= before


def test_a_connection_whose_body_ends_late_is_used_again(
    service: Service, offline: OfflineOpenAI
) -> None:
    """Some time after the last event, when the client has all there is."""
    chunk = {"choices": [{"delta": {"content": "one"}, "finish_reason": "stop"}]}
    late_end = Scripted(
        body=f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n: {30 * '.'}\n\n",
        content_type="text/event-stream",
        chunk_delay=0.004,  # a byte
    )
    assert service.chat().is_success
    before = set(offline.connections)
    for _ in range(2):
        offline.script(late_end)
        assert events(service.stream())[-1][0] == "done"
        wait_until(lambda: offline.received[-1].finished)
        time.sleep(0.1)  # the last bytes are on their way
        assert service.chat().is_success
    assert offline.connections <= before


def test_an_upstream_that_does_not_end_keeps_nobody(
    serve: Callable[..., Service], offline: OfflineOpenAI
) -> None:
    """The client has its response after the last event; the connection is closed soon."""
    service = serve(attempt_timeout_seconds=60)
    body = stream_of(*CHUNKS)
    offline.script(
        Scripted(body=body, content_type="text/event-stream", headers={"content-length": "9999"})
    )
    before = set(offline.connections)
    assert events(service.stream())[-1] == ("done", DONE)
    wait_until(lambda: offline.connections <= before)


def test_the_slot_is_free_once_the_last_event_is_sent(
    serve: Callable[..., Service], offline: OfflineOpenAI
) -> None:
    """While the end of the upstream's body is still awaited."""
    service = serve(max_concurrency=1, queue_timeout_seconds=0.2, attempt_timeout_seconds=60)
    body = stream_of(*CHUNKS)
    offline.script(
        Scripted(body=body, content_type="text/event-stream", headers={"content-length": "9999"})
    )
    assert events(service.stream())[-1] == ("done", DONE)
    assert service.chat().is_success


# The first call imports the SDK's part for responses, which takes seconds on a busy machine.
PATIENT = {"attempt_timeout_seconds": 60, "deadline_seconds": 60}


def create(client: Any) -> Any:
    return client.responses.create(model="m", input="?", stream=True)


async def opened(
    service: openai_service.OpenAIService, send: Callable[[Any], Any] = create
) -> streaming.Stream[Any]:
    """A stream of events, in any style."""
    created: Any = await asyncio.to_thread(service.stream, send)
    stream: streaming.Stream[Any] = await created if isawaitable(created) else created
    return stream


def test_a_stream_that_ends_and_one_that_is_closed_free_one_slot_each(
    offline: OfflineOpenAI,
) -> None:
    settings = make_settings(offline, max_concurrency=1, max_queue=0, **PATIENT)

    async def run() -> None:
        async with openai_service.OpenAIService.open(settings) as service:
            first = await opened(service)
            assert [event.type async for event in first]
            async with aclosing(await opened(service)):
                await first.aclose()
                with pytest.raises(errors.Overloaded):
                    await opened(service)
            async with aclosing(await opened(service)):
                pass

    asyncio.run(run())


def test_a_stream_that_fails_frees_its_slot(offline: OfflineOpenAI) -> None:
    """So that a fallback can be called at once."""
    offline.script(Scripted(path="/v1/responses", reply="one two", error_after=1))
    settings = make_settings(offline, max_concurrency=1, max_queue=0, **PATIENT)

    async def run() -> None:
        async with openai_service.OpenAIService.open(settings) as service:
            failing = await opened(service)
            with pytest.raises(errors.UpstreamError):
                _ = [event async for event in failing]
            async with aclosing(await opened(service)):
                pass

    asyncio.run(run())


async def read_to_its_end(service: openai_service.OpenAIService) -> None:
    _ = [event async for event in await opened(service)]


async def fetch_file(service: openai_service.OpenAIService) -> None:
    called: Any = await asyncio.to_thread(service.call, lambda client: client.files.content("id"))
    await called


@pytest.mark.parametrize(
    ("run", "path", "attempts"),
    [(fetch_file, "/v1/files", 2), (read_to_its_end, "/v1/responses", 1)],
)
def test_a_body_that_is_cut_is_no_answer(
    run: Callable[[Any], Any], path: str, attempts: int, offline: OfflineOpenAI
) -> None:
    """Also if it is neither JSON nor sent in HTTP chunks."""
    body = "data: {}\n\n" * 99
    sse = "text/event-stream"
    offline.script(Scripted(path=path, body=body, content_type=sse, cut_after=400, times=2))
    settings = make_settings(offline, max_attempts=2, **PATIENT)

    async def open_and_run() -> None:
        async with openai_service.OpenAIService.open(settings) as service:
            await run(service)

    with pytest.raises(errors.UpstreamUnreachable):
        asyncio.run(open_and_run())
    assert len(offline.received) == attempts


@pytest.mark.parametrize("status", [200, 500])
def test_a_stream_that_an_endpoint_leaves_open_ends_with_the_request(
    status: int, offline: OfflineOpenAI
) -> None:
    """The endpoint may return early, or raise."""
    application = app.create_app(make_settings(offline, max_concurrency=1, max_queue=0, **PATIENT))
    kept = []  # so that no garbage collector closes them

    @application.get("/first-event")
    async def first_event(service: dependencies.Service) -> str:
        stream = await opened(service)
        kept.append(stream)
        first = await anext(stream)
        if status == 500:
            raise RuntimeError
        return str(first.type)

    with serving(application) as service:
        for _ in range(2):
            offline.script(Scripted(path="/v1/responses", reply="one two", hang_after=1))
            assert service.client.get("/first-event").status_code == status
            wait_until(lambda: offline.received[-1].left_at)
            assert service.chat().is_success


class Panic(BaseException):
    """As extensions written in Rust raise it."""


def test_what_is_no_exception_fails_the_call_too(offline: OfflineOpenAI) -> None:
    def panic(client: object) -> NoReturn:
        raise Panic

    async def run() -> None:
        settings = make_settings(offline, max_concurrency=1, max_queue=0, **PATIENT)
        async with openai_service.OpenAIService.open(settings) as service:
            with pytest.raises(Panic):
                await opened(service, panic)
            async with aclosing(await opened(service)):
                pass  # the slot was free

    asyncio.run(asyncio.wait_for(run(), 30))


def test_a_wait_that_is_cancelled_ends_no_stream_silently(offline: OfflineOpenAI) -> None:
    """Either the rest of the events still comes, or there is an error."""
    offline.script(Scripted(path="/v1/responses", reply="one two", chunk_delay=0.05))

    async def run() -> None:
        async with (
            openai_service.OpenAIService.open(make_settings(offline, **PATIENT)) as service,
            aclosing(await opened(service)) as stream,
        ):
            with suppress(TimeoutError):
                while True:
                    await asyncio.wait_for(anext(stream), 0.01)
            with suppress(errors.BrokenReply):
                types = [event.type async for event in stream]
                assert types[-1:] == ["response.completed"]

    asyncio.run(run())
