"""Logs, in which a request id ties lines together and no key appears."""

import json
import logging
import re
import time
import uuid
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .settings import Settings

REQUEST_ID_HEADER = "X-Request-ID"
_WELL_FORMED_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")

# nginx's code for a caller who left before the answer; there is no official one.
CLIENT_CLOSED_REQUEST = 499

_request_id: ContextVar[str] = ContextVar("request_id", default="-")

logger = logging.getLogger(__name__)


def current_request_id() -> str:
    return _request_id.get()


class RequestIdMiddleware:
    """Gives each request an id, the caller's if it is well-formed, and a line in the log."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        asked = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
        request_id = asked if _WELL_FORMED_ID.fullmatch(asked) else uuid.uuid4().hex
        # Never reset: the task ends with the request, and uvicorn logs a bug only after us.
        _request_id.set(request_id)
        status = CLIENT_CLOSED_REQUEST
        started = time.perf_counter()

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = request_id
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        finally:
            logger.info(
                "%s %s %d",
                scope["method"],
                quote(scope["path"]),  # a line end in it would forge a line of the log
                status,
                extra={"duration_ms": round((time.perf_counter() - started) * 1000, 1)},
            )


# Each of these would let a message look like further lines of the log, or act on a terminal.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def _one_line(text: str) -> str:
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


class Formatter(logging.Formatter):
    """One line a record, with the request id and the `extra` fields, and without the key."""

    # What every record has; the rest of its attributes came as `extra`.
    STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "taskName", "color_message"}

    # Shorter ones are no secret, and would black out ordinary words.
    SHORTEST_SECRET = 8

    def __init__(self, secrets: tuple[str, ...], as_json: bool) -> None:
        super().__init__()
        self._as_json = as_json
        forms = {
            form
            for secret in secrets
            if len(secret) >= self.SHORTEST_SECRET
            for form in (secret, repr(secret)[1:-1], json.dumps(secret)[1:-1])
        }
        # OpenAI's errors echo keys, its own with asterisks.
        patterns = [*map(re.escape, sorted(forms, key=len, reverse=True)), r"\bsk-[\w*.-]{4,}"]
        self._secrets = re.compile("|".join(patterns))

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "request_id": current_request_id(),
        }
        line |= {k: v for k, v in vars(record).items() if k not in self.STANDARD and v is not None}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        line = {k: self._redacted(v) for k, v in line.items()}
        return json.dumps(line) if self._as_json else _for_people(line)

    def _redacted(self, value: object) -> object:
        is_number = isinstance(value, int | float)
        return value if is_number else self._secrets.sub("[redacted]", str(value))


def _for_people(line: dict[str, object]) -> str:
    traceback = line.pop("traceback", "")
    head = [str(line.pop(name)) for name in ("time", "level", "message")]
    del line["logger"]
    text = " ".join([*head, *(f"{k}={v}" for k, v in line.items())])
    return f"{_one_line(text)}\n{traceback}".rstrip()


def log_config(settings: Settings) -> dict[str, Any]:
    """For `logging.config.dictConfig`; uvicorn hands it to each of its workers."""
    quiet = {"level": "WARNING"}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "default": {
                "()": Formatter,
                "secrets": (settings.openai_api_key.get_secret_value(),),
                "as_json": settings.log_format == "json",
            }
        },
        "handlers": {"default": {"class": "logging.StreamHandler", "formatter": "default"}},
        "root": {"level": settings.log_level, "handlers": ["default"]},
        # These log headers and bodies at DEBUG, and a line a request at INFO.
        "loggers": {"openai": quiet, "httpx2": quiet, "httpcore2": quiet},
    }
