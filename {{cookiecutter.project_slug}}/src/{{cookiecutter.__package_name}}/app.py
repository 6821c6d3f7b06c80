"""Puts the service together."""

import asyncio
import gc
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import metadata
from typing import Any, TypedDict

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from .api import add_endpoints
from .api.schemas import EVENTS
from .server import health
from .server.body_limit import BodyLimit
from .server.disconnect import CancelOnDisconnect
from .server.health import Check
from .server.logging import configure_logging
from .server.openapi import DocumentedFastAPI
from .server.problems import OTHER_PROBLEMS, add_exception_handlers
from .server.redaction import redact_in_logs
from .server.request_id import RequestIdMiddleware
from .server.shutdown import GracefulShutdown, RunningRequests
from .server.unhandled import UnhandledExceptionMiddleware
from .settings import Settings, SettingsError, misspelled_names
from .upstream.connections import load_usable_settings
from .upstream.key_check import KeyCheck
from .upstream.openai_service import OpenAIService

# uvicorn and gunicorn stop at this status: after another, they start the worker again and again.
STARTUP_FAILURE = 3

logger = logging.getLogger(__name__)


class State(TypedDict):
    """What a handler finds in `request.state`."""

    shutdown: GracefulShutdown
    openai_service: OpenAIService
    checks: dict[str, Check]


def _set_root_path(app: ASGIApp, root_path: str) -> ASGIApp:
    """Middleware for a reverse proxy that serves this service under a prefix.

    The proxy may remove the prefix from the path or pass it on. If it removes it, the prefix must
    not begin as the path of an endpoint does, such as `/v1`.
    FastAPI's own parameter is deprecated in favor of the launcher's, which not all launchers have.
    """

    async def with_root_path(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path: str = scope["path"]
            if not f"{path}/".startswith(f"{root_path}/"):
                path = root_path + path  # ASGI: the path includes the root path
            scope = {**scope, "root_path": root_path, "path": path}
        await app(scope, receive, send)

    return with_root_path


def _settle_garbage_collection() -> None:
    """Freeze long-lived objects and collect less often.

    At hundreds of concurrent calls, collection took a fifth of the CPU. A higher threshold would
    keep aborted TLS connections, which are large and in cycles, for too long.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000)


def _settings_or_exit() -> Settings:
    try:
        # Checks proxy and certificates too: an error in the lifespan would print a traceback.
        return load_usable_settings()
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(STARTUP_FAILURE)


def create_app(settings: Settings | None = None) -> FastAPI:
    """Build the application.

    Without `settings`, as servers call it, they are read from the environment, and logging is
    configured as they say. If one of them is missing or wrong, that is one sentence on stderr.

    Raises:
        SystemExit: one or more are missing or wrong.
    """
    if settings is None:
        settings = _settings_or_exit()
        configure_logging(settings)
        for sentence in misspelled_names():
            logger.warning(sentence)
    redact_in_logs(settings)
    running: set[asyncio.Task[Any]] = set()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[State]:
        key_check = KeyCheck(settings)
        with GracefulShutdown(running, settings.shutdown_grace_seconds) as shutdown:
            async with OpenAIService.open(settings) as openai_service:
                checking = asyncio.create_task(key_check.run())
                try:
                    _settle_garbage_collection()
                    yield {
                        "shutdown": shutdown,
                        "openai_service": openai_service,
                        "checks": {"openai_api_key": key_check},
                    }
                finally:
                    checking.cancel()

    about = metadata(__package__)
    readme = about.get_all("Description", [""])[0].splitlines()
    app = DocumentedFastAPI(
        models=EVENTS,
        # The heading of README.md, which has the project's name as people write it.
        title=next((line[2:] for line in readme if line.startswith("# ")), about["Name"]),
        summary=about["Summary"],
        version=about["Version"],
        lifespan=lifespan,
        # Generated clients name their functions after the operation ids.
        generate_unique_id_function=lambda route: route.name,
        responses=OTHER_PROBLEMS,
    )
    # The last one added is the outermost.
    if settings.root_path:
        app.add_middleware(_set_root_path, root_path=settings.root_path)
    app.add_middleware(CancelOnDisconnect)
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes)
    app.add_middleware(UnhandledExceptionMiddleware)
    app.add_middleware(RequestIdMiddleware)
    app.add_middleware(RunningRequests, tasks=running)
    add_exception_handlers(app)
    app.include_router(health.router)
    add_endpoints(app)
    return app
