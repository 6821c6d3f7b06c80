"""Connections for threads: urllib3's, as a transport of the SDK's HTTP client.

httpx's pool looks through all its connections, under one lock, for each request; with hundreds of
threads that is what they wait for. Here the connection used last is the next to be used.
"""

import asyncio
import http.client
import io
import math
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import httpx2
import urllib3
from urllib3.connection import HTTPConnection

from .connections import KEEPALIVE_SECONDS
from .deadline import Deadline
from .error_bodies import may_hold_error, set_status
from .sockets import Call, Route, current_call

# How late a thread may learn that its deadline has passed, or that its client has disconnected.
POLL_SECONDS = 0.05

# So much is sent or read at once; of a longer body, each part has the time of a whole timeout.
PART_BYTES = 65_536


@contextmanager
def _translated(
    timeout: type[httpx2.TimeoutException], failure: type[httpx2.RequestError]
) -> Iterator[None]:
    """Inside, exceptions of sockets, http.client and urllib3 become those that the SDK knows."""
    try:
        yield
    except (TimeoutError, urllib3.exceptions.TimeoutError) as error:
        raise timeout(str(error)) from error.__cause__ or error
    except (
        OSError,
        UnicodeError,
        http.client.HTTPException,
        urllib3.exceptions.HTTPError,
    ) as error:
        raise failure(str(error)) from error.__cause__ or error


class _Reader(io.BufferedReader):
    """Closes the connection if more has come than the response: the next would begin with it."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket) -> None:
        super().__init__(raw, PART_BYTES)
        self._sock = sock

    def close(self) -> None:
        if not self.closed:
            self.raw.close()  # so that `peek` tells what was read already, and reads nothing
            with suppress(ValueError):  # there is nothing
                if self.peek():
                    self._sock.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, debuglevel: int = 0, method: str | None = None) -> None:
        super().__init__(sock, debuglevel, method)
        self.fp = _Reader(self.fp.detach(), sock)


class _Connection(HTTPConnection):
    """Sends head and body together: after each system call, a thread waits for its turn again."""

    response_class = _Response

    def __init__(self, url: httpx2.URL) -> None:
        super().__init__(url.host)
        self._url = url
        self._unsent = b""
        self._plain: socket.socket | None = None
        self.idle_since = 0.0

    def open(self, route: Route, call: Call) -> None:
        """Attach the connection to the call, and connect it unless it is."""

        def attach(sock: socket.socket) -> None:
            self._plain = sock
            call.attach(self, sock)

        if self._plain and self.is_connected:
            attach(self._plain)
        else:
            self.close()
            self.sock = route.open(self._url, call, attach)

    @property
    def is_connected(self) -> bool:
        """Whether it is open and nothing has come unasked, not even inside of TLS."""
        try:
            self.sock.settimeout(0)
            self.sock.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except OSError:
            pass
        return False

    def send(self, data: bytes) -> None:  # type: ignore[override]  # given no more
        self._unsent += data
        if len(self._unsent) >= PART_BYTES:
            self.flush()

    def flush(self) -> None:
        unsent, self._unsent = memoryview(self._unsent), b""
        with suppress(ConnectionError):  # the upstream may have answered before
            for start in range(0, len(unsent), PART_BYTES):
                self.sock.sendall(unsent[start : start + PART_BYTES])

    def close(self) -> None:
        super().close()
        self._unsent = b""
        if self._plain:  # which may be no more than half connected
            self._plain.close()
            self._plain = None


class _Body(httpx2.SyncByteStream):
    def __init__(self, response: urllib3.BaseHTTPResponse, release: Callable[[bool], None]) -> None:
        self._response = response
        self._release = release
        self._is_complete = False
        self._is_closed = False

    def __iter__(self) -> Iterator[bytes]:
        with _translated(httpx2.ReadTimeout, httpx2.ReadError):
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
        self._idle: dict[object, deque[_Connection]] = {}
        self._calls: set[Call] = set()

    @contextmanager
    def calling(
        self, deadline: Deadline, is_cancelled: Callable[[], bool] = lambda: False
    ) -> Iterator[Call]:
        """Inside, requests are aborted at the deadline, or when the block or they are cancelled."""
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
        url = request.url
        idle = self._idle.setdefault((url.scheme, url.raw_host, url.port), deque())
        try:
            connection = idle.pop()
        except IndexError:
            connection = _Connection(url)

        def release(is_complete: bool) -> None:
            call.detach(connection)  # first: another call may take it
            if not is_complete or call.is_aborted:
                connection.close()
            connection.idle_since = time.monotonic()
            idle.append(connection)

        try:
            response = self._exchange(connection, request, call)
        except BaseException:
            release(is_complete=False)
            raise
        headers = [(k.encode("latin-1"), v.encode("latin-1")) for k, v in response.headers.items()]
        return httpx2.Response(response.status, headers=headers, stream=_Body(response, release))

    def _exchange(
        self, connection: _Connection, request: httpx2.Request, call: Call
    ) -> urllib3.BaseHTTPResponse:
        """Send the request, and read the head of the response."""
        timeouts = request.extensions["timeout"]
        with _translated(httpx2.ConnectTimeout, httpx2.ConnectError):
            connection.open(self._route, call)
        assert isinstance(request.stream, httpx2.SyncByteStream)  # noqa: S101 - for the type
        has_body = "content-length" in request.headers or "transfer-encoding" in request.headers
        target, headers = self._route.target(request.url)
        with _translated(httpx2.WriteTimeout, httpx2.WriteError):
            connection.timeout = timeouts["write"]
            connection.request(
                request.method,
                target,
                request.stream if has_body else None,
                dict(request.headers) | headers,
                preload_content=False,
            )
            connection.flush()
        with _translated(httpx2.ReadTimeout, httpx2.ReadError):
            connection.timeout = timeouts["read"]
            return connection.getresponse()

    async def watch(self) -> None:
        """For ever: abort the calls that are cancelled or expired, close what is idle for long."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            for call in list(self._calls):
                if call.is_over():
                    call.abort()
            expired = time.monotonic() - KEEPALIVE_SECONDS
            for idle in list(self._idle.values()):
                with suppress(IndexError):  # threads take and release meanwhile
                    while idle[0].idle_since < expired:
                        idle.popleft().close()

    def close(self) -> None:
        """Abort the calls that are in flight, and close the idle connections."""
        for call in list(self._calls):
            call.abort()
        for idle in self._idle.values():
            with suppress(IndexError):
                while True:
                    idle.pop().close()


def raise_status(response: httpx2.Response) -> None:
    """Hook of the SDK's HTTP client: an error under status 200 gets the status that it names."""
    if may_hold_error(response):
        response.read()
        set_status(response)
