"""Processes that are there for a block and gone, with all their children, after it."""

import http.client
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from .load import HOST, Work
from .results import Result
from .workspace import ROOT

STARTS_WITHIN = 60.0  # seconds; long, for the first import compiles everything


class ProcessError(Exception):
    """A process did not do what it should; the text holds what it printed last."""


@contextmanager
def running(
    command: Sequence[str | Path], *, cwd: Path, log: Path, env: dict[str, str]
) -> Iterator["subprocess.Popen[bytes]"]:
    """In a session of its own, so that Ctrl-C is for us alone, and none of its workers stays."""
    with ExitStack() as stack:
        out = stack.enter_context(log.open("wb"))
        with late_ctrl_c():
            process = stack.enter_context(
                subprocess.Popen(
                    command,
                    cwd=cwd,
                    env=os.environ | env,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )
            stack.callback(kill_session, process)
        yield process


@contextmanager
def late_ctrl_c() -> Iterator[None]:
    """Have Ctrl-C wait for the end of the block: a process that starts then is one to be killed."""
    if threading.current_thread() is not threading.main_thread():  # which alone it interrupts
        yield
        return
    pressed = threading.Event()
    before = signal.signal(signal.SIGINT, lambda *_: pressed.set())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed.is_set():
        raise KeyboardInterrupt


def kill_session(process: "subprocess.Popen[bytes]") -> None:
    with suppress(ProcessLookupError):  # all have ended
        os.killpg(process.pid, signal.SIGKILL)


def free_port() -> int:
    with socket.create_server((HOST, 0)) as server:
        port: int = server.getsockname()[1]
        return port


def answers(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=2)
    try:
        connection.request("GET", path, headers={"authorization": "Bearer none"})
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def wait_until(holds: Callable[[], bool], process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Wait for a process to start.

    Raises:
        ProcessError: it ended instead, or takes too long.
    """
    ends_at = time.monotonic() + STARTS_WITHIN
    while not holds():
        if process.poll() is not None or time.monotonic() > ends_at:
            said = log.read_text(errors="replace")[-2000:]
            raise ProcessError(f"This did not start: {process.args!r}\n{said}")
        time.sleep(0.05)


def generate_load(python: Path, work: Work, log: Path) -> Result:
    """In a process of its own, so that it takes no time from what it measures."""
    command = (python, "-m", "benchmarks.load", work.to_json())
    with (
        running(command, cwd=ROOT, log=log, env={}) as generator,
        suppress(subprocess.TimeoutExpired),  # it keeps its own time, unless it hangs
    ):
        generator.wait(work.longest + STARTS_WITHIN)
    said = log.read_text()
    if generator.returncode:
        raise ProcessError(f"The load generator failed:\n{said[-2000:]}")
    return Result.from_json(said)
