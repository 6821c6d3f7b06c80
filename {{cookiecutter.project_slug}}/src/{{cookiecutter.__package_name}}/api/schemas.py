"""What clients send and get."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, FailFast, Field, Json

from ..server.events import MEDIA_TYPE
from ..server.problems import Problem


def _encodable(text: str) -> str:
    """Refuse unpaired surrogates: JSON can hold them, UTF-8 and so a request to OpenAI cannot."""
    text.encode()  # a UnicodeEncodeError is a ValueError, which pydantic reports
    return text


Text = Annotated[str, AfterValidator(_encodable)]


class Message(BaseModel):
    model_config = ConfigDict(extra="forbid")

    role: Literal["system", "user", "assistant"]
    content: Text


class ChatRequest(BaseModel):
    # A misspelt parameter that is silently ignored costs its sender an afternoon.
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"messages": [{"role": "user", "content": "Say hello."}]}]},
    )

    messages: Annotated[list[Message], Field(min_length=1), FailFast()]
    model: Annotated[Text, Field(min_length=1)] | None = None
    # Strict: otherwise `true` and `"1"` would be accepted as numbers.
    temperature: float | None = Field(default=None, ge=0, le=2, strict=True)
    max_output_tokens: int | None = Field(default=None, ge=1, strict=True)


class Usage(BaseModel):
    input_tokens: int
    output_tokens: int
    total_tokens: int


class ChatReply(BaseModel):
    reply: str
    model: str
    finish_reason: str | None
    usage: Usage | None


class ChatDelta(BaseModel):
    """The data of the event `delta`."""

    text: str


class ChatDone(BaseModel):
    """The data of the event `done`."""

    model: str
    finish_reason: str | None
    usage: Usage | None


def event_name(event: ChatDelta | ChatDone) -> str | None:
    """None for a delta without text, which only says that the model is at work."""
    if isinstance(event, ChatDone):
        return "done"
    return "delta" if event.text else None


class DeltaEvent(BaseModel):
    """An event of a stream: more of the text."""

    event: Literal["delta"]
    data: Json[ChatDelta]


class DoneEvent(BaseModel):
    """The last event of a stream that is whole."""

    event: Literal["done"]
    data: Json[ChatDone]


class ErrorEvent(BaseModel):
    """The last event of a stream that failed after its first event."""

    event: Literal["error"]
    data: Json[Problem]


# For OpenAPI 3.1, which has no keyword for the events of a stream (3.2 has `itemSchema`): some
# tools match the schema with the whole text, others with each event.
EVENTS = (DeltaEvent, DoneEvent, ErrorEvent)
EVENT_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            MEDIA_TYPE: {
                "schema": {
                    "anyOf": [
                        {"type": "string"},
                        *({"$ref": f"#/components/schemas/{e.__name__}"} for e in EVENTS),
                    ]
                }
            }
        }
    }
}
