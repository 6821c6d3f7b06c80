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


class Formatter(logging.Formatter):
    """One line a record, with the request id and the `extra` fields, and without the key."""

    # What every record has; the rest of its attributes came as `extra`.
    STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "taskName", "color_message"}

    # Shorter ones are no secret, and would black out ordinary words.
    SHORTEST_SECRET = 8

    def __init__(self, secrets: tuple[str, ...], as_json: bool) -> None:
        super().__init__("%(message)s" if as_json else "%(asctime)s %(levelname)s %(message)s")
        self._as_json = as_json
        ours = [re.escape(secret) for secret in secrets if len(secret) >= self.SHORTEST_SECRET]
        # OpenAI's errors echo keys, its own with asterisks.
        self._secrets = re.compile("|".join([*ours, r"\bsk-[\w*.-]{4,}"]))

    def format(self, record: logging.LogRecord) -> str:
        fields = {k: v for k, v in vars(record).items() if k not in self.STANDARD and v is not None}
        fields["request_id"] = current_request_id()
        text = self._secrets.sub("[redacted]", super().format(record))
        if not self._as_json:
            return f"{text} {' '.join(f'{k}={v}' for k, v in fields.items())}"
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": text,
        }
        return json.dumps(line | fields, default=str)


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
