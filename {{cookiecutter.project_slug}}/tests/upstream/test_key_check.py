"""The states of a key: which requests tell them, and how `/readyz` and the log show them."""

import asyncio
import json
import logging
from collections.abc import Iterator

import pytest

from ..conftest import KEY, app, key_check, make_settings, serving, wait_until
from dev.offline_openai import OfflineOpenAI, Scripted, running

MODEL = "/v1/models/gpt-test"
CHAT = "/v1/chat/completions"
PAGE = Scripted(body="<html>It works!</html>", content_type="text/html; charset=utf-8")

ACCEPTED = "accepted"
REJECTED = "rejected"
NO_MODEL = "model-unavailable"
WRONG = "wrong-address"
UNREACHABLE = "unreachable"
UNKNOWN = "unknown"


def on(path: str, step: Scripted) -> Scripted:
    return Scripted(**vars(step) | {"path": path, "times": 99})


def reply(body: object, status: int = 200) -> Scripted:
    return Scripted(status=status, body=json.dumps(body))


def error(code: str | int | None = None, message: str = "No.", **more: str) -> object:
    return {"error": {"message": message, "type": None, "param": None, "code": code} | more}


def no(status: int, code: str | None = None, **more: str) -> Scripted:
    return reply(error(code, **more), status)


def moved(url: str) -> Scripted:
    return Scripted(status=308, body="", headers={"location": url})


def try_key(offline: OfflineOpenAI, seconds: float = 10, **changed: str) -> key_check.Verdict:
    return asyncio.run(key_check.try_key(make_settings(offline, **changed), seconds))


@pytest.mark.parametrize(
    ("answer", "expected", "seen"),
    [
        (Scripted(), ACCEPTED, "200"),
        (reply({"object": "list", "data": [{"id": "a"}]}), ACCEPTED, "200"),
        (reply([{"id": "a"}, {"id": "b"}]), ACCEPTED, "200"),
        (no(401, "invalid_api_key"), REJECTED, "401 invalid_api_key"),
        (no(404, "model_not_found"), NO_MODEL, "404 model_not_found"),
        (Scripted(drop=True), UNREACHABLE, "disconnected"),
    ],
)
def test_a_verdict_on_the_model_needs_no_dry_call(
    answer: Scripted, expected: str, seen: str, offline: OfflineOpenAI
) -> None:
    offline.script(on(MODEL, answer))
    verdict = try_key(offline)
    assert verdict.status == expected
    assert seen.lower() in verdict.sentence.lower()  # one HTTP client says RemoteDisconnected
    assert f"GET {offline.url}/models/gpt-test" in verdict.sentence
    assert KEY not in verdict.sentence
    assert {request.path for request in offline.received} == {MODEL}


def test_the_check_has_a_timeout(offline: OfflineOpenAI) -> None:
    offline.script(on(MODEL, Scripted(delay=60)))
    verdict = try_key(offline, seconds=0.2)
    assert verdict.status == UNREACHABLE
    assert "no answer within 0.2 s" in verdict.sentence


@pytest.mark.parametrize(
    "answer",
    [
        no(401, type="invalid_request_error", message="Missing scopes: model.read"),
        no(403),
        no(404),
        no(405),
        no(429, "insufficient_quota"),
        no(500),
        PAGE,
        Scripted(body="{"),
        Scripted(status=404, body="<html>", content_type="text/html"),
        moved("https://elsewhere.test/"),
        reply({}),
        reply([]),
        reply({"data": []}),
        reply({"error": "Unexpected endpoint."}),
        reply(error(404)),
    ],
)
def test_where_the_model_is_no_verdict_a_dry_call_is(
    answer: Scripted, offline: OfflineOpenAI
) -> None:
    """A chat without messages, which OpenAI authenticates and refuses: it costs nothing."""
    offline.script(on(MODEL, answer))
    verdict = try_key(offline)
    assert verdict.status == ACCEPTED
    assert f"POST {offline.url}/chat/completions answered 400" in verdict.sentence
    asked, dry = offline.received
    assert (asked.method, asked.path) == ("GET", MODEL)
    assert (dry.method, dry.path) == ("POST", CHAT)
    assert dry.headers["authorization"] == f"Bearer {KEY}"
    assert dry.body == {
        "model": "gpt-test",
        "messages": [],
        "max_completion_tokens": 1,
        "max_tokens": 1,
    }


