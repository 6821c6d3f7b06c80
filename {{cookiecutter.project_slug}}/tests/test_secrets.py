"""No secret is in a response, a log line, a metric, a span or the text of an exception."""

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydantic import ValidationError

from .conftest import (
    KEY,
    NO_CERTIFICATES,
    PACKAGE,
    QUESTION,
    connections,
    errors,
    keys,
    make_settings,
    settings,
    wait_until,
)
from .processes import Process, answers, env, process
from .redis_server import PASSWORD, RedisServer
from dev.offline_openai import OfflineOpenAI, Scripted, running

CLIENT_KEY = keys.new_key()
WRONG_KEY = keys.new_key()
SECRETS = {"OpenAI's key": KEY, "Redis' password": PASSWORD, "a client's key": CLIENT_KEY[4:40]}
SECRETS |= {"a wrong key": WRONG_KEY[4:40]}

# With an endpoint that fails, an SDK for spans, and a way to read them.
OWNERS = f"""
import json
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from {PACKAGE} import process as main
from {PACKAGE} import app
from {PACKAGE}.server.routes import PUBLIC

exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
create = app.create_app

def create_app():
    created = create()

    @created.get("/fail")
    async def fail():
        raise RuntimeError("{KEY} {PASSWORD}")

    @created.get("/spans", openapi_extra=PUBLIC)
    async def spans():
        return [json.loads(span.to_json()) for span in exporter.get_finished_spans()]

    return created

if __name__ == "__main__":
    main.create_app = create_app
    main.main()
"""
LAUNCHERS = {
    "python -m": ["owners.py"],
    "uvicorn --factory": ["-m", "uvicorn", "--factory", "owners:create_app", "--port", "0"],
}


def secrets_in(text: str) -> list[str]:
    return [name for name, secret in SECRETS.items() if secret in text]


@dataclass
class Driver:
    """A client that drives each failure, and keeps all that it is told."""

    client: httpx2.Client
    offline: OfflineOpenAI
    redis: RedisServer
    process: Process
    told: list[tuple[str, str]] = field(default_factory=list)
    """What was done, and what was answered."""
    types: set[str] = field(default_factory=set)
    """The problems that were seen."""

    def note(self, what: str, response: httpx2.Response) -> None:
        text = f"{response.status_code} {response.headers.multi_items()} {response.text}"
        self.told.append((what, text))
        name = "urn:problem-type:"
        self.types |= {
            part.split('"')[0] for part in response.text.replace("\\", "").split(name)[1:]
        }

    def ask(self, what: str, endpoint: str = "/v1/chat", **options: Any) -> None:
        options = {"json": QUESTION} | options
        self.note(what, self.client.post(endpoint, **options))

    def fail(self, *endpoints: str, **step: Any) -> None:
        """Have OpenAI fail, with a text that has all that it knows of the service."""
        sent: dict[str, Any] = {
            "message": f"Incorrect key {KEY}, {KEY[:12]}***, {PASSWORD}",
            "times": 8,
        }
        for endpoint in endpoints or ("/v1/chat", "/v1/chat/stream"):
            self.offline.reset()
            self.offline.script(Scripted(**sent | {"headers": {"retry-after-ms": "1"}} | step))
            self.ask(f"OpenAI fails: {step}", endpoint)
        self.offline.reset()

    def drive_clients(self) -> None:
        self.ask("good")
        self.ask("invalid", json={"messages": [], CLIENT_KEY: KEY})
        self.ask("no JSON", content=f"{CLIENT_KEY} {KEY}", json=None)
        self.ask("large", json=QUESTION | {"model": KEY * 1000})
        self.ask("model", json=QUESTION | {"model": CLIENT_KEY})
        self.ask("no key", headers={"x-api-key": ""})
        self.ask("wrong key", headers={"x-api-key": WRONG_KEY})
        self.ask("wrong key", headers={"x-api-key": "", "authorization": f"Bearer {WRONG_KEY}"})
        self.ask(
            "no such scheme", headers={"x-api-key": "", "authorization": f"Basic {CLIENT_KEY}"}
        )
        self.ask("key as id", headers={"x-request-id": CLIENT_KEY})
        self.ask("OpenAI's key as id", headers={"x-request-id": KEY})
        self.ask("key within the id", headers={"x-request-id": f"a.{CLIENT_KEY}"})
        self.ask("key in the path", f"/v1/{CLIENT_KEY}")
        self.ask("key in the query", f"/v1/nowhere?key={CLIENT_KEY}")
        self.note("a bug", self.client.get("/fail"))

    def drive_openai(self) -> None:
        for status in (400, 401, 402, 403, 404, 408, 409, 413, 422, 429, 500, 503):
            self.fail(status=status)
        for code in ("context_length_exceeded", "content_filter", "invalid_api_key", KEY):
            self.fail(status=400, code=code, type=KEY)
        self.fail(status=429, code="insufficient_quota")
        # With waits for the next attempt, a silence or the deadline: once each.
        self.fail("/v1/chat/stream", drop=True)
        self.fail("/v1/chat", body=f'{{"error": "{KEY}"}}')
        self.fail("/v1/chat", body=f"<p>{KEY}</p>", content_type=f"text/{KEY}")
        self.fail("/v1/chat/stream", reply="one two", error_after=1)
        self.fail("/v1/chat/stream", reply="one two", hang_after=1)
        self.fail("/v1/chat", body="x" * 1000, chunk_delay=0.05)

    def drive_limits_and_stop(self) -> None:
        self.offline.script(Scripted(words=100_000, chunk_delay=0.02))
        with self.client.stream("POST", "/v1/chat/stream", json=QUESTION) as endless:
            self.ask("overloaded")
            while "rate-limited" not in self.types:
                self.note("over the limit", self.client.get("/v1/nowhere"))
            self.redis.kill()
            while "limits-unavailable" not in self.types:
                self.note("Redis away", self.client.get("/v1/nowhere"))
            for path in ("/metrics", "/spans", "/readyz"):
                self.note(path, self.client.get(path))
            self.process.popen.terminate()
            endless.read()
            self.note("stopped", endless)


