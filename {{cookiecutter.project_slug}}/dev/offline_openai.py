"""An offline OpenAI: a real HTTP server that speaks OpenAI's protocol, and is no model.

Tests use it by `with running() as offline`; `make demo` and load tests start it by
`python -m dev.offline_openai`. It stands on bare asyncio because it has to misbehave in ways
that no web framework permits, and to be faster than the service in front of it.
"""

import argparse
import asyncio
import base64
import hashlib
import itertools
import json
import re
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from http.client import responses
from typing import Any, cast
from urllib.parse import unquote

Stop = Callable[[], object]
dumps = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode  # as OpenAI does
KEPT = 10_000  # requests on record: a load test must not fill the memory
CREATED = 1_700_000_000  # fixed, so that the same question has the same answer


@dataclass(frozen=True, kw_only=True)
class Scripted:
    """How to answer a request; each `*_after` counts content chunks, 0 is before any event."""

    path: str = "/v1/chat/completions"  # applies to requests whose path begins with this
    times: int = 1  # to how many of them
    status: int = 200  # HTTP status; from 400 on the answer is an error
    code: str | None = None  # `code`, `type` and `message` of that error, or of `error_after`
    type: str | None = None
    message: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)  # added to ours, or replacing them
    delay: float = 0.0  # seconds before anything is sent
    drop: bool = False  # close the connection without an answer
    body: str | bytes | None = None  # sent as it stands, whatever the request was
    content_type: str = "application/json"  # of any answer but a stream made from `reply`
    reply: str | None = None  # what the model says; in a stream one chunk a word
    words: int | None = None  # repeat or cut the reply to this many words
    finish_reason: str | None = None  # else "stop", or "length" if max_completion_tokens cut it
    chunk_delay: float = 0.0  # seconds between the events of a stream, or bytes of another body
    cut_after: int | None = None  # close the connection; counts bytes if the body is no stream
    end_after: int | None = None  # end the body cleanly, with neither finish_reason nor [DONE]
    error_after: int | None = None  # send an error event and end the body
    hang_after: int | None = None  # send nothing more until the client leaves


@dataclass
class Received:
    """A request and what became of it; times are those of time.monotonic(), in seconds."""

    method: str
    path: str  # as sent, with the query
    headers: dict[str, str]  # by lower-case name
    body: Any  # the parsed JSON, or None
    at: float = field(default_factory=time.monotonic)
    left_at: float | None = None  # when the client was seen to leave before it had the answer
    finished: bool = False  # the answer was sent whole; never after `drop` or `cut_after`


