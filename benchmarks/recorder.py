"""An upstream that knows what it was asked: `uvicorn benchmarks.recorder:app`, with its Behaviour.

It takes the text of the last message for the request's id, answers with `text_for(id)`, and counts
how often it has seen each id and how many tokens its replies cost. `GET /seen` shows that.
"""

import asyncio
import json
import os
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from .upstream import EVENTS, HEAD, MODEL, Behaviour, delta, dumps, event, respond

TOKENS = 60  # of each reply, input and output
USAGE = {"prompt_tokens": 10, "completion_tokens": 50, "total_tokens": TOKENS}
LAST = delta({}, "stop") + event([], usage=USAGE) + b"data: [DONE]\n\n"

behaviour = Behaviour(**json.loads(os.environ.get("UPSTREAM", "{}")))
seen = Counter[str]()
answered = 0
# The most that a client's requests may cost at one time: each reply, and all in flight at most.
may_cost = in_flight = 0


def text_for(request_id: str, words: int) -> str:
    """Of a reply: a part that is missing, comes twice or is another request's would show."""
    return " ".join([request_id, *map(str, range(words))])


def most_tokens(body: dict[str, Any]) -> int:
    """What the service reserves for a request: README.md, How much."""
    texts = sum(len(message["content"].encode()) + 16 for message in body["messages"])
    return texts + int(body.get("max_completion_tokens", 0))


async def app(
    _scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    global answered, in_flight, may_cost  # noqa: PLW0603  the state of this process
    content = b""
    while (message := await receive()).get("more_body"):
        content += message["body"]
    content += message.get("body", b"")
    if _scope["method"] == "GET":
        found = {"seen": seen, "answered": answered, "may_cost": may_cost}
        await respond(send, dumps(found) if _scope["path"] == "/seen" else MODEL)
        return
    body = json.loads(content)
    request_id, most = body["messages"][-1]["content"], most_tokens(body)
    seen[request_id] += 1
    in_flight += most
    may_cost = max(may_cost, answered * TOKENS + in_flight)
    try:
        await asyncio.sleep(behaviour.delay)
        if body.get("stream"):
            await stream(send, request_id)
        else:
            await respond(send, completion(request_id))
    finally:
        in_flight -= most
        answered += 1


def completion(request_id: str) -> bytes:
    message = {"role": "assistant", "content": text_for(request_id, behaviour.words)}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    return dumps(HEAD | {"object": "chat.completion", "choices": [choice], "usage": USAGE})


async def stream(send: Callable[[dict[str, Any]], Awaitable[None]], request_id: str) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [EVENTS]})
    part = delta({"role": "assistant", "content": request_id})
    for number in range(behaviour.words):
        await send({"type": "http.response.body", "body": part, "more_body": True})
        await asyncio.sleep(behaviour.chunk_delay)
        part = delta({"content": f" {number}"})
    await send({"type": "http.response.body", "body": part + LAST})
