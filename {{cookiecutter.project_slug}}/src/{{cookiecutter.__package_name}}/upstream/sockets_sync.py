"""Opens sockets to the upstream (TCP, proxy, TLS) and aborts them.

A thread that is blocked in a socket operation cannot be cancelled. Shutting the socket down from
another thread makes the operation fail.
"""

import io
import math
import socket
import ssl
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager, suppress
from contextvars import ContextVar
from functools import partial
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from typing import Any, cast

import httpx2
import urllib3
from urllib3.util import ssl_wrap_socket

from .connections import proxy_for, tls_context
from .deadline import Deadline

Attach = Callable[[socket.socket], None]

# Bytes per send or read. The write timeout applies to each part of a longer body.
PART_BYTES = 65_536
SHORTEST_TIMEOUT = 0.001  # seconds; 0 would make the socket non-blocking
PORTS = {"http": 80, "https": 443}


class Call:
    """The sockets of one call, so that another thread can abort it."""

    def __init__(self, deadline: Deadline, is_cancelled: Callable[[], bool]) -> None:
        self._deadline = deadline
        self._is_cancelled = is_cancelled
        self._lock = threading.Lock()
        self._sockets: dict[object, socket.socket] = {}
        self.is_aborted = False

    def is_over(self) -> bool:
        return self._is_cancelled() or self._deadline.has_passed()

    def abort(self) -> None:
        """Shut the sockets down. Operations in progress fail, and so do later ones of this call."""
        self._deadline.expire()
        with self._lock:
            self.is_aborted = True
            for sock in self._sockets.values():
                # Not SSLSocket's own method: another thread may be using the TLS object.
                with suppress(OSError):  # already closed
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def outlive_deadline(self) -> None:
        """From now on, only `abort` ends the call."""
        self._deadline = Deadline(math.inf)

    def check(self) -> None:
        """Raise ReadError if the call was aborted, or its deadline has passed."""
        if self.is_aborted or self._deadline.has_passed():
            raise httpx2.ReadError("The call was aborted.")

    def attach(self, connection: object, sock: socket.socket) -> None:
        """Make `abort` shut down `sock`, the latest of `connection`. Raises as `check`."""
        with self._lock:
            self._sockets[connection] = sock
        self.check()  # for an `abort` that came before the socket was attached

    def detach(self, connection: object) -> None:
        with self._lock:
            self._sockets.pop(connection, None)

    def at_most(self, seconds: float) -> float:
        """`seconds`, or less if the deadline is nearer."""
        return max(min(seconds, self._deadline.remaining()), SHORTEST_TIMEOUT)


# A context variable: the SDK, between `OpenAIService` and the transport, passes on no arguments.
current_call: ContextVar[Call] = ContextVar("current_call")


