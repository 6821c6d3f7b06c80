"""How many calls run at a time, and what happens to those over the limit."""

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import httpx2
import pytest

from ..conftest import (
    Service,
    app,
    ask_without_reading,
    concurrency,
    deadline,
    errors,
    make_settings,
    observer,
    serving,
    wait_until,
)
from dev.offline_openai import OfflineOpenAI, Scripted

ENDPOINTS = ["/v1/chat", "/v1/chat/stream"]


@pytest.fixture
def narrow(serve: Callable[..., Service], offline: OfflineOpenAI) -> Service:
    """A service with two slots and a queue of one."""
    return serve(max_concurrency=2, max_queue=1, attempt_timeout_seconds=20, deadline_seconds=20)


@pytest.fixture
def full(narrow: Service, offline: OfflineOpenAI) -> Iterator[Service]:
    """The same with both slots and the queue taken, by calls that never end."""
    offline.script(Scripted(delay=60, times=3))
    with ExitStack() as clients:
        for _ in range(3):
            clients.enter_context(ask_without_reading(narrow, "/v1/chat"))
        wait_until(lambda: len(offline.received) == 2 and narrow.running() == 3)
        yield narrow


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_call_over_the_limit_is_refused_at_once(
    endpoint: str, full: Service, offline: OfflineOpenAI, caplog: pytest.LogCaptureFixture
) -> None:
    started = time.monotonic()
    response = full.post(endpoint)
    assert time.monotonic() - started < 5, "waited for a slot"
    assert response.json()["type"] == "urn:problem-type:overloaded"
    assert int(response.headers["retry-after"]) >= 1
    assert "overloaded: Overloaded" in caplog.text
    assert len(offline.received) == 2, "no more calls at a time than there are slots"


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize(
    ("body", "status"),
    [({"messages": []}, 422), ({"model": "gpt-costly"}, 400), ({"temperature": 9}, 422)],
)
def test_an_invalid_request_is_refused_for_what_it_is(
    endpoint: str, body: dict[str, object], status: int, full: Service
) -> None:
    """It neither waits for a slot nor is told that there is none."""
    asked = {"messages": [{"role": "user", "content": "?"}]} | body
    assert full.client.post(endpoint, json=asked).status_code == status


def test_probes_need_no_slot(full: Service) -> None:
    assert full.client.get("/livez").is_success
    assert full.client.get("/readyz").is_success


def test_many_refusals_wait_for_nobody(full: Service) -> None:
    """Not even for a thread: in `sync`, requests that wait for a slot hold one."""
    with ExitStack() as clients:
        refused = [clients.enter_context(ask_without_reading(full, "/v1/chat")) for _ in range(100)]
        assert {client.recv(12) for client in refused} == {b"HTTP/1.1 503"}


def test_queued_calls_get_slots(narrow: Service, offline: OfflineOpenAI) -> None:
    offline.script(Scripted(delay=0.2, times=2))
    with ask_without_reading(narrow, "/v1/chat"), ask_without_reading(narrow, "/v1/chat"):
        wait_until(lambda: len(offline.received) == 2)
        assert narrow.chat().is_success
        assert offline.received[0].finished


def test_a_queued_client_that_disconnects_makes_room(
    narrow: Service, offline: OfflineOpenAI
) -> None:
    offline.script(Scripted(delay=60, times=2))
    with ask_without_reading(narrow, "/v1/chat"), ExitStack() as clients:
        clients.enter_context(ask_without_reading(narrow, "/v1/chat"))
        wait_until(lambda: len(offline.received) == 2)
        with ask_without_reading(narrow, "/v1/chat"):
            wait_until(lambda: narrow.running() == 3)
            assert narrow.chat().status_code == 503
        wait_until(lambda: narrow.running() == 2)
        with ask_without_reading(narrow, "/v1/chat") as queued:
            wait_until(lambda: narrow.running() == 3)
            clients.close()
            assert queued.recv(12) == b"HTTP/1.1 200"
    assert len(offline.received) == 3, "a call was made for a client that had disconnected"


