"""The id of the current request."""

from contextvars import ContextVar

# A context variable: log records of libraries get the id too.
request_id: ContextVar[str] = ContextVar("request_id", default="-")
