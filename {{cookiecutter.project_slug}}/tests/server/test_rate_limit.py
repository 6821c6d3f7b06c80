"""How many requests a client may send."""

import itertools
import re
import socket
import time
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from ..conftest import (
    KEY,
    QUESTION,
    Service,
    app,
    ask_without_reading,
    environment,
    errors,
    keys,
    make_settings,
    serving,
    settings,
    wait_until,
)
from dev.offline_openai import OfflineOpenAI, Scripted

POLICY = '"requests-3600s";q=3;w=3600, "requests-86400s";q=100;w=86400'

addresses = (f"198.51.100.{number}" for number in itertools.count(1))


@pytest.fixture
def address() -> str:
    """Of a client that no other test has."""
    return next(addresses)


@pytest.fixture
def limited(serve: Callable[..., Service], offline: OfflineOpenAI) -> Service:
    """Behind a proxy, as which the tests send the addresses of clients."""
    return serve(
        rate_limit="3/hour; 100/day", trusted_proxies="127.0.0.1, 10.0.0.0/8", allow_anonymous=True
    )


def ask(service: Service, forwarded_for: str, **body: Any) -> httpx2.Response:
    headers = {"x-forwarded-for": forwarded_for}
    return service.client.post("/v1/chat", json=QUESTION | body, headers=headers)


def statuses(service: Service, *forwarded_for: str) -> list[int]:
    return [ask(service, one).status_code for one in forwarded_for]


def remaining(response: httpx2.Response) -> dict[str, int]:
    """What the client may still use of each policy."""
    found = re.findall(r'"([\w-]+)";r=(\d+)(?:;t=\d+)?(?:, |$)', response.headers["ratelimit"])
    return {policy: int(number) for policy, number in found}


def test_requests_over_the_limit_are_refused(
    limited: Service, offline: OfflineOpenAI, address: str
) -> None:
    assert statuses(limited, *[address] * 3) == [200, 200, 200]
    refused = ask(limited, address)
    problem = refused.json()
    assert (refused.status_code, problem["type"]) == (429, "urn:problem-type:rate-limited")
    assert problem["violated-policies"] == ["requests-3600s"]
    assert 1 <= int(refused.headers["retry-after"]) <= 2 * 3600
    assert len(offline.received) == 3


def test_a_refusal_tells_the_policies_and_what_remains(limited: Service, address: str) -> None:
    for _ in range(4):
        response = ask(limited, address)
    assert response.headers["ratelimit-policy"] == POLICY
    assert remaining(response) == {"requests-3600s": 0, "requests-86400s": 97}
    reset = re.findall(r";t=(\d+)", response.headers["ratelimit"])[0]
    assert int(response.headers["retry-after"]) >= int(reset), "as the draft requires"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ({"url": "/v1/chat", "json": QUESTION}, 200),
        ({"url": "/v1/chat/stream", "json": QUESTION}, 200),
        ({"url": "/v1/chat", "json": {}}, 422),
        ({"url": "/v1/chat", "json": QUESTION | {"model": "unknown"}}, 400),
        ({"url": "/v1/chat", "content": b"{" + b" " * 1_048_576}, 413),
        ({"url": "/v1/unknown"}, 404),
        ({"url": "/v1/chat", "method": "GET"}, 405),
    ],
)
def test_every_answer_tells_what_remains(
    request_: dict[str, Any], status: int, limited: Service, address: str
) -> None:
    wanted = {"method": "POST", "headers": {"x-forwarded-for": address}} | request_
    first, second = (limited.client.request(**wanted) for _ in range(2))
    assert [first.status_code, second.status_code] == [status, status]
    assert remaining(first) == {"requests-3600s": 2, "requests-86400s": 99}
    assert remaining(second) == {"requests-3600s": 1, "requests-86400s": 98}
    assert first.headers["ratelimit-policy"] == POLICY


