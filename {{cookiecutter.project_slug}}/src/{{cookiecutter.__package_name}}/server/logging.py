"""Log lines with the request id, as text or JSON, under every ASGI server."""

import json
import logging
import re
from collections.abc import Callable
from datetime import UTC, datetime

from ..settings import Settings
from .redaction import redact_in_logs
from .request_id import current_request_id

# Could forge further log lines, or control a terminal.
_CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")

# Servers give these loggers their own handlers and formats (hypercorn even after it has loaded the
# application). Their records go to our handler instead.
SERVER_LOGGERS = ("uvicorn", "uvicorn.error", "gunicorn.error", "hypercorn.error", "_granian")
# Silenced: `RequestIdMiddleware` logs requests, with their ids.
ACCESS_LOGGERS = ("uvicorn.access", "gunicorn.access", "hypercorn.access", "granian.access")


class Formatter(logging.Formatter):
    """One line for each record, with the request id and the `extra` fields."""

    # The attributes of every record. All others come from `extra`.
    STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "taskName", "color_message"}

    def __init__(self, redact: Callable[[str], str], *, as_json: bool) -> None:
        super().__init__()
        self._redact = redact
        self._as_json = as_json

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
                # The record factory does not see `extra`: it is added to the finished record.
                line[name] = value if isinstance(value, int | float) else self._redact(str(value))
        if record.exc_info:
            line["traceback"] = record.exc_text or self.formatException(record.exc_info)
        return json.dumps(line) if self._as_json else _as_text(line)


def _as_text(line: dict[str, object]) -> str:
    not_named = ("time", "level", "logger", "message", "traceback")
    fields = [f"{name}={value}" for name, value in line.items() if name not in not_named]
    text = " ".join([f"{line['time']} {line['level']} {line['message']}", *fields])
    escaped = _CONTROL_CHARACTER.sub(lambda found: repr(found[0])[1:-1], text)
    return f"{escaped}\n{line.get('traceback', '')}".rstrip()


def configure_logging(settings: Settings) -> None:
    """Log everything to stderr as the settings say, the server's records included.

    Replaces StreamHandlers of the root logger; keeps its other handlers, such as OpenTelemetry's.
    """
    redact = redact_in_logs(settings).redact
    handler = logging.StreamHandler()
    handler.setFormatter(Formatter(redact, as_json=settings.log_format == "json"))
    root = logging.getLogger()
    others = [h for h in root.handlers if type(h) is not logging.StreamHandler]
    root.handlers = [handler, *others]
    root.setLevel(settings.log_level)
    for name in ("openai", "httpx2", "httpcore2"):
        # At DEBUG, these log headers and bodies; at INFO, a line for each request.
        logging.getLogger(name).setLevel(logging.WARNING)
    # Filters also take effect before handlers that the server adds later.
    for name in SERVER_LOGGERS:
        logging.getLogger(name).addFilter(_pass_to_root)
    for name in ACCESS_LOGGERS:
        logging.getLogger(name).addFilter(_drop)


def _pass_to_root(record: logging.LogRecord) -> bool:
    root = logging.getLogger()
    if root.isEnabledFor(record.levelno):
        root.handle(record)
    return False


def _drop(_record: logging.LogRecord) -> bool:
    return False
