"""Probes for whoever runs the service. They are `async`: no pool of threads can hold them up."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel

from .key_check import KeyCheck, KeyStatus
from .shutdown import GracefulShutdown

router = APIRouter(tags=["health"])


class Readiness(BaseModel):
    ready: bool
    openai_api_key: KeyStatus
    shutting_down: bool


async def _key_check(request: Request) -> KeyCheck:
    check: KeyCheck = request.state.key_check
    return check


async def _shutdown(request: Request) -> GracefulShutdown:
    shutdown: GracefulShutdown = request.state.shutdown
    return shutdown


@router.head("/livez", include_in_schema=False)
@router.get("/livez")
async def livez() -> dict[str, str]:
    """200 while the event loop turns: if it does not, restart the process."""
    return {"status": "ok"}


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", responses={503: {"model": Readiness}})
async def readyz(
    key_check: Annotated[KeyCheck, Depends(_key_check)],
    shutdown: Annotated[GracefulShutdown, Depends(_shutdown)],
    response: Response,
) -> Readiness:
    """200 from when OpenAI would let a chat in until the service is told to stop."""
    ready = key_check.is_ready and not shutdown.has_begun
    response.status_code = 200 if ready else 503
    return Readiness(ready=ready, openai_api_key=key_check.status, shutting_down=shutdown.has_begun)
