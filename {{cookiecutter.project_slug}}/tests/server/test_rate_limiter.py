"""Limits that processes share by Redis, and what happens while it is away."""

import json
import logging
import re
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest

from ..conftest import (
    NO_CERTIFICATES,
    QUESTION,
    Service,
    app,
    ask_without_reading,
    make_settings,
    rate_limiter,
    serving,
    wait_until,
)
from ..processes import started
from ..redis_server import PASSWORD, RedisServer
from dev.offline_openai import OfflineOpenAI, Scripted

# Of Redis, in seconds.
TIMEOUT = 0.2
# The rest is for a busy machine.
SLOW = 5 * TIMEOUT

AWAY = {"kill": RedisServer.kill, "stop": RedisServer.pause}
BACK = {"kill": RedisServer.start, "stop": RedisServer.resume}

Log = pytest.LogCaptureFixture


@pytest.fixture(autouse=True)
def _short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limiter, "TIMEOUT", TIMEOUT)
    monkeypatch.setattr(rate_limiter, "RETRY_AFTER", 0.3)


@contextmanager
def limited(offline: OfflineOpenAI, uri: str, **changed: Any) -> Iterator[Service]:
    limits = {"rate_limit": "3/day", "rate_limit_storage_uri": uri} | changed
    with serving(app.create_app(make_settings(offline, **limits))) as service:
        wait_until(lambda: service.client.get("/readyz").is_success)
        offline.reset()
        yield service


def storage_is_up(service: Service) -> bool:
    metrics = service.client.get("/metrics").text
    return "\nrate_limit_storage_up 1.0\n" in metrics


def storage_lines(log: Log) -> list[tuple[str, str]]:
    """Level and message of the lines on the storage."""
    lines = [(record.levelname, record.getMessage()) for record in log.records]
    return [(level, line) for level, line in lines if "RATE_LIMIT_STORAGE_URI" in line]


def remaining(response: httpx2.Response) -> int:
    return int(re.findall(r";r=(\d+)", response.headers["ratelimit"])[0])


def test_services_share_a_limit(offline: OfflineOpenAI, redis_server: RedisServer) -> None:
    with limited(offline, redis_server.uri) as one, limited(offline, redis_server.uri) as other:
        answers = [one.chat(), other.chat(), one.chat()]
        assert [remaining(answer) for answer in answers] == [2, 1, 0]
        assert [one.chat().status_code, other.chat().status_code] == [429, 429]


def test_workers_that_a_hundred_callers_call_at_once_share_the_limits(
    redis_server: RedisServer,
) -> None:
    """Each call may cost 83 tokens, and does: 12 fit into 1,000."""
    usage = {"prompt_tokens": 33, "completion_tokens": 50, "total_tokens": 83}
    choice = {"message": {"content": "Hello."}, "finish_reason": "stop"}
    reply = json.dumps({"choices": [choice], "usage": usage})
    settings: dict[str, Any] = {
        "WORKERS": "2",
        "RATE_LIMIT": "60/day",
        "TOKEN_LIMIT": "1000/day",
        "MAX_OUTPUT_TOKENS": "50",
        "RATE_LIMIT_STORAGE_URI": redis_server.uri,
    }
    with started(**settings) as (service, url, offline), ThreadPoolExecutor(100) as pool:
        wait_until(lambda: service.log.read_text().count("startup complete") == 2, seconds=60)
        offline.script(Scripted(body=reply, delay=0.5, times=100))
        with httpx2.Client(base_url=url, timeout=60, verify=NO_CERTIFICATES) as client:
            ask = [pool.submit(client.post, "/v1/chat", json=QUESTION) for _ in range(100)]
            answers = [one.result().json() for one in ask]
        log = service.log.read_text()
    violated = Counter(answer.get("violated-policies", [""])[0] for answer in answers)
    assert violated[""] * 83 <= 1000
    assert violated == {"": 12, "tokens-86400s": 48, "requests-86400s": 40}
    assert len([one for one in offline.received if one.method == "POST"]) == 12
    assert "RATE_LIMIT_STORAGE_URI" not in log
    assert PASSWORD not in log


@pytest.mark.parametrize("how", AWAY)
def test_while_redis_is_away_requests_are_limited_locally(
    how: str, offline: OfflineOpenAI, redis_server: RedisServer, caplog: Log
) -> None:
    """And counted in Redis again when it is back."""
    with limited(offline, redis_server.uri) as service:
        assert service.chat().is_success
        AWAY[how](redis_server)
        answers = []
        for _ in range(6):
            asked_at = time.monotonic()
            answers.append(service.chat().status_code)
            assert time.monotonic() - asked_at < SLOW
        assert answers == [200, 200, 200, 429, 429, 429]
        assert not storage_is_up(service)
        ((level, line),) = storage_lines(caplog)
        assert level == "ERROR"
        assert "RATE_LIMIT_STORAGE_URI fails with " in line
        BACK[how](redis_server)
        wait_until(lambda: service.chat().is_success, seconds=5)
        assert storage_is_up(service)
        assert storage_lines(caplog)[1:] == [("WARNING", "RATE_LIMIT_STORAGE_URI answers again")]
        assert redis_server.command("KEYS", "*")
    assert PASSWORD not in caplog.text


def test_a_redis_that_does_not_answer_delays_few_requests(
    offline: OfflineOpenAI, redis_server: RedisServer
) -> None:
    """After the first ones, only one in each RETRY_AFTER seconds waits for it."""
    with limited(offline, redis_server.uri, rate_limit="1000/day") as service:
        assert service.chat().is_success
        redis_server.pause()
        while storage_is_up(service):
            assert service.chat().is_success
        started_at, times = time.monotonic(), []
        while time.monotonic() - started_at < 1:
            asked_at = time.monotonic()
            assert service.chat().is_success
            times.append(time.monotonic() - asked_at)
        assert len([seconds for seconds in times if seconds >= TIMEOUT]) <= 3
        assert len(times) > 10


