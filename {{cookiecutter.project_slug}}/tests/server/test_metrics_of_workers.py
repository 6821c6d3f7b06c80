"""The metrics of several worker processes, whichever of them answers."""

import os
import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx2

from ..conftest import NO_CERTIFICATES, QUESTION, wait_until
from ..processes import Process, answers, env, post, process
from .exposition import ATTEMPTS, DURATION, TOKENS, value
from dev.offline_openai import OfflineOpenAI

WORKERS = 3
REQUESTS = 30


@contextmanager
def workers(offline: OfflineOpenAI, temporary: Path) -> Iterator[tuple[Process, str]]:
    changed = {"WORKERS": str(WORKERS), "TMPDIR": str(temporary), "LOG_FORMAT": "json"}
    with process(**env(offline, **changed)) as service:
        url = service.url()
        wait_until(lambda: answers(f"{url}/readyz"), seconds=60)
        wait_until(lambda: total(url, "openai_key_status", status="accepted") == WORKERS, 60)
        yield service, url


def started(service: Process) -> list[int]:
    return [int(pid) for pid in re.findall(r"server process \[(\d+)\]", service.log.read_text())]


def total(url: str, name: str, **labels: str) -> float:
    """As a worker tells it; which one, the system decides for each connection."""
    with httpx2.Client(base_url=url, verify=NO_CERTIFICATES, timeout=60) as client:
        return value(client, name, **labels)


def chats(url: str) -> float:
    return total(url, f"{DURATION}_count", http_route="/v1/chat", http_response_status_code="200")


def test_workers_tell_the_same_and_a_killed_one_takes_only_its_gauges_along(
    offline: OfflineOpenAI, tmp_path: Path
) -> None:
    with workers(offline, tmp_path) as (service, url):
        (directory,) = tmp_path.glob("metrics-*")
        assert directory.stat().st_mode & 0o077 == 0, "others can read it"
        (directory / f"counter_{os.getpid()}.db").touch()  # as of a worker that just starts

        def ask(_: int) -> None:
            assert post(f"{url}/v1/chat", json=QUESTION).is_success

        with ThreadPoolExecutor(8) as clients:
            list(clients.map(ask, range(REQUESTS)))
        wait_until(lambda: chats(url) == REQUESTS)
        assert {chats(url) for _ in range(8)} == {REQUESTS}
        assert total(url, f"{ATTEMPTS}_count") == REQUESTS
        labels = {"gen_ai_token_type": "input", "client_id": "anonymous"}
        assert total(url, TOKENS, **labels) == 4 * REQUESTS
        assert total(url, "openai_calls_max") == WORKERS * 200
        assert total(url, "openai_key_status", status="accepted") == WORKERS
        os.kill(started(service)[0], signal.SIGKILL)
        # Until another has started in its place.
        wait_until(lambda: total(url, "openai_calls_max") == (WORKERS - 1) * 200)
        assert total(url, "openai_key_status", status="accepted") == WORKERS - 1
        assert {chats(url) for _ in range(8)} == {REQUESTS}
        service.popen.send_signal(signal.SIGTERM)
        assert service.end()[0] == 0
        assert not list(tmp_path.glob("metrics-*"))
