import json
import logging
import logging.config
import re
from collections.abc import Iterator
from typing import Any

import pytest

from .conftest import (
    KEY,
    QUESTION,
    Service,
    ask_without_reading,
    make_settings,
    telemetry,
    wait_until,
)
from dev.offline_openai import OfflineOpenAI, Scripted


def test_every_answer_has_a_request_id(service: Service) -> None:
    first, second = (service.client.get("/livez").headers["x-request-id"] for _ in "12")
    assert re.fullmatch("[0-9a-f]{32}", first)
    assert first != second


@pytest.mark.parametrize("endpoint", ["/livez", "/v1/chat", "/v1/chat/stream", "/nowhere"])
def test_a_well_formed_request_id_of_the_callers_is_kept(endpoint: str, service: Service) -> None:
    response = service.client.request("POST", endpoint, headers={"x-request-id": "a-1.b_2"})
    assert response.headers.get_list("x-request-id") == ["a-1.b_2"]


@pytest.mark.parametrize("asked", ["", "a b", "a" * 129, "<script>", "é"])
def test_another_is_replaced(asked: str, service: Service) -> None:
    headers = [(b"x-request-id", asked.encode())]
    assert service.client.get("/livez", headers=headers).headers["x-request-id"] != asked


def test_a_request_leaves_a_line(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    def lines() -> list[logging.LogRecord]:
        return [r for r in caplog.records if r.name == telemetry.__name__]

    with caplog.at_level(logging.INFO):
        service.client.get("/livez%0aforged")
        wait_until(lines)  # it is written once the answer is sent
    (line,) = lines()
    assert line.getMessage() == "GET /livez%0Aforged 404"
    assert vars(line)["duration_ms"] >= 0


def test_a_caller_who_left_leaves_a_line(
    service: Service, offline: OfflineOpenAI, caplog: pytest.LogCaptureFixture
) -> None:
    offline.script(Scripted(status=500, headers={"retry-after": "1"}))
    with caplog.at_level(logging.INFO):
        with ask_without_reading(service, "/v1/chat"):
            wait_until(lambda: offline.received)
        wait_until(lambda: "POST /v1/chat 499" in caplog.text)


@pytest.fixture
def _restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    before = root.level, list(root.handlers)
    yield
    root.setLevel(before[0])
    root.handlers[:] = before[1]


def configure(offline: OfflineOpenAI, **changed: Any) -> None:
    logging.config.dictConfig(telemetry.log_config(make_settings(offline, **changed)))


SECRETS = [
    f"Incorrect API key provided: {KEY}.",
    "Incorrect API key provided: sk-proj-abc***********wxyz.",
]


@pytest.mark.usefixtures("_restored_logging")
@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("log_format", ["console", "json"])
def test_no_key_reaches_the_log(
    log_format: str, secret: str, offline: OfflineOpenAI, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(offline, log_format=log_format)
    try:
        raise ValueError(secret)
    except ValueError:
        logging.getLogger("any").exception("told: %s", secret)
    printed = capsys.readouterr().err
    assert printed.count("Incorrect API key provided: [redacted]") == 2
    assert "sk-" not in printed
    assert "Traceback" in printed


@pytest.mark.usefixtures("_restored_logging")
@pytest.mark.parametrize("log_format", ["console", "json"])
def test_no_form_of_the_key_reaches_the_log(
    log_format: str, offline: OfflineOpenAI, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither in a field, nor quoted as Python or JSON would."""
    key = "my'own\\\"key-0123456789"
    configure(offline, log_format=log_format, openai_api_key=key)
    logging.getLogger("any").info("told: %r %s", [key], json.dumps(key), extra={"code": key})
    printed = capsys.readouterr().err
    assert "0123456789" not in printed
    assert printed.count("[redacted]") == 3


@pytest.mark.usefixtures("_restored_logging")
def test_no_message_can_forge_a_line(
    offline: OfflineOpenAI, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(offline)
    logging.getLogger("any").info("a\nforged\x1b[2J", extra={"upstream_code": "b\r\u2028forged"})
    printed = capsys.readouterr().err
    assert len(printed.splitlines()) == 1
    assert "\x1b" not in printed


@pytest.mark.usefixtures("_restored_logging")
def test_json_logs_are_a_line_each_with_all_fields(
    offline: OfflineOpenAI, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(offline, log_format="json")
    logging.getLogger("any").info("two\nlines", extra={"duration_ms": 1.5, "upstream_code": None})
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line) | {"time": None} == {
        "time": None,
        "level": "INFO",
        "logger": "any",
        "message": "two\nlines",
        "duration_ms": 1.5,
        "request_id": "-",
    }


@pytest.mark.usefixtures("_restored_logging")
def test_console_logs_show_the_fields(
    offline: OfflineOpenAI, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(offline)
    logging.getLogger("any").warning("hello", extra={"upstream_status": 500})
    assert "WARNING hello request_id=- upstream_status=500" in capsys.readouterr().err


@pytest.mark.usefixtures("_restored_logging")
def test_the_level_is_the_settings(
    offline: OfflineOpenAI, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(offline, log_level="ERROR")
    logging.getLogger("any").warning("hello")
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("_restored_logging")
def test_even_debug_logs_hold_neither_key_nor_conversation(
    service: Service, offline: OfflineOpenAI, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = ""

    def has_line() -> bool:
        nonlocal printed
        printed += capsys.readouterr().err
        return "POST /v1/chat 200" in printed

    configure(offline, log_level="DEBUG")
    service.chat()
    wait_until(has_line)  # it is written once the answer is sent
    assert KEY not in printed
    assert QUESTION["messages"][0]["content"] not in printed