@pytest.mark.parametrize(
    ("answer", "expected", "seen"),
    [
        (no(400), ACCEPTED, "400"),
        (no(422, "empty_array"), ACCEPTED, "422 empty_array"),
        (reply({"detail": []}, 422), ACCEPTED, "422"),
        (reply(error(400)), ACCEPTED, "400 application/json"),
        (Scripted(body='{"choices": []}'), ACCEPTED, "200"),
        (no(401, "invalid_api_key"), REJECTED, "401 invalid_api_key"),
        (no(401, KEY), REJECTED, "401 application/json."),
        (no(403, "account_deactivated"), REJECTED, "403 account_deactivated"),
        (Scripted(status=401, body="Unauthorized", content_type="text/plain"), REJECTED, "401"),
        (reply(error(401)), REJECTED, "401 application/json"),
        (no(400, message="API key not valid."), REJECTED, "400"),
        (
            reply({"code": "An invalid argument", "error": "Incorrect API key: xa***z"}, 400),
            REJECTED,
            "400",
        ),
        (reply([error(400, "API key not valid.")], 400), REJECTED, "400"),
        (no(404, "model_not_found"), NO_MODEL, "404 model_not_found"),
        (no(404, "DeploymentNotFound"), NO_MODEL, "404 DeploymentNotFound"),
        (
            reply({"object": "error", "message": "No `gpt-test`.", "code": 404}, 404),
            NO_MODEL,
            "404",
        ),
        (no(404, message="model 'gpt-test' not found"), NO_MODEL, "404"),
        (no(404), WRONG, "404"),
        (no(405), WRONG, "405"),
        (PAGE, WRONG, "200 text/html"),
        (Scripted(status=403, body="<html>", content_type="text/html"), WRONG, "403 text/html"),
        (Scripted(status=403, body="", content_type="text/plain"), REJECTED, "403 text/plain"),
        (
            Scripted(status=400, body="Client sent HTTP to HTTPS.", content_type="text/plain"),
            WRONG,
            "400 text/plain",
        ),
        (
            moved("https://elsewhere.test/v1/chat/completions?key=secret"),
            WRONG,
            "308 to https://elsewhere.test/v1/chat/completions.",
        ),
        (moved("/v1/"), WRONG, "308 to /v1/."),
        (no(500), UNREACHABLE, "500"),
        (Scripted(drop=True), UNREACHABLE, "disconnected"),
        (no(429, "insufficient_quota"), UNKNOWN, "429 insufficient_quota"),
        (no(429, "rate_limit_exceeded"), UNKNOWN, "429 rate_limit_exceeded"),
        (no(403, type="insufficient_quota"), UNKNOWN, "403 insufficient_quota"),
        (no(402), UNKNOWN, "402"),
        (no(409), UNKNOWN, "409"),
        (no(418), WRONG, "418"),
        (reply({}), WRONG, "200"),
        (reply({"error": "Unexpected endpoint."}), UNREACHABLE, "500"),
    ],
)
def test_the_dry_call_tells_the_state_of_the_key(
    answer: Scripted, expected: str, seen: str, offline: OfflineOpenAI
) -> None:
    offline.script(on(MODEL, no(401)), on(CHAT, answer))
    verdict = try_key(offline)
    assert verdict.status == expected
    assert f"POST {offline.url}/chat/completions" in verdict.sentence
    assert seen.lower() in verdict.sentence.lower()
    assert "secret" not in verdict.sentence
    assert KEY not in verdict.sentence
    assert ("/v1?" in verdict.sentence) is (expected == WRONG)


