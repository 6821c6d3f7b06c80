import asyncio
import logging
from collections.abc import Iterator

import pytest

from .conftest import app, key_check, make_settings, serving, wait_until
from dev.offline_openai import OfflineOpenAI, Scripted, running

MODEL = "/v1/models"


@pytest.fixture
def own() -> Iterator[OfflineOpenAI]:
    """An upstream that no other service asks about its key."""
    with running() as offline:
        yield offline


def status(offline: OfflineOpenAI, *answers: Scripted) -> str:
    offline.script(*answers)
    return asyncio.run(key_check.try_key(make_settings(offline))).value


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Scripted(path=MODEL), "accepted"),
        (Scripted(path=MODEL, status=401, code="invalid_api_key"), "rejected"),
        (Scripted(path=MODEL, status=401, message="Missing scopes: model.read"), "restricted"),
        (Scripted(path=MODEL, status=403), "restricted"),
        (Scripted(path=MODEL, status=404, code="model_not_found"), "accepted"),
        (Scripted(path=MODEL, status=429, code="insufficient_quota"), "accepted"),
        (Scripted(path=MODEL, status=408), "unreachable"),
        (Scripted(path=MODEL, status=500), "unreachable"),
        (Scripted(path=MODEL, drop=True), "unreachable"),
        (Scripted(path=MODEL, status=304), "unreachable"),
        (Scripted(path=MODEL, body="{"), "unreachable"),
        (Scripted(path=MODEL, body="{}"), "unreachable"),
        (Scripted(path=MODEL, body="[" * 100_000), "unreachable"),
        (Scripted(path=MODEL, body="<html>", content_type="text/html"), "unreachable"),
        (Scripted(path=MODEL, delay=60), "unreachable"),
    ],
)
def test_one_question_tells_how_the_key_stands(
    answer: Scripted, expected: str, own: OfflineOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_check, "TIMEOUT_SECONDS", 0.6)
    assert status(own, answer) == expected
    assert len(own.received) == 1


def test_the_service_is_ready_once_the_key_is_accepted(
    own: OfflineOpenAI, caplog: pytest.LogCaptureFixture
) -> None:
    """It starts all the same, and asks again in the background."""
    caplog.set_level(logging.INFO)
    own.script(Scripted(path=MODEL, status=500), Scripted(path=MODEL, delay=0.3))
    with serving(app.create_app(make_settings(own))) as service:
        wait_until(lambda: len(own.received) == 2)
        response = service.client.get("/readyz")
        assert response.status_code == 503
        assert response.json()["openai_api_key"] == "unreachable"
        assert service.client.get("/livez").is_success
        wait_until(lambda: service.client.get("/readyz").is_success)
    assert [r.getMessage() for r in caplog.records if r.name == key_check.__name__] == [
        key_check.SENTENCES[key_check.KeyStatus.UNREACHABLE],
        key_check.SENTENCES[key_check.KeyStatus.ACCEPTED],
    ]


def test_a_stop_does_not_wait_for_the_check(own: OfflineOpenAI) -> None:
    own.script(Scripted(path=MODEL, delay=60))
    with serving(app.create_app(make_settings(own))) as service:
        wait_until(lambda: own.received)
        assert service.client.get("/readyz").json()["openai_api_key"] == "unchecked"
    wait_until(lambda: own.received[0].left_at, seconds=3)
