"""Which keys let requests in. See also test_anonymous.py and test_routes.py."""

import hashlib
import logging
import re
from collections.abc import Callable

import httpx2
import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from ..conftest import (
    CLIENT_KEY,
    CLIENT_PAIR,
    QUESTION,
    Service,
    app,
    exchange,
    make_settings,
    requests,
)
from dev.offline_openai import OfflineOpenAI

# The second key of the same id, and the key of another id.
NEW_KEY = "svc_e2e8a86a0002da297e14639189eb390e711d20c7eba6c7b4"
OTHER_KEY = "svc_783130b3e8ae6a6e42487aaea1d40735f09f28b11be55265"
PAIRS = ",".join(
    [
        CLIENT_PAIR,
        "web:d3966002c18065de7db21af94f32b09847a7db5d687511f262dd536a70b254c5",
        "mobile:313e127fca00ecdc61eca6d8d55b86f3cff619b3b4d37829f17faddb14bd7f75",
    ]
)
# Well-formed, but of no id: that of an id that was removed, or of another service.
UNKNOWN_KEY = "svc_606ccc0d93eff6f8fcb364b9732e8ca5009b3c7528b8825e"

ENDPOINTS = ["/v1/chat", "/v1/chat/stream"]


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def chat(service: Service, headers: dict[str, str], endpoint: str = "/v1/chat") -> httpx2.Response:
    return service.client.post(endpoint, json=QUESTION, headers=headers)


@pytest.fixture
def service(serve: Callable[..., Service], offline: OfflineOpenAI) -> Service:
    return serve(service_api_keys=PAIRS)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize(
    "headers",
    [
        bearer(CLIENT_KEY),
        bearer(NEW_KEY),
        bearer(OTHER_KEY),
        {"authorization": f"bearer {CLIENT_KEY}"},  # schemes are case-insensitive
        {"AUTHORIZATION": f"BEARER   {CLIENT_KEY}"},
        {"X-API-Key": CLIENT_KEY},
        {"x-api-key": OTHER_KEY},
        {"X-API-Key": CLIENT_KEY, "Authorization": "Basic dXNlcjpwYXNzd29yZA=="},  # of a proxy
    ],
)
def test_a_key_lets_in(headers: dict[str, str], endpoint: str, service: Service) -> None:
    assert chat(service, headers, endpoint).is_success


def refusal(service: Service, *headers: str) -> bytes:
    """The whole answer, but for the time."""
    answer = exchange(service, "POST /v1/chat", "x-request-id: same", *headers)
    return re.sub(rb"date: .*\r\n", b"", answer)


def test_without_a_key_the_answer_says_which_scheme_to_use(
    service: Service, offline: OfflineOpenAI
) -> None:
    answer = chat(service, {"X-Request-ID": "of-the-client"})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"] == "urn:problem-type:unauthenticated"
    assert problem["status"] == 401
    assert problem["request_id"] == answer.headers["x-request-id"] == "of-the-client"
    assert not offline.received


@pytest.mark.parametrize(
    "header",
    [
        f"authorization: Bearer {UNKNOWN_KEY}",
        f"x-api-key: {UNKNOWN_KEY}",
        f"authorization: Bearer {CLIENT_KEY[:-3]}4bf",  # mistyped
        f"authorization: Bearer {CLIENT_KEY[:20]}{CLIENT_KEY[21]}{CLIENT_KEY[20]}{CLIENT_KEY[22:]}",
        f"authorization: Bearer {CLIENT_KEY.upper()}",
        f"authorization: Bearer {CLIENT_KEY[:-1]}",
        f"authorization: Bearer {CLIENT_KEY}{CLIENT_KEY}",
        f"authorization: Bearer {CLIENT_KEY}, Bearer {OTHER_KEY}",
        f"authorization: Bearer {CLIENT_PAIR.partition(':')[2]}",  # the hash
        f"authorization: Bearer {CLIENT_PAIR}",
        f"authorization: Bearer web:{CLIENT_KEY}",
        f"authorization: Basic {CLIENT_KEY}",
        f"authorization: Bearer{CLIENT_KEY}",
        f"authorization: {CLIENT_KEY}",
        "authorization: Bearer",
        "authorization:",
        "x-api-key:",
        "x-api-key: svc_",
        f"authorization: Bearer {CLIENT_KEY}é",
        f"authorization: Bearer {'svc_' * 10_000}",
        f"x-api-key: Bearer {CLIENT_KEY}",
        f"proxy-authorization: Bearer {CLIENT_KEY}",
        f"cookie: Authorization={CLIENT_KEY}",
    ],
)
def test_the_answer_to_a_wrong_key_is_that_to_a_missing_one(header: str, service: Service) -> None:
    missing = refusal(service)
    assert missing.startswith(b"HTTP/1.1 401 ")
    assert refusal(service, header) == missing


