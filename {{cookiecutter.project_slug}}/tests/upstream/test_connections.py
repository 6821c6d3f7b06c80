"""Connecting, proxies and odd answers, whichever library makes the connections."""

import asyncio
import json
import socket
import threading
import time
from base64 import b64decode
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest

from ..conftest import (
    Service,
    app,
    ask_without_reading,
    connections,
    key_check,
    make_settings,
    serving,
    settings,
    streaming,
    transport,
    wait_until,
)
from dev.offline_openai import OfflineOpenAI, Scripted, running

UNREACHABLE = "urn:problem-type:upstream-unreachable"


@pytest.fixture
def _no_key_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """httpx2, which makes it, forgets a connection that it has not completed."""
    monkeypatch.setattr(key_check.KeyCheck, "run", lambda _: asyncio.sleep(0))


@pytest.fixture(params=["OPENAI_BASE_URL", "HTTPS_PROXY"])
def silent(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, _no_key_check: None
) -> Iterator[tuple[socket.socket, str]]:
    """A server that begins no TLS or a silent proxy, and a base URL that leads to it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        if request.param == "HTTPS_PROXY":
            monkeypatch.setenv("HTTPS_PROXY", address)
            address = "openai.test"
        yield listener, f"https://{address}/v1"


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"attempt_timeout_seconds": 20, "deadline_seconds": 0.3}, "deadline-exceeded"),
        ({"attempt_timeout_seconds": 0.3, "deadline_seconds": 20}, "upstream-timeout"),
    ],
    ids=["deadline", "attempt"],
)
def test_a_connection_that_is_never_made_ends_in_time(
    changed: dict[str, Any],
    expected: str,
    silent: tuple[socket.socket, str],
    offline: OfflineOpenAI,
) -> None:
    known = make_settings(offline, openai_base_url=silent[1], max_attempts=1, **changed)
    with serving(app.create_app(known)) as service:
        started = time.monotonic()
        problem = service.chat().json()
        assert time.monotonic() - started < 4, "took the time of connecting"
    assert problem["type"] == f"urn:problem-type:{expected}"


def test_a_connection_that_is_never_made_holds_no_request_whose_client_left(
    silent: tuple[socket.socket, str], offline: OfflineOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its socket is closed when the time to connect has passed, or before."""
    monkeypatch.setattr(connections, "CONNECT_SECONDS", 2)
    listener, url = silent
    known = make_settings(
        offline, openai_base_url=url, attempt_timeout_seconds=20, deadline_seconds=20
    )
    with serving(app.create_app(known)) as service:
        with (
            ask_without_reading(service, "/v1/chat"),
            ask_without_reading(service, "/v1/chat/stream"),
        ):
            accepted = [listener.accept()[0] for _ in range(2)]
            assert all(upstream.recv(65536) for upstream in accepted)
        left_at = time.monotonic()
        service.settle()
        assert time.monotonic() - left_at < 1.5
        for upstream in accepted:
            with upstream:
                upstream.settimeout(10)
                assert upstream.recv(65536) == b""


@contextmanager
def full_listener() -> Iterator[tuple[str, int]]:
    """The address of a server that has no room for further connections: they get no answer."""
    with ExitStack() as sockets:
        full = sockets.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):
            client = sockets.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(full.getsockname())
        yield full.getsockname()


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Have the name openai.test resolved to these addresses."""
    getaddrinfo = socket.getaddrinfo

    def resolve(host: Any, *others: Any, **named: Any) -> list[Any]:
        hosts = addresses if host in ("openai.test", b"openai.test") else (host,)
        return [found for host in hosts for found in getaddrinfo(host, *others, **named)]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


def test_a_host_whose_addresses_are_all_silent_ends_with_the_deadline(
    offline: OfflineOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not with a deadline for each of them."""
    with full_listener() as (_, port):
        resolve_to(monkeypatch, *9 * ["127.0.0.1"])
        changed = {"attempt_timeout_seconds": 20, "deadline_seconds": 0.5, "max_attempts": 1}
        url = f"http://openai.test:{port}/v1"
        with serving(app.create_app(make_settings(offline, openai_base_url=url, **changed))) as it:
            started = time.monotonic()
            problem = it.chat().json()
            assert time.monotonic() - started < 3
    assert problem["type"] == "urn:problem-type:deadline-exceeded"


