"""Connections for threads: found without a search, and hung up on from outside.

httpx's pool looks through all its connections, under one lock, for each request; with hundreds of
threads that is what they wait for. And nobody can stop a thread that waits for an upstream: the
only way to end its call is to shut the socket down under it.
"""

import asyncio
import json
import math
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

import httpcore2
import httpx2

from .connections import CONNECT_SECONDS, KEEPALIVE_SECONDS, proxy_for, tls_context
from .deadline import Deadline
from .error_bodies import error_in, may_hold_error

# The events of httpx's `trace` extension that tell which socket a request will go over; before
# the dot they name the kind of connection, say through a proxy.
CONNECTED = (".connect_tcp.complete", ".start_tls.complete")

# How late a thread may learn that its deadline has passed, or that its caller has left.
REAP_SECONDS = 0.05

SHORTEST_TIMEOUT = 0.001  # seconds; 0 would mean not to wait at all

# So much is sent at once; of a longer body, each part has the time of a whole timeout.
PART_BYTES = 65_536


class _Stream(httpcore2.NetworkStream):
    """httpcore's, with fewer calls of the system: after each, a thread waits for its turn again.

    What is written is sent with the next read, head and body together, if it is not long.
    """

    def __init__(self, stream: httpcore2.NetworkStream) -> None:
        self._stream = stream
        self._socket: socket.socket = stream.get_extra_info("socket")
        self._timeout = self._socket.gettimeout()
        self._unsent = b""

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._unsent += buffer
        if len(self._unsent) > PART_BYTES:
            self._send(timeout)

    def _send(self, timeout: float | None) -> None:
        unsent, self._unsent = memoryview(self._unsent), b""
        try:
            self._wait_at_most(timeout)
            for start in range(0, len(unsent), PART_BYTES):
                self._socket.sendall(unsent[start : start + PART_BYTES])
        except TimeoutError as error:
            raise httpcore2.WriteTimeout(str(error)) from error
        except ConnectionError:
            pass  # whoever hangs up may have answered before
        except OSError as error:
            raise httpcore2.WriteError(str(error)) from error

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self._unsent:
            self._send(timeout)
        try:
            self._wait_at_most(timeout)
            return self._socket.recv(max_bytes)
        except TimeoutError as error:
            raise httpcore2.ReadTimeout(str(error)) from error
        except OSError as error:
            raise httpcore2.ReadError(str(error)) from error

    def _wait_at_most(self, timeout: float | None) -> None:
        if self._timeout != timeout:
            self._socket.settimeout(timeout)
            self._timeout = timeout

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore2.NetworkStream:
        is_tls = self._stream.get_extra_info("ssl_object") is not None
        stream = self._stream.start_tls(ssl_context, server_hostname, timeout)
        return stream if is_tls else _Stream(stream)  # TLS within TLS is no matter of the socket

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401 - as it is in httpcore
        return self._stream.get_extra_info(info)

    def close(self) -> None:
        self._stream.close()