def test_the_name_of_a_model_is_escaped_in_the_path(offline: OfflineOpenAI) -> None:
    assert try_key(offline, openai_model="meta-llama/Llama-3?").status == ACCEPTED
    assert offline.received[0].path == "/v1/models/meta-llama%2FLlama-3%3F"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (no(400), (ACCEPTED, True, "INFO")),
        (no(401), (REJECTED, False, "ERROR")),
        (no(404, "model_not_found"), (NO_MODEL, False, "ERROR")),
        (no(404), (WRONG, False, "ERROR")),
        (no(500), (UNREACHABLE, False, "ERROR")),
        (no(402), (UNKNOWN, True, "WARNING")),
    ],
)
def test_the_state_decides_on_readiness_and_log_level(
    answer: Scripted,
    expected: tuple[str, bool, str],
    offline: OfflineOpenAI,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    offline.script(on(MODEL, no(401)), on(CHAT, answer))
    check = key_check.KeyCheck(make_settings(offline))

    async def run() -> None:
        running = asyncio.create_task(check.run())
        await asyncio.to_thread(wait_until, lambda: check.status != "unchecked")
        running.cancel()

    asyncio.run(run())
    (record,) = [r for r in caplog.records if "OPENAI_" in r.getMessage()]
    assert (check.status, check.is_ready, record.levelname) == expected


@pytest.fixture
def own() -> Iterator[OfflineOpenAI]:
    """An upstream that no other service asks about its key."""
    with running() as offline:
        yield offline


def test_the_service_is_ready_once_a_chat_would_be_let_in(
    own: OfflineOpenAI, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It starts all the same, asks again, and logs each change once; then it asks no more."""
    monkeypatch.setattr(key_check, "LONGEST_WAIT_SECONDS", 0.05)
    caplog.set_level(logging.INFO)
    own.script(
        Scripted(path=MODEL, status=401, times=6),
        *[Scripted(path=CHAT, status=500)] * 3,
        *[Scripted(path=CHAT, status=503)] * 2,
        Scripted(path=CHAT, status=400, delay=0.3),
    )
    with serving(app.create_app(make_settings(own))) as service:
        wait_until(lambda: len(own.received) == 12)
        response = service.client.get("/readyz")
        assert response.status_code == 503
        assert response.json()["checks"]["openai_api_key"] == "unreachable"
        assert service.client.get("/livez").is_success
        wait_until(lambda: service.client.get("/readyz").is_success)
    asked = f"POST {own.url}/chat/completions answered"
    assert [r.getMessage() for r in caplog.records if "OPENAI_" in r.getMessage()] == [
        f"OPENAI_API_KEY is not checked yet: {asked} 500 server_error.",
        f"OPENAI_API_KEY is not checked yet: {asked} 503 server_error.",
        f"OPENAI_API_KEY is accepted: {asked} 400 invalid_request_error.",
    ]
    assert len(own.received) == 12


def test_a_stop_does_not_wait_for_the_check(own: OfflineOpenAI) -> None:
    own.script(Scripted(path=MODEL, delay=60))
    with serving(app.create_app(make_settings(own))) as service:
        wait_until(lambda: own.received)
        checks = service.client.get("/readyz").json()["checks"]
        assert checks["openai_api_key"] == "unchecked"
    wait_until(lambda: own.received[0].left_at, seconds=3)


def test_a_bug_in_the_check_does_not_end_it(
    own: OfflineOpenAI, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: object) -> None:
        monkeypatch.undo()
        raise ValueError("what nobody thought of")

    monkeypatch.setattr(key_check, "try_key", fail)
    with serving(app.create_app(make_settings(own))) as service:
        wait_until(lambda: service.client.get("/readyz").is_success)
    assert "what nobody thought of" in caplog.text
