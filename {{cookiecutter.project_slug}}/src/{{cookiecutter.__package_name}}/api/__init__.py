"""What clients of the service see: its endpoints. Each module that has some is included here."""

from fastapi import APIRouter

from ..server.problems import PROBLEM_RESPONSES
from . import chat

router = APIRouter(prefix="/v1", responses=PROBLEM_RESPONSES)
router.include_router(chat.router)
