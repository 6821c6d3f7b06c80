"""Assembles the service: settings, lifespan, middleware, routers."""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import metadata
from typing import Any, TypedDict

from fastapi import FastAPI

from .api import add_endpoints
from .environment import misspelled_names
from .server import health
from .server.body_limit import BodyLimit
from .server.disconnect import CancelOnDisconnect
from .server.health import Check
from .server.logging import configure_logging
from .server.problems import OTHER_PROBLEMS, add_exception_handlers
from .server.redaction import redact_in_logs
from .server.requests import RequestMiddleware
from .server.root_path import RootPath
from .server.shutdown import GracefulShutdown
from .settings import Settings, SettingsError
from .upstream.connections import load_usable_settings
from .upstream.key_check import KeyCheck
from .upstream.openai_service import OpenAIService

# Exit status of a worker after which uvicorn and gunicorn stop instead of restarting it.
STARTUP_FAILURE = 3

logger = logging.getLogger(__name__)


class State(TypedDict):
    """The attributes of `request.state`."""

    shutdown: GracefulShutdown
    openai_service: OpenAIService
    checks: dict[str, Check]


def create_app(settings: Settings | None = None) -> FastAPI:
    """Build the application.

    Servers call it without `settings`: it then reads them from the environment, and configures
    logging.

    Raises:
        SystemExit: a setting is missing or wrong. One sentence on stderr says which.
    """
    if settings is None:
        try:
            # Also checks proxy and certificates, which would print a traceback in the lifespan.
            settings = load_usable_settings()
        except SettingsError as error:
            sys.stderr.write(f"{error}\n")
            sys.exit(STARTUP_FAILURE)
        configure_logging(settings)
        for sentence in misspelled_names():
            logger.warning(sentence)
    redact_in_logs(settings)
    in_flight: set[asyncio.Task[Any]] = set()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[State]:
        key_check = KeyCheck(settings)
        with GracefulShutdown(in_flight, settings.shutdown_grace_seconds) as shutdown:
            async with OpenAIService.open(settings) as openai_service:
                checking = asyncio.create_task(key_check.run())
                try:
                    yield {
                        "shutdown": shutdown,
                        "openai_service": openai_service,
                        "checks": {"openai_api_key": key_check},
                    }
                finally:
                    checking.cancel()

    about = metadata(__package__)
    readme = about.get_all("Description", [""])[0].splitlines()
    app = FastAPI(
        # The heading of README.md; the distribution's name is normalized.
        title=next((line[2:] for line in readme if line.startswith("# ")), about["Name"]),
        summary=about["Summary"],
        version=about["Version"],
        lifespan=lifespan,
        # Generated clients name their functions after the operation ids.
        generate_unique_id_function=lambda route: route.name,
        # With separate schemas, `ChatEvent.data` would be documented as an object: it is a string.
        separate_input_output_schemas=False,
        responses=OTHER_PROBLEMS,
    )
    # Innermost first.
    if settings.root_path:
        app.add_middleware(RootPath, root_path=settings.root_path)
    app.add_middleware(CancelOnDisconnect)
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes)
    app.add_middleware(RequestMiddleware, in_flight=in_flight)
    add_exception_handlers(app)
    app.include_router(health.router)
    add_endpoints(app)
    return app