def failure(message: str, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    kind = "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def scripted_failure(step: Scripted) -> dict[str, Any]:
    body = failure(step.message or "The offline OpenAI was told to fail.", step.code)
    kind = "invalid_request_error" if 400 <= step.status < 500 else "server_error"
    body["error"]["type"] = step.type or kind
    return body


def text_of(message: dict[str, Any]) -> str:
    """The text of a message, whose content is a string or a list of parts."""
    content = message.get("content") or ""
    return content if isinstance(content, str) else " ".join(p.get("text", "") for p in content)


def chat(body: Any, step: Scripted, answer_id: str) -> dict[str, Any] | Iterator[dict[str, Any]]:
    """A completion, whole or as the chunks of a stream. Words count as tokens."""
    said = [text_of(m) for m in body["messages"] if m["role"] == "user"] or [""]
    reply = "This is the offline OpenAI, not a model. You said: " + said[-1]
    reply = reply if step.reply is None else step.reply
    if step.words is not None:
        reply = " ".join(itertools.islice(itertools.cycle(reply.split()), step.words))
    words = re.findall(r"\s*\S+(?:\s+\Z)?|\s+", reply)  # joined, they are the reply again
    most = body.get("max_completion_tokens") or body.get("max_tokens") or len(words)
    reason = step.finish_reason or ("length" if most < len(words) else "stop")
    words = words[:most]
    asked = sum(len(text_of(message).split()) for message in body["messages"])
    usage = {"prompt_tokens": asked, "completion_tokens": len(words)}
    usage["total_tokens"] = asked + len(words)
    head = {"id": answer_id, "created": CREATED, "model": body["model"], "service_tier": "default"}
    if not body.get("stream"):
        message = {"role": "assistant", "content": "".join(words), "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}
        return head | {"object": "chat.completion", "choices": [choice], "usage": usage}
    head["object"] = "chat.completion.chunk"
    counted = (body.get("stream_options") or {}).get("include_usage")
    if counted:
        head["usage"] = None
    stops = (step.cut_after, step.end_after, step.error_after, step.hang_after)
    stop = next((stop for stop in stops if stop is not None), None)

    def event(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return head | {"choices": [choice]}

    def events() -> Iterator[dict[str, Any]]:
        if stop != 0:
            yield event({"role": "assistant", "content": "", "refusal": None})
        yield from (event({"content": word}) for word in words[:stop])
        if stop is None:
            yield event({}, reason)
            if counted:
                yield head | {"choices": [], "usage": usage}

    return events()


def embeddings(body: Any) -> dict[str, Any]:
    texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
    size = body.get("dimensions") or 8
    data = []
    for index, text in enumerate(texts):
        raw = [byte - 127.5 for byte in hashlib.shake_128(text.encode()).digest(size)]
        length = sum(x * x for x in raw) ** 0.5  # OpenAI's vectors have the length 1 too
        packed = struct.pack(f"<{size}f", *(x / length for x in raw))
        vector: Any = struct.unpack(f"<{size}f", packed)
        if body.get("encoding_format") == "base64":
            vector = base64.b64encode(packed).decode()
        data.append({"object": "embedding", "index": index, "embedding": vector})
    words = sum(len(text.split()) for text in texts)
    usage = {"prompt_tokens": words, "total_tokens": words}
    return {"object": "list", "data": data, "model": body["model"], "usage": usage}


class OfflineOpenAI:
    """What is scripted and what was received; its methods may be called from any thread."""

    def __init__(self, default: Scripted | None = None) -> None:
        self.url = ""
        self.received: list[Received] = []
        self.default = default or Scripted()
        self.connections: set[Connection] = set()
        self.numbers = itertools.count(1)
        self._steps: list[Scripted] = []
        self._lock = threading.Lock()

    def script(self, *steps: Scripted) -> None:
        """Queue answers: a request takes the first one whose `path` begins its own."""
        with self._lock:
            self._steps += [step for step in steps for _ in range(step.times)]

    def reset(self) -> None:
        """Forget what is scripted and what was received."""
        with self._lock:
            self._steps.clear()
            self.received.clear()

    def arrived(self, request: Received) -> Scripted:
        """Put a request on record; how to answer it."""
        if request.path.startswith("/offline"):
            return Scripted()
        with self._lock:
            self.received.append(request)
            del self.received[:-KEPT]
            for index, step in enumerate(self._steps):
                if request.path.startswith(step.path):
                    return self._steps.pop(index)
        return self.default if request.path.startswith(self.default.path) else Scripted()

    def _parse_script(self, steps: Any) -> None:
        if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
            raise ValueError("a script is a list of objects")
        kinds: dict[str, Any] = {known.name: known.type for known in fields(Scripted)}
        kinds |= {"headers": dict, "delay": int | float, "chunk_delay": int | float}
        for name, value in (item for step in steps for item in step.items()):
            if name not in kinds:
                raise ValueError(f"a script has no field {name!r}")
            if not isinstance(value, kinds[name]):
                raise ValueError(f"the field {name!r} of a script cannot be {value!r}")
        self.script(*(Scripted(**step) for step in steps))

    def answer(self, request: Received, step: Scripted, number: int) -> tuple[int, Any]:
        """The status, and the JSON to answer with or the chunks of a stream."""
        path, body = unquote(request.path.partition("?")[0]), request.body
        name = path.removeprefix("/v1/models/") if path.startswith("/v1/models/") else "offline"
        model = {"id": name, "object": "model", "created": CREATED, "owned_by": "offline"}
        said, answer_id = ("messages", "model"), f"chatcmpl-offline-{number}"
        routes: dict[str, tuple[str, tuple[str, ...], Callable[[], Any]]] = {
            "/v1/models": ("GET", (), lambda: {"object": "list", "data": [model]}),
            f"/v1/models/{name}": ("GET", (), lambda: model),
            "/v1/chat/completions": ("POST", said, lambda: chat(body, step, answer_id)),
            "/v1/embeddings": ("POST", ("input", "model"), lambda: embeddings(body)),
            "/offline": ("DELETE", (), self.reset),
            "/offline/script": ("POST", (), lambda: self._parse_script(body)),
            "/offline/received": ("GET", (), lambda: [asdict(one) for one in self.received]),
        }
        if path not in routes:
            return 404, failure(f"Invalid URL ({request.method} {path})")
        method, needed, make = routes[path]
        if request.method != method:
            message = f"Not allowed to {request.method} on {path}."
            return 405, failure(message, "method_not_supported")
        if path.startswith("/v1") and "authorization" not in request.headers:
            return 401, failure("You didn't provide an API key.")
        try:
            if method == "POST" and body is None:
                raise ValueError("it is no JSON")
            for param in needed:
                if not body.get(param):
                    message = f"Missing required parameter: '{param}'."
                    return 400, failure(message, "missing_required_parameter", param)
            return 200, make()
        except (AttributeError, KeyError, TypeError, ValueError) as problem:
            return 400, failure(f"The offline OpenAI cannot use this body: {problem}.")

    async def serve(self, host: str, port: int, ready: Callable[[Stop], object]) -> None:
        """Listen, call `ready` with what stops it (from any thread), and go on until then."""
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        # The usual backlog of 100 makes a burst of new connections wait for SYN retries.
        server = await loop.create_server(lambda: Connection(self), host, port, backlog=1024)
        self.url = f"http://{host}:{server.sockets[0].getsockname()[1]}/v1"
        ready(lambda: loop.call_soon_threadsafe(stop.set))
        await stop.wait()
        # What is accepted but no connection yet would be lost, unclosed, by server.close() alone.
        with suppress(NotImplementedError):  # Windows
            for listener in server.sockets:
                loop.remove_reader(listener)
        for _ in ("begin", "connection_made"):
            await asyncio.sleep(0)
        server.close()
        for connection in self.connections:
            connection.request = None  # it is not the client who leaves
            connection.transport.abort()
        await asyncio.sleep(0)  # asyncio closes what was aborted on its next turn


class Connection(asyncio.Protocol):
    """One client. asyncio has set TCP_NODELAY, so that each write is sent at once."""

    transport: asyncio.Transport

    def __init__(self, offline: OfflineOpenAI) -> None:
        self.offline = offline
        self.unread = b""
        self.request: Received | None = None  # while it is being answered
        self.task: asyncio.Task[None] | None = None
        self.flushed = asyncio.Event()
        self.flushed.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=0)  # flushed means: the kernel has it all
        self.offline.connections.add(self)

    def pause_writing(self) -> None:
        self.flushed.clear()

    def resume_writing(self) -> None:
        self.flushed.set()

    def eof_received(self) -> None:
        self.transport.abort()  # close() would first wait for a reader who has gone

    def connection_lost(self, _error: Exception | None) -> None:
        self.offline.connections.discard(self)
        if self.request:
            self.request.left_at, self.request.finished = time.monotonic(), False
        if self.task:
            self.task.cancel()

    def data_received(self, data: bytes) -> None:
        self.unread += data
        head, end, rest = self.unread.partition(b"\r\n\r\n")
        if self.task or not end:
            return
        try:
            first, *lines = head.decode("latin-1").split("\r\n")
            method, path, version = first.split(" ")
            pairs = (line.partition(":") for line in lines)
            headers = {name.lower(): value.strip() for name, _, value in pairs}
            length = int(headers.get("content-length", "0"))
            if length < 0 or "transfer-encoding" in headers:
                raise ValueError("a body without its length")
        except ValueError:
            request_id = f"req_offline_{next(self.offline.numbers)}"
            self.transport.write(start(400, {"x-request-id": request_id, "content-length": "0"}))
            self.transport.close()
            return
        if len(rest) < length:
            return
        self.unread, body = rest[length:], None
        with suppress(ValueError):
            body = json.loads(rest[:length])
        self.request = Received(method, path, headers, body)
        keep = version == "HTTP/1.1" and headers.get("connection", "").lower() != "close"
        step = self.offline.arrived(self.request)
        self.task = asyncio.create_task(self.serve(self.request, step, keep))

    async def serve(self, request: Received, step: Scripted, keep: bool) -> None:
        try:
            await asyncio.sleep(step.delay)
            if not step.drop:
                await self.reply(request, step)
        finally:
            self.request = self.task = None
            if keep and request.finished:
                self.data_received(b"")  # the next request may have arrived meanwhile
            else:
                self.transport.close()

    async def reply(self, request: Received, step: Scripted) -> None:
        number = next(self.offline.numbers)
        status, answer = step.status, scripted_failure(step)
        if step.body is None and status < 400:
            made, answer = self.offline.answer(request, step, number)
            status = made if made >= 400 else status
        changed = {name.lower(): value for name, value in step.headers.items()}
        headers = {"x-request-id": f"req_offline_{number}", "content-type": step.content_type}
        if isinstance(answer, Iterator):
            headers |= {"content-type": "text/event-stream", "transfer-encoding": "chunked"}
            await self.stream(start(status, headers | changed), answer, request, step)
            return
        text = dumps(answer) if step.body is None else step.body
        content = text if isinstance(text, bytes) else text.encode(errors="replace")
        headers["content-length"] = str(len(content))
        data = start(status, headers | changed)
        if step.cut_after is not None:
            await self.send(data + content[: step.cut_after])
            return
        pause = 0 if step is self.offline.default else step.chunk_delay  # made for streams
        while pause and content:
            await self.send(data + content[:1])
            await asyncio.sleep(pause)
            data, content = b"", content[1:]
        request.finished = True  # before the client can have it all: tests look at once
        await self.send(data + content)

    async def stream(
        self, data: bytes, events: Iterator[Any], request: Received, step: Scripted
    ) -> None:
        for event in events:
            await self.send(data + chunk(f"data: {dumps(event)}\n\n"))
            await asyncio.sleep(step.chunk_delay)  # at 0 the other connections have their turn
            data = b""
        if step.cut_after is not None or step.hang_after is not None:
            await self.send(data)
            if step.hang_after is not None:
                await asyncio.get_running_loop().create_future()  # until the client leaves
            return
        if step.error_after is not None:
            data += chunk(f"data: {dumps(scripted_failure(step))}\n\n")
        elif step.end_after is None:
            data += chunk("data: [DONE]\n\n")
        request.finished = True
        await self.send(data + b"0\r\n\r\n")

    async def send(self, data: bytes) -> None:
        self.transport.write(data)
        await self.flushed.wait()


def start(status: int, headers: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} {responses.get(status, '')}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "\r\n"]).encode()


