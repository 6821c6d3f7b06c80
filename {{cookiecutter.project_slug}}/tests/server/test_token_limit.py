"""How many tokens a client may use: reserved before a call, settled after it."""

import itertools
import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
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
    make_settings,
    serving,
    settings,
    wait_until,
)
from dev.offline_openai import OfflineOpenAI, Scripted

QUOTA = 1000
LIMITS = {
    "token_limit": f"{QUOTA}/day",
    "max_output_tokens": 50,
    "attempt_timeout_seconds": 1,
    "trusted_proxies": "127.0.0.1",
    "allow_anonymous": True,
}
# Of QUESTION: its bytes, 16 for the message, and MAX_OUTPUT_TOKENS.
RESERVED = 17 + 16 + 50
# What the offline OpenAI reports for it.
USED = 4 + 14

addresses = (f"203.0.113.{number}" for number in itertools.count(1))

pytestmark = pytest.mark.usefixtures("no_backoff")


class Client:
    """With an address that no other test has."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.headers = {"x-forwarded-for": next(addresses)}

    def post(self, endpoint: str, **request: Any) -> httpx2.Response:
        return self.service.client.post(endpoint, headers=self.headers, **request)

    def chat(self, **body: Any) -> httpx2.Response:
        return self.post("/v1/chat", json=QUESTION | body)

    def used(self) -> int:
        """What all requests so far count."""
        self.service.settle()
        return QUOTA - remaining(self.chat()) - RESERVED


def remaining(response: httpx2.Response) -> int:
    found = re.search(r'"tokens-86400s";r=(\d+)', response.headers["ratelimit"])
    assert found
    return int(found[1])


@pytest.fixture
def client(serve: Callable[..., Service], offline: OfflineOpenAI) -> Client:
    return Client(serve(**LIMITS))


def test_the_most_that_a_chat_may_cost_is_reserved(client: Client) -> None:
    response = client.chat()
    assert QUOTA - remaining(response) == RESERVED
    assert response.headers["ratelimit-policy"] == f'"tokens-86400s";q={QUOTA};w=86400;qu="tokens"'


@pytest.mark.parametrize(
    ("body", "reserved"),
    [
        ({"max_output_tokens": 20}, RESERVED - 30),
        ({"messages": [{"role": "user", "content": "é" * 10}]}, 20 + 16 + 50),
        ({"messages": [{"role": "user", "content": "a"}] * 3}, 3 * (1 + 16) + 50),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "ab"}] * 2}]},
            4 + 16 + 50,
        ),
    ],
)
def test_bytes_messages_and_output_are_reserved(
    body: dict[str, Any], reserved: int, client: Client
) -> None:
    assert QUOTA - remaining(client.chat(**body)) == reserved


@pytest.mark.parametrize("endpoint", ["/v1/chat", "/v1/chat/stream"])
def test_what_openai_reports_is_what_counts(endpoint: str, client: Client) -> None:
    response = client.post(endpoint, json=QUESTION)
    assert response.is_success
    assert QUOTA - remaining(response) == RESERVED
    assert client.used() == USED


def test_a_retried_failure_costs_nothing(client: Client, offline: OfflineOpenAI) -> None:
    offline.script(Scripted(status=500, times=2), Scripted(status=429))
    assert client.chat().is_success
    assert client.used() == USED


@pytest.mark.parametrize(
    "refusal",
    [
        Scripted(status=400),
        Scripted(status=401),
        Scripted(status=404),
        Scripted(status=429, code="insufficient_quota"),
        Scripted(status=500, times=4),
        Scripted(body='{"error": {"code": 401}}'),
    ],
)
@pytest.mark.parametrize("endpoint", ["/v1/chat", "/v1/chat/stream"])
def test_what_openai_refuses_costs_nothing(
    endpoint: str, refusal: Scripted, client: Client, offline: OfflineOpenAI
) -> None:
    offline.script(refusal)
    assert client.post(endpoint, json=QUESTION).is_error
    assert client.used() == 0


def test_what_never_reached_openai_costs_nothing(offline: OfflineOpenAI) -> None:
    nowhere = make_settings(offline, **LIMITS | {"openai_base_url": "http://127.0.0.1:1/v1"})
    with serving(app.create_app(nowhere)) as service:
        client = Client(service)
        for _ in range(2):
            response = client.chat()
            assert response.json()["type"] == "urn:problem-type:upstream-unreachable"
            assert QUOTA - remaining(response) == RESERVED
            service.settle()


def test_what_got_no_slot_costs_nothing(
    serve: Callable[..., Service], offline: OfflineOpenAI
) -> None:
    limits = LIMITS | {"attempt_timeout_seconds": 60, "deadline_seconds": 60}
    client = Client(serve(**limits, max_concurrency=1, max_queue=0))
    offline.script(Scripted(delay=60))
    with ask_without_reading(client.service, "/v1/chat"):
        wait_until(lambda: offline.received)
        for _ in range(2):
            response = client.chat()
            assert response.json()["type"] == "urn:problem-type:overloaded"
            assert QUOTA - remaining(response) == RESERVED


NO_USAGE = '{"choices": [{"message": {"content": "Hello."}, "finish_reason": "stop"}]%s}'


@pytest.mark.parametrize(
    ("answer", "used"),
    [
        (Scripted(body=NO_USAGE % ""), RESERVED),
        (Scripted(body=NO_USAGE % ', "usage": null'), RESERVED),
        (Scripted(body=NO_USAGE % ', "usage": {}'), RESERVED),
        (Scripted(delay=3, times=2), 2 * RESERVED + USED),
        (Scripted(drop=True), RESERVED + USED),
        (Scripted(body='{"choices": [{"message": {"content": 1}}]}'), RESERVED + USED),
    ],
    ids=["missing", "null", "empty", "timeouts", "dropped", "unreadable"],
)
def test_an_attempt_without_usage_counts_as_the_most_that_it_may_cost(
    answer: Scripted, used: int, client: Client, offline: OfflineOpenAI
) -> None:
    """OpenAI may charge for each of them, also for those that are followed by a good one."""
    offline.script(answer)
    assert client.chat().is_success
    assert client.used() == used


@pytest.mark.parametrize(
    "failure", [{"cut_after": 2}, {"error_after": 2}, {"hang_after": 2}, {"end_after": 2}]
)
def test_a_stream_that_breaks_off_counts_as_the_most_that_it_may_cost(
    failure: dict[str, Any], client: Client, offline: OfflineOpenAI
) -> None:
    offline.script(Scripted(reply="one two three", **failure))
    assert "event: error" in client.post("/v1/chat/stream", json=QUESTION).text
    assert client.used() == RESERVED


def test_a_stream_whose_client_disconnects_counts_as_the_most_that_it_may_cost(
    client: Client, offline: OfflineOpenAI
) -> None:
    offline.script(Scripted(reply="one two three", hang_after=1))
    with client.service.client.stream(
        "POST", "/v1/chat/stream", json=QUESTION, headers=client.headers
    ) as response:
        next(response.iter_text())
    assert client.used() == RESERVED


def test_a_stream_of_a_server_without_usage_counts_as_the_most_that_it_may_cost(
    serve: Callable[..., Service], offline: OfflineOpenAI
) -> None:
    client = Client(serve(**LIMITS, stream_usage=False))
    assert "event: done" in client.post("/v1/chat/stream", json=QUESTION).text
    assert client.used() == RESERVED


def test_a_request_over_the_limit_is_refused_and_uses_nothing(
    client: Client, offline: OfflineOpenAI
) -> None:
    half = {"messages": [{"role": "user", "content": "x" * (QUOTA // 2)}]}
    offline.script(Scripted(body=NO_USAGE % ""))  # its cost stays reserved
    assert client.chat(**half).is_success
    for _ in range(3):
        refused = client.chat(**half)
        assert refused.status_code == 429
        problem = refused.json()
        assert problem["type"] == "urn:problem-type:rate-limited"
        assert problem["violated-policies"] == ["tokens-86400s"]
        assert int(refused.headers["retry-after"]) > 0
        assert "detail" not in problem
    assert client.used() == QUOTA // 2 + 16 + 50
    assert len(offline.received) == 2


def test_a_request_that_never_fits_is_told_so(client: Client, offline: OfflineOpenAI) -> None:
    """Waiting would not help: there is no Retry-After."""
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    for content in ("x" * QUOTA, [image]):  # an image counts as 50,000
        refused = client.chat(messages=[{"role": "user", "content": content}])
        assert refused.status_code == 429
        assert refused.json()["detail"].startswith("It may cost more tokens than the whole limit")
        assert "retry-after" not in refused.headers
    assert not offline.received
    assert client.used() == 0


def test_an_image_reserves_what_it_may_cost(
    serve: Callable[..., Service], offline: OfflineOpenAI
) -> None:
    service = serve(**LIMITS | {"token_limit": "200000/day"})
    image = {"type": "image_url", "image_url": {"url": "https://example.com/cat.jpg"}}
    response = service.chat(messages=[{"role": "user", "content": [image] * 3}])
    assert 200_000 - remaining(response) == 3 * 50_000 + 16 + 50


def test_an_answer_that_needs_no_tokens_has_no_empty_header(client: Client) -> None:
    for response in (client.post("/v1/chat", json={}), client.post("/v1/unknown")):
        assert response.headers.get("ratelimit") != ""


def test_a_hundred_callers_at_once_do_not_spend_more_than_the_limit(
    serve: Callable[..., Service], offline: OfflineOpenAI
) -> None:
    """Each may cost 83 tokens, and does: 12 fit into 1,000."""
    client = Client(serve(**LIMITS | {"attempt_timeout_seconds": 5}))
    usage = {"prompt_tokens": 33, "completion_tokens": 50, "total_tokens": RESERVED}
    reply = json.loads(NO_USAGE % "") | {"usage": usage}
    offline.script(Scripted(body=json.dumps(reply), delay=0.3, times=100))
    with ThreadPoolExecutor(100) as pool:
        statuses = [r.status_code for r in pool.map(lambda _: client.chat(), range(100))]
    assert set(statuses) == {200, 429}
    assert statuses.count(200) * RESERVED <= QUOTA
    assert statuses.count(200) == len(offline.received) == QUOTA // RESERVED


def test_a_limit_in_tokens_needs_a_limit_of_the_output(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_MODEL", "gpt-test")
    monkeypatch.setenv("TOKEN_LIMIT", "1000/day")
    with pytest.raises(settings.SettingsError, match=r"TOKEN_LIMIT needs MAX_OUTPUT_TOKENS: "):
        environment.load_settings()
