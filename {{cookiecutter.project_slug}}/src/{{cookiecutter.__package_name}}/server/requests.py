"""Follows each request from its beginning to its end."""

import asyncio
import logging
import re
import time
import uuid
from typing import Any
from urllib.parse import quote, unquote

from opentelemetry import trace
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..keys import PREFIX
from .metrics import Metrics
from .redaction import redact_keys
from .request_record import RequestRecord, current
from .routes import RouteTable
from .shutdown import GracefulShutdown

REQUEST_ID_HEADER = "X-Request-ID"
# A key by mistake would be logged.
WELL_FORMED_ID = re.compile(rf"(?!.*(sk-|{PREFIX}))[A-Za-z0-9._-]{{1,128}}")

# nginx's non-standard status for a client that disconnected before the end of the response.
CLIENT_CLOSED_REQUEST = 499

# Asked every few seconds: successful requests are logged at level DEBUG.
PROBES = frozenset({"/livez", "/metrics", "/readyz"})
METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})

logger = logging.getLogger(__name__)


def is_stopping(scope: Scope) -> bool:
    """Whether the client should send its next request to another process.

    Keep-alive connections would stay with this one. HTTP/2 forbids the header `Connection`.
    """
    shutdown: GracefulShutdown | None = scope.get("state", {}).get("shutdown")
    return bool(shutdown and shutdown.has_begun and scope["http_version"].startswith("1"))


class RequestMiddleware:
    """Makes the request's record, sets its id on the response, logs and counts it.

    Its task is in `in_flight`, for `GracefulShutdown`.
    """

    def __init__(
        self,
        app: ASGIApp,
        in_flight: set[asyncio.Task[Any]],
        metrics: Metrics,
        routes: RouteTable,
    ) -> None:
        self.app = app
        self._in_flight = in_flight
        self._metrics = metrics
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if task := asyncio.current_task():  # servers run each request in a task of its own
            self._in_flight.add(task)
            task.add_done_callback(self._in_flight.discard)
        asked = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
        used = asked if WELL_FORMED_ID.fullmatch(asked) else uuid.uuid4().hex
        record = RequestRecord(used, *self._routes.find(scope), self._metrics)
        record.headers[REQUEST_ID_HEADER] = used
        span = trace.get_current_span()
        if span.is_recording():  # FastAPI's, of the request
            span.set_attribute("url.path", redact_keys(scope["path"]))
            if query := scope["query_string"]:
                span.set_attribute("url.query", redact_keys(unquote(query.decode("latin-1"))))
        # Not reset: the task ends soon, and uvicorn logs exceptions after this middleware.
        current.set(record)
        status = CLIENT_CLOSED_REQUEST
        started = time.perf_counter()

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if is_stopping(scope):
                    record.headers["Connection"] = "close"
                MutableHeaders(scope=message).update(record.headers)
            await send(message)

        try:
            await self.app(scope, receive, send_with_headers)
        finally:
            if scope.get("state", {}).get("has_disconnected"):
                status, record.problem = CLIENT_CLOSED_REQUEST, None
            self._end(scope, record, status, time.perf_counter() - started)

    def _end(self, scope: Scope, record: RequestRecord, status: int, seconds: float) -> None:
        method = scope["method"] if scope["method"] in METHODS else "_OTHER"
        problem = record.problem or ""
        self._metrics.request_duration.labels(method, record.route, status, problem).observe(
            seconds
        )
        is_routine = record.route in PROBES and status == 200
        logger.log(
            logging.DEBUG if is_routine else logging.INFO,
            "%s %s %d",
            scope["method"],
            quote(scope["path"]),  # may have line ends
            status,
            extra={
                "route": record.route,
                "client_id": record.client_id,
                "duration_ms": round(seconds * 1000, 1),
                "problem": record.problem,
                # None, and so not logged, for a request that did not call OpenAI.
                "attempts": record.attempts or None,
                "input_tokens": record.input_tokens or None,
                "output_tokens": record.output_tokens or None,
                "upstream_request_id": record.upstream_request_id,
            },
        )