class _Backend(httpcore2.SyncBackend):
    """Tries the addresses of a host one after the other, as long as the call has time."""

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        call = current_call.get()
        timeout = timeout or CONNECT_SECONDS
        for *_, address in _resolve(host, port, call.at_most(timeout)):
            call.check()
            seconds = call.at_most(timeout)
            try:
                return _Stream(
                    super().connect_tcp(
                        str(address[0]), port, seconds, local_address, socket_options
                    )
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
        raise failure


def _resolve(host: str, port: int, seconds: float) -> list[Any]:
    """`socket.getaddrinfo` with a timeout: it has none, and no other thread can end it."""
    found: Future[list[Any]] = Future()

    def resolve() -> None:
        try:
            found.set_result(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:  # the latter for what can be no host's name
            found.set_exception(error)

    threading.Thread(target=resolve, daemon=True).start()
    try:
        return found.result(seconds)
    except TimeoutError as error:
        raise httpcore2.ConnectTimeout(f"The name {host} was not resolved in time.") from error
    except (OSError, UnicodeError) as error:
        raise httpcore2.ConnectError(str(error)) from error


class _Line:
    """One connection, kept alive, and the socket under it."""

    def __init__(self, verify: ssl.SSLContext, proxy: str | None) -> None:
        limits = httpx2.Limits(max_connections=1, keepalive_expiry=KEEPALIVE_SECONDS)
        self.transport = httpx2.HTTPTransport(verify=verify, proxy=proxy, limits=limits)
        self._pool = self.transport._pool  # noqa: SLF001 - which httpx lets nobody else set up
        self._pool._network_backend = _Backend()  # noqa: SLF001 - as above
        self.idle_since = 0.0
        self._socket: socket.socket | None = None

    def has_unread(self) -> bool:
        """Whether more has come than an answer: it would be taken for that of the next request."""
        connection: Any = next(iter(self._pool.connections), None)
        while hasattr(connection, "_connection"):  # a tunnel through a proxy has several
            connection = connection._connection  # noqa: SLF001 - as below
        # httpcore does not look: https://h11.readthedocs.io has what `trailing_data` is.
        return connection is not None and bool(connection._h11_state.trailing_data[0])  # noqa: SLF001

    def connected(self, stream: httpcore2.NetworkStream) -> None:
        self._socket = stream.get_extra_info("socket")

    def hang_up(self) -> None:
        if self._socket:
            # Of the plain socket, also under TLS: a thread may be inside of the TLS one.
            with suppress(OSError):  # closed meanwhile
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


class Call:
    """What a thread does upstream, for whoever has to end it."""

    def __init__(self, deadline: Deadline, is_cancelled: Callable[[], bool]) -> None:
        self._deadline = deadline
        self._is_cancelled = is_cancelled
        self._lock = threading.Lock()
        self._line: _Line | None = None
        self._is_over = False

    def is_in_vain(self) -> bool:
        return self._is_cancelled() or self._deadline.has_passed()

    def abort(self) -> None:
        self._deadline.expire()
        with self._lock:
            self._is_over = True
            if self._line:
                self._line.hang_up()

    def check(self) -> None:
        """Raises ReadError if the call was ended, or has no time left."""
        if self._is_over or self._deadline.has_passed():
            raise httpx2.ReadError("The call is over.")

    def take(self, line: _Line) -> None:
        with self._lock:
            self._line = line
            if self._is_over:  # before there was a line, or a socket
                line.hang_up()

    def give_back(self, line: _Line) -> None:
        with self._lock:
            if self._line is line:  # and not that of a second request
                self._line = None

    def at_most(self, seconds: float) -> float:
        """So many seconds, or what is left until the deadline."""
        return max(min(seconds, self._deadline.remaining()), SHORTEST_TIMEOUT)


current_call: ContextVar[Call] = ContextVar("current_call")


class _Body(httpx2.SyncByteStream):
    def __init__(self, body: httpx2.SyncByteStream, give_back: Callable[[], None]) -> None:
        self._body = body
        self._give_back = give_back
        self._is_closed = False

    def __iter__(self) -> Iterator[bytes]:
        yield from self._body

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            try:
                self._body.close()
            finally:
                self._give_back()


class Transport(httpx2.BaseTransport):
    """For one host: the line that was used last is the next to be used."""

    def __init__(self, base_url: str) -> None:
        self._proxy = proxy_for(httpx2.URL(base_url))
        self._verify = tls_context()
        self._idle: deque[_Line] = deque()
        self._calls: set[Call] = set()

    @contextmanager
    def calling(
        self, deadline: Deadline, is_cancelled: Callable[[], bool] = lambda: False
    ) -> Iterator[Call]:
        """The requests inside end with the deadline, or when the block is cancelled."""
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
            line = self._idle.pop()
        except IndexError:
            line = _Line(self._verify, self._proxy)

        def trace(event: str, info: dict[str, Any]) -> None:
            if event.endswith(CONNECTED):
                line.connected(info["return_value"])
                call.take(line)

        def give_back() -> None:
            call.give_back(line)
            if line.has_unread():
                line.hang_up()
            line.idle_since = time.monotonic()
            self._idle.append(line)

        try:
            call.take(line)
            request.extensions["trace"] = trace
            # Until it is connected there is nothing to hang up.
            timeouts = request.extensions["timeout"]
            timeouts["connect"] = call.at_most(timeouts["connect"] or CONNECT_SECONDS)
            response = line.transport.handle_request(request)
        except BaseException:
            give_back()
            raise
        assert isinstance(response.stream, httpx2.SyncByteStream)  # noqa: S101 - for the type
        response.stream = _Body(response.stream, give_back)
        return response

    async def watch(self) -> None:
        """For ever: end the calls that nobody waits for, and close the lines that nobody uses."""
        while True:
            await asyncio.sleep(REAP_SECONDS)
            for call in list(self._calls):
                if call.is_in_vain():
                    call.abort()
            expired = time.monotonic() - KEEPALIVE_SECONDS
            with suppress(IndexError):  # threads take and give back meanwhile
                while self._idle[0].idle_since < expired:
                    self._idle.popleft().transport.close()

    def close(self) -> None:
        """End the calls under way, and close the lines that are not in use."""
        for call in list(self._calls):
            call.abort()
        with suppress(IndexError):
            while True:
                self._idle.pop().transport.close()


def raise_status(response: httpx2.Response) -> None:
    """Hook of the SDK's HTTP client: an error under status 200 gets the status that it names."""
    # Only what the SDK can read as well: it makes its error of the body.
    if may_hold_error(response) and (error := error_in(response.read(), response, json.loads)):
        response.status_code = error.status_code