def test_failures_of_openai_and_of_the_service_tell_what_remains(
    limited: Service, offline: OfflineOpenAI, address: str
) -> None:
    offline.script(Scripted(status=401))
    failed = ask(limited, address)
    assert (failed.status_code, remaining(failed)["requests-3600s"]) == (502, 2)
    application = app.create_app(make_settings(offline, rate_limit="3/hour"))

    @application.get("/bug")
    def bug() -> None:
        raise ZeroDivisionError

    with serving(application) as service:
        failed = service.client.get("/bug")
    assert failed.status_code == 500
    assert remaining(failed) == {"requests-3600s": 2}


def test_without_limits_answers_have_no_such_headers(service: Service) -> None:
    assert not {"ratelimit", "ratelimit-policy"} & set(service.chat().headers)


def test_after_the_time_in_retry_after_a_request_is_answered(
    serve: Callable[..., Service], offline: OfflineOpenAI
) -> None:
    """And the requests that were refused have used up nothing, of no window."""
    service = serve(rate_limit="2/second; 9/hour")
    wait_until(lambda: time.time() % 1 < 0.5)
    answers = [service.chat() for _ in range(8)]
    assert {answer.status_code for answer in answers} == {200, 429}
    admitted = sum(answer.is_success for answer in answers)
    time.sleep(int(answers[-1].headers["retry-after"]))
    response = service.chat()
    assert response.is_success
    assert remaining(response)["requests-3600s"] == 9 - admitted - 1


def test_the_limit_belongs_to_the_id_of_a_key(
    serve: Callable[..., Service], offline: OfflineOpenAI
) -> None:
    """Not to the key: two of one id, as while a key is replaced, share it."""
    old, new, other = (keys.new_key() for _ in range(3))
    pairs = [f"web:{keys.digest(old)}", f"web:{keys.digest(new)}", f"app:{keys.digest(other)}"]
    service = serve(rate_limit="2/hour", service_api_keys=",".join(pairs))

    def status(key: str) -> int:
        headers = {"authorization": f"Bearer {key}"}
        return service.client.post("/v1/chat", json=QUESTION, headers=headers).status_code

    assert [status(key) for key in (old, new, old, new)] == [200, 200, 429, 429]
    assert [status(other), status(other), status(other)] == [200, 200, 429]


def test_requests_with_a_wrong_key_do_not_count(
    serve: Callable[..., Service], offline: OfflineOpenAI
) -> None:
    key = keys.new_key()
    service = serve(rate_limit="1/hour", service_api_keys=f"web:{keys.digest(key)}")
    for wrong in ("", keys.new_key(), key[:-1]):
        refused = service.client.post("/v1/chat", json=QUESTION, headers={"x-api-key": wrong})
        assert refused.status_code == 401
    answer = service.client.post("/v1/chat", json=QUESTION, headers={"x-api-key": key})
    assert answer.is_success


def test_without_keys_each_address_has_its_own_limit(limited: Service, address: str) -> None:
    other = next(addresses)
    assert statuses(limited, *[address] * 4) == [200, 200, 200, 429]
    assert statuses(limited, other) == [200]


def test_an_address_that_the_client_itself_adds_changes_nothing(
    limited: Service, address: str
) -> None:
    """A proxy appends the address of its client to what that client has sent."""
    spoofed = [f"192.0.2.{number}, {address}" for number in range(4)]
    assert statuses(limited, *spoofed) == [200, 200, 200, 429]


def test_a_chain_of_trusted_proxies_names_the_client(limited: Service, address: str) -> None:
    chains = [f"{address}, 10.0.0.{number}" for number in range(4)]
    assert statuses(limited, *chains) == [200, 200, 200, 429]


def test_clients_that_are_no_trusted_proxies_cannot_choose_their_address(
    serve: Callable[..., Service], offline: OfflineOpenAI
) -> None:
    for changed in ({}, {"trusted_proxies": "10.0.0.0/8"}):
        service = serve(rate_limit="2/hour", **changed)
        assert statuses(service, "192.0.2.1", "192.0.2.2", "192.0.2.3") == [200, 200, 429]


