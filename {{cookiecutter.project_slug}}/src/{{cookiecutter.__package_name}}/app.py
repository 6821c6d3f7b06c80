"""Assembles the service: settings, lifespan, middleware, routers."""

import asyncio
import logging
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import metadata
from typing import Any, TypedDict

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from .api import add_endpoints
from .environment import misspelled_names
from .server import health
from .server import metrics as metrics_endpoint
from .server.auth import SECURITY_SCHEMES, Authentication
from .server.body_limit import BodyLimit
from .server.disconnect import CancelOnDisconnect
from .server.failures import FailureMiddleware
from .server.health import Check
from .server.logging import configure_logging
from .server.metrics import Metrics
from .server.problems import OTHER_PROBLEMS, add_exception_handlers
from .server.rate_limit import RateLimit
from .server.rate_limiter import RateLimiter
from .server.redaction import redact_in_logs
from .server.requests import RequestMiddleware
from .server.root_path import RootPath
from .server.routes import RouteTable
from .server.shutdown import GracefulShutdown
from .settings import Settings, SettingsError
from .upstream.connections import load_usable_settings
from .upstream.key_check import KeyCheck, KeyStatus
from .upstream.openai_service import OpenAIService

# Exit status of a worker after which uvicorn and gunicorn stop instead of restarting it.
STARTUP_FAILURE = 3

logger = logging.getLogger(__name__)


class State(TypedDict):
    """The attributes of `request.state`."""

    shutdown: GracefulShutdown
    openai_service: OpenAIService
    checks: dict[str, Check]
    rate_limiter: RateLimiter
    metrics: Metrics


class Application(FastAPI):
    """Declares the service's keys in its OpenAPI document."""

    def openapi(self) -> dict[str, Any]:
        document = super().openapi()
        document.setdefault("components", {})["securitySchemes"] = SECURITY_SCHEMES
        # The default of all operations; `routes.PUBLIC` overrides it.
        document["security"] = [{name: []} for name in SECURITY_SCHEMES]
        return document


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
    redact = redact_in_logs(settings).redact
    in_flight: set[asyncio.Task[Any]] = set()
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[State]:
        key_check = KeyCheck(settings)
        with GracefulShutdown(
            in_flight, settings.shutdown_grace_seconds, settings.shutdown_drain_seconds
        ) as shutdown:
            async with (
                OpenAIService.open(settings) as openai_service,
                RateLimiter.open(settings) as rate_limiter,
            ):

                def sample() -> None:
                    _sample(metrics, openai_service, rate_limiter, key_check)

                tasks = [
                    asyncio.create_task(key_check.run()),
                    asyncio.create_task(metrics.keep_sampling(sample)),
                ]
                try:
                    yield {
                        "shutdown": shutdown,
                        "openai_service": openai_service,
                        "checks": {"openai_api_key": key_check},
                        "rate_limiter": rate_limiter,
                        "metrics": metrics,
                    }
                finally:
                    for task in tasks:
                        task.cancel()

    about = metadata(__package__)
    readme = about.get_all("Description", [""])[0].splitlines()
    heading = next((line[2:] for line in readme if line.startswith("# ")), about["Name"])
    application = Application if settings.service_api_keys else FastAPI
    app = application(
        # As README.md's Markdown shows it; the distribution's name is normalized.
        title=re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", heading),
        summary=about["Summary"],
        version=about["Version"],
        lifespan=lifespan,
        # Generated clients name their functions after the operation ids.
        generate_unique_id_function=lambda route: route.name,
        # With separate schemas, `ChatEvent.data` would be documented as an object: it is a string.
        separate_input_output_schemas=False,
        responses=OTHER_PROBLEMS,
        # Its spans are those of the requests. Its logs would have exceptions with their secrets.
        telemetry={"logs": False, "operation_spans": False},
    )
    _add_middleware(app, settings, in_flight, metrics)
    add_exception_handlers(app, redact)
    add_endpoints(app)  # first: routes are tried in this order
    app.include_router(health.router)
    app.include_router(metrics_endpoint.router)
    return app


def _sample(
    metrics: Metrics, service: OpenAIService, rate_limiter: RateLimiter, key_check: KeyCheck
) -> None:
    metrics.calls_in_flight.set(service.limiter.in_flight)
    metrics.calls_max.set(service.limiter.max_concurrency)
    metrics.calls_queued.set(service.limiter.queued)
    metrics.storage_up.set(rate_limiter.is_up)
    for status in KeyStatus:
        metrics.key_status.labels(status).set(status is key_check.status)


def _add_middleware(
    app: FastAPI, settings: Settings, in_flight: set[asyncio.Task[Any]], metrics: Metrics
) -> None:
    # Innermost first.
    app.add_middleware(CancelOnDisconnect)
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes)
    if settings.rate_limit or settings.token_limit:
        app.add_middleware(RateLimit, settings=settings)
    app.add_middleware(Authentication, settings=settings)
    app.add_middleware(FailureMiddleware)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["X-Request-ID", "Retry-After", "RateLimit", "RateLimit-Policy"],
        )
    routes = RouteTable(app, public_docs=settings.public_docs)
    app.add_middleware(RequestMiddleware, in_flight=in_flight, metrics=metrics, routes=routes)
    if settings.root_path:
        app.add_middleware(RootPath, root_path=settings.root_path)
    if settings.trusted_proxies:
        app.add_middleware(
            ProxyHeadersMiddleware, trusted_hosts=[*map(str, settings.trusted_proxies)]
        )
