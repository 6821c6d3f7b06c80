"""An httpx transport with aiohttp connections, for the async client.

httpx's pool scans all connections for each request, and its HTTP parser is written in Python: with
hundreds of calls in flight, these take two thirds of a call's CPU time.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp
import httpx2
import yarl

from .connections import KEEPALIVE_SECONDS, proxy_for, tls_context

# Limits for one response. aiohttp's defaults would reject responses that httpx accepts.
MAX_HEADERS = 1000
MAX_HEADERS_BYTES = 102_400  # httpcore's limit

# Bytes a second. aiohttp has no write timeout: the read timeout is extended by the upload time.
SLOWEST_UPLOAD = 100_000


@contextmanager
def _as_httpx_errors() -> Iterator[None]:
    """Convert aiohttp's exceptions to those that the SDK expects."""
    try:
        yield
    except TimeoutError as error:
        raise httpx2.ReadTimeout(str(error)) from error
    except aiohttp.ClientConnectorError as error:
        raise httpx2.ConnectError(str(error)) from error
    except (aiohttp.ClientError, OSError, ValueError) as error:  # ValueError: an invalid URL
        raise httpx2.NetworkError(str(error)) from error


class _Connector(aiohttp.TCPConnector):
    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Any],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp passes it by this name
    ) -> aiohttp.connector.Connection:
        """Skip connections with unsolicited data: it would be read as the response."""
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
            # Not aiohttp's `sock_read`: with it, invalid HTTP ends the body without an error.
            with _as_httpx_errors():
                async with asyncio.timeout(self._timeout):
                    read = await self._response.content.readany()  # all that has arrived
            if not read:
                return
            yield read

    async def aclose(self) -> None:
        self._response.release()  # closes the connection unless the body was read to its end


class Transport(httpx2.AsyncBaseTransport):
    """For one base URL: the proxy is chosen once."""

    def __init__(self, base_url: str) -> None:
        self._proxy = proxy_for(httpx2.URL(base_url))
        self._session = aiohttp.ClientSession(
            connector=_Connector(
                limit=0,  # `concurrency` is the one limit
                keepalive_timeout=KEEPALIVE_SECONDS,
                ssl=tls_context(),
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # httpx decompresses
            max_line_size=MAX_HEADERS_BYTES,
            max_field_size=MAX_HEADERS_BYTES,
            max_headers=MAX_HEADERS,
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        timeouts = request.extensions["timeout"]
        # The body is sent in one piece: while it sends chunks, aiohttp ignores an early response.
        headers = [(k, v) for k, v in request.headers.multi_items() if k != "transfer-encoding"]
        seconds, body = timeouts["read"], await request.aread()
        with _as_httpx_errors():
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
