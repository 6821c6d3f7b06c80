"""The endpoints. They are `def`: FastAPI runs each in a thread, where the sync client may block."""

from fastapi import APIRouter, Response

from ..server.events import EventStream, EventStreamSchema
from .chat_events import ChatEvents
from .completions import to_operation, to_params, to_reply
from .dependencies import Service
from .schemas import ChatReply, ChatRequest, ChatStream, event_name

router = APIRouter(tags=["chat"])


@router.post("/chat", response_model=ChatReply)
def chat(request: ChatRequest, service: Service) -> Response:
    """Answer a conversation with the model's next message."""
    params = to_params(request, service.settings)
    operation = to_operation(request, service.settings)
    reply = service.call(lambda client: to_reply(client.post(**params)), operation)
    # FastAPI would validate a returned model in another thread, after queueing for the pool again.
    return Response(reply.model_dump_json(), media_type="application/json")


@router.post("/chat/stream", response_class=EventStreamSchema, response_model=ChatStream)
def chat_stream(request: ChatRequest, service: Service) -> EventStream:
    """The same as Server-Sent Events: `delta` with text, then one `done` or one `error`."""
    params = to_params(request, service.settings, stream=True)
    operation = to_operation(request, service.settings)
    events = service.stream(lambda client: ChatEvents(client.post(**params)), operation)
    return EventStream(events, event_name)
