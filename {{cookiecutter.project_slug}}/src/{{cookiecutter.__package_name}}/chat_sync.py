"""The endpoints. They are `def`: FastAPI runs each in a thread, where the sync client may block."""

from fastapi import APIRouter, Response

from .dependencies import Service
from .errors import PROBLEM_RESPONSES
from .events import EVENT_RESPONSES, EventStream
from .schemas import ChatReply, ChatRequest

router = APIRouter(prefix="/v1", tags=["chat"], responses=PROBLEM_RESPONSES)


@router.post("/chat", response_model=ChatReply)
def chat(request: ChatRequest, service: Service) -> Response:
    """Answer a conversation with the model's next message."""
    # A model would be validated in a second thread, behind the calls that came in meanwhile.
    return Response(service.chat(request).model_dump_json(), media_type="application/json")


@router.post("/chat/stream", response_class=EventStream, responses=EVENT_RESPONSES)
def chat_stream(request: ChatRequest, service: Service) -> EventStream:
    """The same as Server-Sent Events: `delta` with text, then one `done` or one `error`."""
    return EventStream(service.stream(request))
