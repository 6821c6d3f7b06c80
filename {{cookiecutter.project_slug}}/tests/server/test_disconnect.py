"""What happens upstream when a client disconnects."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx2
import pytest
from fastapi import BackgroundTasks

from ..conftest import (
    NO_CERTIFICATES,
    QUESTION,
    Service,
    app,
    ask_without_reading,
    disconnect,
    events,
    key_check,
    make_settings,
    serving,
    wait_until,
)
from dev.offline_openai import OfflineOpenAI, Scripted

ENDPOINTS = ["/v1/chat", "/v1/chat/stream"]


@pytest.fixture
def patient(serve: Callable[..., Service], offline: OfflineOpenAI) -> Service:
    """A service whose timeouts are longer than a test."""
    return serve(attempt_timeout_seconds=20, deadline_seconds=20)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_no_attempt_begins_after_a_client_disconnect(
    endpoint: str, patient: Service, offline: OfflineOpenAI
) -> None:
    offline.script(Scripted(status=500, headers={"retry-after": "0.2"}))
    with ask_without_reading(patient, endpoint):
        wait_until(lambda: offline.received and offline.received[0].finished)
    time.sleep(0.3)
    assert len(offline.received) == 1


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_client_disconnect_aborts_the_call(
    endpoint: str, patient: Service, offline: OfflineOpenAI
) -> None:
    offline.script(Scripted(delay=60))
    with ask_without_reading(patient, endpoint):
        wait_until(lambda: offline.received)
    wait_until(lambda: offline.received[0].left_at)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_call_whose_client_left_during_name_resolution_sends_nothing(
    endpoint: str, offline: OfflineOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds no request any more, and a connection that is still made is closed at once."""
    resolving, resolved = threading.Event(), threading.Event()

    def resolve(host: Any, *others: Any, **named: Any) -> Any:
        if host not in ("openai.test", b"openai.test"):
            return getaddrinfo(host, *others, **named)
        resolving.set()
        assert resolved.wait(10)
        return getaddrinfo("127.0.0.1", *others, **named)

    getaddrinfo = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(key_check.KeyCheck, "run", lambda _: asyncio.sleep(0))
    with socket.create_server(("127.0.0.1", 0)) as upstream:
        url = f"http://openai.test:{upstream.getsockname()[1]}/v1"
        with serving(app.create_app(make_settings(offline, openai_base_url=url))) as service:
            with ask_without_reading(service, endpoint):
                assert resolving.wait(10)
            service.settle()
            resolved.set()
            upstream.settimeout(0.3)
            with suppress(TimeoutError), upstream.accept()[0] as connection:
                connection.settimeout(2)
                assert connection.recv(65536) == b""


@pytest.mark.parametrize("chunks", [0, 1, 2])
def test_a_stream_is_closed_though_the_upstream_is_silent(
    chunks: int, patient: Service, offline: OfflineOpenAI
) -> None:
    offline.script(Scripted(reply="one two three", hang_after=chunks))
    with ask_without_reading(patient, "/v1/chat/stream") as client:
        wait_until(lambda: offline.received)
        if chunks:
            assert client.recv(1)
    wait_until(lambda: offline.received[0].left_at)


def test_a_stream_is_closed_while_chunks_come(patient: Service, offline: OfflineOpenAI) -> None:
    offline.script(Scripted(words=100_000))
    with patient.client.stream("POST", "/v1/chat/stream", json=QUESTION) as response:
        next(response.iter_text())
    wait_until(lambda: offline.received[0].left_at)


def test_a_client_that_reads_slowly_slows_the_upstream_down(
    patient: Service, offline: OfflineOpenAI
) -> None:
    """The buffers of the sockets fill, and no memory of the service's."""
    offline.script(Scripted(reply="x" * 100_000, words=400))
    with ask_without_reading(patient, "/v1/chat/stream"):
        wait_until(lambda: offline.received)
        time.sleep(0.3)
        assert not offline.received[0].finished
    wait_until(lambda: offline.received[0].left_at)


