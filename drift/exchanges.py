"""The requests that both APIs get, and what they answer."""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http.client import HTTPException, HTTPMessage
from typing import Any
from urllib.error import URLError
from urllib.request import (
    HTTPHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
    UnknownHandler,
)

Json = dict[str, Any]
SLOWEST = 60  # seconds without a byte
CHAT, RESPONSES = "/chat/completions", "/responses"
EMBEDDING_MODEL = "text-embedding-3-small"
WRONG_KEY = "sk-this-key-is-wrong"


class NoAnswer(Exception):
    """Says why there is nothing to compare, in words that hold no secret."""


@dataclass(frozen=True)
class Exchange:
    """A request. What the offline OpenAI cannot know, such as which keys are right, is scripted."""

    name: str
    path: str
    body: Any = None  # sent as JSON; None: GET
    key: str | None = None  # instead of the right one; "": no header
    scripted: Json | None = None


@dataclass(frozen=True)
class Answer:
    status: int
    media_type: str
    headers: set[str]  # their names, in lower case
    body: Any = None  # the parsed JSON, if it is JSON
    events: list[tuple[str, Any]] = field(default_factory=list)  # name and data, of a stream


def exchanges(model: str) -> list[Exchange]:
    """Every kind of reply that the service or its documentation uses, for a few tokens each."""
    question = "The weather in Rome? Answer in one word."
    messages = [{"role": "user", "content": question}]
    chat: Json = {"model": model, "messages": messages, "max_completion_tokens": 100}
    response: Json = {"model": model, "input": question, "max_output_tokens": 100, "store": False}
    streamed = {"stream": True}
    counted = streamed | {"stream_options": {"include_usage": True}}
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    }
    function = {"name": "weather", "strict": True, "parameters": schema}
    must_call = {"tool_choice": "required"}
    chat_tool = must_call | {"tools": [{"type": "function", "function": function}]}
    response_tool = must_call | {"tools": [{"type": "function"} | function]}
    place = {"name": "place", "strict": True, "schema": schema}
    formatted = {"response_format": {"type": "json_schema", "json_schema": place}}
    return [
        Exchange("the list of models", "/models"),
        Exchange("a model", f"/models/{model}"),
        Exchange("a chat", CHAT, chat),
        Exchange("a chat with a tool", CHAT, chat | chat_tool),
        Exchange("a chat with a schema", CHAT, chat | formatted),
        Exchange("a streamed chat", CHAT, chat | counted),
        Exchange("a streamed chat with a tool", CHAT, chat | counted | chat_tool),
        Exchange("a response", RESPONSES, response),
        Exchange("a response with a tool", RESPONSES, response | response_tool),
        Exchange("a streamed response", RESPONSES, response | streamed),
        Exchange("a streamed response with a tool", RESPONSES, response | streamed | response_tool),
        Exchange("embeddings", "/embeddings", {"model": EMBEDDING_MODEL, "input": ["Rome"]}),
        *failures(model, chat),
    ]


def failures(model: str, chat: Json) -> list[Exchange]:
    """What is refused, and so costs nothing."""
    unknown = "no-such-model"
    unknown_chat, fewest = chat | {"model": unknown}, chat | {"max_completion_tokens": -1}

    def scripted(path: str, status: int, code: str) -> Json:
        return {"path": f"/v1{path}", "status": status, "code": code}

    wrong_key = scripted("/models", 401, "invalid_api_key")
    no_such_model = scripted("/models", 404, "model_not_found")
    no_chat_model = scripted(CHAT, 404, "model_not_found")
    too_few = scripted(CHAT, 400, "integer_below_min_value")
    return [
        Exchange("no key", "/models", key=""),
        Exchange("a wrong key", "/models", key=WRONG_KEY, scripted=wrong_key),
        Exchange("an unknown model", f"/models/{unknown}", scripted=no_such_model),
        Exchange("a chat with an unknown model", CHAT, unknown_chat, None, no_chat_model),
        # With this, the service tries a key that may not read models.
        Exchange("a chat with no message", CHAT, chat | {"messages": []}),
        Exchange("a chat without messages", CHAT, {"model": model}),
        Exchange("a response without input", RESPONSES, {"model": model}),
        Exchange("a parameter out of range", CHAT, fewest, None, too_few),
        Exchange("an unknown address", "/no-such-address", {}),
    ]


class Api:
    """One of the two. `key` is sent with every request that names no other."""

    def __init__(self, url: str, key: str, proxies: dict[str, str] | None = None) -> None:
        """`proxies`: None for those of the environment."""
        self.url, self.key = url.rstrip("/"), key
        # Without handlers of redirects and errors: the key goes to no other address, and each
        # status is an answer.
        self._opener = OpenerDirector()
        for handler in (ProxyHandler(proxies), HTTPHandler(), HTTPSHandler(), UnknownHandler()):
            self._opener.add_handler(handler)

    def send(self, exchange: Exchange) -> Answer:
        """Raises NoAnswer if there is none, or none of an API that lets this key in."""
        key = self.key if exchange.key is None else exchange.key
        headers = {"Content-Type": "application/json", "User-Agent": "drift"}
        headers |= {"Authorization": f"Bearer {key}"} if key else {}
        data = None if exchange.body is None else json.dumps(exchange.body).encode()
        try:
            request = Request(self.url + exchange.path, data, headers)  # noqa: S310 - http or https
            with self._opener.open(request, timeout=SLOWEST) as reply:
                return answer(reply.status, reply.headers, reply.read().decode(errors="replace"))
        except URLError as error:
            reason = getattr(error.reason, "strerror", None) or error.reason
            raise NoAnswer(f"The real API cannot be reached: {reason}.") from error
        except (HTTPException, OSError) as error:
            raise NoAnswer(f"The connection failed: {type(error).__name__}.") from error
        except ValueError as error:  # its text may hold the key
            raise NoAnswer("OPENAI_BASE_URL or OPENAI_API_KEY is malformed.") from error


def answer(status: int, headers: HTTPMessage, text: str) -> Answer:
    made = Answer(status, headers.get_content_type(), {name.lower() for name in headers})
    if made.media_type == "text/event-stream":
        return replace(made, events=list(events(text)))
    with suppress(ValueError):
        made = replace(made, body=json.loads(text))
    return made


def events(text: str) -> Iterator[tuple[str, Any]]:
    """The name of each event, or what its data is, and the data."""
    for block in text.replace("\r\n", "\n").split("\n\n"):
        lines = [line.partition(":")[::2] for line in block.splitlines()]
        fields = {name: value.strip() for name, value in lines}
        data = fields.get("data")
        if data == "[DONE]":
            yield data, None
        elif data:
            parsed = json.loads(data)
            yield fields.get("event") or parsed.get("object") or "error", parsed