def test_only_keys_of_the_command_count(serve: Callable[..., Service]) -> None:
    """The checksum tells: others are refused even if somebody has listed the hash of one."""
    weak = hashlib.sha256(b"hunter2").hexdigest()
    assert chat(serve(service_api_keys=f"web:{weak}"), bearer("hunter2")).status_code == 401


def test_a_key_in_the_query_does_not_count(service: Service) -> None:
    target = f"/v1/chat?api_key={CLIENT_KEY}&x-api-key={CLIENT_KEY}&access_token={CLIENT_KEY}"
    assert exchange(service, f"POST {target}").startswith(b"HTTP/1.1 401 ")


def test_a_request_is_refused_before_its_body_is_read(service: Service) -> None:
    """Nothing of the body is ever sent, and the server does not ask for it by a 100."""
    headers = ["content-length: 1000000", "expect: 100-continue"]
    assert refusal(service, *headers).startswith(b"HTTP/1.1 401 ")


def test_both_keys_of_an_id_are_one_client(
    serve: Callable[..., Service], caplog: pytest.LogCaptureFixture
) -> None:
    """For the limits and the log: changing over to a new key changes nothing."""
    service = serve(service_api_keys=PAIRS, rate_limit="2/day")
    with caplog.at_level(logging.INFO):
        statuses = [
            chat(service, bearer(key)).status_code
            for key in (CLIENT_KEY, NEW_KEY, NEW_KEY, CLIENT_KEY, OTHER_KEY)
        ]
        service.settle()
    assert statuses == [200, 200, 429, 429, 200]
    lines = [r for r in caplog.records if r.getMessage().startswith("POST /v1/chat ")]
    assert [vars(r)["client_id"] for r in lines if r.name == requests.__name__] == [
        *["web"] * 4,
        "mobile",
    ]


def test_anonymous_clients_can_be_allowed_beside_those_with_keys(
    serve: Callable[..., Service], offline: OfflineOpenAI
) -> None:
    """A wrong key is refused nevertheless: its client would not notice that it has no effect."""
    service = serve(service_api_keys=PAIRS, allow_anonymous=True)
    assert chat(service, {}).is_success
    assert chat(service, bearer(CLIENT_KEY)).is_success
    assert chat(service, bearer(UNKNOWN_KEY)).status_code == 401
    assert chat(service, {"X-API-Key": CLIENT_KEY.upper()}).status_code == 401


def test_a_websocket_needs_a_key_too(offline: OfflineOpenAI) -> None:
    application = app.create_app(make_settings(offline, service_api_keys=PAIRS))

    @application.websocket("/owners")
    async def owners(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("let in")
        await websocket.close()

    client = TestClient(application)
    with client.websocket_connect("/owners", headers=bearer(CLIENT_KEY)) as websocket:
        assert websocket.receive_text() == "let in"
    for headers in ({}, bearer(UNKNOWN_KEY), {"Sec-WebSocket-Protocol": CLIENT_KEY}):
        with (
            pytest.raises(WebSocketDisconnect) as refused,
            client.websocket_connect("/owners", headers=headers),
        ):
            pass
        assert refused.value.code == 1008


def test_openapi_declares_how_to_send_a_key(offline: OfflineOpenAI) -> None:
    document = app.create_app(make_settings(offline, service_api_keys=PAIRS)).openapi()
    bearer, header = document["components"]["securitySchemes"].items()
    assert bearer[1] == {"type": "http", "scheme": "bearer"}
    assert header[1] == {"type": "apiKey", "in": "header", "name": "X-API-Key"}
    assert document["security"] == [{bearer[0]: []}, {header[0]: []}], "either of them"
    operations = {
        path: operation
        for path, by_method in document["paths"].items()
        for operation in by_method.values()
    }
    for path in ("/livez", "/readyz", "/metrics"):
        assert operations[path]["security"] == []
    for path in ENDPOINTS:
        assert "security" not in operations[path], "that of the document holds"


def test_openapi_declares_no_keys_if_there_are_none(offline: OfflineOpenAI) -> None:
    document = app.create_app(make_settings(offline)).openapi()
    assert "security" not in document
    assert "securitySchemes" not in document["components"]
