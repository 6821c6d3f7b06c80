"""The HTTP API. A module with endpoints has a `router` and is listed here."""

from fastapi import FastAPI

from ..server.problems import PROBLEM_RESPONSES
from . import chat


def add_endpoints(app: FastAPI) -> None:
    for module in (chat,):
        app.include_router(module.router, prefix="/v1", responses=PROBLEM_RESPONSES)
