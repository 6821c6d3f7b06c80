"""Log lines with the request id, as text or JSON, whichever server runs the application."""

import json
import logging
import re
from datetime import UTC, datetime

from ..settings import Settings
from .redaction import Redactor, redact_in_logs
from .request_id import current_request_id

# Each of these would let a message look like further lines of the log, or act on a terminal.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def _one_line(text: str) -> str:
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


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
