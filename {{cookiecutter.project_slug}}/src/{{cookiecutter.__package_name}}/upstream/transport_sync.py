"""An httpx transport with urllib3 connections, for the sync client.

httpx's pool scans all connections under one lock for each request; with hundreds of threads, they
wait for that lock. This pool is a stack: the connection released last is used next.
"""

import asyncio
import math
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import cast

import httpx2
import urllib3
from urllib3.connection import HTTPConnection

from .connections import CONNECT_SECONDS, KEEPALIVE_SECONDS
from .deadline import Deadline
from .sockets import PART_BYTES, Call, Response, Route, as_httpx_errors, current_call

# Poll interval of the watchdog: how late a call is aborted after its deadline or a disconnect.
POLL_SECONDS = 0.05


class _Connection(HTTPConnection):
    """Sends head and body in one system call: after each, a thread must reacquire the GIL."""

    response_class = Response

    def __init__(self) -> None:
        super().__init__("")  # `open` gets the host
        self._origin = b""
        self._plain: socket.socket | None = None
        self._unsent = b""
        self.idle_since = 0.0

    def open(self, route: Route, url: httpx2.URL, seconds: float, call: Call) -> None:
        """Attach the connection to the call. Connect it unless it is connected to that host."""

        def attach(sock: socket.socket) -> None:
            self._plain = sock
            call.attach(self, sock)

        origin = url.raw_scheme + url.netloc
        if self._plain and self._origin == origin and self.is_connected:
            attach(self._plain)
        else:
            self.close()
            self.sock, self._origin = route.open(url, seconds, call, attach), origin

    @property
    def is_connected(self) -> bool:
        """Whether it is open and has no unread data, which would corrupt the next response."""
        try:
            self.sock.settimeout(0)
            self.sock.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except OSError:
            return False
        return False

    def send(self, data: bytes) -> None:  # type: ignore[override]  # urllib3 passes bytes
        self._unsent += data
        if len(self._unsent) >= PART_BYTES:
            self.flush()

    def flush(self) -> None:
        unsent, self._unsent = memoryview(self._unsent), b""
        with suppress(ConnectionError):  # the upstream may have answered and closed early
            for start in range(0, len(unsent), PART_BYTES):
                self.sock.sendall(unsent[start : start + PART_BYTES])

    def close(self) -> None:
        super().close()
        self._unsent = b""
        if self._plain:  # may be in the middle of a handshake
            self._plain.close()
            self._plain = None


class _Body(httpx2.SyncByteStream):
    def __init__(self, response: urllib3.BaseHTTPResponse, release: Callable[[bool], None]) -> None:
        self._response = response
        self._release = release
        self._is_complete = False
        self._is_closed = False

    def __iter__(self) -> Iterator[bytes]:
        with as_httpx_errors(httpx2.ReadTimeout):
            while read := self._response.read1(PART_BYTES, decode_content=False):
                yield read
        self._is_complete = True

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._release(self._is_complete)
            self._response.close()


class Transport(httpx2.BaseTransport):
    def __init__(self, base_url: str) -> None:
        self._route = Route(base_url)
        self._idle: deque[_Connection] = deque()
        self._calls: set[Call] = set()

    @contextmanager
    def calling(
        self, deadline: Deadline, is_cancelled: Callable[[], bool] = lambda: False
    ) -> Iterator[Call]:
        """The watchdog aborts requests in the block at the deadline or once `is_cancelled()`."""
        call = Call(deadline, is_cancelled)
        token = current_call.set(call)
        self._calls.add(call)
        try:
            yield call
        except asyncio.CancelledError:
            call.abort()
            raise
        finally:
            self._calls.discard(call)
            current_call.reset(token)

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        call = current_call.get(None)
        if call is None:  # the client was used outside of `OpenAIService.call`
            with self.calling(Deadline(math.inf)):
                return self.handle_request(request)
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = _Connection()

        def release(is_complete: bool) -> None:
            call.detach(connection)  # before another call can attach it
            if not is_complete or call.is_aborted:
                connection.close()
            # Also if closed: `open` then connects it again.
            connection.idle_since = time.monotonic()
            self._idle.append(connection)

        try:
            response = self._exchange(connection, request, call)
        except BaseException:
            release(is_complete=False)
            raise
        headers = [(k.encode("latin-1"), v.encode("latin-1")) for k, v in response.headers.items()]
        return httpx2.Response(response.status, headers=headers, stream=_Body(response, release))

    def _exchange(
        self, connection: _Connection, request: httpx2.Request, call: Call
    ) -> urllib3.HTTPResponse:
        """Send the request, and read the head of the response."""
        timeouts = request.extensions["timeout"]
        with as_httpx_errors(httpx2.ConnectTimeout):
            seconds = timeouts["connect"] or CONNECT_SECONDS
            connection.open(self._route, request.url, seconds, call)
        target, proxy_headers = self._route.target(request.url)
        headers = dict(request.headers) | proxy_headers
        has_body = "content-length" in headers or "transfer-encoding" in headers
        body = cast("httpx2.SyncByteStream", request.stream) if has_body else None
        with as_httpx_errors(httpx2.WriteTimeout):
            connection.timeout = timeouts["write"]
            connection.request(request.method, target, body, headers, preload_content=False)
            connection.flush()
        with as_httpx_errors(httpx2.ReadTimeout):
            connection.timeout = timeouts["read"]
            return connection.getresponse()

    async def watch(self) -> None:
        """The watchdog: aborts cancelled and expired calls, and closes idle connections."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            for call in list(self._calls):
                if call.is_over():
                    call.abort()
            self._close_idle(since=time.monotonic() - KEEPALIVE_SECONDS)

    def close(self) -> None:
        """Abort the calls that are in flight, and close the idle connections."""
        for call in list(self._calls):
            call.abort()
        self._close_idle(since=math.inf)

    def _close_idle(self, since: float) -> None:
        with suppress(IndexError):  # emptied meanwhile by other threads
            while self._idle[0].idle_since < since:
                self._idle.popleft().close()
