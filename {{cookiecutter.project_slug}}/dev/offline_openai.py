"""An offline OpenAI: a real HTTP server that speaks OpenAI's protocol, and is no model.

Tests use it by `with running() as offline`; `make demo` and load tests start it by
`python -m dev.offline_openai`. It answers by itself, and misbehaves as a `Scripted` says.
"""

import argparse
import asyncio
import itertools
import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import unquote

from aiohttp import web
from pydantic import ConfigDict, TypeAdapter

from . import replies
from .replies import dumps

Stop = Callable[[], object]
KEPT = 10_000  # requests on record: a load test must not fill the memory


@dataclass(frozen=True, kw_only=True)
class Scripted:
    """How to answer a request; each `*_after` counts content chunks, 0 is before any event."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)  # of scripts sent over HTTP

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
    finish_reason: str | None = None  # of a chat; else "stop", "tool_calls" or "length"
    chunk_delay: float = 0.0  # seconds between the events of a stream, or bytes of another body
    cut_after: int | None = None  # close the connection; counts bytes if the body is no stream
    end_after: int | None = None  # end the body cleanly, with neither finish_reason nor [DONE]
    error_after: int | None = None  # send an error event and end the body
    hang_after: int | None = None  # send nothing more until the client disconnects

    @property
    def stop(self) -> int | None:
        """The number of content chunks after which a stream goes wrong."""
        stops = (self.cut_after, self.end_after, self.error_after, self.hang_after)
        return next((stop for stop in stops if stop is not None), None)

    @property
    def error(self) -> dict[str, Any]:
        message = self.message or "The offline OpenAI was told to fail."
        kind = "invalid_request_error" if 400 <= self.status < 500 else "server_error"
        return failure(message, self.code, kind=self.type or kind)


@dataclass
class Received:
    """A request and what became of it; times are those of time.monotonic(), in seconds."""

    method: str
    path: str  # as sent, with the query
    headers: dict[str, str]  # by lower-case name
    body: Any  # the parsed JSON, or None
    at: float = field(default_factory=time.monotonic)
    left_at: float | None = None  # when the client was seen to disconnect before the answer's end
    finished: bool = False  # the answer was sent whole; never after `drop` or `cut_after`


def failure(
    message: str, code: str | None = None, param: str | None = None, kind: str | None = None
) -> dict[str, Any]:
    kind = kind or "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


SCRIPT = TypeAdapter(list[Scripted])


class OfflineOpenAI:
    """What is scripted and what was received; its methods may be called from any thread."""

    def __init__(self, default: Scripted | None = None) -> None:
        self.url = ""
        self.received: list[Received] = []
        self.default = default or Scripted()
        self._numbers = itertools.count(1)
        self._steps: list[Scripted] = []
        self._lock = threading.Lock()
        self._stopping = False

    @property
    def connections(self) -> set[web.RequestHandler]:
        return set(self._server.connections)

    def script(self, *steps: Scripted) -> None:
        """Queue answers: a request takes the first one whose `path` begins its own."""
        with self._lock:
            self._steps += [step for step in steps for _ in range(step.times)]

    def reset(self) -> None:
        """Forget what is scripted and what was received."""
        with self._lock:
            self._steps.clear()
            self.received.clear()

    def _record(self, request: Received) -> Scripted:
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

    def _reply(self, request: Received, step: Scripted, number: int) -> tuple[int, Any]:
        """The status, and the JSON to answer with or the events of a stream."""
        path, body = unquote(request.path.partition("?")[0]), request.body
        name = path[len("/v1/models/") :] or "offline"
        model = replies.model(name)
        routes: dict[str, tuple[str, Callable[[], Any], str | None]] = {
            "/v1/models": ("GET", lambda: {"object": "list", "data": [model]}, None),
            f"/v1/models/{name}": ("GET", lambda: model, None),
            "/v1/chat/completions": ("POST", lambda: replies.chat(body, step, number), "messages"),
            "/v1/responses": ("POST", lambda: replies.response(body, step, number), "input"),
            "/v1/embeddings": ("POST", lambda: replies.embeddings(body), "input"),
            "/offline": ("DELETE", self.reset, None),
            "/offline/script": (
                "POST",
                lambda: self.script(*SCRIPT.validate_json(dumps(body))),
                None,
            ),
            "/offline/received": ("GET", lambda: [asdict(one) for one in self.received], None),
        }
        if path not in routes:
            return 404, failure(f"Invalid URL ({request.method} {path})")
        method, make, needed = routes[path]
        if request.method != method:
            message = f"Not allowed to {request.method} on {path}."
            return 405, failure(message, "method_not_supported")
        if path.startswith("/v1") and not {"authorization", "api-key"} & request.headers.keys():
            return 401, failure("You didn't provide an API key.")
        try:
            for param in (needed, "model") if needed else ():
                if not body.get(param):
                    message = f"Missing required parameter: '{param}'."
                    return 400, failure(message, "missing_required_parameter", param)
            return 200, make()
        except (AttributeError, LookupError, TypeError, ValueError) as problem:
            return 400, failure(f"The offline OpenAI cannot use this body: {problem}.")

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = None
        with suppress(ValueError):
            body = json.loads(b"" if request.method == "CONNECT" else await request.content.read())
        headers = {name.lower(): value for name, value in request.headers.items()}
        received = Received(request.method, request.raw_path, headers, body)
        step = self._record(received)
        try:
            await asyncio.sleep(step.delay)
            return await self._answer(request, received, step)
        except (asyncio.CancelledError, ConnectionError) as error:
            received.finished = False
            if not self._stopping:
                received.left_at = time.monotonic()
            if isinstance(error, asyncio.CancelledError):
                raise
            return web.Response()  # not sent; aiohttp would log the error as one of the server

    async def _answer(
        self, request: web.BaseRequest, received: Received, step: Scripted
    ) -> web.StreamResponse:
        assert request.transport
        if step.drop:
            request.transport.close()
            return web.Response()
        number = next(self._numbers)
        status: int = step.status
        answer: Any = step.error if step.body is None else step.body
        if step.body is None and status < 400:
            made, answer = self._reply(received, step, number)
            status = made if made >= 400 else status
        headers = {"x-request-id": f"req_offline_{number}", "content-type": step.content_type}
        delay = step.chunk_delay
        pieces: Iterator[bytes] = iter(())
        response: web.StreamResponse
        if isinstance(answer, Iterator):
            headers["content-type"] = "text/event-stream"
            pieces = map(replies.event, answer)
            response = web.StreamResponse(status=status, headers=headers)
        else:
            text = answer if isinstance(answer, str | bytes) else dumps(answer)
            content = text if isinstance(text, bytes) else text.encode(errors="replace")
            headers["content-length"] = str(len(content))
            if step is self.default:
                delay = 0  # its delay is meant for streams
            if delay or step.cut_after is not None:
                sent = content[: step.cut_after]
                size = 1 if delay else max(1, len(sent))
                pieces = (sent[start : start + size] for start in range(0, len(sent), size))
                response = web.StreamResponse(status=status, headers=headers)
            else:  # head and body in one segment
                response = web.Response(status=status, headers=headers, body=content)
        response.headers.update(step.headers)
        await response.prepare(request)
        last = next(pieces, b"")
        for piece in pieces:
            await response.write(last)
            await asyncio.sleep(delay)  # at 0 the other connections have their turn
            last = piece
        if step.hang_after is not None and isinstance(answer, Iterator):
            await response.write(last)
            await asyncio.Event().wait()  # until the client disconnects
        elif step.cut_after is not None:
            await response.write(last)
            request.transport.close()
        else:
            received.finished = True  # before the client can have it all: tests look at once
            await response.write_eof(last)
        return response

    async def serve(self, host: str, port: int, ready: Callable[[Stop], object]) -> None:
        """Listen, call `ready` with what stops it (from any thread), and go on until then."""
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        self._server = web.Server(self._handle, handler_cancellation=True, access_log=None)
        # The usual backlog of 100 makes a burst of new connections wait for SYN retries.
        listener = await loop.create_server(self._server, host, port, backlog=1024)
        self.url = f"http://{host}:{listener.sockets[0].getsockname()[1]}/v1"
        ready(lambda: loop.call_soon_threadsafe(stop.set))
        await stop.wait()
        # What is accepted but no connection yet would be lost, unclosed, by close() alone.
        with suppress(NotImplementedError):  # Windows
            for one in listener.sockets:
                loop.remove_reader(one)
        for _ in ("begin", "connection_made"):
            await asyncio.sleep(0)
        listener.close()
        self._stopping = True  # from now on it is not the client that disconnects
        for connection in self._server.connections:
            if connection.transport:
                connection.transport.abort()
        await self._server.shutdown(1)  # second; what was aborted ends at once


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


if __name__ == "__main__":
    sys.exit(main())
