"""The innermost cause of a failed connection is in the log, whichever library makes it."""

import datetime
import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trustme
from tenacity import wait_fixed

from ..conftest import app, key_check, make_settings, serving, wait_until
from .test_tls import running_tls
from dev.offline_openai import OfflineOpenAI, Scripted, running

PASSWORD = "pa55word"  # noqa: S105 - of a proxy that is none
DAY = datetime.timedelta(days=1)


@contextmanager
def refusing() -> Iterator[str]:
    """An address that is bound, so that nobody else gets it, and not listened to."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


@contextmanager
def silent() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@contextmanager
def plain() -> Iterator[str]:
    """A server that speaks HTTP where TLS is spoken to it."""

    def serve() -> None:
        with suppress(OSError):
            while True:
                with server.accept()[0] as client:
                    client.recv(4096)
                    client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


@contextmanager
def faulty(kind: str, offline: OfflineOpenAI, folder: Path) -> Iterator[dict[str, str]]:
    """The environment of a service to which this happens."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "authority.pem")
    trusted = {"SSL_CERT_FILE": str(folder / "authority.pem")}
    with ExitStack() as stack:
        if kind == "no such name":
            yield {"OPENAI_BASE_URL": "http://openai.test/v1"}
        elif kind == "refused":
            address = stack.enter_context(refusing())
            yield {"OPENAI_BASE_URL": f"http://{address}/v1"}
        elif kind == "no TLS":
            yield {"OPENAI_BASE_URL": f"https://{stack.enter_context(plain())}/v1"}
        elif kind == "no answer":
            yield {"OPENAI_BASE_URL": f"http://{stack.enter_context(silent())}/v1"}
        elif kind == "dropped":
            offline.script(Scripted(path="/v1", drop=True, times=99))
            yield {"OPENAI_BASE_URL": offline.url}
        elif kind == "no such proxy":
            proxy = f"http://user:{PASSWORD}@{stack.enter_context(refusing())}"
            yield {"OPENAI_BASE_URL": "https://openai.test/v1", "HTTPS_PROXY": proxy}
        elif kind == "proxy refuses":
            offline.script(Scripted(path="", status=407, body="", times=99))
            address = offline.url.removeprefix("http://").removesuffix("/v1")
            proxy = f"http://user:{PASSWORD}@{address}"
            yield {"OPENAI_BASE_URL": "https://openai.test/v1", "HTTPS_PROXY": proxy}
        else:
            issuer = trustme.CA() if kind == "unknown authority" else authority
            name = "openai.test" if kind == "wrong host" else "127.0.0.1"
            began = datetime.datetime.now(datetime.UTC) - 9 * DAY
            ends = began + (1 if kind == "expired" else 99) * DAY
            certificate = issuer.issue_cert(name, not_before=began, not_after=ends)
            url = stack.enter_context(running_tls(offline, certificate))
            yield {"OPENAI_BASE_URL": f"{url}/v1"} | trusted


def no_name(host: Any, *others: Any, **more: Any) -> Any:
    """At once, whatever the machine's resolver does."""
    if host in ("openai.test", b"openai.test"):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    return getaddrinfo(host, *others, **more)


getaddrinfo = socket.getaddrinfo


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    # One check: httpx2 forgets to close its socket if a test ends during a TLS handshake.
    monkeypatch.setattr(key_check, "wait_random_exponential", lambda **_: wait_fixed(60))
    monkeypatch.setattr(socket, "getaddrinfo", no_name)


@pytest.mark.usefixtures("no_backoff", "_quick")
@pytest.mark.parametrize(
    ("kind", "at_check", "at_call"),
    [
        ("refused", "ConnectionRefusedError: ", "ConnectionRefusedError: "),
        ("no such name", "Name or service not known", "gaierror: "),
        ("unknown authority", "local issuer certificate", "local issuer certificate"),
        ("expired", "certificate has expired", "certificate has expired"),
        ("wrong host", "not valid for '127.0.0.1'", "not valid for '127.0.0.1'"),
        ("no TLS", "SSL", "SSL"),
        ("no answer", "no answer within 0.5 s", "ReadTimeout"),
        ("dropped", "disconnected", "disconnected"),
        ("no such proxy", "by the proxy http://127.0.0.1:", "ConnectionRefusedError: "),
        ("proxy refuses", "by the proxy http://127.0.0.1:", "407"),
    ],
)
def test_a_failed_connection_is_logged_with_its_innermost_cause(
    kind: str,
    at_check: str,
    at_call: str,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    """At the key check, at each attempt and at the failure; and without a proxy's password."""
    caplog.set_level(logging.INFO)
    seconds = 0.5 if kind == "no answer" else 10
    with (
        running() as offline,
        faulty(kind, offline, tmp_path) as environment,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(key_check, "TIMEOUT_SECONDS", seconds)
        for name, value in ({"NO_PROXY": "127.0.0.1"} | environment).items():
            patch.setenv(name, value)
        url = environment["OPENAI_BASE_URL"]
        known = make_settings(
            offline, openai_base_url=url, max_attempts=2, attempt_timeout_seconds=seconds
        )
        with serving(app.create_app(known)) as service:
            wait_until(lambda: "OPENAI_API_KEY is not checked yet" in caplog.text)
            problem = service.chat().json()
    messages = [record.getMessage() for record in caplog.records]
    check = next(message for message in messages if "OPENAI_API_KEY" in message)
    (attempt,) = [message for message in messages if message.startswith("attempt 1 failed")]
    (failure,) = [message for message in messages if message.startswith("upstream-")]
    expected = "upstream-timeout" if kind == "no answer" else "upstream-unreachable"
    assert problem["type"] == f"urn:problem-type:{expected}"
    assert bool(offline.received) is (kind in ("dropped", "proxy refuses"))
    # Each library has its own words: one has RemoteDisconnected.
    assert at_check.lower() in check.lower()
    assert at_call.lower() in attempt.lower()
    assert at_call.lower() in failure.lower()
    assert not any("\n" in message or len(message) > 1000 for message in messages)
    assert PASSWORD not in caplog.text
