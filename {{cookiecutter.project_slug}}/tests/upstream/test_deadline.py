import time
from collections.abc import Callable

import pytest

from ..conftest import Service, events
from dev.offline_openai import OfflineOpenAI, Scripted

ENDPOINTS = ["/v1/chat", "/v1/chat/stream"]
EXCEEDED = (504, "urn:problem-type:deadline-exceeded")


@pytest.fixture
def brief(serve: Callable[..., Service], offline: OfflineOpenAI) -> Service:
    return serve(deadline_seconds=0.3, attempt_timeout_seconds=20)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize(
    "silence",
    [
        Scripted(delay=60),
        Scripted(body=" " * 500, content_type="text/event-stream", chunk_delay=0.1),
        Scripted(body=":\n" * 500, content_type="text/event-stream", chunk_delay=0.1),
    ],
    ids=["silent", "a byte now and then", "a comment now and then"],
)
def test_the_deadline_ends_an_attempt(
    endpoint: str, silence: Scripted, brief: Service, offline: OfflineOpenAI
) -> None:
    offline.script(silence)
    started = time.monotonic()
    response = brief.post(endpoint)
    assert time.monotonic() - started < 4, "took the time of the attempt or of the body"
    assert (response.status_code, response.json()["type"]) == EXCEEDED
    assert len(offline.received) == 1


def test_the_deadline_spans_all_attempts(
    serve: Callable[..., Service], offline: OfflineOpenAI
) -> None:
    """The second attempt gets what the first one left over."""
    service = serve(attempt_timeout_seconds=0.4, deadline_seconds=0.7, max_attempts=9)
    offline.script(Scripted(delay=60, headers={"retry-after": "0.05"}, times=9))
    response = service.chat()
    assert response.status_code == 504
    assert len(offline.received) <= 3


def test_a_stream_that_has_begun_may_outlast_the_deadline(
    brief: Service, offline: OfflineOpenAI
) -> None:
    offline.script(Scripted(reply="one two three four", chunk_delay=0.12))
    assert events(brief.stream())[-1][0] == "done"


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_reply_has_all_the_time_of_the_deadline(
    endpoint: str, serve: Callable[..., Service], offline: OfflineOpenAI
) -> None:
    """And is asked for, and paid, only once."""
    service = serve(attempt_timeout_seconds=None, deadline_seconds=1.5)
    offline.script(Scripted(delay=1, reply="slow"))
    response = service.post(endpoint)
    assert response.status_code == 200
    assert "slow" in response.text
    assert len(offline.received) == 1


def test_a_stream_may_be_silent_for_as_long_as_the_deadline(
    serve: Callable[..., Service], offline: OfflineOpenAI
) -> None:
    service = serve(attempt_timeout_seconds=None, deadline_seconds=0.5)
    offline.script(Scripted(hang_after=1))
    started = time.monotonic()
    *_, (name, problem) = events(service.stream())
    assert 0.5 < time.monotonic() - started < 4
    assert (name, problem["type"]) == ("error", "urn:problem-type:upstream-timeout")
    assert len(offline.received) == 1
