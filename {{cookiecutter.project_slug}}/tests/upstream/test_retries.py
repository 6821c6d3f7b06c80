"""What is retried, and after how long."""

import math
import random
import time
from collections.abc import Callable
from email.utils import formatdate
from itertools import pairwise

import httpx2
import openai
import pytest
from pydantic import SecretStr
from tenacity import Retrying

from ..conftest import KEY, Service, deadline, error_mapping, observer, retries, settings
from dev.offline_openai import OfflineOpenAI, Received, Scripted

ENDPOINTS = ["/v1/chat", "/v1/chat/stream"]

# Clocks of two threads, read at the two ends of a socket.
TOLERANCE = 0.02


def waits_between(attempts: list[Received]) -> list[float]:
    """Seconds, as measured at the upstream, whose answers take no time."""
    return [after.at - before.at for before, after in pairwise(attempts)]


def waits(failures: int, **headers: str) -> list[float]:
    """Seconds to wait after each of these failures, for a call with a deadline of 60 s."""
    known = settings.Settings(
        openai_api_key=SecretStr(KEY), openai_model="gpt-test", max_attempts=failures + 1
    )
    request = httpx2.Request("POST", "http://openai.test")
    errors = [
        openai.RateLimitError(
            "", response=httpx2.Response(429, headers=headers, request=request), body=None
        )
        for _ in range(failures)
    ]

    def call() -> None:
        if errors:
            with error_mapping.translated():
                raise errors.pop()

    slept: list[float] = []
    Retrying(
        **retries.policy(known, deadline.Deadline(60), observer.Observer()), sleep=slept.append
    )(call)
    return slept


@pytest.mark.usefixtures("no_backoff")
@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize(
    "failure",
    [
        Scripted(status=408),
        Scripted(status=409),
        Scripted(status=429, code="rate_limit_exceeded"),
        Scripted(status=500),
        Scripted(status=529),
        Scripted(status=400, headers={"x-should-retry": "true"}),
        Scripted(drop=True),
        Scripted(delay=60),
        Scripted(body="<html>", content_type="text/html"),
        Scripted(error_after=0, type="server_error"),
        Scripted(cut_after=0),
        Scripted(end_after=0),
    ],
)
def test_a_temporary_failure_is_retried(
    endpoint: str, failure: Scripted, serve: Callable[..., Service], offline: OfflineOpenAI
) -> None:
    service = serve(attempt_timeout_seconds=0.5)
    offline.script(failure)
    assert service.post(endpoint).status_code == 200
    in_stream_only = failure.error_after == 0 or failure.cut_after == 0 or failure.end_after == 0
    expected = 1 if endpoint == "/v1/chat" and in_stream_only and failure.cut_after is None else 2
    assert len(offline.received) == expected


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize(
    "failure",
    [
        Scripted(status=400),
        Scripted(status=401, code="invalid_api_key"),
        Scripted(status=403),
        Scripted(status=404),
        Scripted(status=422),
        Scripted(status=429, code="insufficient_quota"),
        Scripted(status=429, type="insufficient_quota", headers={"x-should-retry": "true"}),
        Scripted(status=500, headers={"x-should-retry": "false"}),
    ],
)
def test_a_permanent_failure_is_not_retried(
    endpoint: str, failure: Scripted, service: Service, offline: OfflineOpenAI
) -> None:
    offline.script(failure)
    assert service.post(endpoint).status_code >= 400
    assert len(offline.received) == 1


@pytest.mark.usefixtures("no_backoff")
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_attempts_end_with_the_last_failure(
    endpoint: str, serve: Callable[..., Service], offline: OfflineOpenAI
) -> None:
    service = serve(max_attempts=2)
    offline.script(Scripted(status=500), Scripted(status=429), Scripted(status=500))
    assert service.post(endpoint).json()["type"] == "urn:problem-type:upstream-rate-limited"
    assert len(offline.received) == 2


def test_the_sdk_does_not_retry_by_itself(service: Service, offline: OfflineOpenAI) -> None:
    offline.script(Scripted(status=500))
    service.chat()
    assert {r.headers["x-stainless-retry-count"] for r in offline.received} == {"0"}


def test_a_stream_that_has_begun_is_not_retried(service: Service, offline: OfflineOpenAI) -> None:
    offline.script(Scripted(cut_after=1))
    assert "event: error" in service.stream().text
    assert len(offline.received) == 1


@pytest.mark.parametrize(("chance", "expected"), [(min, [0] * 7), (max, [0.5, 1, 2, 4, 8, 8, 8])])
def test_waits_are_random_up_to_bounds_that_double(
    chance: Callable[[float, float], float],
    expected: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Exponential backoff with full jitter."""
    monkeypatch.setattr(random, "uniform", chance)
    assert waits(7) == expected


@pytest.mark.parametrize(
    ("headers", "asked"),
    [
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "300", "retry-after": "60"}, 0.3),
        ({"retry-after-ms": "soon", "retry-after": "0.3"}, 0.3),
    ],
)
def test_openai_says_how_long_to_wait(headers: dict[str, str], asked: float) -> None:
    assert waits(1, **headers) == [pytest.approx(asked)]


def test_openai_says_until_when_to_wait() -> None:
    until = math.ceil(time.time() + 5)  # a date has whole seconds
    (wait,) = waits(1, **{"retry-after": formatdate(until, usegmt=True)})
    assert until - time.time() <= wait <= 6


@pytest.mark.parametrize(
    "nonsense",
    [
        "-5",
        "0",
        "nan",
        "inf",
        "1e999",
        "soon",
        "",
        "Mon, 01 Jan 2001 00:00:00 GMT",
        "6m0s",
        "99999999",
    ],
)
def test_a_senseless_wait_is_not_obeyed(nonsense: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Obeyed, it would outlast the deadline, or come to nothing or to a traceback."""
    monkeypatch.setattr(random, "uniform", max)
    assert waits(1, **{"retry-after": nonsense}) == [0.5]


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_call_waits_between_its_attempts(
    endpoint: str, service: Service, offline: OfflineOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both for as long as it chooses and for as long as OpenAI asks."""
    monkeypatch.setattr(random, "uniform", lambda *_: 0.1)
    offline.script(Scripted(status=500), Scripted(status=429, headers={"retry-after-ms": "300"}))
    assert service.post(endpoint).is_success
    chosen, asked = waits_between(offline.received)
    assert 0.1 - TOLERANCE < chosen < 0.3
    assert asked > 0.3 - TOLERANCE


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize(("asked", "told"), [("100", "100"), ("99.2", "100")])
def test_a_wait_beyond_the_deadline_is_passed_on_to_the_client(
    endpoint: str, asked: str, told: str, service: Service, offline: OfflineOpenAI
) -> None:
    offline.script(Scripted(status=429, headers={"retry-after": asked}))
    started = time.monotonic()
    response = service.post(endpoint)
    assert time.monotonic() - started < 4, "waited for the deadline of 5 s"
    assert (response.status_code, response.headers["retry-after"]) == (503, told)
    assert len(offline.received) == 1


def test_clients_are_not_told_to_wait_for_other_failures(
    serve: Callable[..., Service], offline: OfflineOpenAI
) -> None:
    service = serve(max_attempts=1)
    offline.script(Scripted(status=500, headers={"retry-after": "7"}))
    response = service.chat()
    assert response.status_code == 502
    assert "retry-after" not in response.headers