def test_a_slow_upload_holds_no_slot(serve: Callable[..., Service], offline: OfflineOpenAI) -> None:
    service = serve(max_concurrency=1, queue_timeout_seconds=0.2)
    url = httpx2.URL(service.url)
    with socket.create_connection((url.host, url.port or 0)) as client:
        head = "POST /v1/chat HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        client.sendall(f"{head}content-length: 100\r\n\r\n{{".encode())
        time.sleep(0.1)
        assert service.chat().is_success


def test_a_stream_keeps_its_slot_until_it_ends(narrow: Service, offline: OfflineOpenAI) -> None:
    offline.script(Scripted(reply="one two", hang_after=1, times=2))
    with ExitStack() as clients:
        for _ in range(2):
            client = clients.enter_context(ask_without_reading(narrow, "/v1/chat/stream"))
            assert client.recv(1)
        with ask_without_reading(narrow, "/v1/chat"):
            time.sleep(0.2)
            assert len(offline.received) == 2
            clients.close()
            wait_until(lambda: len(offline.received) == 3)


@pytest.mark.usefixtures("no_backoff")
@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize(
    "outcome",
    [
        Scripted(),
        Scripted(status=400),
        Scripted(drop=True, times=4),
        Scripted(reply="one two", cut_after=1),
        Scripted(reply="one two", error_after=1),
    ],
    ids=["answer", "refusal", "no connection", "cut", "error inside"],
)
def test_every_outcome_releases_the_slot_once(
    endpoint: str, outcome: Scripted, serve: Callable[..., Service], offline: OfflineOpenAI
) -> None:
    """Not released, the second request would find none; released twice, the last two would run."""
    service = serve(max_concurrency=1, max_queue=0)
    for _ in range(2):
        offline.script(outcome)
        assert "overloaded" not in service.post(endpoint).text
        service.settle()
        offline.reset()
    offline.script(Scripted(delay=60))
    with ask_without_reading(service, endpoint):
        wait_until(lambda: offline.received)
        assert service.chat().json()["type"] == "urn:problem-type:overloaded"


def test_calls_get_slots_in_the_order_of_arrival(offline: OfflineOpenAI) -> None:
    """A cancelled call leaves no gap."""
    limiter = concurrency.ConcurrencyLimiter(make_settings(offline, max_concurrency=1, max_queue=3))
    order = []

    async def call(name: str) -> None:
        if ticket := limiter.enter():
            await limiter.wait(ticket, deadline.Deadline(10), observer.Observer())
        order.append(name)
        await asyncio.sleep(0.01)
        limiter.release()

    async def call_all() -> None:
        calls = [asyncio.create_task(call(name)) for name in "abcd"]
        await asyncio.sleep(0)
        with pytest.raises(errors.Overloaded):
            await call("e")
        calls[1].cancel()
        await asyncio.sleep(0)
        await asyncio.gather(*calls, call("f"), return_exceptions=True)

    asyncio.run(call_all())
    assert order == ["a", "c", "d", "f"]


def test_the_queue_has_a_timeout(serve: Callable[..., Service], offline: OfflineOpenAI) -> None:
    service = serve(max_concurrency=1, queue_timeout_seconds=0.2)
    offline.script(Scripted(delay=60))
    with ask_without_reading(service, "/v1/chat"):
        wait_until(lambda: offline.received)
        assert service.chat().json()["type"] == "urn:problem-type:overloaded"


def test_time_in_the_queue_counts_towards_the_deadline(
    serve: Callable[..., Service], offline: OfflineOpenAI
) -> None:
    service = serve(max_concurrency=1, deadline_seconds=1.2)
    offline.script(Scripted(delay=1), Scripted(delay=1))
    with ask_without_reading(service, "/v1/chat"):
        wait_until(lambda: offline.received)
        assert service.chat().json()["type"] == "urn:problem-type:deadline-exceeded"


def test_the_deadline_ends_the_wait_for_a_slot(
    serve: Callable[..., Service], offline: OfflineOpenAI
) -> None:
    service = serve(max_concurrency=1, deadline_seconds=0.7)
    offline.script(Scripted(reply="one two", hang_after=1))
    with ask_without_reading(service, "/v1/chat/stream") as client:
        assert client.recv(1)
        assert service.chat().json()["type"] == "urn:problem-type:deadline-exceeded"
    assert len(offline.received) == 1


def test_as_many_calls_run_as_there_are_slots(
    serve: Callable[..., Service], offline: OfflineOpenAI
) -> None:
    """No pool of threads or connections is smaller. The usual ones have up to 40, and 100."""
    service = serve(max_concurrency=110, attempt_timeout_seconds=60, deadline_seconds=60)
    offline.script(Scripted(delay=60, times=110))
    with ExitStack() as clients:
        for _ in range(110):
            clients.enter_context(ask_without_reading(service, "/v1/chat"))
        wait_until(lambda: len(offline.received) == 110)


def test_calls_in_the_queue_take_no_thread_from_others(offline: OfflineOpenAI) -> None:
    """In `sync` each of them holds one: the pool has as many more."""
    application = app.create_app(make_settings(offline, max_concurrency=1, max_queue=60))

    @application.get("/other")
    def other() -> str:
        return "no call of OpenAI"

    with serving(application) as service, ExitStack() as clients:
        wait_until(lambda: service.client.get("/readyz").is_success)
        offline.script(Scripted(delay=60))
        for _ in range(61):
            clients.enter_context(ask_without_reading(service, "/v1/chat"))
        wait_until(lambda: service.running() == 61)
        assert service.client.get("/other", timeout=5).is_success
