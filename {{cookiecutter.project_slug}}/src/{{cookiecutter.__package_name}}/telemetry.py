"""Logs, in which a request id ties lines together and no key appears."""

import json
import logging
import re
import time
import uuid
from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, datetime
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .settings import Settings

REQUEST_ID_HEADER = "X-Request-ID"
_WELL_FORMED_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")

# nginx's status for a client disconnect before the response; there is no official one.
CLIENT_CLOSED_REQUEST = 499

_request_id: ContextVar[str] = ContextVar("request_id", default="-")

logger = logging.getLogger(__name__)


def current_request_id() -> str:
    return _request_id.get()


class RequestIdMiddleware:
    """Gives each request an id, the client's if it is well-formed, and a line in the log."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        asked = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
        request_id = asked if _WELL_FORMED_ID.fullmatch(asked) else uuid.uuid4().hex
        # Never reset: the task ends with the request, and uvicorn logs exceptions only after us.
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


class Redactor:
    """Replaces secrets in what is logged."""

    # Shorter ones are no secret, and would black out ordinary words.
    SHORTEST_SECRET = 8

    def __init__(self) -> None:
        self._secrets: set[str] = set()

    def add(self, secret: str) -> None:
        if len(secret) >= self.SHORTEST_SECRET:
            self._secrets.add(secret)
        # OpenAI's errors echo keys, its own with asterisks.
        longest_first = sorted(self._secrets, key=len, reverse=True)
        patterns = [*map(re.escape, longest_first), r"\bsk-[\w*.-]{4,}"]
        self._pattern = re.compile("|".join(patterns))

    def text(self, text: str) -> str:
        return self._pattern.sub("[redacted]", text)

    def value(self, value: object) -> object:
        """The value itself, or a text in its place if it shows a secret."""
        if value is None or isinstance(value, int | float):
            return value
        try:
            text, as_repr = str(value), "" if isinstance(value, str) else repr(value)
        except Exception:  # noqa: BLE001 - any object may be logged; whatever formats it reports this
            return value
        has_secret = self._pattern.search(text) or self._pattern.search(as_repr)
        return self.text(text) if has_secret else value


class RedactingFactory(Redactor):
    """Makes log records without secrets, whichever logger, handler and formatter they are for."""

    def __init__(self, make: Callable[..., logging.LogRecord]) -> None:
        super().__init__()
        self._make = make

    def __call__(self, *args: object, **kwargs: object) -> logging.LogRecord:
        record = self._make(*args, **kwargs)
        record.msg = self.value(record.msg)
        # Of the same type and length, which some formatters depend on.
        if isinstance(record.args, tuple):
            record.args = tuple(map(self.value, record.args))
        elif record.args:
            redacted = {name: self.value(value) for name, value in record.args.items()}
            if any(redacted[name] is not value for name, value in record.args.items()):
                record.args = redacted
        if record.exc_info:
            traceback = logging.Formatter().formatException(record.exc_info)
            if (redacted_traceback := self.text(traceback)) != traceback:
                # Which formatters of the standard library use instead of the exception.
                record.exc_text = redacted_traceback
        return record


def redact_in_logs(settings: Settings) -> Redactor:
    """Keep the key out of all that this process logs from now on."""
    factory = logging.getLogRecordFactory()
    if not isinstance(factory, RedactingFactory):
        factory = RedactingFactory(factory)
        logging.setLogRecordFactory(factory)
    factory.add(settings.openai_api_key.get_secret_value())
    return factory


class Formatter(logging.Formatter):
    """One line a record, with the request id and the `extra` fields."""

    # What every record has; the rest of its attributes came as `extra`.
    STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "taskName", "color_message"}

    def __init__(self, redactor: Redactor, *, as_json: bool) -> None:
        super().__init__()
        self._as_json = as_json
        self._redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "request_id": current_request_id(),
        }
        for name, value in vars(record).items():
            if name not in self.STANDARD and value is not None:
                # `extra` is added to a record after the factory has made it.
                is_number = isinstance(value, int | float)
                line[name] = value if is_number else self._redactor.text(str(value))
        if record.exc_info:
            line["traceback"] = record.exc_text or self.formatException(record.exc_info)
        return json.dumps(line) if self._as_json else _console_line(line)


def _console_line(line: dict[str, object]) -> str:
    traceback = line.pop("traceback", "")
    head = [str(line.pop(name)) for name in ("time", "level", "message")]
    del line["logger"]
    text = " ".join([*head, *(f"{k}={v}" for k, v in line.items())])
    return f"{_one_line(text)}\n{traceback}".rstrip()


# Servers give these loggers handlers and formats of their own, hypercorn even after it has loaded
# the application.
SERVER_LOGGERS = ("uvicorn", "uvicorn.error", "gunicorn.error", "hypercorn.error", "_granian")
# What `RequestIdMiddleware` logs as well, with the request id.
ACCESS_LOGGERS = ("uvicorn.access", "gunicorn.access", "hypercorn.access", "granian.access")


def configure_logging(settings: Settings) -> None:
    """Log all to stderr as the settings say, what the server logs included, without the key.

    Handlers that others have added to the root logger, say OpenTelemetry's, stay; but not another
    one that writes to the console.
    """
    handler = logging.StreamHandler()
    redactor = redact_in_logs(settings)
    handler.setFormatter(Formatter(redactor, as_json=settings.log_format == "json"))
    root = logging.getLogger()
    others = [h for h in root.handlers if type(h) is not logging.StreamHandler]
    root.handlers = [handler, *others]
    root.setLevel(settings.log_level)
    for name in ("openai", "httpx2", "httpcore2"):
        # These log headers and bodies at DEBUG, and a line a request at INFO.
        logging.getLogger(name).setLevel(logging.WARNING)
    # A logger's filters come before its handlers, whenever those are added.
    for name in SERVER_LOGGERS:
        logging.getLogger(name).addFilter(_hand_to_root)
    for name in ACCESS_LOGGERS:
        logging.getLogger(name).addFilter(_drop)


def _hand_to_root(record: logging.LogRecord) -> bool:
    root = logging.getLogger()
    if root.isEnabledFor(record.levelno):
        root.handle(record)
    return False


def _drop(_record: logging.LogRecord) -> bool:
    return False
