"""Which requests are let in without a key, by where they come from and arrive."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from ..conftest import CLIENT_KEY, CLIENT_PAIR, Service, app, make_settings, serving
from .test_auth import bearer, chat
from dev.offline_openai import OfflineOpenAI


@pytest.mark.parametrize("header", ["Authorization", "X-API-Key"])
def test_without_keys_any_header_is_ignored_on_loopback(
    header: str, serve: Callable[..., Service], offline: OfflineOpenAI
) -> None:
    """Clients of OpenAI's API cannot be told not to send a key."""
    assert chat(serve(), {header: "Bearer anything"}).is_success


class Between:
    """The application, as a server sees it for a connection between these two addresses."""

    def __init__(self, application: ASGIApp, client: object, server: object) -> None:
        self.application = application
        self.ends = {"client": client, "server": server}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.application({**scope, **self.ends}, receive, send)


@pytest.fixture
def statuses(offline: OfflineOpenAI) -> Callable[..., list[int]]:
    """Those of two chats without a key and one with a key, by where they come from and arrive."""

    def of_service(client: object, server: object, **changed: Any) -> list[int]:
        application = app.create_app(make_settings(offline, **changed))
        with serving(Between(application, client, server)) as service:
            headers: list[dict[str, str]] = [{"Host": "localhost"}, {}, bearer(CLIENT_KEY)]
            return [chat(service, with_these).status_code for with_these in headers]

    return of_service


OUTSIDE = ("203.0.113.5", 50000)


@pytest.mark.parametrize(
    ("client", "server"),
    [
        (OUTSIDE, ("192.0.2.7", 80)),
        (("192.0.2.7", 50000), ("192.0.2.7", 80)),
        (("10.0.0.8", 50000), ("10.0.0.7", 80)),
        (OUTSIDE, ("0.0.0.0", 80)),  # noqa: S104 - granian says so
        (OUTSIDE, ("127.0.0.1", 80)),  # by a proxy on this machine
        (OUTSIDE, None),
        (("2001:db8::8", 50000), ("2001:db8::7", 80)),
        (("2001:db8::8", 50000), ("::", 80)),
        (("::ffff:203.0.113.5", 50000), ("::ffff:192.0.2.7", 80)),
        (("fe80::8%eth0", 50000), ("fe80::7%eth0", 80)),
    ],
)
def test_without_keys_other_machines_are_refused(
    client: object,
    server: object,
    statuses: Callable[..., list[int]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """For servers that do not tell the application on which address they listen."""
    assert statuses(client, server) == [401] * 3
    (line,) = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert "SERVICE_API_KEYS" in line.getMessage()
    assert "ALLOW_ANONYMOUS" in line.getMessage()


@pytest.mark.parametrize("forged", ["127.0.0.1", "::1", "localhost", "testclient"])
def test_a_forged_address_lets_nobody_in(forged: str, statuses: Callable[..., list[int]]) -> None:
    """That of X-Forwarded-For, if the server believes everybody, as FORWARDED_ALLOW_IPS=* says."""
    assert statuses((forged, 0), ("192.0.2.7", 80)) == [401] * 3


@pytest.mark.parametrize(
    ("client", "server"),
    [
        (("127.0.0.1", 50000), ("127.0.0.1", 80)),
        (("127.0.0.1", 50000), ("127.1.2.3", 80)),
        (("::1", 50000), ("::1", 80)),
        (("::ffff:127.0.0.1", 50000), ("::ffff:127.0.0.1", 80)),
        (None, ("/run/service.sock", None)),  # a UNIX socket of uvicorn, hypercorn and granian
        (None, None),
        (("", "0"), ("/run/service.sock", "0")),
    ],
)
def test_without_keys_this_machine_is_let_in(
    client: object, server: object, statuses: Callable[..., list[int]]
) -> None:
    assert statuses(client, server) == [200] * 3


def test_with_keys_it_does_not_matter_where_requests_come_from(
    statuses: Callable[..., list[int]],
) -> None:
    local = ("127.0.0.1", 80)
    assert statuses(OUTSIDE, ("192.0.2.7", 80), service_api_keys=CLIENT_PAIR) == [401, 401, 200]
    assert statuses(local, local, service_api_keys=CLIENT_PAIR) == [401, 401, 200]


def test_anonymous_clients_of_other_machines_can_be_allowed(
    statuses: Callable[..., list[int]],
) -> None:
    assert statuses(OUTSIDE, ("192.0.2.7", 80), allow_anonymous=True) == [200] * 3


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost:3000", 200),
        ("http://127.0.0.1:8000", 200),
        ("http://[::1]:8000", 200),
        ("https://app.example.com", 200),  # in CORS_ORIGINS
        ("https://app.example.com.evil.example", 401),
        ("http://evil.example:8000", 401),
        ("http://127.0.0.1.evil.example", 401),
        ("null", 401),  # of a sandboxed frame
    ],
)
def test_without_keys_pages_of_other_origins_are_refused(
    origin: str, status: int, serve: Callable[..., Service], offline: OfflineOpenAI
) -> None:
    """A page can reach a service on loopback, by a name whose address changes to 127.0.0.1."""
    service = serve(cors_origins="https://app.example.com")
    assert chat(service, {"Origin": origin}).status_code == status
