"""Servers that tests start, ask and stop."""

import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

WITHIN = 60  # seconds; long, for the machine may be busy


@contextmanager
def running(*command: str, cwd: Path, **env: str) -> Iterator["subprocess.Popen[str]"]:
    """Run until the end of the block, and then press Ctrl-C."""
    environment = os.environ | env
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=WITHIN)


@contextmanager
def offline_openai(python: Path, project: Path) -> Iterator[str]:
    """The base URL of the project's offline OpenAI."""
    command = (str(python), "-m", "dev.offline_openai", "--port", "0")
    with running(*command, cwd=project) as process:
        assert process.stdout
        yield process.stdout.readline().rpartition("OPENAI_BASE_URL=")[2].strip()


def processes_with(path: Path) -> Iterator[bytes]:
    """The command lines that have this path."""
    for command_line in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended
            command = command_line.read_bytes()
            if bytes(path) in command:
                yield command


def wait_until(holds: Callable[[], object]) -> None:
    ends_at = time.monotonic() + WITHIN
    while not holds():
        assert time.monotonic() < ends_at, "it did not happen in time"
        time.sleep(0.05)


def get(port: int, path: str) -> str:
    """The answer, or nothing if there is none or a failure."""
    with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}{path}") as answer:
        return str(answer.read().decode())
    return ""
