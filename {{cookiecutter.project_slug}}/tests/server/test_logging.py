import json
import logging
import re
from collections.abc import Iterator
from io import StringIO
from typing import Any

import pytest

from ..conftest import (
    KEY,
    QUESTION,
    Service,
    make_settings,
    service_logging,
    wait_until,
)
from dev.offline_openai import OfflineOpenAI


def test_every_answer_has_a_request_id(service: Service) -> None:
    first, second = (service.client.get("/livez").headers["x-request-id"] for _ in "12")
    assert re.fullmatch("[0-9a-f]{32}", first)
    assert first != second


@pytest.mark.parametrize("endpoint", ["/livez", "/v1/chat", "/v1/chat/stream", "/nowhere"])
def test_a_well_formed_request_id_of_the_client_is_kept(endpoint: str, service: Service) -> None:
    response = service.client.request("POST", endpoint, headers={"x-request-id": "a-1.b_2"})
    assert response.headers.get_list("x-request-id") == ["a-1.b_2"]


@pytest.mark.parametrize("asked", ["", "a b", "a" * 129, "<script>", "é"])
def test_another_is_replaced(asked: str, service: Service) -> None:
    headers = [(b"x-request-id", asked.encode())]
    assert service.client.get("/livez", headers=headers).headers["x-request-id"] != asked


def configure(offline: OfflineOpenAI, **changed: Any) -> None:
    service_logging.configure_logging(make_settings(offline, **changed))


SECRETS = [
    f"Incorrect API key provided: {KEY}.",
    "Incorrect API key provided: sk-proj-abc***********wxyz.",
]


@pytest.fixture
def others_log() -> Iterator[StringIO]:
    """What a logger writes that has a handler and a format of its own."""
    logger = logging.getLogger("other")
    logger.propagate = False
    stream = StringIO()
    handler = logging.StreamHandler(stream)
    logger.addHandler(handler)
    yield stream
    logger.removeHandler(handler)
    logger.propagate = True


@pytest.mark.parametrize("secret", SECRETS)
def test_no_key_reaches_the_log_of_others(
    secret: str, others_log: StringIO, service: Service
) -> None:
    """Once there is an application, whoever has configured the logging."""
    assert service.client.get("/livez").is_success
    log = logging.getLogger("other")
    log.warning(secret)
    log.warning("%s %r %s", secret, [secret], ValueError(secret))
    log.warning("%(a)s", {"a": secret})
    log.warning(ValueError(secret))
    try:
        raise ValueError(secret)
    except ValueError:
        log.exception("failed")
    printed = others_log.getvalue()
    assert "sk-" not in printed
    assert printed.count("[redacted]") == 7
    assert "Traceback" in printed


def test_what_holds_no_key_is_logged_as_it_is(others_log: StringIO, service: Service) -> None:
    assert service.client.get("/livez").is_success
    values = (1, 0.5, None, ["x"], "y")
    record = logging.getLogRecordFactory()(
        "other", logging.INFO, "", 1, "%d %.1f %s %s %s", values, None
    )
    assert record.args == values, "some formatters need them, such as uvicorn's of the access log"
    logging.getLogger("other").warning("%(n)03d", {"n": 7})
    assert others_log.getvalue() == "007\n"


def test_a_message_that_cannot_be_formatted_shows_no_arguments(
    others_log: StringIO, service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    assert service.client.get("/livez").is_success
    logging.getLogger("other").warning("%d", KEY)
    assert "Malformed log message in " in others_log.getvalue()
    assert __file__ in others_log.getvalue()
    assert KEY not in others_log.getvalue() + capsys.readouterr().err


@pytest.mark.usefixtures("_restored_logging")
@pytest.mark.parametrize("log_format", ["console", "json"])
def test_no_key_reaches_a_field(
    log_format: str, offline: OfflineOpenAI, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(offline, log_format=log_format)
    logging.getLogger("any").info("told", extra={"code": KEY, "body": {"key": KEY}})
    printed = capsys.readouterr().err
    assert KEY not in printed
    assert printed.count("[redacted]") == 2


@pytest.mark.usefixtures("_restored_logging")
def test_a_server_logs_in_our_format_even_if_it_brings_its_own_handler_later(
    offline: OfflineOpenAI, capsys: pytest.CaptureFixture[str], others_log: StringIO
) -> None:
    configure(offline, log_format="json", log_level="WARNING")
    for name in service_logging.SERVER_LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers = [logging.StreamHandler(others_log)]
        logger.setLevel(logging.INFO)
        logger.info("started")
        logger.warning("hello")
        logger.handlers.clear()
        logger.setLevel(logging.NOTSET)
    assert others_log.getvalue() == ""
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["logger"], line["message"]) for line in lines] == [
        (name, "hello") for name in service_logging.SERVER_LOGGERS
    ]


@pytest.mark.usefixtures("_restored_logging")
def test_handlers_of_others_stay_but_for_those_of_the_console(offline: OfflineOpenAI) -> None:
    root = logging.getLogger()
    exporter = logging.NullHandler()
    root.handlers[:] = [exporter, logging.StreamHandler()]
    configure(offline)
    configure(offline)
    ours, stays = root.handlers
    assert isinstance(ours.formatter, service_logging.Formatter)
    assert stays is exporter


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
    configure(offline, log_format="console")
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
