"""One client on one keep-alive connection: so little of HTTP/1.1 that it costs next to nothing."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import cast

from .endpoints import Endpoint, unchunked, words

LAST_CHUNK = b"\r\n0\r\n\r\n"  # no event of a stream has a carriage return in it


@dataclass
class Exchange:
    """A request and its response; times are those of perf_counter()."""

    begun: float
    ended: float | None = None  # None while in flight
    failure: str | None = None  # the status, "reset", "incomplete" or "garbled"
    # When chunks arrived and how many: all the chunks of a read at once.
    chunks: list[tuple[float, float]] = field(default_factory=list)


class Client(asyncio.Protocol):
    """Sends a request, reads the response, and repeats that as long as `again` says so."""

    transport: asyncio.Transport

    def __init__(
        self,
        endpoint: Endpoint,
        expected_words: int | None,
        report: Callable[[Exchange], object],
        again: Callable[[], bool],
    ) -> None:
        self.lost = asyncio.get_running_loop().create_future()
        self.exchange: Exchange | None = None
        self._endpoint = endpoint
        self._request = endpoint.request()
        self._expected_words = expected_words
        self._report = report
        self._again = again

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._send()

    def _send(self) -> None:
        self._read = bytearray()
        self._length: int | None = None  # of head and body; None: not known, or chunked
        self._status = b""
        self.exchange = Exchange(perf_counter())
        self._report(self.exchange)
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if self.exchange is None:  # a response without a request
            self.transport.abort()
            return
        self._read += data
        if self._endpoint.chunk and (count := len(self._endpoint.chunk.findall(data))):
            self.exchange.chunks.append((perf_counter(), count))
        if not self._status and not self._read_head():
            return
        if self._length is None:
            if self._read.endswith(LAST_CHUNK):
                self._end(chunked=True)
        elif len(self._read) >= self._length:
            self._end(chunked=False)

    def _read_head(self) -> bool:
        head, end, _ = bytes(self._read).partition(b"\r\n\r\n")
        if not end:
            return False
        self._head = len(head) + len(end)
        self._status = head[len(b"HTTP/1.1 ") :][:3]
        at = head.lower().find(b"\r\ncontent-length:")
        if at >= 0:
            line = head[at + 2 :].partition(b"\r\n")[0]
            self._length = self._head + int(line.partition(b":")[2])
        return True

    def _end(self, *, chunked: bool) -> None:
        exchange, self.exchange = cast("Exchange", self.exchange), None
        exchange.ended = perf_counter()
        exchange.failure = self._failure(exchange, chunked)
        if self._again():
            self._send()
        else:
            self.transport.close()

    def _failure(self, exchange: Exchange, chunked: bool) -> str | None:
        if self._status != b"200":
            return self._status.decode()
        body = bytes(self._read[self._head :])
        if self._endpoint.marker not in body:
            return "incomplete"
        if self._endpoint.chunk:
            try:
                got = words(unchunked(body) if chunked else body)
            except (LookupError, ValueError):
                return "garbled"
            if self._expected_words not in (None, got):
                return "incomplete"
            # Events cut by two reads were not seen, and one event may hold many words.
            scale = got / max(1, sum(count for _, count in exchange.chunks))
            exchange.chunks = [(at, count * scale) for at, count in exchange.chunks]
        return None

    def connection_lost(self, _error: Exception | None) -> None:
        if self.exchange:
            self.exchange.ended, self.exchange.failure = perf_counter(), "reset"
            self.exchange = None
        if not self.lost.done():
            self.lost.set_result(None)