def chunk(text: str) -> bytes:
    """A piece of a body in chunked transfer coding."""
    data = text.encode(errors="replace")
    return b"%x\r\n%b\r\n" % (len(data), data)


@contextmanager
def running(default: Scripted | None = None) -> Iterator[OfflineOpenAI]:
    """An offline OpenAI on a free port of 127.0.0.1, in a thread of its own.

    `default` answers the requests that nothing is scripted for.
    """
    offline = OfflineOpenAI(default)
    started: Future[Stop] = Future()
    run = offline.serve("127.0.0.1", 0, started.set_result)
    thread = threading.Thread(target=asyncio.run, args=(run,), daemon=True)
    thread.start()
    stop = started.result(timeout=10)  # seconds; long, for the machine may be busy
    try:
        yield offline
    finally:
        stop()
        thread.join()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m dev.offline_openai", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", default=9000, type=int, help="0 takes a free one")
    parser.add_argument("--delay", default=0.0, type=float, help="seconds before a reply")
    parser.add_argument("--chunk-delay", default=0.0, type=float, help="seconds between chunks")
    parser.add_argument("--words", type=int, help="length of the replies")
    args = parser.parse_args(arguments)
    default = Scripted(delay=args.delay, chunk_delay=args.chunk_delay, words=args.words)
    offline = OfflineOpenAI(default)

    def ready(stop: Stop) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop())
        message = f"The offline OpenAI, which is no model, listens: OPENAI_BASE_URL={offline.url}"
        print(message, flush=True)

    try:
        asyncio.run(offline.serve(args.host, args.port, ready))
    except (OSError, OverflowError) as problem:
        print(f"Cannot listen on {args.host}:{args.port}: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":  # pragma: no cover  tested in a process of its own
    sys.exit(main())
