"""Probes for whoever runs the service. They are `async`: no pool of threads can hold them up."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel

from .key_check import KeyCheck, KeyStatus

router = APIRouter(tags=["health"])


class Readiness(BaseModel):
    ready: bool
    openai_api_key: KeyStatus


async def _key_check(request: Request) -> KeyCheck:
    check: KeyCheck = request.state.key_check
    return check


@router.get("/livez")
async def livez() -> dict[str, str]:
    """200 while the event loop turns: if it does not, restart the process."""
    return {"status": "ok"}


@router.get("/readyz", responses={503: {"model": Readiness}})
async def readyz(
    key_check: Annotated[KeyCheck, Depends(_key_check)], response: Response
) -> Readiness:
    """200 once OpenAI has accepted the key: until then, send no traffic."""
    ready = key_check.status is KeyStatus.ACCEPTED
    response.status_code = 200 if ready else 503
    return Readiness(ready=ready, openai_api_key=key_check.status)
