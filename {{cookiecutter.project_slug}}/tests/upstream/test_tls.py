"""TLS to OpenAI, direct and through a proxy, whichever library speaks it."""

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trustme

from ..conftest import (
    Service,
    app,
    ask_without_reading,
    events,
    key_check,
    make_settings,
    serving,
    wait_until,
)
from .test_connections import completion
from dev.offline_openai import OfflineOpenAI, Scripted

ENDPOINTS = ["/v1/chat", "/v1/chat/stream"]


async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while some := await reader.read(65536):
            writer.write(some)
            await writer.drain()
    writer.close()


@contextmanager
def running_tls(
    offline: OfflineOpenAI, certificate: trustme.LeafCert, proxy: str | None = None
) -> Iterator[str]:
    """The URL of what speaks TLS for the offline OpenAI: a server, or a proxy by http or https."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    upstream = urlsplit(offline.url)

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):  # a client that does not trust the certificate ends the handshake
            if proxy:
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"CONNECT openai.test:443 ")
                writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
                await writer.start_tls(context)
            answers, requests = await asyncio.open_connection(upstream.hostname, upstream.port)
            await asyncio.gather(relay(reader, requests), relay(answers, writer))

    async def serve() -> None:
        scheme, tls = ("http", None) if proxy == "http" else ("https", context)
        server = await asyncio.start_server(serve_one, "127.0.0.1", 0, ssl=tls)
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        port = server.sockets[0].getsockname()[1]
        url = f"{scheme}://127.0.0.1:{port}"
        started.set_result((url, lambda: loop.call_soon_threadsafe(stop.set)))
        await stop.wait()
        server.close()

    started: Future[tuple[str, Callable[[], object]]] = Future()
    thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
    thread.start()
    url, stop = started.result(timeout=10)
    try:
        yield url
    finally:
        stop()
        thread.join()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def _trusted(authority: trustme.CA, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The service trusts the authority, which the user names."""
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))


@pytest.fixture(params=[None, "http", "https"], ids=["direct", "by CONNECT", "by CONNECT in TLS"])
def secure(
    request: pytest.FixtureRequest,
    authority: trustme.CA,
    offline: OfflineOpenAI,
    monkeypatch: pytest.MonkeyPatch,
    _trusted: None,
) -> Iterator[Service]:
    """A service that reaches OpenAI over TLS."""
    certificate = authority.issue_cert("openai.test", "127.0.0.1")
    with running_tls(offline, certificate, request.param) as url:
        if request.param:
            monkeypatch.setenv("HTTPS_PROXY", url)
        known = make_settings(
            offline,
            openai_base_url="https://openai.test/v1" if request.param else f"{url}/v1",
            attempt_timeout_seconds=20,
            deadline_seconds=20,
        )
        with serving(app.create_app(known)) as it:
            wait_until(lambda: it.client.get("/readyz").is_success)
            offline.reset()
            yield it


def test_calls_go_over_tls(secure: Service, offline: OfflineOpenAI) -> None:
    for _ in range(3):
        assert secure.chat().is_success
        assert events(secure.stream())[-1][0] == "done"
    assert len(offline.received) == 6


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_client_disconnect_aborts_a_call_over_tls(
    endpoint: str, secure: Service, offline: OfflineOpenAI
) -> None:
    """Also if the connection has been used before."""
    for _ in range(2):
        offline.script(Scripted(reply="one two", delay=60 * (endpoint == "/v1/chat"), hang_after=1))
        with ask_without_reading(secure, endpoint):
            wait_until(lambda: offline.received)
        wait_until(lambda: offline.received[0].left_at)
        assert secure.chat().is_success
        offline.reset()


@pytest.mark.usefixtures("_trusted")
def test_an_answer_that_nobody_asked_for_in_the_same_record_is_given_to_nobody(
    authority: trustme.CA, offline: OfflineOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TLS has decrypted it then, and the socket has nothing to read any more."""
    monkeypatch.setattr(key_check.KeyCheck, "run", lambda _: asyncio.sleep(0))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    head, body = completion("fine").split(b"\r\n\r\n")

    def serve(client: socket.socket) -> None:
        with suppress(OSError), context.wrap_socket(client, server_side=True) as tls:
            while tls.recv(65536):
                tls.sendall(head + b"\r\n\r\n")
                tls.sendall(body + completion("I am the answer to another request"))

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=listener.accept()[:1], daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/v1"
        with serving(app.create_app(make_settings(offline, openai_base_url=url))) as service:
            for _ in range(3):
                assert service.chat().json()["reply"] == "fine"
        listener.shutdown(socket.SHUT_RDWR)
