"""The endpoints."""

from fastapi import APIRouter
from openai import AsyncOpenAI

from ..server.events import EventStream, EventStreamSchema
from .chat_events import ChatEvents
from .completions import to_operation, to_params, to_reply
from .dependencies import Service
from .schemas import ChatReply, ChatRequest, ChatStream, event_name

router = APIRouter(tags=["chat"])


@router.post("/chat")
async def chat(request: ChatRequest, service: Service) -> ChatReply:
    """Answer a conversation with the model's next message."""
    params = to_params(request, service.settings)
    operation = to_operation(request, service.settings)

    async def send(client: AsyncOpenAI) -> ChatReply:
        return to_reply(await client.post(**params))

    return await service.call(send, operation)


@router.post("/chat/stream", response_class=EventStreamSchema, response_model=ChatStream)
async def chat_stream(request: ChatRequest, service: Service) -> EventStream:
    """The same as Server-Sent Events: `delta` with text, then one `done` or one `error`."""
    params = to_params(request, service.settings, stream=True)
    operation = to_operation(request, service.settings)

    async def send(client: AsyncOpenAI) -> ChatEvents:
        return ChatEvents(await client.post(**params))

    return EventStream(await service.stream(send, operation), event_name)
