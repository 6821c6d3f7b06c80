"""What callers send and get."""

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, FailFast, Field

# JSON can hold halves of surrogate pairs, which cannot be sent on.
Text = Annotated[str, AfterValidator(lambda text: text.encode() and text)]


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
    model: Text | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    max_output_tokens: int | None = Field(default=None, ge=1)


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
    """The event `delta` of a stream."""

    text: str


class ChatDone(BaseModel):
    """The event `done` that ends a stream."""

    model: str
    finish_reason: str | None
    usage: Usage | None


class Problem(BaseModel):
    """A failure, as RFC 9457 has it."""

    type: str
    title: str
    status: int
    detail: str | None = None
    request_id: str
    upstream_request_id: str | None = None
    errors: list[dict[str, Any]] | None = None

    def to_json(self) -> str:
        # Not `model_dump_json`: it cannot write the broken Unicode that `errors` may quote.
        return json.dumps(self.model_dump(exclude_none=True))
