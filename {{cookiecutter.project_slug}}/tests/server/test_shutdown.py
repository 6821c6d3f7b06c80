"""What signals do. tests/test_process.py has it in processes of their own."""

import asyncio
import os
import signal
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any

import pytest

from ..conftest import app, make_settings, serving, shutdown, wait_until
from dev.offline_openai import OfflineOpenAI


@pytest.fixture
def to_server() -> Iterator[list[int]]:
    """The signals that reach the server, whose handlers are those before a graceful shutdown."""
    received: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: received.append(number))
        for number in shutdown.SIGNALS
    }
    yield received
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> "SimpleQueue[int]":
    """The statuses with which the process would be ended."""
    statuses: SimpleQueue[int] = SimpleQueue()
    monkeypatch.setattr(os, "_exit", statuses.put)
    return statuses


def test_a_server_outside_the_main_thread_leaves_signals_alone(offline: OfflineOpenAI) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with serving(app.create_app(make_settings(offline))) as service:
        assert service.client.get("/livez").is_success
        assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.usefixtures("exits")
@pytest.mark.parametrize("first", shutdown.SIGNALS)
def test_the_server_stops_once_requests_have_finished(first: int, to_server: list[int]) -> None:
    async def run() -> None:
        request = asyncio.create_task(asyncio.Event().wait())
        with shutdown.GracefulShutdown({request}, grace_seconds=60, drain_seconds=0) as stopping:
            signal.raise_signal(first)
            assert stopping.has_begun
            await asyncio.sleep(0.1)
            assert not request.cancelling()
            assert not to_server
            request.cancel()
            await asyncio.to_thread(wait_until, lambda: to_server)

    asyncio.run(run())
    assert to_server == [shutdown.QUIET_SIGNAL]


def add_request(in_flight: set[asyncio.Task[Any]], until: asyncio.Event) -> None:
    task = asyncio.create_task(until.wait())
    in_flight.add(task)
    task.add_done_callback(in_flight.discard)


@pytest.mark.usefixtures("exits")
def test_new_requests_are_served_for_a_while(to_server: list[int]) -> None:
    async def run() -> None:
        first, second = asyncio.Event(), asyncio.Event()
        requests: set[asyncio.Task[Any]] = set()
        add_request(requests, first)
        with shutdown.GracefulShutdown(requests, grace_seconds=60, drain_seconds=60) as stopping:
            signal.raise_signal(signal.SIGTERM)
            await asyncio.sleep(0.1)
            add_request(requests, second)
            first.set()
            await asyncio.sleep(0.1)
            assert stopping.has_begun
            assert not stopping.is_refusing
            assert not to_server
            second.set()
            await asyncio.sleep(0.1)
            assert not to_server, "there may be more requests"

    asyncio.run(run())


@pytest.mark.usefixtures("exits")
def test_those_that_come_too_late_are_not_waited_for(to_server: list[int]) -> None:
    async def run() -> None:
        served = asyncio.Event()
        requests: set[asyncio.Task[Any]] = set()
        add_request(requests, served)
        with shutdown.GracefulShutdown(requests, grace_seconds=60, drain_seconds=0.1) as stopping:
            signal.raise_signal(signal.SIGTERM)
            await asyncio.to_thread(wait_until, lambda: stopping.is_refusing)
            add_request(requests, asyncio.Event())
            await asyncio.sleep(0.1)
            assert not to_server
            served.set()
            await asyncio.to_thread(wait_until, lambda: to_server)

    asyncio.run(run())


@pytest.mark.usefixtures("exits")
def test_after_a_ctrl_c_new_requests_are_refused(to_server: list[int]) -> None:
    async def run() -> None:
        with shutdown.GracefulShutdown(set(), grace_seconds=60, drain_seconds=60) as stopping:
            signal.raise_signal(signal.SIGINT)
            await asyncio.to_thread(wait_until, lambda: to_server)
            assert stopping.is_refusing

    asyncio.run(run())


@pytest.mark.usefixtures("exits")
def test_a_ctrl_c_ends_the_time_for_new_requests(to_server: list[int]) -> None:
    async def run() -> None:
        with shutdown.GracefulShutdown(set(), grace_seconds=60, drain_seconds=60) as stopping:
            signal.raise_signal(signal.SIGTERM)
            await asyncio.sleep(0.1)
            assert not stopping.is_refusing
            signal.raise_signal(signal.SIGINT)
            await asyncio.to_thread(wait_until, lambda: to_server)

    asyncio.run(run())


@pytest.mark.usefixtures("exits", "to_server")
@pytest.mark.parametrize("first", shutdown.SIGNALS)
def test_a_ctrl_c_while_requests_finish_cancels_them_and_a_sigterm_does_not(first: int) -> None:
    async def run() -> None:
        request = asyncio.create_task(asyncio.Event().wait())
        with shutdown.GracefulShutdown({request}, grace_seconds=60, drain_seconds=0):
            signal.raise_signal(first)
            signal.raise_signal(signal.SIGTERM)
            await asyncio.sleep(0.1)
            assert not request.cancelling()
            signal.raise_signal(signal.SIGINT)
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(request, 10)

    asyncio.run(run())


@pytest.mark.usefixtures("to_server")
def test_a_blocked_event_loop_does_not_keep_the_process(
    exits: "SimpleQueue[int]", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutdown, "CLOSING_SECONDS", 0.1)
    monkeypatch.setattr(shutdown, "EXIT_SECONDS", 0.1)

    async def block() -> None:
        with shutdown.GracefulShutdown(set(), grace_seconds=0.1, drain_seconds=0):
            signal.raise_signal(signal.SIGTERM)
            assert exits.get(timeout=10) == 0

    asyncio.run(block())
