import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import SimpleNamespace

import httpx2
import pytest

from .conftest import (
    Service,
    app,
    ask_without_reading,
    errors,
    limits,
    make_settings,
    serving,
    wait_until,
)
from dev.offline_openai import OfflineOpenAI, Scripted


@pytest.fixture
def narrow(offline: OfflineOpenAI) -> Iterator[Service]:
    """A service with two places and room for one who waits, none of them taken by another test."""
    settings = make_settings(offline, max_concurrency=2, max_queue=1, attempt_timeout_seconds=5)
    with serving(app.create_app(settings)) as service:
        wait_until(lambda: service.client.get("/readyz").is_success)
        offline.reset()
        yield service


def test_who_finds_no_room_is_refused_at_once(
    narrow: Service, offline: OfflineOpenAI, caplog: pytest.LogCaptureFixture
) -> None:
    offline.script(Scripted(delay=60, times=3))
    with ExitStack() as callers:
        for _ in range(3):
            callers.enter_context(ask_without_reading(narrow, "/v1/chat"))
        wait_until(lambda: len(offline.received) == 2 and narrow.running() == 3)
        started = time.monotonic()
        response = narrow.chat()
        assert time.monotonic() - started < 1, "waited for its turn"
        assert response.json()["type"] == "urn:problem-type:overloaded"
        assert "overloaded: Overloaded: This service has" in caplog.text
        assert narrow.stream().json()["type"] == "urn:problem-type:overloaded"
        assert int(response.headers["retry-after"]) >= 1
        assert narrow.client.get("/livez").is_success
        assert narrow.client.get("/readyz").is_success
        assert len(offline.received) == 2, "no more calls at once than there are places"


def test_who_waits_has_a_turn(narrow: Service, offline: OfflineOpenAI) -> None:
    offline.script(Scripted(delay=0.2, times=2))
    with ask_without_reading(narrow, "/v1/chat"), ask_without_reading(narrow, "/v1/chat"):
        wait_until(lambda: len(offline.received) == 2)
        assert narrow.chat().is_success
        assert offline.received[0].finished


def test_who_leaves_the_queue_makes_room(narrow: Service, offline: OfflineOpenAI) -> None:
    offline.script(Scripted(delay=60, times=2))
    with ask_without_reading(narrow, "/v1/chat"), ExitStack() as callers:
        callers.enter_context(ask_without_reading(narrow, "/v1/chat"))
        wait_until(lambda: len(offline.received) == 2)
        with ask_without_reading(narrow, "/v1/chat"):
            wait_until(lambda: narrow.running() == 3)
            assert narrow.chat().status_code == 503
        wait_until(lambda: narrow.running() == 2)
        with ask_without_reading(narrow, "/v1/chat") as patient:
            wait_until(lambda: narrow.running() == 3)
            callers.close()
            assert patient.recv(12) == b"HTTP/1.1 200"
    assert len(offline.received) == 3, "a call was made for who had left"


def test_who_is_slow_to_ask_holds_no_place(
    serve: Callable[..., Service], offline: OfflineOpenAI
) -> None:
    service = serve(max_concurrency=1, queue_timeout_seconds=0.2)
    url = httpx2.URL(service.url)
    with socket.create_connection((url.host, url.port or 0)) as caller:
        head = "POST /v1/chat HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        caller.sendall(f"{head}content-length: 100\r\n\r\n{{".encode())
        time.sleep(0.1)
        assert service.chat().is_success


def test_a_stream_keeps_its_place_until_it_ends(narrow: Service, offline: OfflineOpenAI) -> None:
    offline.script(Scripted(reply="one two", hang_after=1, times=2))
    with ExitStack() as callers:
        for _ in range(2):
            caller = callers.enter_context(ask_without_reading(narrow, "/v1/chat/stream"))
            assert caller.recv(1)
        with ask_without_reading(narrow, "/v1/chat"):
            time.sleep(0.2)
            assert len(offline.received) == 2
            callers.close()
            wait_until(lambda: len(offline.received) == 3)


def test_callers_have_their_turns_in_order_and_leave_no_gap(offline: OfflineOpenAI) -> None:
    admission = limits.Admission(make_settings(offline, max_concurrency=1, max_queue=3))
    turns = []

    async def caller(name: str) -> None:
        async with admission.place():
            turns.append(name)
            await asyncio.sleep(0.01)

    async def come_and_go() -> None:
        callers = [asyncio.create_task(caller(name)) for name in "abcd"]
        await asyncio.sleep(0)
        with pytest.raises(errors.Overloaded):
            await caller("e")
        callers[1].cancel()
        await asyncio.sleep(0)
        await asyncio.gather(*callers, caller("f"), return_exceptions=True)

    asyncio.run(come_and_go())
    assert turns == ["a", "c", "d", "f"]


def test_nobody_waits_for_ever(serve: Callable[..., Service], offline: OfflineOpenAI) -> None:
    service = serve(max_concurrency=1, queue_timeout_seconds=0.2)
    offline.script(Scripted(delay=60))
    with ask_without_reading(service, "/v1/chat"):
        wait_until(lambda: offline.received)
        assert service.chat().json()["type"] == "urn:problem-type:overloaded"


def test_waiting_counts_for_the_deadline(
    serve: Callable[..., Service], offline: OfflineOpenAI
) -> None:
    service = serve(max_concurrency=1, deadline_seconds=1.5)
    offline.script(Scripted(delay=1.2), Scripted(delay=1.2))
    with ask_without_reading(service, "/v1/chat"):
        wait_until(lambda: offline.received)
        assert service.chat().json()["type"] == "urn:problem-type:deadline-exceeded"


def test_nobody_waits_beyond_the_deadline(
    serve: Callable[..., Service], offline: OfflineOpenAI
) -> None:
    service = serve(max_concurrency=1, deadline_seconds=0.7)
    offline.script(Scripted(reply="one two", hang_after=1))
    with ask_without_reading(service, "/v1/chat/stream") as caller:
        assert caller.recv(1)
        assert service.chat().json()["type"] == "urn:problem-type:deadline-exceeded"
    assert len(offline.received) == 1


def test_as_many_calls_as_there_are_places_run_at_once(
    serve: Callable[..., Service], offline: OfflineOpenAI
) -> None:
    """No pool of threads or connections is smaller. The usual ones have up to 40, and 100."""
    service = serve(max_concurrency=110)
    offline.script(Scripted(delay=60, times=110))
    with ExitStack() as callers:
        for _ in range(110):
            callers.enter_context(ask_without_reading(service, "/v1/chat"))
        wait_until(lambda: len(offline.received) == 110)


def test_who_is_refused_hears_when_others_will_have_had_their_turn(
    offline: OfflineOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    admission = limits.Admission(make_settings(offline, max_concurrency=2, max_queue=0))
    now = 0.0

    async def ask(seconds: float = 0) -> None:
        nonlocal now
        async with admission.place():
            now += seconds

    async def refused() -> float | None:
        async with admission.place(), admission.place():
            with pytest.raises(errors.Overloaded) as error:
                await ask()
        return error.value.retry_after

    async def ask_on_and_on() -> list[float | None]:
        await ask(30)
        return [await refused() for _ in range(100)]

    monkeypatch.setattr(limits, "time", SimpleNamespace(monotonic=lambda: now))
    first, *_, last = asyncio.run(ask_on_and_on())
    assert first == 15, "of two places, one will be free"
    assert last == 1, "calls have become quicker"