def test_a_network_of_64_bits_is_one_client(limited: Service) -> None:
    """A client of IPv6 has so many addresses."""
    one_network = ["2001:db8::1", "2001:db8::2", "2001:db8::ffff:0:0:3", "2001:db8::4"]
    assert statuses(limited, *one_network) == [200, 200, 200, 429]
    assert statuses(limited, "2001:db8:0:1::1") == [200]


def test_an_ipv4_address_in_ipv6_notation_is_that_address(limited: Service, address: str) -> None:
    """As a socket for both protocols shows it."""
    assert statuses(limited, *[f"::ffff:{address}"] * 3, address) == [200, 200, 200, 429]
    assert statuses(limited, f"::ffff:{next(addresses)}") == [200]


def test_probes_and_metrics_have_no_limit(limited: Service, address: str) -> None:
    for path in ("/livez", "/readyz", "/metrics"):
        for _ in range(4):
            response = limited.client.get(path, headers={"x-forwarded-for": address})
            assert response.is_success
            assert "ratelimit" not in response.headers
    assert ask(limited, address).is_success


def test_a_refusal_waits_for_no_slot(serve: Callable[..., Service], offline: OfflineOpenAI) -> None:
    service = serve(rate_limit="1/hour", max_concurrency=1, max_queue=1)
    offline.script(Scripted(delay=60))
    with ask_without_reading(service, "/v1/chat"):
        wait_until(lambda: offline.received)
        assert service.chat().json()["type"] == "urn:problem-type:rate-limited"


def test_a_refusal_does_not_wait_for_the_body(
    serve: Callable[..., Service], offline: OfflineOpenAI
) -> None:
    service = serve(rate_limit="1/day")
    assert service.chat().is_success
    url = httpx2.URL(service.url)
    with socket.create_connection((url.host, url.port or 0), timeout=10) as client:
        head = "POST /v1/chat HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n"
        client.sendall(head.encode())
        assert client.recv(100_000).startswith(b"HTTP/1.1 429 ")


MALFORMED = {
    "RATE_LIMIT": [
        "often",
        "0/minute",
        "1/0 days",
        "60/minute; 30/minute",
        "60/minute; 30/60 seconds",
        "60",
        "-1/minute",
        "1/eon",
        ";",
    ],
    "TOKEN_LIMIT": ["0/day", "1e6/day", "many"],
    "RATE_LIMIT_STORAGE_URI": [
        "redis",
        "http://localhost:6379",
        "memcached://localhost:11211",
        "redis://local host:6379",
        "redis://localhost:port",
        "redis://localhost:99999",
    ],
    "TRUSTED_PROXIES": ["*", "proxy.example", "10.0.0.1/8", "10.0.0.0/33"],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in MALFORMED.items() for value in values]
)
def test_malformed_settings_are_refused_in_one_sentence(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = {"OPENAI_API_KEY": KEY, "OPENAI_MODEL": "gpt-test", "MAX_OUTPUT_TOKENS": "9"}
    for variable, text in (needed | {name: value}).items():
        monkeypatch.setenv(variable, text)
    with pytest.raises(settings.SettingsError, match=rf"^{name} [^\n]+\.$"):
        environment.load_settings()


@pytest.mark.parametrize("uri", ["redis://127.0.0.1", "redis://:pass%23word@127.0.0.1:1/0"])
def test_with_an_accepted_uri_the_service_starts(uri: str, offline: OfflineOpenAI) -> None:
    limits = {"rate_limit": "3/hour", "rate_limit_storage_uri": uri}
    with serving(app.create_app(make_settings(offline, **limits))) as service:
        assert service.chat().is_success


def test_a_limit_may_be_of_several_units_of_time(offline: OfflineOpenAI) -> None:
    loaded = make_settings(offline, rate_limit="5/ 10 seconds; 100 / 2hours;7/day;")
    assert loaded.rate_limit == ((5, 10), (100, 7_200), (7, 86_400))


def test_the_documentation_declares_the_refusal(service: Service) -> None:
    assert errors.RateLimited.status == 429
    chat = service.client.get("/openapi.json").json()["paths"]["/v1/chat"]["post"]
    assert "application/problem+json" in chat["responses"]["429"]["content"]
