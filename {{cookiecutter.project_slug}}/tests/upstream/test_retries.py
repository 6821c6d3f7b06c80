"""What is tried again, and after how long: measured at the upstream."""

import math
import random
import time
from collections.abc import Callable
from email.utils import formatdate
from itertools import pairwise

import pytest

from ..conftest import Service
from dev.offline_openai import OfflineOpenAI, Scripted

ENDPOINTS = ["/v1/chat", "/v1/chat/stream"]

# Clocks of two threads, read at the two ends of a socket.
TOLERANCE = 0.02


def waits(offline: OfflineOpenAI) -> list[float]:
    """Seconds between the attempts; the upstream's answers take no time."""
    return [after.at - before.at for before, after in pairwise(offline.received)]


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
def test_what_may_pass_is_tried_again(
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
def test_what_will_not_pass_is_tried_once(
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


def test_the_sdk_does_not_try_again_by_itself(service: Service, offline: OfflineOpenAI) -> None:
    offline.script(Scripted(status=500))
    service.chat()
    assert {r.headers["x-stainless-retry-count"] for r in offline.received} == {"0"}


def test_a_stream_that_has_begun_is_not_tried_again(
    service: Service, offline: OfflineOpenAI
) -> None:
    offline.script(Scripted(cut_after=1))
    assert "event: error" in service.stream().text
    assert len(offline.received) == 1


@pytest.mark.parametrize(("chance", "expected"), [(min, (0, 0)), (max, (0.5, 1))])
def test_waits_are_random_up_to_bounds_that_double(
    chance: Callable[[float, float], float],
    expected: tuple[float, float],
    service: Service,
    offline: OfflineOpenAI,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Exponential backoff with full jitter; a busy machine adds to the waits."""
    monkeypatch.setattr(random, "uniform", chance)
    offline.script(Scripted(status=500, times=2))
    assert service.chat().is_success
    for wait, bound in zip(waits(offline), expected, strict=True):
        assert bound - TOLERANCE < wait < bound + 0.4


@pytest.mark.parametrize(
    ("headers", "asked"),
    [
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "300", "retry-after": "60"}, 0.3),
        ({"retry-after-ms": "soon", "retry-after": "0.3"}, 0.3),
        ({"retry-after": "300ms"}, 0.3),
        ({"retry-after": "0m0.2s100ms"}, 0.3),
    ],
)
def test_openai_says_how_long_to_wait(
    headers: dict[str, str], asked: float, service: Service, offline: OfflineOpenAI
) -> None:
    offline.script(Scripted(status=429, headers=headers))
    assert service.chat().is_success
    (wait,) = waits(offline)
    assert wait > asked - TOLERANCE


def test_openai_says_until_when_to_wait(service: Service, offline: OfflineOpenAI) -> None:
    until = math.ceil(time.time() + 0.5)  # a date has whole seconds
    offline.script(Scripted(status=503, headers={"retry-after": formatdate(until, usegmt=True)}))
    assert service.chat().is_success
    assert time.time() > until - TOLERANCE


@pytest.mark.usefixtures("no_backoff")
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
        "0s",
        "1x",
        "m",
    ],
)
def test_a_senseless_wait_is_not_obeyed(
    nonsense: str, service: Service, offline: OfflineOpenAI
) -> None:
    """Obeyed, it would outlast the deadline, or come to nothing or to a traceback."""
    offline.script(Scripted(status=429, headers={"retry-after": nonsense}))
    assert service.chat().is_success
    assert len(offline.received) == 2


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("100", "100"),
        ("99.2", "100"),
        ("999999999", "86400"),
        ("6m0s", "360"),
        ("1h2m3.5s", "3724"),
        ("99s", "99"),
        ("99999999h", "86400"),
    ],
)
def test_a_wait_beyond_the_deadline_is_handed_to_the_caller(
    endpoint: str, asked: str, told: str, service: Service, offline: OfflineOpenAI
) -> None:
    offline.script(Scripted(status=429, headers={"retry-after": asked}))
    started = time.monotonic()
    response = service.post(endpoint)
    assert time.monotonic() - started < 4, "waited for the deadline of 5 s"
    assert (response.status_code, response.headers["retry-after"]) == (503, told)
    assert len(offline.received) == 1
