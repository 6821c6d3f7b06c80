"""Log lines with the request id, as text or JSON, under every ASGI server."""

import json
import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime

from opentelemetry import trace

from ..settings import Settings
from .redaction import redact_in_logs
from .request_record import current

# Servers give these loggers their own handlers and formats (hypercorn even after it has loaded the
# application). Their records go to our handler instead.
SERVER_LOGGERS = ("uvicorn", "uvicorn.error", "gunicorn.error", "hypercorn.error", "_granian")
# Silenced: `RequestMiddleware` logs requests, with their ids.
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
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        message = record.getMessage()
        request = current.get(None)
        fields: dict[str, object] = {"request_id": request.id if request else "-"}
        if (span := trace.get_current_span().get_span_context()).is_valid:
            fields["trace_id"] = trace.format_trace_id(span.trace_id)
        for name, value in vars(record).items():
            if name not in self.STANDARD and value is not None:
                # The record factory does not see `extra`: it is added to the finished record.
                fields[name] = value if isinstance(value, int | float) else self._redact(str(value))
        if self._as_json:
            line = {"time": time, "level": record.levelname, "logger": record.name}
            traceback = {"traceback": record.exc_text} if record.exc_text else {}
            return json.dumps({**line, "message": message, **fields, **traceback})
        texts = [time, record.levelname, message, *(f"{n}={value}" for n, value in fields.items())]
        # Control characters could forge further log lines, or control a terminal.
        text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(texts))
        return f"{text}\n{record.exc_text}" if record.exc_text else text


def configure_logging(settings: Settings) -> None:
    """Log everything to stderr as the settings say, the server's records included.

    Replaces StreamHandlers of the root logger; keeps its other handlers, such as OpenTelemetry's.
    """
    redact = redact_in_logs(settings).redact
    handler = logging.StreamHandler()
    log_format = settings.log_format or ("console" if sys.stderr.isatty() else "json")
    handler.setFormatter(Formatter(redact, as_json=log_format == "json"))
    root = logging.getLogger()
    others = [h for h in root.handlers if type(h) is not logging.StreamHandler]
    root.handlers = [handler, *others]
    root.setLevel(settings.log_level)
    for name in ("openai", "httpx2", "httpcore2"):
        # At DEBUG, these log headers and bodies; at INFO, a line for each request.
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in (*SERVER_LOGGERS, *ACCESS_LOGGERS):
        # A filter also takes effect before handlers that the server adds later.
        logging.getLogger(name).addFilter(_redirect)


def _redirect(record: logging.LogRecord) -> bool:
    root = logging.getLogger()
    if record.name not in ACCESS_LOGGERS and root.isEnabledFor(record.levelno):
        root.handle(record)
    return False
