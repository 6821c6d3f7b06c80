"""Opens sockets to the upstream: TCP, through a proxy, under TLS; and aborts them.

A thread that waits for the upstream cannot be cancelled. What ends its call is to shut the socket
down under it.
"""

import http.client
import socket
import ssl
import threading
from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import closing, suppress
from contextvars import ContextVar
from typing import Any, cast

import httpx2
from urllib3.util import ssl_wrap_socket

from .connections import CONNECT_SECONDS, proxy_for, tls_context
from .deadline import Deadline

SHORTEST_TIMEOUT = 0.001  # seconds; 0 would make the socket non-blocking
PORTS = {"http": 80, "https": 443}


class Call:
    """One call's connections, for whoever has to abort it from outside of its thread."""

    def __init__(self, deadline: Deadline, is_cancelled: Callable[[], bool]) -> None:
        self._deadline = deadline
        self._is_cancelled = is_cancelled
        self._lock = threading.Lock()
        self._sockets: dict[object, socket.socket] = {}
        self.is_aborted = False

    def is_over(self) -> bool:
        return self._is_cancelled() or self._deadline.has_passed()

    def abort(self) -> None:
        """Shut the sockets down: what waits for them fails, and so does all that begins later."""
        self._deadline.expire()
        with self._lock:
            self.is_aborted = True
            for sock in self._sockets.values():
                # Of the plain socket, also under TLS: a thread may be inside of the TLS one.
                with suppress(OSError):  # closed meanwhile
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def check(self) -> None:
        """Raise ReadError if the call was aborted, or its deadline has passed."""
        if self.is_aborted or self._deadline.has_passed():
            raise httpx2.ReadError("The call was aborted.")

    def attach(self, connection: object, sock: socket.socket) -> None:
        """Raises as `check`."""
        with self._lock:
            self._sockets[connection] = sock
        self.check()  # it may have been aborted before there was a socket

    def detach(self, connection: object) -> None:
        with self._lock:
            self._sockets.pop(connection, None)

    def at_most(self, seconds: float) -> float:
        """So many seconds, or what is left until the deadline."""
        return max(min(seconds, self._deadline.remaining()), SHORTEST_TIMEOUT)


# The SDK stands between `OpenAIService` and the transport, and passes nothing on.
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
        """What the request line names, and headers for a proxy that forwards the request."""
        path = url.raw_path.decode()
        if self._proxy and url.scheme == "http":
            return f"http://{url.netloc.decode()}{path}", self._credentials
        return path, {}

    def open(
        self, url: httpx2.URL, call: Call, attach: Callable[[socket.socket], None]
    ) -> socket.socket:
        """Connect. Each socket on the way is attached, and for the caller to close.

        Raises:
            OSError, UnicodeError, http.client.HTTPException: there is no connection.
            httpx2.ReadError: the call is over.
        """
        sock = _connect(self._proxy or url, call, attach)
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
        with closing(http.client.HTTPResponse(sock, method="CONNECT")) as response:
            response.begin()
            if not 200 <= response.status < 300:
                raise OSError(f"The proxy answered {response.status} {response.reason}")

    def _start_tls(
        self, sock: socket.socket, url: httpx2.URL, attach: Callable[[socket.socket], None]
    ) -> socket.socket:
        if isinstance(sock, ssl.SSLSocket):
            tls = ssl_wrap_socket(
                sock, ssl_context=self._tls, server_hostname=url.host, tls_in_tls=True
            )
            return cast("socket.socket", tls)  # works like one
        # The handshake moves the descriptor to another object, which is returned only at its end.
        with sock.dup() as handle:
            attach(handle)
            secured = ssl_wrap_socket(sock, ssl_context=self._tls, server_hostname=url.host)
        attach(secured)
        return secured


def _connect(url: httpx2.URL, call: Call, attach: Callable[[socket.socket], None]) -> socket.socket:
    """Try the addresses of a host one after the other, as long as the call has time."""
    port = url.port or PORTS[url.scheme]
    found = _resolve(url.raw_host.decode(), port, call.at_most(CONNECT_SECONDS))
    for family, kind, protocol, _, address in found:
        sock = socket.socket(family, kind, protocol)
        attach(sock)
        try:
            sock.settimeout(call.at_most(CONNECT_SECONDS))
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            sock.close()
            failure = error
        else:
            return sock
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
        raise TimeoutError(f"The name {host} was not resolved in time.") from error
