"""Puts the service together."""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import metadata
from typing import Any, TypedDict

from fastapi import FastAPI

from . import chat, health
from .body_limit import BodyLimit
from .concurrency import ConcurrencyLimiter
from .disconnects import CancelOnDisconnect
from .errors import AnswerForBugs, add_exception_handlers
from .key_check import KeyCheck
from .openai_service import OpenAIService
from .settings import Settings, load_settings
from .shutdown import GracefulShutdown, RunningRequests
from .telemetry import RequestIdMiddleware


class State(TypedDict):
    """What a handler finds in `request.state`."""

    limiter: ConcurrencyLimiter
    openai_service: OpenAIService
    key_check: KeyCheck


def _settle_garbage_collection() -> None:
    """Keep the collector from looking, again and again, through what is there to stay.

    With hundreds of calls under way it would take a fifth of the CPU, and find next to nothing. Not
    more seldom than this: TLS connections that were broken off are in cycles, and large.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000)


def create_app(settings: Settings | None = None) -> FastAPI:
    """Build the application; without settings, from the environment.

    Raises:
        SettingsError: one or more are missing or wrong.
    """
    settings = settings or load_settings()
    running: set[asyncio.Task[Any]] = set()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[State]:
        limiter = ConcurrencyLimiter(settings)
        key_check = KeyCheck(settings)
        checking = asyncio.create_task(key_check.run())
        with GracefulShutdown(limiter, running, settings.shutdown_grace_seconds):
            async with OpenAIService.open(settings, limiter) as openai_service:
                _settle_garbage_collection()
                yield {
                    "limiter": limiter,
                    "openai_service": openai_service,
                    "key_check": key_check,
                }
            checking.cancel()

    about = metadata(__package__)
    app = FastAPI(
        title=about["Name"],
        summary=about["Summary"],
        version=about["Version"],
        lifespan=lifespan,
    )
    # The last one added is the outermost.
    app.add_middleware(CancelOnDisconnect)
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes)
    app.add_middleware(AnswerForBugs)
    app.add_middleware(RequestIdMiddleware)
    app.add_middleware(RunningRequests, tasks=running)
    add_exception_handlers(app)
    app.include_router(health.router)
    app.include_router(chat.router)
    return app