class Route:
    """The way to the upstream: direct, or through the proxy that the environment names."""

    def __init__(self, base_url: str) -> None:
        proxy = proxy_for(httpx2.URL(base_url))
        self._proxy = httpx2.URL(proxy) if proxy else None
        self._tls = tls_context()
        self._credentials: dict[str, str] = {}
        if self._proxy and self._proxy.userinfo:
            userinfo = f"{self._proxy.username}:{self._proxy.password}".encode()
            self._credentials["Proxy-Authorization"] = f"Basic {b64encode(userinfo).decode()}"

    def target(self, url: httpx2.URL) -> tuple[str, dict[str, str]]:
        """The request target and the headers for a proxy that forwards plain HTTP."""
        path = url.raw_path.decode()
        if self._proxy and url.scheme == "http":
            return f"http://{url.netloc.decode()}{path}", self._credentials
        return path, {}

    def open(self, url: httpx2.URL, seconds: float, call: Call, attach: Attach) -> socket.socket:
        """Connect within `seconds` for each address and each handshake, or the call's deadline.

        Each socket is passed to `attach`. On failure, the last one attached is left open.

        Raises:
            OSError, UnicodeError, HTTPException: the connection failed.
            httpx2.ReadError: the call is over.
        """
        sock = _connect(self._proxy or url, seconds, call, attach)
        if self._proxy and self._proxy.scheme == "https":
            sock = self._start_tls(sock, self._proxy, attach)
        if self._proxy and url.scheme == "https":
            self._open_tunnel(sock, url)
        return self._start_tls(sock, url, attach) if url.scheme == "https" else sock

    def _open_tunnel(self, sock: socket.socket, url: httpx2.URL) -> None:
        target = url.netloc.decode() if url.port else f"{url.netloc.decode()}:443"
        headers = {"Host": target} | self._credentials
        lines = (f"{name}: {value}\r\n" for name, value in headers.items())
        sock.sendall(f"CONNECT {target} HTTP/1.1\r\n{''.join(lines)}\r\n".encode())
        with closing(HTTPResponse(sock, method="CONNECT")) as response:
            response.begin()
            if not 200 <= response.status < 300:
                raise OSError(f"The proxy answered {response.status} {response.reason}")

    def _start_tls(self, sock: socket.socket, url: httpx2.URL, attach: Attach) -> socket.socket:
        wrap = partial(
            ssl_wrap_socket, ssl_context=self._tls, server_hostname=url.raw_host.decode()
        )
        if isinstance(sock, ssl.SSLSocket):  # TLS in TLS: an object with the methods of a socket
            return cast("socket.socket", wrap(sock, tls_in_tls=True))
        # Wrapping moves the descriptor to a new object, which is returned only after the handshake.
        # Until then, `abort` shuts the connection down through a duplicate.
        with sock, sock.dup() as handle:
            attach(handle)
            secured = wrap(sock)
        attach(secured)
        return secured


def _connect(url: httpx2.URL, seconds: float, call: Call, attach: Attach) -> socket.socket:
    """Try the addresses of the host in turn, until the deadline."""
    for family, kind, protocol, _, address in _resolve(url, call.at_most(seconds)):
        sock = socket.socket(family, kind, protocol)
        attach(sock)
        try:
            sock.settimeout(call.at_most(seconds))
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            sock.close()
            failure = error
        else:
            return sock
    raise failure


def _resolve(url: httpx2.URL, seconds: float) -> list[Any]:
    """`socket.getaddrinfo` with a timeout, in a daemon thread: it cannot be interrupted."""
    host, port = url.raw_host.decode(), url.port or PORTS[url.scheme]
    found: Future[list[Any]] = Future()

    def resolve() -> None:
        try:
            found.set_result(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:  # UnicodeError: not a valid host name
            found.set_exception(error)

    threading.Thread(target=resolve, daemon=True).start()
    try:
        return found.result(seconds)
    except TimeoutError as error:
        raise TimeoutError(f"The name {host} was not resolved in time.") from error


@contextmanager
def as_httpx_errors(timeout: type[httpx2.TimeoutException]) -> Iterator[None]:
    """Convert exceptions of sockets, http.client and urllib3 to those that the SDK expects.

    Timeouts become `timeout`, everything else NetworkError.
    """
    try:
        yield
    except (TimeoutError, urllib3.exceptions.TimeoutError) as error:
        cause = error.__cause__ or error  # more specific than urllib3's text
        raise timeout(str(cause)) from cause
    except (OSError, UnicodeError, HTTPException, urllib3.exceptions.HTTPError) as error:
        cause = error.__cause__ or error
        raise httpx2.NetworkError(str(cause)) from cause


class _Reader(io.BufferedReader):
    """Closes the connection if bytes follow the response: they would corrupt the next one."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket) -> None:
        super().__init__(raw, PART_BYTES)
        self._sock = sock

    def close(self) -> None:
        if not self.closed:
            self.raw.close()  # so that `peek` returns only bytes already read
            with suppress(ValueError):  # there are none
                if self.peek():
                    self._sock.close()
        super().close()


class Response(HTTPResponse):
    """Reads through `_Reader`."""

    def __init__(self, sock: socket.socket, debuglevel: int = 0, method: str | None = None) -> None:
        super().__init__(sock, debuglevel, method)
        self.fp = _Reader(self.fp.detach(), sock)

    def begin(self) -> None:
        """Read the head of the response, and skip interim ones: http.client skips 100 only."""
        super().begin()
        while self.status < HTTPStatus.OK:
            self.headers = None  # type: ignore[assignment]  # otherwise it counts as read
            super().begin()
