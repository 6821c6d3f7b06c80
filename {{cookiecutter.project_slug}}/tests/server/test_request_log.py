"""What the log says of a request."""

import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any, TextIO

import pytest

from ..conftest import (
    KEY,
    QUESTION,
    Service,
    ask_without_reading,
    events,
    keys,
    make_settings,
    service_logging,
    wait_until,
)
from dev.offline_openai import OfflineOpenAI, Scripted

ENDPOINTS = ["/v1/chat", "/v1/chat/stream"]
ASKED = QUESTION["messages"][0]["content"]
WEB_KEY = keys.new_key()

Line = dict[str, Any]
Lines = Callable[[], list[Line]]

pytestmark = pytest.mark.usefixtures("_restored_logging", "no_backoff")


def configure(offline: OfflineOpenAI, stderr: TextIO, **changed: Any) -> None:
    with redirect_stderr(stderr):
        service_logging.configure_logging(make_settings(offline, **changed))


@pytest.fixture
def printed(tmp_path: Path) -> Iterator[TextIO]:
    """A file in place of stderr: `capsys` may lose what a thread prints while it is read."""
    with (tmp_path / "stderr").open("w") as stderr:
        yield stderr


@pytest.fixture
def lines(offline: OfflineOpenAI, printed: TextIO) -> Lines:
    """What has been printed, once the line of a chat is."""
    configure(offline, printed, log_format="json")

    def found() -> list[Line]:
        whole, _, _ = Path(printed.name).read_text().rpartition("\n")
        lines = [json.loads(line) for line in whole.splitlines()]
        return [line for line in lines if line["message"] != "GET /readyz 200"]

    def read() -> list[Line]:
        wait_until(lambda: any(line["message"].startswith("POST /v1") for line in found()))
        return found()

    return read


def of_request(lines: list[Line]) -> Line:
    (line,) = [line for line in lines if line["message"].startswith("POST /v1")]
    return line


def test_successful_probes_are_logged_for_debugging_only(
    service: Service, offline: OfflineOpenAI, printed: TextIO
) -> None:
    """They come every few seconds. Those that fail are seen."""
    probes = ("/livez", "/readyz", "/metrics")

    def said(level: str) -> list[str]:
        configure(offline, printed, log_format="json", log_level=level)
        for path in (*probes, "/missing"):
            service.client.get(path)
        wait_until(lambda: "GET /missing" in Path(printed.name).read_text())
        text = Path(printed.name).read_text()
        printed.truncate(0)
        return [path for path in probes if f"GET {path} 200" in text]

    assert said("INFO") == []
    assert said("DEBUG") == [*probes]


@pytest.fixture
def locked(serve: Callable[..., Service], offline: OfflineOpenAI) -> Service:
    return serve(service_api_keys=f"web:{keys.digest(WEB_KEY)}")


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_line_says_what_a_request_did(
    endpoint: str, locked: Service, offline: OfflineOpenAI, lines: Lines
) -> None:
    offline.script(
        Scripted(status=500, headers={"x-request-id": "req_first"}),
        Scripted(reply="one two", headers={"x-request-id": "req_second"}),
    )
    headers = {"x-api-key": WEB_KEY, "x-request-id": "mine"}
    assert locked.client.post(endpoint, json=QUESTION, headers=headers).is_success
    line = of_request(lines())
    assert line.pop("time")
    assert 0 <= line.pop("duration_ms") < 10_000
    assert line == {
        "level": "INFO",
        "logger": line["logger"],
        "message": f"POST {endpoint} 200",
        "request_id": "mine",
        "route": endpoint,
        "client_id": "web",
        "attempts": 2,
        "input_tokens": 4,
        "output_tokens": 2,
        "upstream_request_id": "req_second",
    }


def test_a_request_that_calls_nothing_has_no_attempts(service: Service, lines: Lines) -> None:
    assert service.client.post("/v1/nowhere%0aforged").status_code == 404
    line = of_request(lines())
    assert line["message"] == "POST /v1/nowhere%0Aforged 404"
    assert (line["route"], line["client_id"]) == ("other", "anonymous")
    assert not {"attempts", "input_tokens", "output_tokens", "upstream_request_id"} & line.keys()


def test_a_request_without_a_key_has_a_line(locked: Service, lines: Lines) -> None:
    assert locked.chat().status_code == 401
    line = of_request(lines())
    assert (line["message"], line["problem"]) == ("POST /v1/chat 401", "unauthenticated")


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_client_that_left_before_the_answer_is_499(
    endpoint: str, service: Service, offline: OfflineOpenAI, lines: Lines
) -> None:
    offline.script(Scripted(delay=60))
    with ask_without_reading(service, endpoint):
        wait_until(lambda: offline.received)
    line = of_request(lines())
    assert line["message"] == f"POST {endpoint} 499"
    assert line["attempts"] == 1
    assert "problem" not in line


def test_a_client_that_left_between_attempts_is_499(
    service: Service, offline: OfflineOpenAI, lines: Lines
) -> None:
    offline.script(Scripted(status=500, headers={"retry-after": "1"}))
    with ask_without_reading(service, "/v1/chat"):
        wait_until(lambda: offline.received and offline.received[0].finished)
    assert of_request(lines())["message"] == "POST /v1/chat 499"


