"""An httpx transport on urllib3's connection pools, for the sync client.

httpx's pool scans all connections under one lock for each request; with hundreds of threads, they
wait for that lock. urllib3's pool is a stack: the connection released last is used next.
"""

import asyncio
import http.client
import math
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from typing import Any, cast

import httpx2
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

from .call import Call, current_call
from .connections import KEEPALIVE_SECONDS, proxy_for, tls_context
from .deadline import Deadline

# Poll interval of the watchdog: at most this long after a disconnect, a call is aborted.
POLL_SECONDS = 0.05

READ_BYTES = 65_536


class _Response(http.client.HTTPResponse):
    def begin(self) -> None:
        """Read the head of the response, and skip interim ones: http.client skips 100 only."""
        super().begin()
        while self.status < 200:  # interim responses are 1xx
            self.headers = None  # type: ignore[assignment]  # if set, begin() does nothing
            super().begin()


class _Connection(HTTPConnection):
    response_class = _Response
    connectors = ThreadPoolExecutor(100, "connector")  # as many may hang in DNS or a handshake
    owning = threading.Lock()
    """Held to change or check which call a connection belongs to."""
    _body = b""

    def connect(self) -> None:
        """Connect in another thread: name resolution and handshakes cannot be interrupted.

        Raises ReadError if the call ends meanwhile. The other thread then closes the connection
        once it is made; the connect timeout applies to each address and each handshake.
        """
        call, connecting = current_call.get(), self.connectors.submit(super().connect)
        while not wait([connecting], POLL_SECONDS).done:
            if call.is_over():
                connecting.cancel()  # if it has not begun
                connecting.add_done_callback(lambda _: self.close())
                raise httpx2.ReadError("The call was aborted.")
        connecting.result()

    def request(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - as in urllib3
        """Attach the connection to the call, and send the request."""
        if self.is_closed:
            self.connect()
        self.call, self.used_at = current_call.get(), time.monotonic()
        # What owns the file descriptor: in TLS in TLS, `sock` wraps an SSLSocket.
        self.plain = getattr(self.sock, "socket", self.sock)
        self.call.connections.add(self)
        self.call.check()  # for an `abort` that came before the connection was added
        self.timeout = None  # only the deadline limits sending; urllib3 would use the connect time
        self._body = options.pop("body")
        super().request(*args, **options)

    def send(self, data: bytes) -> None:  # type: ignore[override]  # urllib3 passes bytes
        """Send head and body in one system call: after each, a thread must reacquire the GIL."""
        body, self._body = self._body, b""
        super().send(data + body)

    @property
    def is_connected(self) -> bool:
        """Whether it is open and has no unread data, which would corrupt the next response.

        The pool asks when it takes the connection. urllib3's own check would miss data that TLS
        has already decrypted.
        """
        with self.owning:  # from now on, the call before cannot abort it
            self.call = current_call.get()
        try:
            self.sock.settimeout(0)
            self.sock.recv(1)
        except (OSError, AttributeError) as error:  # AttributeError: it is closed
            return isinstance(error, (BlockingIOError, ssl.SSLWantReadError))
        return False

    def abort(self, call: Call) -> None:
        # Not SSLSocket's own method: another thread may be using the TLS object.
        with self.owning, suppress(OSError):  # OSError: it is already closed
            if self.call is call:
                socket.socket.shutdown(self.plain, socket.SHUT_RDWR)


class _TlsConnection(_Connection, HTTPSConnection):
    """The same over TLS, also in a proxy's tunnel."""


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


# The first that matches: each is a subclass of one that follows.
ERRORS = {
    urllib3.exceptions.NewConnectionError: httpx2.ConnectError,
    urllib3.exceptions.ConnectTimeoutError: httpx2.ConnectTimeout,
    urllib3.exceptions.TimeoutError: httpx2.ReadTimeout,
    urllib3.exceptions.HTTPError: httpx2.NetworkError,
}


@contextmanager
def _as_httpx_errors() -> Iterator[None]:
    """Convert urllib3's exceptions to those that the SDK expects."""
    try:
        yield
    except urllib3.exceptions.HTTPError as error:
        ours = next(cls for theirs, cls in ERRORS.items() if isinstance(error, theirs))
        raise ours(str(error)) from error


class _Body(httpx2.SyncByteStream):
    def __init__(self, response: urllib3.BaseHTTPResponse) -> None:
        self._response = response
        self._connection = cast("_Connection", response.connection)
        self._call = self._connection.call

    def __iter__(self) -> Iterator[bytes]:
        with _as_httpx_errors():
            # With a number of bytes: without, urllib3 takes a body that is cut for complete.
            while read := self._response.read1(READ_BYTES, decode_content=False):
                yield read
        self._call.check()  # an abort looks like the end of a body without a length

    def close(self) -> None:
        self._response.close()  # and the connection, unless the body was read to its end
        self._call.connections.discard(self._connection)


class Transport(httpx2.BaseTransport):
    def __init__(self, base_url: str) -> None:
        self._calls: set[Call] = set()
        tls, proxy = tls_context(), proxy_for(httpx2.URL(base_url))
        # maxsize 0: the pool has no limit, and is empty at first.
        options: dict[str, Any] = {"ssl_context": tls, "maxsize": 0, "retries": False}
        self._pools = urllib3.PoolManager(**options)
        if proxy:
            url = httpx2.URL(proxy)
            credentials = f"{url.username}:{url.password}" if url.userinfo else None
            options["proxy_headers"] = urllib3.make_headers(proxy_basic_auth=credentials)
            self._pools = urllib3.ProxyManager(proxy, proxy_ssl_context=tls, **options)
        self._pools.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}

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
        body, timeouts = request.read(), request.extensions["timeout"]
        # Capitalized: for a proxy, urllib3 sets defaults for `Host` and `Accept`.
        headers = {name.title(): value for name, value in request.headers.items()}
        if headers.pop("Transfer-Encoding", None):
            headers["Content-Length"] = str(len(body))
        with _as_httpx_errors():
            response = self._pools.urlopen(
                request.method,
                str(request.url),
                body=body,
                headers=headers,
                timeout=urllib3.Timeout(connect=timeouts["connect"], read=timeouts["read"]),
                redirect=False,
                preload_content=False,
            )
        raw = [(k.encode("latin-1"), v.encode("latin-1")) for k, v in response.headers.items()]
        return httpx2.Response(response.status, headers=raw, stream=_Body(response))

    async def watch(self) -> None:
        """The watchdog: aborts cancelled and expired calls, and closes idle connections."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            for call in filter(Call.is_over, list(self._calls)):
                call.abort()
            self._close_idle(since=time.monotonic() - KEEPALIVE_SECONDS)

    def close(self) -> None:
        """Abort the calls that are in flight, and close the idle connections."""
        for call in list(self._calls):
            call.abort()
        self._close_idle(since=math.inf)

    def _close_idle(self, since: float) -> None:
        pools = self._pools.pools
        for found in filter(None, map(pools.get, pools.keys())):  # None: removed meanwhile
            pool: Any = found.pool
            with pool.mutex:  # no thread can take a connection meanwhile
                for connection in filter(None, pool.queue):
                    if connection.sock and connection.used_at < since:
                        connection.close()
