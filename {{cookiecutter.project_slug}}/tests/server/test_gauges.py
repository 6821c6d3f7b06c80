"""Gauges, and the metrics as a whole: their names, and who decides how many series there are."""

import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ..conftest import QUESTION, Service, ask_without_reading, keys, wait_until
from .exposition import ATTEMPTS, CHAT, FIRST_CHUNK, Increase, Series, scrape, value
from dev.offline_openai import OfflineOpenAI, Scripted

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
ENDPOINTS = ["/v1/chat", "/v1/chat/stream"]
WEB_KEY = keys.new_key()


@pytest.fixture
def narrow(serve: Callable[..., Service], offline: OfflineOpenAI) -> Service:
    """With one slot and a place to wait for it, and with timeouts that are longer than a test."""
    service = serve(max_concurrency=1, max_queue=1, attempt_timeout_seconds=60, deadline_seconds=60)
    service.settle()
    return service


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_calls_are_seen_while_they_run_and_wait(
    endpoint: str, narrow: Service, offline: OfflineOpenAI
) -> None:
    offline.script(Scripted(delay=60))
    increase = Increase(narrow)

    def gauges() -> tuple[float, float, float]:
        names = ("openai_calls_in_flight", "openai_calls_queued", "openai_calls_max")
        in_flight, queued, most = (value(narrow.client, name) for name in names)
        return in_flight, queued, most

    assert gauges() == (0, 0, 1)
    with ThreadPoolExecutor() as clients:
        with ask_without_reading(narrow, endpoint):
            wait_until(lambda: offline.received)
            assert gauges() == (1, 0, 1)
            second = clients.submit(narrow.post, endpoint)
            wait_until(lambda: gauges() == (1, 1, 1))
            assert narrow.post(endpoint).json()["type"] == "urn:problem-type:overloaded"
            time.sleep(0.05)
        assert second.result().is_success
    narrow.settle()
    assert gauges() == (0, 0, 1)
    assert increase.one("openai_queue_wait_seconds_count") == ({}, 1)
    _, waited = increase.one("openai_queue_wait_seconds_sum")
    assert 0.05 < waited < 5
    assert ("POST", endpoint, "503", "overloaded") in increase.requests()


def test_the_time_to_the_first_chunk_is_that_of_the_attempt(
    service: Service, offline: OfflineOpenAI
) -> None:
    offline.script(Scripted(reply="one two three", delay=0.1, chunk_delay=0.1))
    increase = Increase(service)
    assert service.stream().is_success
    assert increase.one(f"{FIRST_CHUNK}_count") == (CHAT, 1)
    _, first = increase.one(f"{FIRST_CHUNK}_sum")
    _, whole = increase.one(f"{ATTEMPTS}_sum")
    assert 0.1 <= first < whole - 0.2


def test_only_streams_have_a_first_chunk(service: Service) -> None:
    increase = Increase(service)
    assert service.chat().is_success
    assert not increase.series(f"{FIRST_CHUNK}_count")


def test_the_status_of_the_key_is_one_of_all(service: Service) -> None:
    statuses = [
        (dict(labels)["status"], number)
        for (name, labels), number in scrape(service.client).items()
        if name == "openai_key_status"
    ]
    assert sorted(statuses) == [
        ("accepted", 1),
        ("model-unavailable", 0),
        ("rejected", 0),
        ("unchecked", 0),
        ("unknown", 0),
        ("unreachable", 0),
        ("wrong-address", 0),
    ]


def test_the_storage_of_the_limits_is_up_until_it_fails(
    service: Service, serve: Callable[..., Service]
) -> None:
    assert value(service.client, "rate_limit_storage_up") == 1
    nowhere = serve(rate_limit="1000/day", rate_limit_storage_uri="redis://127.0.0.1:1")
    for _ in range(3):
        assert nowhere.chat().is_success
    assert value(nowhere.client, "rate_limit_storage_up") == 0


def drive(service: Service, name: str) -> None:
    """Everything that a client can choose, with a value of its own."""
    client = service.client
    headers = {
        "x-request-id": name,
        "user-agent": name,
        "x-forwarded-for": name,
        "host": f"{name}.example",
        "traceparent": name,
    }
    client.get(f"/{name}", headers=headers)
    client.get(f"/livez/{name}?{name}={name}", headers=headers)
    client.post("/v1/chat", json=QUESTION | {"model": name}, headers=headers)
    client.post("/v1/chat/stream", json=QUESTION | {name: name}, headers=headers)
    client.post("/v1/chat", json=QUESTION, headers=headers | {"x-api-key": name})
    client.post("/v1/chat", json=QUESTION, headers={"authorization": f"Bearer {keys.new_key()}"})
    client.post("/v1/chat", content=name, headers={"content-type": f"text/{name}"})


METHODS = ["ACL", "BIND", "COPY", "LOCK", "MKCOL", "MOVE", "NOTIFY", "PURGE", "REPORT", "SEARCH"]


def test_clients_cannot_add_series(serve: Callable[..., Service], offline: OfflineOpenAI) -> None:
    service = serve(
        service_api_keys=f"web:{keys.digest(WEB_KEY)}",
        allow_anonymous=True,
        allowed_models="gpt-other",
    )

    def series() -> set[Series]:
        service.settle()
        return set(scrape(service.client))

    service.client.request(METHODS[0], "/v1/chat")
    drive(service, "first")
    series()  # which is a request too
    before = series()
    for method in METHODS[1:]:
        service.client.request(method, "/v1/chat")
    with ThreadPoolExecutor(4) as clients:
        list(clients.map(drive, [service] * 200, [f"name-{number}" for number in range(200)]))
    assert series() == before
    assert "name-" not in service.client.get("/metrics").text
    assert WEB_KEY not in service.client.get("/metrics").text


def table() -> dict[str, set[str]]:
    """The metrics in the README, with their labels."""
    section = README[README.index("## Metrics") : README.index("## Layout")]
    rows = re.findall(r"^\| (`[a-z_, `]+`) \|(.*?)\|", section, re.MULTILINE)
    return {
        name: set(re.findall(r"`(\w+)`", labels))
        for names, labels in rows
        for name in re.findall(r"`(\w+)`", names)
    }


def test_the_readme_has_all_metrics_with_their_labels(
    service: Service, offline: OfflineOpenAI, no_backoff: None
) -> None:
    offline.script(Scripted(status=500))
    assert service.chat().is_success
    assert service.stream().is_success
    service.settle()
    exported = {
        family.name + "_total" * (family.type == "counter"): {
            label for sample in family.samples for label in sample.labels if label != "le"
        }
        for family in text_string_to_metric_families(service.client.get("/metrics").text)
    }
    exported = {name: labels for name, labels in exported.items() if "_created" not in name}
    assert exported == table()
