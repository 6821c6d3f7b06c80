"""What a client sends, and what makes a response complete: of our services, and of OpenAI."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

MESSAGES = [
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "user", "content": "What is an event loop, and why must nobody block it?"},
]


@dataclass(frozen=True)
class Endpoint:
    path: str
    body: dict[str, Any]
    marker: bytes  # in every complete response
    # A chunk with text in it, for streams; the empty one that opens OpenAI's does not count.
    chunk: re.Pattern[bytes] | None = None

    def request(self) -> bytes:
        body = json.dumps(self.body).encode()
        lines = (
            f"POST {self.path} HTTP/1.1",
            "host: benchmark",
            "authorization: Bearer sk-offline-needs-no-key",
            "content-type: application/json",
            f"content-length: {len(body)}",
        )
        return "\r\n".join([*lines, "", ""]).encode() + body


_TO_OPENAI = {"model": "offline", "messages": MESSAGES}
_STREAMED = {"stream": True, "stream_options": {"include_usage": True}}

ENDPOINTS = {
    "chat": Endpoint("/v1/chat", {"messages": MESSAGES}, b'"reply"'),
    "stream": Endpoint(
        "/v1/chat/stream",
        {"messages": MESSAGES},
        b"event: done",
        re.compile(rb'"text": ?"[^"]'),
    ),
    "openai chat": Endpoint("/v1/chat/completions", _TO_OPENAI, b'"content"'),
    "openai stream": Endpoint(
        "/v1/chat/completions",
        _TO_OPENAI | _STREAMED,
        b"data: [DONE]",
        re.compile(rb'"content": ?"[^"]'),
    ),
}


def unchunked(body: bytes) -> bytes:
    """A body without its chunked transfer coding."""
    parts: list[bytes] = []
    at = 0
    while True:
        end = body.index(b"\r\n", at)
        size = int(body[at:end], 16)
        if not size:
            return b"".join(parts)
        parts.append(body[end + 2 : end + 2 + size])
        at = end + 2 + size + 2


def words(body: bytes) -> int:
    """How many words a complete stream has brought, in however many events."""
    return len(text(body).split())


def text(body: bytes) -> str:
    """What a complete stream has brought."""
    return "".join(_texts(body))


def _texts(body: bytes) -> Iterator[str]:
    for line in body.splitlines():
        if line.startswith(b"data: {"):
            data = json.loads(line[len(b"data: ") :])
            if "text" in data:
                yield data["text"]
            for choice in data.get("choices", ()):
                yield choice["delta"].get("content") or ""
