"""What people write by hand, as small as they write it: the same bodies and paths as ours.

`uvicorn benchmarks.rivals:plain` and the like serve them; the SDK takes its key and URL from the
environment. Each has a /livez, which shows how late the event loop is.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from openai import AsyncOpenAI, OpenAI
from openai.types import CompletionUsage
from openai.types.chat import ChatCompletion
from pydantic import BaseModel

MODEL = os.environ["OPENAI_MODEL"]
client = OpenAI()
async_client = AsyncOpenAI()

blocking, bare_to_thread, bare_def, plain = FastAPI(), FastAPI(), FastAPI(), FastAPI()


class Message(BaseModel):
    role: str
    content: str


class ChatRequest(BaseModel):
    messages: list[Message]


class Usage(BaseModel):
    input_tokens: int
    output_tokens: int
    total_tokens: int


class ChatReply(BaseModel):
    reply: str
    model: str
    finish_reason: str
    usage: Usage


async def livez() -> dict[str, str]:
    return {"status": "ok"}


for app in (blocking, bare_to_thread, bare_def, plain):
    app.get("/livez")(livez)


def to_params(request: ChatRequest) -> dict[str, Any]:
    return {"model": MODEL, "messages": [message.model_dump() for message in request.messages]}


def to_usage(usage: CompletionUsage) -> Usage:
    return Usage(
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        total_tokens=usage.total_tokens,
    )


def to_reply(completion: ChatCompletion) -> ChatReply:
    choice = completion.choices[0]
    return ChatReply(
        reply=choice.message.content,
        model=completion.model,
        finish_reason=choice.finish_reason,
        usage=to_usage(completion.usage),
    )


@blocking.post("/v1/chat")
async def chat_blocking(request: ChatRequest) -> ChatReply:
    return to_reply(client.chat.completions.create(**to_params(request)))


@bare_to_thread.post("/v1/chat")
async def chat_to_thread(request: ChatRequest) -> ChatReply:
    create = client.chat.completions.create
    return to_reply(await asyncio.to_thread(create, **to_params(request)))


@bare_def.post("/v1/chat")
def chat_def(request: ChatRequest) -> ChatReply:
    return to_reply(client.chat.completions.create(**to_params(request)))


@plain.post("/v1/chat")
async def chat_plain(request: ChatRequest) -> ChatReply:
    return to_reply(await async_client.chat.completions.create(**to_params(request)))


def encode(event: str, data: dict[str, Any]) -> str:
    return f"event: {event}\ndata: {json.dumps(data)}\n\n"


@plain.post("/v1/chat/stream")
async def chat_stream(request: ChatRequest) -> StreamingResponse:
    stream = await async_client.chat.completions.create(
        stream=True, stream_options={"include_usage": True}, **to_params(request)
    )

    async def events() -> AsyncIterator[str]:
        done: dict[str, Any] = {}
        async for chunk in stream:
            done["model"] = chunk.model
            if chunk.choices:
                if text := chunk.choices[0].delta.content:
                    yield encode("delta", {"text": text})
                done["finish_reason"] = chunk.choices[0].finish_reason
            if chunk.usage:
                done["usage"] = to_usage(chunk.usage).model_dump()
        yield encode("done", done)

    return StreamingResponse(events(), media_type="text/event-stream")