@contextmanager
def driven(launcher: list[str], redis: RedisServer, folder: Path) -> Iterator[Driver]:
    (folder / "owners.py").write_text(OWNERS)
    arguments = [str(folder / word) if word.endswith(".py") else word for word in launcher]
    with running() as offline:
        changed = env(
            offline,
            PYTHONPATH=os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]),
            SERVICE_API_KEYS=f"web:{keys.digest(CLIENT_KEY)}",
            RATE_LIMIT="120/day",
            RATE_LIMIT_STORAGE_URI=redis.uri,
            RATE_LIMIT_FAIL_CLOSED="true",
            MAX_ATTEMPTS="2",
            MAX_CONCURRENCY="1",
            MAX_QUEUE="0",
            MAX_BODY_BYTES="10000",
            ATTEMPT_TIMEOUT_SECONDS="1",
            DEADLINE_SECONDS="0.8",
            SHUTDOWN_GRACE_SECONDS="1",
            LOG_LEVEL="DEBUG",
            LOG_PROMPTS="true",
        )
        with process(*arguments, **changed) as service:
            url = service.url()
            with httpx2.Client(base_url=url, verify=NO_CERTIFICATES, timeout=20) as client:
                client.headers["x-api-key"] = CLIENT_KEY
                wait_until(lambda: answers(f"{url}/readyz"), seconds=60)
                yield Driver(client, offline, redis, service)


def types(of: type[errors.ServiceError] = errors.ServiceError) -> set[str]:
    own = {of.type} if hasattr(of, "type") else set()
    return own.union(*map(types, of.__subclasses__()))


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_no_failure_tells_a_secret(
    launcher: str, redis_server: RedisServer, tmp_path: Path
) -> None:
    with driven(LAUNCHERS[launcher], redis_server, tmp_path) as driver:
        driver.drive_clients()
        driver.drive_openai()
        driver.drive_limits_and_stop()
        status, log = driver.process.end()
    assert status == 0
    assert driver.types == types()
    told = [*driver.told, *(("log", line) for line in log.splitlines())]
    assert not [(what, secrets_in(text), text) for what, text in told if secrets_in(text)]
    assert log.count("[redacted]") > 50


NAMES = sorted(settings.Settings.model_fields)
GARBAGE = [
    KEY,
    f"{KEY} {PASSWORD}",
    f"[{KEY}, {PASSWORD}",
    f"https://{KEY}:{PASSWORD}@host:port/?key={CLIENT_KEY}#{KEY}",
    f"redis//:{PASSWORD}@{KEY}",
    f"redis://:{PASSWORD}@{KEY}:port",
    f"web:{CLIENT_KEY},other:{KEY}",
    f"{KEY}/minute; {PASSWORD}/day",
]


def texts_of(error: BaseException) -> str:
    return "".join([str(error), repr(error), *traceback.format_exception(error)])


@pytest.mark.parametrize("name", NAMES)
def test_no_malformed_setting_tells_its_value(
    name: str, offline: OfflineOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    for value in GARBAGE:
        for other, usual in env(offline).items():
            monkeypatch.setenv(other, usual)
        monkeypatch.setenv(name.upper(), value)
        told = name.upper()
        try:
            connections.load_usable_settings()
        except settings.SettingsError as error:
            told = texts_of(error)
        assert not secrets_in(told)
        assert name.upper() in told


@pytest.mark.parametrize("name", NAMES)
def test_no_setting_of_a_wrong_type_tells_its_value(name: str, offline: OfflineOpenAI) -> None:
    for value in ([KEY], {KEY: PASSWORD}, (KEY, (PASSWORD,)), KEY.encode(), object(), 10**400):
        told = ""
        try:
            make_settings(offline, **{name: value})
        except (TypeError, ValidationError) as error:
            told = texts_of(error)
        assert not secrets_in(told)


def test_settings_hide_their_secrets(offline: OfflineOpenAI) -> None:
    uri = f"redis://:{PASSWORD}@127.0.0.1:6379/0"
    made = make_settings(offline, rate_limit_storage_uri=uri)
    for text in (repr(made), str(made), made.model_dump_json(), f"{made.model_dump()}"):
        assert not secrets_in(text)


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_process_that_refuses_its_settings_tells_no_secret(
    launcher: str, offline: OfflineOpenAI, tmp_path: Path
) -> None:
    """With all of them wrong at once."""
    (tmp_path / "owners.py").write_text(OWNERS)
    python_path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    wrong = {name.upper(): GARBAGE[2] for name in NAMES} | {"PYTHONPATH": python_path}
    arguments = [
        str(tmp_path / word) if word.endswith(".py") else word for word in LAUNCHERS[launcher]
    ]
    with process(*arguments, **wrong) as refused:
        status, printed = refused.end()
    assert status in (3, 78)
    assert "OPENAI_API_KEY has white space" in printed
    assert not secrets_in(printed)
