"""The bodies of requests, responses and events."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, Json, Tag

from ..server.problems import Problem


def _encodable(text: str) -> str:
    """Reject unpaired surrogates: valid in JSON, but not in UTF-8, in which requests are sent."""
    text.encode()  # a UnicodeEncodeError is a ValueError, which pydantic reports
    return text


def _integral(number: object) -> object:
    """JSON has one kind of number: 1.0 is an integer."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


Text = Annotated[str, AfterValidator(_encodable)]
PositiveInteger = Annotated[int, Field(ge=1, strict=True), BeforeValidator(_integral)]


class Input(BaseModel):
    # A misspelled parameter is an error rather than silently ignored.
    model_config = ConfigDict(extra="forbid")


class TextPart(Input):
    type: Literal["text"]
    text: Text


class Image(Input):
    url: Text = Field(pattern="^(https://|data:image/)", examples=["https://example.com/cat.jpg"])
    detail: Literal["auto", "low", "high", "original"] | None = None


class ImagePart(Input):
    type: Literal["image_url"]
    image_url: Image


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]
Parts = Annotated[list[Part], Field(min_length=1, fail_fast=True)]


class Message(Input):
    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[Text, Tag("text")] | Annotated[Parts, Tag("parts")]

    def texts(self) -> list[str]:
        if isinstance(self.content, str):
            return [self.content]
        return [part.text for part in self.content if isinstance(part, TextPart)]

    def images(self) -> int:
        if isinstance(self.content, str):
            return 0
        return sum(isinstance(part, ImagePart) for part in self.content)


class ChatRequest(Input):
    # Each field is sent to OpenAI under its own name, except `max_output_tokens`: see `to_params`.
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"messages": [{"role": "user", "content": "Say hello."}]}]},
    )

    messages: list[Message] = Field(min_length=1, fail_fast=True)
    model: Annotated[Text, Field(min_length=1)] | None = None
    # Strict: otherwise `true` and `"1"` would be accepted as numbers.
    temperature: float | None = Field(default=None, ge=0, le=2, strict=True)
    max_output_tokens: PositiveInteger | None = None


class Usage(BaseModel):
    input_tokens: int
    output_tokens: int
    total_tokens: int
    cached_tokens: int | None
    """Of the input."""
    reasoning_tokens: int | None
    """Of the output."""


class ChatMetadata(BaseModel):
    """Metadata of a reply; null where OpenAI sends none."""

    model: str
    finish_reason: str | None
    usage: Usage | None


class ChatReply(ChatMetadata):
    reply: str


class ChatDelta(BaseModel):
    """The data of the event `delta`."""

    text: str


class ChatDone(ChatMetadata):
    """The data of the event `done`."""


def event_name(event: ChatDelta | ChatDone) -> str | None:
    """None, to send nothing, for an empty delta: it only marks the stream as begun."""
    if isinstance(event, ChatDone):
        return "done"
    return "delta" if event.text else None


class ChatEvent(BaseModel):
    """An event of a stream. The last is `done`, or `error` with a problem."""

    event: Literal["delta", "done", "error"]
    data: Json[ChatDelta | ChatDone | Problem]


# OpenAPI 3.1 has no keyword for the events of a stream (3.2 has `itemSchema`). This fits the tools
# that validate the whole text, and those that validate each event.
ChatStream = str | ChatEvent