def test_a_client_that_does_not_read_is_disconnected(
    patient: Service, offline: OfflineOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would hold a slot, and a stream that is paid for, for as long as it likes."""
    monkeypatch.setattr(disconnect, "SEND_TIMEOUT_SECONDS", 0.3)
    offline.script(Scripted(reply="x" * 100_000, words=400))
    with ask_without_reading(patient, "/v1/chat/stream"):
        wait_until(lambda: offline.received)
        wait_until(lambda: offline.received[0].left_at)


def test_the_time_between_two_sends_does_not_count(
    patient: Service, offline: OfflineOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disconnect, "SEND_TIMEOUT_SECONDS", 0.2)
    offline.script(Scripted(reply="one", chunk_delay=0.3))
    assert events(patient.stream())[-1][0] == "done"


def test_a_client_disconnect_cancels_a_request_without_a_body(offline: OfflineOpenAI) -> None:
    application = app.create_app(make_settings(offline))
    begun, ended = threading.Event(), threading.Event()

    @application.get("/wait")
    async def wait() -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    with serving(application) as service:
        url = httpx2.URL(service.url)
        with socket.create_connection((url.host, url.port or 0)) as client:
            client.sendall(b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n")
            assert begun.wait(10)
        assert ended.wait(10)


def test_what_runs_in_the_background_of_an_answer_runs_on(offline: OfflineOpenAI) -> None:
    """The response is complete, so the client may close the connection."""
    application = app.create_app(make_settings(offline))
    done = threading.Event()

    async def finish() -> None:
        await asyncio.sleep(0.1)
        done.set()

    @application.post("/later")
    async def later(body: dict[str, Any], background: BackgroundTasks) -> None:
        background.add_task(finish)

    with serving(application) as service:
        assert httpx2.post(f"{service.url}/later", json={}, verify=NO_CERTIFICATES).is_success
        assert done.wait(10)


def test_the_service_works_after_many_client_disconnects(
    patient: Service, offline: OfflineOpenAI
) -> None:
    for _ in range(50):
        offline.script(Scripted(reply="one two three", hang_after=1))
        with ask_without_reading(patient, "/v1/chat/stream") as client:
            assert client.recv(1)
    assert patient.chat().is_success
    assert patient.stream().is_success


def through_the_middleware(endpoint: Any, **scope: Any) -> Any:
    """What the endpoint, an ASGI application that returns something, returns."""
    results = []
    body = iter([{"type": "http.request", "body": b"the body", "more_body": False}])

    async def application(scope: Any, receive: Any, send: Any) -> None:
        results.append(await endpoint(scope, receive))

    async def receive() -> Any:
        return next(body, None) or await asyncio.Future()

    async def send(message: Any) -> None:
        """Nothing is sent."""

    whole = {"type": "http", "http_version": "1.1", "headers": []} | scope
    asyncio.run(disconnect.CancelOnDisconnect(application)(whole, receive, send))
    return results[0]


@pytest.mark.parametrize(
    "scope", [{"http_version": "2"}, {"headers": [(b"transfer-encoding", b"chunked")]}]
)
def test_a_body_needs_no_length(scope: dict[str, Any]) -> None:
    """HTTP/2 has no header that says that there is a body."""

    async def read(scope: Any, receive: Any) -> Any:
        return (await receive())["body"]

    assert through_the_middleware(read, **scope) == b"the body"


def test_calls_outlive_a_request_that_ends_but_not_one_that_is_cancelled() -> None:
    found = []

    async def end(scope: Any, receive: Any) -> Any:
        return scope["state"]["is_cancelled"]

    async def be_cancelled(scope: Any, receive: Any) -> Any:
        found.append(scope["state"]["is_cancelled"])
        raise asyncio.CancelledError

    assert not through_the_middleware(end)()
    with pytest.raises(asyncio.CancelledError):
        through_the_middleware(be_cancelled)
    assert found[0]()