def test_a_busy_event_loop_is_no_outage(
    offline: OfflineOpenAI, redis_server: RedisServer, caplog: Log
) -> None:
    """Redis has answered in time, only the service reads the answer late."""
    limits = {"rate_limit": "1000/day", "rate_limit_storage_uri": redis_server.uri}
    application = app.create_app(make_settings(offline, **limits))

    @application.get("/block", openapi_extra={"security": []})  # has no limit
    async def block() -> None:
        time.sleep(0.4)  # noqa: ASYNC251 - blocks the event loop

    with serving(application) as service, ThreadPoolExecutor(8) as pool:
        chats = [pool.submit(service.chat) for _ in range(100)]
        for _ in range(3):
            assert service.client.get("/block").is_success
        assert all(chat.result().is_success for chat in chats)
    assert storage_lines(caplog) == []


def test_requests_may_be_refused_instead(
    offline: OfflineOpenAI, redis_server: RedisServer, caplog: Log
) -> None:
    with limited(offline, redis_server.uri, rate_limit_fail_closed=True) as service:
        assert service.chat().is_success
        redis_server.kill()
        while storage_is_up(service):
            refused = service.chat()
            assert refused.status_code == 503
        assert refused.json()["type"] == "urn:problem-type:limits-unavailable"
        assert int(refused.headers["retry-after"]) > 0
        assert service.client.get("/livez").is_success
        assert len(offline.received) == 1
        redis_server.start()
        wait_until(lambda: service.chat().is_success, seconds=5)
        assert len(storage_lines(caplog)) == 2


@pytest.mark.parametrize("wrong", ["password", "port", "host"])
def test_the_service_starts_without_redis(
    wrong: str, offline: OfflineOpenAI, redis_server: RedisServer, caplog: Log
) -> None:
    port, secret = redis_server.port, "swordfish%23-88"
    uri = {
        "password": f"redis://:{secret}@127.0.0.1:{port}/0",
        "port": f"redis://user:{secret}@127.0.0.1:1/0",
        "host": f"redis://user:{secret}@no-such-host.invalid:6379/0",
    }[wrong]
    with caplog.at_level(logging.DEBUG), limited(offline, uri) as service:
        assert not storage_is_up(service), "known before the first request"
        assert [service.chat().status_code for _ in range(4)] == [200, 200, 200, 429]
        assert len(storage_lines(caplog)) == 1
    assert "swordfish" not in caplog.text


def test_connections_are_closed_at_shutdown(
    offline: OfflineOpenAI, redis_server: RedisServer
) -> None:
    def clients() -> int:
        return len(redis_server.command("CLIENT", "LIST"))

    before = clients()
    with limited(offline, redis_server.uri) as service, ThreadPoolExecutor(5) as pool:
        list(pool.map(lambda _: service.chat(), range(5)))
        assert clients() > before
    wait_until(lambda: clients() <= before, seconds=2)


def test_keys_in_redis_expire(offline: OfflineOpenAI, redis_server: RedisServer) -> None:
    """Two windows after they are made: until then, they are the previous window's."""
    limits = {"rate_limit": "3/minute; 9/hour", "token_limit": "1000/day", "max_output_tokens": 50}
    with limited(offline, redis_server.uri, **limits) as service:
        for _ in range(5):
            service.chat()
        service.settle()
        keys = redis_server.command("KEYS", "*")
        lifetimes = {key: redis_server.command("TTL", key) for key in keys}
    assert len(lifetimes) >= 3
    for key, seconds in lifetimes.items():
        (window,) = map(int, re.findall(r"-(\d+)s:", key))
        assert window < seconds <= 2 * window


TOKENS = {"rate_limit": "", "token_limit": "1000/day", "max_output_tokens": 50}


@pytest.mark.parametrize("how", AWAY)
def test_a_request_that_redis_leaves_in_the_middle_ends_as_usual(
    how: str, offline: OfflineOpenAI, redis_server: RedisServer, caplog: Log
) -> None:
    """What it has reserved then stays reserved."""
    with limited(offline, redis_server.uri, **TOKENS) as service, ThreadPoolExecutor(1) as pool:
        offline.script(Scripted(delay=0.2))
        asked = pool.submit(service.chat)
        wait_until(lambda: offline.received)
        AWAY[how](redis_server)
        assert asked.result().is_success
        asked_at = time.monotonic()
        service.settle()
        assert time.monotonic() - asked_at < SLOW
        if how == "stop":
            redis_server.resume()
    assert "Unhandled" not in caplog.text
    assert "Traceback" not in caplog.text


def test_a_client_that_disconnects_gives_its_tokens_back(
    offline: OfflineOpenAI, redis_server: RedisServer
) -> None:
    """Those of a call that was still in the queue."""
    changed = TOKENS | {"max_concurrency": 1, "attempt_timeout_seconds": 60}
    with limited(offline, redis_server.uri, **changed, deadline_seconds=60) as service:
        offline.script(Scripted(delay=60))
        with ask_without_reading(service, "/v1/chat"):
            wait_until(lambda: offline.received)
            with ask_without_reading(service, "/v1/chat"):
                wait_until(lambda: total(redis_server) == 2 * 83)
            wait_until(lambda: total(redis_server) == 83)
        service.settle()


def total(redis_server: RedisServer) -> int:
    keys = redis_server.command("KEYS", "*")
    return sum(int(redis_server.command("GET", key)) for key in keys)