def test_a_hung_name_resolution_ends_with_the_deadline(
    offline: OfflineOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = threading.Event()

    def resolve(host: Any, *others: Any, **named: Any) -> Any:
        if host in ("openai.test", b"openai.test"):
            answered.wait(20)
            raise socket.gaierror
        return getaddrinfo(host, *others, **named)

    getaddrinfo = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    changed = {"attempt_timeout_seconds": 20, "deadline_seconds": 0.3}
    known = make_settings(offline, openai_base_url="http://openai.test/v1", **changed)
    with serving(app.create_app(known)) as service:
        started = time.monotonic()
        problem = service.chat().json()
        assert time.monotonic() - started < 4, "waited for the resolver"
        answered.set()
    assert problem["type"] == "urn:problem-type:deadline-exceeded"


@pytest.mark.usefixtures("_no_key_check")  # it would try them as well
def test_a_connection_that_is_made_after_the_deadline_is_closed(
    offline: OfflineOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread may be connecting then, and has more addresses to try."""
    monkeypatch.setattr(connections, "CONNECT_SECONDS", 0.5)
    with full_listener() as (_, port), socket.create_server(("127.0.0.2", port)) as other:
        resolve_to(monkeypatch, "127.0.0.1", "127.0.0.2")
        changed = {"attempt_timeout_seconds": 20, "deadline_seconds": 0.1, "max_attempts": 1}
        url = f"http://openai.test:{port}/v1"
        with serving(app.create_app(make_settings(offline, openai_base_url=url, **changed))) as it:
            assert it.chat().json()["type"] == "urn:problem-type:deadline-exceeded"
        other.settimeout(1)
        with suppress(TimeoutError), other.accept()[0] as connection:
            connection.settimeout(2)
            assert connection.recv(65536) == b""


def test_the_next_address_of_a_host_is_tried(
    offline: OfflineOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve_to(monkeypatch, "127.0.0.2", "127.0.0.1")  # the first refuses
    url = offline.url.replace("127.0.0.1", "openai.test")
    known = make_settings(offline, openai_base_url=url, max_attempts=1)
    with serving(app.create_app(known)) as service:
        assert service.chat().is_success


UNASKED = "I am the answer to another request"


def completion(reply: str) -> bytes:
    choice = {"message": {"content": reply}, "finish_reason": "stop"}
    body = json.dumps({"model": "gpt-test", "choices": [choice]})
    return f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()


def answer_twice(listener: socket.socket, pause: float, accepted: list[socket.socket]) -> None:
    """Serve completions, each followed by one that nobody asked for."""

    def serve(client: socket.socket) -> None:
        with client, suppress(OSError):
            while client.recv(65536):
                if pause:
                    client.sendall(completion("fine"))
                    time.sleep(pause)
                    client.sendall(completion(UNASKED))
                else:
                    client.sendall(completion("fine") + completion(UNASKED))

    with suppress(OSError):
        while True:
            client, _ = listener.accept()
            accepted.append(client)
            threading.Thread(target=serve, args=(client,), daemon=True).start()


@pytest.mark.usefixtures("_no_key_check")
@pytest.mark.parametrize("pause", [0, 0.05], ids=["at once", "later"])
def test_an_answer_that_nobody_asked_for_is_given_to_nobody(
    pause: float, offline: OfflineOpenAI
) -> None:
    """And its connection is not used again, unless it came with the answer and is dropped."""
    accepted: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=answer_twice, args=(listener, pause, accepted), daemon=True).start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        with serving(app.create_app(make_settings(offline, openai_base_url=url))) as service:
            for _ in range(3):
                assert service.chat().json()["reply"] == "fine"
                time.sleep(3 * pause)
        listener.shutdown(socket.SHUT_RDWR)
    if pause:
        assert len(accepted) == 3


def test_the_time_to_connect_is_no_limit_for_the_answer(
    offline: OfflineOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "CONNECT_SECONDS", 0.2)
    with serving(app.create_app(make_settings(offline))) as service:
        wait_until(lambda: service.client.get("/readyz").is_success)
        offline.reset()
        offline.script(Scripted(delay=0.5))
        assert service.chat().is_success
    assert len(offline.received) == 1


def test_an_answer_may_have_long_headers(service: Service, offline: OfflineOpenAI) -> None:
    offline.script(Scripted(headers={"content-security-policy": "x" * 50_000}))
    assert service.chat().is_success
    assert len(offline.received) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SSL_CERT_FILE", "/nowhere.pem"),
        ("SSL_CERT_FILE", __file__),
        ("HTTPS_PROXY", "socks5://127.0.0.1"),
        ("HTTPS_PROXY", "http://127.0.0.1:port"),
        ("HTTPS_PROXY", "http://"),
    ],
)
def test_what_the_environment_names_wrongly_is_named(
    name: str, value: str, offline: OfflineOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    known = make_settings(offline, openai_base_url="https://openai.test/v1")
    with pytest.raises(settings.SettingsError, match=name):
        asyncio.run(key_check.try_key(known, seconds=5))


@pytest.mark.parametrize(
    ("environment", "is_used"),
    [
        ({"HTTP_PROXY": "http://PROXY"}, True),
        ({"HTTP_PROXY": "http://PROXY", "NO_PROXY": "127.0.0.1,openai.invalid:81"}, False),
        ({"ALL_PROXY": "PROXY"}, True),
    ],
)
def test_the_environment_names_a_proxy(
    environment: dict[str, str],
    is_used: bool,
    offline: OfflineOpenAI,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def resolve(host: str | bytes, *others: Any, **more: Any) -> Any:
        if host in ("openai.invalid", b"openai.invalid"):
            raise socket.gaierror  # at once, whatever the machine's resolver does
        return getaddrinfo(host, *others, **more)

    getaddrinfo = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    address = offline.url.removeprefix("http://").removesuffix("/v1")
    for name, value in ({"NO_PROXY": "127.0.0.1"} | environment).items():
        monkeypatch.setenv(name, value.replace("PROXY", address))
    url = "http://openai.invalid:81/v1"
    known = make_settings(offline, openai_base_url=url, max_attempts=1)
    with serving(app.create_app(known)) as service:
        problem = service.chat().json()
    asked = {request.path for request in offline.received}
    assert any(path.endswith("/v1/chat/completions") for path in asked) is is_used
    assert (problem["type"] == UNREACHABLE) is not is_used


def test_a_proxy_gets_the_credentials_in_its_url(
    offline: OfflineOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = offline.url.removeprefix("http://").removesuffix("/v1")
    monkeypatch.setenv("HTTP_PROXY", f"http://us%40er:pass@{address}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    known = make_settings(offline, openai_base_url="http://openai.invalid/v1")
    with serving(app.create_app(known)) as service:
        service.chat()  # is refused: the offline OpenAI is no proxy
    headers = offline.received[-1].headers
    assert headers["host"] == "openai.invalid"
    assert b64decode(headers["proxy-authorization"].removeprefix("Basic ")) == b"us@er:pass"


def test_connections_that_nobody_uses_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "KEEPALIVE_SECONDS", 0.2)
    with running() as offline, serving(app.create_app(make_settings(offline))) as service:
        for _ in range(2):
            assert service.chat().is_success
            wait_until(lambda: not offline.connections)


def test_a_connection_stays_open_after_its_stream(
    service: Service, offline: OfflineOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the time to drain the body is over, too: the body has been read."""
    monkeypatch.setattr(streaming, "DRAIN_SECONDS", 0.1, raising=False)
    assert "event: done" in service.stream().text
    before = set(offline.connections)
    time.sleep(0.3)
    assert before
    assert before <= offline.connections


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")  # aiohttp's
def test_the_time_to_connect_is_no_limit_for_sending(
    offline: OfflineOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "CONNECT_SECONDS", 0.2)
    monkeypatch.setattr(key_check.KeyCheck, "run", lambda _: asyncio.sleep(0))

    def serve() -> None:
        with suppress(OSError), listener.accept()[0] as client:
            time.sleep(0.6)  # meanwhile the buffers are full
            while client.recv(1 << 20)[-2:] != b"]}":
                pass
            client.sendall(completion("at last"))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        changed = {"max_attempts": 1, "max_body_bytes": 10**8, "attempt_timeout_seconds": 20}
        known = make_settings(offline, openai_base_url=url, deadline_seconds=20, **changed)
        with serving(app.create_app(known)) as service:
            messages = [{"role": "user", "content": "x" * 1000}] * 12_000
            assert service.chat(messages=messages).json()["reply"] == "at last"
        listener.shutdown(socket.SHUT_RDWR)


def test_a_long_body_arrives_whole(service: Service, offline: OfflineOpenAI) -> None:
    messages = [{"role": "user", "content": str(number) * 1000} for number in range(300)]
    assert service.chat(messages=messages).is_success
    assert offline.received[0].body["messages"] == messages


def test_an_answer_may_come_before_the_body_is_read(offline: OfflineOpenAI) -> None:
    """Of a server, say, that refuses what is too long and closes the connection."""

    def serve() -> None:
        with suppress(OSError):
            while True:
                with listener.accept()[0] as client:
                    client.recv(1024)
                    client.sendall(completion("no need to read on"))

    messages = [{"role": "user", "content": "x" * 1000}] * 900
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # holds the rest back
        threading.Thread(target=serve, daemon=True).start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        known = make_settings(offline, openai_base_url=url, max_attempts=1)
        with serving(app.create_app(known)) as service:
            assert service.chat(messages=messages).json()["reply"] == "no need to read on"
        listener.shutdown(socket.SHUT_RDWR)


def answer_after_early_hints(listener: socket.socket) -> None:
    """Echo each question, some time after interim responses, which clients have to skip."""
    with suppress(OSError), ExitStack() as kept:
        while True:
            connection = kept.enter_context(listener.accept()[0])
            threading.Thread(target=echo, args=(connection,), daemon=True).start()


def echo(connection: socket.socket) -> None:
    with suppress(OSError, ValueError, KeyError):
        while head := connection.recv(65536):
            question = json.loads(head.partition(b"\r\n\r\n")[2])["messages"][0]["content"]
            connection.sendall(b"HTTP/1.1 102 Processing\r\n\r\n")
            connection.sendall(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n")
            time.sleep(0.1)
            body = json.dumps({"choices": [{"message": {"content": question}}]}).encode()
            connection.sendall(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
                b"content-length: %d\r\n\r\n%b" % (len(body), body)
            )


@pytest.mark.usefixtures("_no_key_check")
def test_interim_responses_are_skipped(offline: OfflineOpenAI) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        threading.Thread(target=answer_after_early_hints, args=(listener,), daemon=True).start()
        with serving(app.create_app(make_settings(offline, openai_base_url=url))) as service:
            for question in ("one", "two", "three"):
                reply = service.chat(messages=[{"role": "user", "content": question}]).json()
                assert reply["reply"] == question
        listener.shutdown(socket.SHUT_RDWR)
