"""The endpoints."""

from fastapi import APIRouter

from .dependencies import Service
from .errors import PROBLEM_RESPONSES
from .events import EVENT_RESPONSES, EventStream
from .schemas import ChatReply, ChatRequest

router = APIRouter(prefix="/v1", tags=["chat"], responses=PROBLEM_RESPONSES)


@router.post("/chat")
async def chat(request: ChatRequest, service: Service) -> ChatReply:
    """Answer a conversation with the model's next message."""
    return await service.chat(request)


@router.post("/chat/stream", response_class=EventStream, responses=EVENT_RESPONSES)
async def chat_stream(request: ChatRequest, service: Service) -> EventStream:
    """The same as Server-Sent Events: `delta` with text, then one `done` or one `error`."""
    return EventStream(await service.stream(request))
