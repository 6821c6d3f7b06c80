"""Liveness and readiness probes. `async`, so that they never wait for a pool thread."""

from collections.abc import Mapping
from typing import Protocol

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from .routes import PUBLIC
from .shutdown import GracefulShutdown

router = APIRouter(tags=["health"])


class Check(Protocol):
    """A condition of readiness."""

    @property
    def is_ready(self) -> bool: ...

    @property
    def status(self) -> str: ...


class Readiness(BaseModel):
    ready: bool
    shutting_down: bool
    checks: dict[str, str]
    """The status of each check by its name."""


@router.head("/livez", include_in_schema=False, openapi_extra=PUBLIC)
@router.get("/livez", openapi_extra=PUBLIC)
async def livez() -> dict[str, str]:
    """200 while the event loop runs. If there is no answer, restart the process."""
    return {"status": "ok"}


@router.head("/readyz", include_in_schema=False, openapi_extra=PUBLIC)
@router.get("/readyz", openapi_extra=PUBLIC, responses={503: {"model": Readiness}})
async def readyz(request: Request, response: Response) -> Readiness:
    """200 once the checks have passed, until the service is told to stop."""
    checks: Mapping[str, Check] = request.state.checks
    shutdown: GracefulShutdown = request.state.shutdown
    ready = not shutdown.has_begun and all(check.is_ready for check in checks.values())
    response.status_code = 200 if ready else 503
    statuses = {name: check.status for name, check in checks.items()}
    return Readiness(ready=ready, shutting_down=shutdown.has_begun, checks=statuses)
