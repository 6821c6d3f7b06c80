"""Stopping: what runs may finish, what comes is refused, and then the process ends for sure."""

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from .limits import Admission

logger = logging.getLogger(__name__)

SIGNALS = (signal.SIGINT, signal.SIGTERM)

# For closing connections and clients, once the calls have ended or their time is over.
CLOSING_SECONDS = 1


@contextmanager
def graceful_shutdown(admission: Admission, grace_seconds: float) -> Iterator[None]:
    """Inside, a signal to stop reaches the server only when all calls have ended.

    Until then, at most `grace_seconds`, the server listens on: whoever sends requests here should
    see `/readyz`, and hear from us that they come too late, rather than find nobody.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # as in tests: signals are for the main thread alone
        return
    loop = asyncio.get_running_loop()
    servers = {number: signal.getsignal(number) for number in SIGNALS}
    stopping: list[asyncio.Task[None]] = []
    is_told = False

    def pass_on(number: int, frame: FrameType | None = None) -> None:
        handler = servers[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)

    async def stop(number: int) -> None:
        await admission.close(grace_seconds)
        pass_on(number)

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal is_told
        if not is_told:
            is_told = True
            _end_for_sure(grace_seconds + 2 * CLOSING_SECONDS)
            loop.call_soon_threadsafe(lambda: stopping.append(loop.create_task(stop(number))))
        elif number == signal.SIGINT:  # Ctrl-C again: in a hurry
            pass_on(number, frame)

    for number in SIGNALS:
        signal.signal(number, on_signal)
    try:
        yield
    finally:
        for number, handler in servers.items():
            signal.signal(number, handler)


def _end_for_sure(seconds: float) -> None:
    """Not even a thread that never ends, or an event loop that is blocked, keeps the process."""

    def end() -> None:
        logger.error("something keeps the process: it ends without")
        os._exit(0)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
