"""The upstream of all apps: as much of OpenAI's API as they call, as a raw ASGI app for speed.

`uvicorn benchmarks.upstream:app`, with a Behaviour as JSON in the environment variable UPSTREAM.
"""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

HEAD = {"id": "chatcmpl-benchmark", "created": 1_700_000_000, "model": "offline"}
USAGE = {"prompt_tokens": 18, "completion_tokens": 12, "total_tokens": 30}
REPLY = "It runs callbacks one after another, so that one that blocks stops all the others."


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """Times are seconds."""

    delay: float = 0.0  # before the reply, or before the first event of a stream
    chunk_delay: float = 0.0  # between the chunks of a stream; 0: as fast as they are read
    words: int = 12  # chunks of a stream, of a word each


def dumps(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def event(choices: list[dict[str, Any]], **more: object) -> bytes:
    chunk = HEAD | {"object": "chat.completion.chunk", "choices": choices} | more
    return b"data: " + dumps(chunk) + b"\n\n"


def delta(content: dict[str, Any], reason: str | None = None) -> bytes:
    return event([{"index": 0, "delta": content, "logprobs": None, "finish_reason": reason}])


MESSAGE = {"role": "assistant", "content": REPLY, "refusal": None}
CHOICE = {"index": 0, "message": MESSAGE, "logprobs": None, "finish_reason": "stop"}
COMPLETION = dumps(HEAD | {"object": "chat.completion", "choices": [CHOICE], "usage": USAGE})
MODEL = dumps({"id": "offline", "object": "model", "created": 1, "owned_by": "benchmark"})
FIRST = delta({"role": "assistant", "content": "", "refusal": None})
WORD = delta({"content": " word"})
LAST = delta({}, "stop") + event([], usage=USAGE) + b"data: [DONE]\n\n"
AT_ONCE = 16  # events in a write at full speed: so many are never written one by one there


async def app(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    behaviour = Behaviour(**json.loads(os.environ["UPSTREAM"]))
    body = b""
    while (message := await receive()).get("more_body"):
        body += message["body"]
    body += message.get("body", b"")
    if scope["method"] == "GET":
        await respond(send, MODEL)
        return
    await asyncio.sleep(behaviour.delay)
    if not json.loads(body).get("stream"):
        await respond(send, COMPLETION)
        return
    await send({"type": "http.response.start", "status": 200, "headers": [EVENTS]})
    due = asyncio.get_running_loop().time()
    for part in parts(behaviour):
        await send({"type": "http.response.body", "body": part, "more_body": True})
        if behaviour.chunk_delay:  # each chunk has its point in time, so that lags do not add up
            due += behaviour.chunk_delay
            await asyncio.sleep(due - asyncio.get_running_loop().time())
    await send({"type": "http.response.body", "body": LAST})


EVENTS = (b"content-type", b"text/event-stream; charset=utf-8")


def parts(behaviour: Behaviour) -> Iterator[bytes]:
    at_once = 1 if behaviour.chunk_delay else AT_ONCE
    yield FIRST + WORD * min(at_once, behaviour.words)
    for sent in range(at_once, behaviour.words, at_once):
        yield WORD * min(at_once, behaviour.words - sent)


async def respond(send: Callable[[dict[str, Any]], Awaitable[None]], body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