def test_a_client_that_left_in_the_middle_of_a_stream_is_499(
    service: Service, offline: OfflineOpenAI, lines: Lines
) -> None:
    offline.script(Scripted(reply="one two", hang_after=1))
    with ask_without_reading(service, "/v1/chat/stream") as client:
        assert client.recv(1)
    line = of_request(lines())
    assert line["message"] == "POST /v1/chat/stream 499"
    assert line["attempts"] == 1
    assert "problem" not in line


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_failure_that_the_client_has_read_is_not_499(
    endpoint: str, service: Service, offline: OfflineOpenAI, lines: Lines
) -> None:
    offline.script(Scripted(status=400))
    assert service.post(endpoint).status_code == 400
    line = of_request(lines())
    assert line["message"] == f"POST {endpoint} 400"
    assert line["problem"] == "upstream-rejected-input"


def test_a_stream_that_fails_in_the_middle_has_its_problem(
    service: Service, offline: OfflineOpenAI, lines: Lines
) -> None:
    offline.script(Scripted(reply="one two three", error_after=1))
    assert events(service.stream())[-1][0] == "error"
    line = of_request(lines())
    assert (line["message"], line["problem"]) == ("POST /v1/chat/stream 200", "upstream-error")


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_the_chain_of_a_failing_call_has_one_request_id(
    endpoint: str, service: Service, offline: OfflineOpenAI, lines: Lines
) -> None:
    """Also where its attempts run in threads."""
    offline.script(Scripted(status=500, headers={"x-request-id": "req_it"}, times=4))
    failed = service.client.post(endpoint, json=QUESTION, headers={"x-request-id": "chain"})
    assert failed.json()["request_id"] == "chain"
    found = lines()
    assert {line["request_id"] for line in found} == {"chain"}
    messages = [line["message"].split(" failed with ")[0].split(":")[0] for line in found]
    assert messages == [
        "attempt 1",
        "attempt 2",
        "attempt 3",
        "upstream-error",
        f"POST {endpoint} 502",
    ]
    assert {line["upstream_request_id"] for line in found} == {"req_it"}
    assert {line["upstream_status"] for line in found[:4]} == {500}


@pytest.mark.parametrize("level", ["DEBUG", "INFO", "WARNING", "ERROR"])
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_the_log_has_nothing_of_a_conversation(
    level: str,
    endpoint: str,
    service: Service,
    offline: OfflineOpenAI,
    printed: TextIO,
) -> None:
    """Whether it succeeds, is refused or fails."""
    configure(offline, printed, log_level=level)
    said = "a-very-special-reply"
    steps = (
        Scripted(reply=said),
        Scripted(status=400),
        Scripted(status=500, times=4),
        Scripted(body=f"{{'{said}'", times=4),
        Scripted(reply=said, error_after=1),
    )
    for step in steps:
        offline.script(step)
        service.post(endpoint)
    service.client.post(endpoint, json=QUESTION | {"unknown": said})
    service.settle()
    log = Path(printed.name).read_text()
    assert (level in ("DEBUG", "INFO")) == (f"POST {endpoint} 200" in log)
    assert said not in log
    assert ASKED not in log


@pytest.fixture
def talkative(serve: Callable[..., Service], offline: OfflineOpenAI) -> Service:
    return serve(log_prompts=True)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_prompts_and_replies_are_logged_if_set(
    endpoint: str, talkative: Service, offline: OfflineOpenAI, lines: Lines
) -> None:
    """Each with the request's id, and without keys."""
    offline.script(Scripted(reply=f"my key is {WEB_KEY}"))
    question = {"messages": [{"role": "user", "content": f"{ASKED} {KEY}"}]}
    headers = {"x-request-id": "said"}
    assert talkative.client.post(endpoint, json=question, headers=headers).is_success
    found = [line for line in lines() if line["request_id"] == "said"]
    (prompt,) = [line["prompt"] for line in found if "prompt" in line]
    (reply,) = [line["reply"] for line in found if "reply" in line]
    assert json.loads(prompt)["messages"][0]["content"] == f"{ASKED} [redacted]"
    assert "my" in reply
    assert "key" in reply
    assert reply.count("[redacted]") == 1
    assert KEY not in json.dumps(found)
    assert WEB_KEY not in json.dumps(found)


@pytest.mark.parametrize(
    ("is_terminal", "log_format", "is_json"),
    [
        (True, None, False),
        (False, None, True),
        (True, "json", True),
        (False, "console", False),
    ],
)
def test_lines_are_json_unless_they_go_to_a_terminal_or_a_setting_says_so(
    is_terminal: bool,
    log_format: str | None,
    is_json: bool,
    offline: OfflineOpenAI,
) -> None:
    read, write = os.openpty() if is_terminal else os.pipe()
    with os.fdopen(read, "rb", buffering=0) as printed, os.fdopen(write, "w") as stderr:
        configure(offline, stderr, log_format=log_format)
        logging.getLogger("uvicorn.error").info("hello")
        line = printed.read(1000).decode()
    assert line.startswith("{") is is_json
    assert "hello" in line
