"""The service as a process of its own."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile

import httpx2

from .conftest import KEY, NO_CERTIFICATES, PACKAGE, wait_until
from dev.offline_openai import OfflineOpenAI, Scripted, running

# On connections of their own.
get = partial(httpx2.get, timeout=60, verify=NO_CERTIFICATES)
post = partial(httpx2.post, timeout=60, verify=NO_CERTIFICATES)
stream = partial(httpx2.stream, timeout=60, verify=NO_CERTIFICATES)

LISTENS = re.compile(r"(?:Listening|Uvicorn running) on (\S+) ")


@dataclass
class Process:
    popen: "subprocess.Popen[bytes]"
    log: Path

    def url(self) -> str:
        """Where it listens, once it does."""
        ended = self.popen.poll
        wait_until(lambda: LISTENS.search(self.log.read_text()) or ended() is not None, seconds=60)
        found = LISTENS.search(self.log.read_text())
        assert found, self.log.read_text()
        return found[1]

    def end(self) -> tuple[int, str]:
        """Its status, and what it has printed."""
        return self.popen.wait(timeout=60), self.log.read_text()


@contextmanager
def process(*arguments: str, **env: str) -> Iterator[Process]:
    """The service, on a port that is free. What it prints goes to a file: a pipe may be full."""
    with (
        NamedTemporaryFile() as log,
        subprocess.Popen(
            [sys.executable, *(arguments or ("-m", PACKAGE))],
            env=os.environ | {"PORT": "0", "SHUTDOWN_DRAIN_SECONDS": "0"} | env,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that its workers are killed with it
        ) as popen,
    ):
        try:
            yield Process(popen, Path(log.name))
        finally:
            if sys.platform == "win32":
                popen.kill()
            else:
                with suppress(ProcessLookupError):  # all have ended
                    os.killpg(popen.pid, signal.SIGKILL)


def env(offline: OfflineOpenAI, **changed: str) -> dict[str, str]:
    values = {"OPENAI_API_KEY": KEY, "OPENAI_MODEL": "gpt-test", "OPENAI_BASE_URL": offline.url}
    return values | changed


def answers(url: str) -> bool:
    try:
        return get(url).is_success
    except httpx2.TransportError:
        return False


@contextmanager
def started(
    *arguments: str, at_check: Scripted | None = None, **changed: str
) -> Iterator[tuple[Process, str, OfflineOpenAI]]:
    """A service that is ready, and its upstream, which has answered the key check so."""
    with running() as offline, ExitStack() as stack:
        if at_check:
            offline.script(at_check)
        service = stack.enter_context(process(*arguments, **env(offline, **changed)))
        url = service.url()
        if at_check and at_check.delay:
            assert get(f"{url}/livez").is_success
            # The check would wait for 10 s, but the start waits for 2 s at most. The rest is for a
            # busy machine.
            assert time.monotonic() - offline.received[0].at < 9
        wait_until(lambda: answers(f"{url}/readyz"), seconds=60)
        offline.reset()
        yield service, url, offline
