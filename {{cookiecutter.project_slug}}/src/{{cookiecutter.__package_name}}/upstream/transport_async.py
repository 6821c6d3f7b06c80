"""Connections for the event loop: aiohttp's, as a transport of the SDK's HTTP client.

httpx's pool looks through all its connections for each request, and reads HTTP in Python; together
that is two thirds of what a call costs when hundreds are under way.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp
import httpx2
import yarl

from .connections import KEEPALIVE_SECONDS, proxy_for, tls_context
from .error_bodies import may_hold_error, set_status

# Of one answer.
MAX_HEADERS = 1000
MAX_HEADERS_BYTES = 102_400  # httpcore's limit

# Bytes a second: a long body has so much more time to be sent.
SLOWEST_UPLOAD = 100_000


@contextmanager
def _translated() -> Iterator[None]:
    """Inside, aiohttp's exceptions become those that the SDK knows."""
    try:
        yield
    except TimeoutError as error:
        raise httpx2.ReadTimeout(str(error)) from error
    except (aiohttp.ClientError, OSError, ValueError) as error:  # the last: where a redirect leads
        raise httpx2.NetworkError(str(error)) from error


class _Connector(aiohttp.TCPConnector):
    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Any],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp passes it by this name
    ) -> aiohttp.connector.Connection:
        """Never a connection on which something came unasked: it would answer the next request."""
        while True:
            connection = await super().connect(req, traces, timeout)
            if connection.protocol is None or not connection.protocol.should_close:
                return connection
            connection.close()


class _Body(httpx2.AsyncByteStream):
    def __init__(self, response: aiohttp.ClientResponse, timeout: float | None) -> None:
        self._response = response
        self._timeout = timeout

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            # Not by aiohttp's `sock_read`: that ends without a word if the upstream breaks HTTP.
            with _translated():
                async with asyncio.timeout(self._timeout):
                    read = await self._response.content.readany()  # all that has come
            if not read:
                return
            yield read

    async def aclose(self) -> None:
        self._response.release()  # which closes the connection if the body was not read to its end


class Transport(httpx2.AsyncBaseTransport):
    """For one host."""

    def __init__(self, base_url: str) -> None:
        self._proxy = proxy_for(httpx2.URL(base_url))
        self._session = aiohttp.ClientSession(
            connector=_Connector(
                limit=0,  # `concurrency` is the one limit
                keepalive_timeout=KEEPALIVE_SECONDS,
                ssl=tls_context(),
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # httpx does
            # Its own limits would refuse what httpx takes.
            max_line_size=MAX_HEADERS_BYTES,
            max_field_size=MAX_HEADERS_BYTES,
            max_headers=MAX_HEADERS,
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        timeouts = request.extensions["timeout"]
        # The body is sent as a whole: of one in parts, aiohttp would not hear an early answer.
        headers = [(k, v) for k, v in request.headers.multi_items() if k != "transfer-encoding"]
        seconds, body = timeouts["read"], await request.aread()
        with _translated():
            async with asyncio.timeout(seconds and seconds + len(body) / SLOWEST_UPLOAD):
                response = await self._session.request(
                    request.method,
                    yarl.URL(str(request.url), encoded=True),
                    headers=headers,
                    data=body or None,
                    allow_redirects=False,
                    proxy=self._proxy,
                    timeout=aiohttp.ClientTimeout(sock_connect=timeouts["connect"]),
                )
        stream = _Body(response, seconds)
        return httpx2.Response(response.status, headers=response.raw_headers, stream=stream)

    async def aclose(self) -> None:
        await self._session.close()


async def raise_status(response: httpx2.Response) -> None:
    """Hook of the SDK's HTTP client: an error under status 200 gets the status that it names."""
    if may_hold_error(response):
        await response.aread()
        set_status(response)
