import asyncio
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from types import FrameType

import pytest

from .conftest import PACKAGE, concurrency, errors, make_settings, shutdown, wait_until
from dev.offline_openai import OfflineOpenAI

# A program that is told to stop, and whose event loop is blocked inside, or lives on after it.
TOLD = f"""
import asyncio, os, signal, sys, time
from {PACKAGE} import concurrency, settings, shutdown

async def main():
    known = settings.Settings(openai_api_key="sk-4ZpQ8vK2mN7rT1xW5yB9", openai_model="gpt-test")
    with shutdown.GracefulShutdown(concurrency.ConcurrencyLimiter(known), set(), 0.1):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(float(sys.argv[1]))
    time.sleep(0.6)
    print("alive")

signal.signal(signal.SIGTERM, lambda *_: None)
shutdown.CLOSING_SECONDS = 0.1
asyncio.run(main())
"""


class Server:
    """What a signal reaches in the end."""

    def __init__(self) -> None:
        self.told: list[int] = []
        self.before = [signal.signal(number, self.tell) for number in shutdown.SIGNALS]

    def tell(self, number: int, _frame: FrameType | None) -> None:
        self.told.append(number)

    async def until_told(self) -> None:
        await asyncio.to_thread(wait_until, lambda: self.told)


@pytest.fixture
def server() -> Iterator[Server]:
    before = {number: signal.getsignal(number) for number in shutdown.SIGNALS}
    yield Server()
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def limiter(offline: OfflineOpenAI) -> concurrency.ConcurrencyLimiter:
    return concurrency.ConcurrencyLimiter(make_settings(offline))


def stopping(
    limiter: concurrency.ConcurrencyLimiter, grace_seconds: float, *requests: "asyncio.Task[bool]"
) -> shutdown.GracefulShutdown:
    return shutdown.GracefulShutdown(limiter, set(requests), grace_seconds)


async def request() -> "tuple[asyncio.Event, asyncio.Task[bool]]":
    """One that runs, and what ends it."""
    end = asyncio.Event()
    return end, asyncio.create_task(end.wait())


def test_a_signal_waits_for_the_requests(
    server: Server, limiter: concurrency.ConcurrencyLimiter
) -> None:
    async def main() -> None:
        end, running = await request()
        with stopping(limiter, 60, running):
            signal.raise_signal(signal.SIGTERM)
            await asyncio.sleep(0.05)
            with pytest.raises(errors.ShuttingDown):
                limiter.enter()
            assert server.told == []
            end.set()
            await server.until_told()

    asyncio.run(main())
    assert server.told == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) == server.tell


def test_a_signal_waits_no_longer_than_the_grace(
    server: Server, limiter: concurrency.ConcurrencyLimiter
) -> None:
    async def main() -> None:
        end, running = await request()
        with stopping(limiter, 0.05, running):
            signal.raise_signal(signal.SIGINT)
            await server.until_told()
        end.set()

    asyncio.run(main())
    assert server.told == [signal.SIGTERM], "after a SIGINT, a worker waits for its threads"


def test_ctrl_c_again_does_not_wait(
    server: Server, limiter: concurrency.ConcurrencyLimiter
) -> None:
    """But the SIGTERM that a supervisor sends after a Ctrl-C is no second wish."""

    async def main() -> None:
        end, running = await request()
        with stopping(limiter, 60, running):
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)
            await asyncio.sleep(0.05)
            assert server.told == []
            signal.raise_signal(signal.SIGINT)
            await server.until_told()
            end.set()
            await asyncio.sleep(0.05)

    asyncio.run(main())
    assert server.told == [signal.SIGTERM], "told twice, the server closes nothing any more"


@pytest.mark.parametrize(
    ("seconds_inside", "printed"), [("60", ""), ("0", "alive\n")], ids=["blocked", "lives on"]
)
def test_a_blocked_event_loop_does_not_keep_the_process(seconds_inside: str, printed: str) -> None:
    """And who has left the block in time is not ended."""
    command = [sys.executable, "-c", TOLD, seconds_inside]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (0, printed), done.stderr


def test_outside_of_the_main_thread_signals_are_left_alone(
    limiter: concurrency.ConcurrencyLimiter,
) -> None:
    def serve() -> None:
        async def main() -> None:
            before = signal.getsignal(signal.SIGTERM)
            with stopping(limiter, 1):
                found.append(signal.getsignal(signal.SIGTERM) is before)

        asyncio.run(main())

    found: list[bool] = []
    thread = threading.Thread(target=serve)
    thread.start()
    thread.join()
    assert found == [True]
