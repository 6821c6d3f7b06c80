"""An offline OpenAI: an HTTP server that speaks OpenAI's protocol, without a model.

Tests and `make demo` use `with running() as offline`; load tests start it with
`python -m dev.offline_openai`. A `Scripted` makes it answer otherwise than by default, or fail.
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
KEPT = 10_000  # latest requests in `received`, so that a load test does not fill the memory


@dataclass(frozen=True, kw_only=True)
class Scripted:
    """How to answer a request. `*_after` are numbers of content chunks; 0 is before any event."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)  # for scripts sent over HTTP

    path: str = "/v1/chat/completions"  # a prefix of the paths of requests that it answers
    times: int = 1  # how many requests it answers
    status: int = 200  # HTTP status; from 400 on, the body is an error
    code: str | None = None  # `code`, `type` and `message` of the error
    type: str | None = None
    message: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)  # added to or replacing the defaults
    delay: float = 0.0  # seconds before anything is sent
    drop: bool = False  # close the connection without an answer
    body: str | bytes | None = None  # sent unchanged, whatever the request is
    content_type: str = "application/json"  # of all answers except generated streams
    reply: str | None = None  # the text; in a stream, one chunk per word
    words: int | None = None  # repeat or cut the reply to this many words
    finish_reason: str | None = None  # of a chat; default: "stop", "tool_calls" or "length"
    chunk_delay: float = 0.0  # seconds between the events of a stream, or the bytes of a body
    cut_after: int | None = None  # close the connection; counts bytes if the body is no stream
    end_after: int | None = None  # end the body cleanly, with neither finish_reason nor [DONE]
    error_after: int | None = None  # send an error event and end the body
    hang_after: int | None = None  # then send nothing until the client disconnects

    @property
    def stop(self) -> int | None:
        """The number of content chunks after which a stream fails."""
        stops = (self.cut_after, self.end_after, self.error_after, self.hang_after)
        return next((stop for stop in stops if stop is not None), None)

    @property
    def error(self) -> dict[str, Any]:
        message = self.message or "The offline OpenAI was told to fail."
        kind = "invalid_request_error" if 400 <= self.status < 500 else "server_error"
        return failure(message, self.code, kind=self.type or kind)


@dataclass
class Received:
    """A request and its outcome. Times are those of `time.monotonic()`."""

    method: str
    path: str  # as sent, with the query
    headers: dict[str, str]  # by lower-case name
    body: Any  # the parsed JSON, or None
    at: float = field(default_factory=time.monotonic)
    left_at: float | None = None  # when the client disconnected before the end of the answer
    finished: bool = False  # whether the whole answer was sent; never after `drop` or `cut_after`


def failure(
    message: str, code: str | None = None, param: str | None = None, kind: str | None = None
) -> dict[str, Any]:
    kind = kind or "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


SCRIPT = TypeAdapter(list[Scripted])


class OfflineOpenAI:
    """The server, with its script and the requests it received. Methods are thread-safe."""

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
        """Queue answers. A request gets the first one whose `path` is a prefix of its own."""
        with self._lock:
            self._steps += [step for step in steps for _ in range(step.times)]

    def reset(self) -> None:
        """Clear the script and the received requests."""
        with self._lock:
            self._steps.clear()
            self.received.clear()

    def _record(self, request: Received) -> Scripted:
        """Add a request to `received`; return how to answer it."""
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
        """The status, and the JSON of the body or the events of a stream."""
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
                    code, message = "missing_required_parameter", f"Missing parameter: '{param}'."
                    if body.get(param) == []:
                        code, message = "empty_array", f"Invalid '{param}': empty array."
                    return 400, failure(message, code, param)
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
            return web.Response()  # not sent: aiohttp would log the exception

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
                delay = 0  # `--chunk-delay` is only for streams
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
            await asyncio.sleep(delay)  # also at 0, to let other connections proceed
            last = piece
        if step.hang_after is not None and isinstance(answer, Iterator):
            await response.write(last)
            await asyncio.Event().wait()  # until the client disconnects
        elif step.cut_after is not None:
            await response.write(last)
            request.transport.close()
        else:
            received.finished = True  # before the last write, after which tests check it
            await response.write_eof(last)
        return response

    async def serve(self, host: str, port: int, ready: Callable[[Stop], object]) -> None:
        """Listen until stopped. Calls `ready` with a thread-safe function that stops the server."""
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        self._server = web.Server(self._handle, handler_cancellation=True, access_log=None)
        # With asyncio's backlog of 100, a burst of new connections waits for SYN retries.
        listener = await loop.create_server(self._server, host, port, backlog=1024)
        self.url = f"http://{host}:{listener.sockets[0].getsockname()[1]}/v1"
        ready(lambda: loop.call_soon_threadsafe(stop.set))
        await stop.wait()
        # Let sockets that are accepted become connections: close() alone would leave them open.
        with suppress(NotImplementedError):  # Windows
            for one in listener.sockets:
                loop.remove_reader(one)
        for _ in ("begin", "connection_made"):
            await asyncio.sleep(0)
        listener.close()
        self._stopping = True  # from now on, disconnects are the server's own
        for connection in self._server.connections:
            if connection.transport:
                connection.transport.abort()
        await self._server.shutdown(1)  # second; aborted connections end at once


@contextmanager
def running(default: Scripted | None = None) -> Iterator[OfflineOpenAI]:
    """Run an offline OpenAI on a free port of 127.0.0.1, in a thread.

    `default` answers requests without a scripted answer.
    """
    offline = OfflineOpenAI(default)
    started: Future[Stop] = Future()
    run = offline.serve("127.0.0.1", 0, started.set_result)
    thread = threading.Thread(target=asyncio.run, args=(run,), daemon=True)
    thread.start()
    stop = started.result(timeout=10)  # seconds; the machine may be busy
    try:
        yield offline
    finally:
        stop()
        thread.join()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m dev.offline_openai", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", default=9000, type=int, help="0 for a free one")
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
