"""Clients that know what they asked: each request has an id, and each answer must be its own."""

import asyncio
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from time import perf_counter

from .endpoints import text
from .load import HOST
from .recorder import text_for

WHOLE, LIMITED, REFUSED, LOST = "whole", "limited", "refused", "lost"
PATHS = {"chat": "/v1/chat", "stream": "/v1/chat/stream"}
LONGEST = 90.0  # seconds that an answer may take: longer than any of the service's deadlines
PAUSE = 0.2  # seconds after an answer that is not whole; Retry-After asks for 1


@dataclass(frozen=True)
class Answer:
    id: str
    verdict: str
    why: str  # status and type of the problem, or how the connection ended
    replica: str  # as the load balancer names it
    seconds: float
    ended: float  # of perf_counter()


@dataclass
class Callers:
    """Each sends its next request on the same connection once it has the answer to the last one."""

    port: int
    words: int
    name: str = "client"
    key: str = "none"
    answers: list[Answer] = field(default_factory=list)
    again: Callable[[], bool] = lambda: True  # whether to send one more
    sent: int = 0

    async def run(self, endpoints: Sequence[str]) -> None:
        """One client for each endpoint named, until `again` says no."""
        async with asyncio.TaskGroup() as group:
            for endpoint in endpoints:
                group.create_task(self._call(endpoint))

    async def _call(self, endpoint: str) -> None:
        connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while self.again():
            self.sent += 1
            request_id = f"{self.name}-{self.sent:04}"
            begun = perf_counter()
            head: dict[str, str] = {}
            verdict, why = LOST, ""
            try:
                async with asyncio.timeout(LONGEST):
                    # As every HTTP client does: a connection closed meanwhile is not used.
                    if not connection or connection[0].at_eof():
                        connection = await asyncio.open_connection(HOST, self.port)
                    connection[1].write(self._request(endpoint, request_id))
                    head |= await _head(connection[0])
                    body = await _body(connection[0], head)
            except EOFError:
                why = "cut" if head else "connection closed"
            except (OSError, ValueError, TimeoutError) as error:
                why = type(error).__name__
            else:
                verdict, why = self._verdict(endpoint, request_id, head, body)
            now = perf_counter()
            replica = head.get("x-replica", "")
            self.answers.append(Answer(request_id, verdict, why, replica, now - begun, now))
            if connection and (verdict == LOST or head.get("connection") == "close"):
                connection[1].close()
                connection = None
            if verdict != WHOLE:
                await asyncio.sleep(PAUSE)
        if connection:
            connection[1].close()
            with suppress(OSError):
                await connection[1].wait_closed()

    def _request(self, endpoint: str, request_id: str) -> bytes:
        body = json.dumps({"messages": [{"role": "user", "content": request_id}]}).encode()
        lines = (
            f"POST {PATHS[endpoint]} HTTP/1.1",
            "host: replicas",
            f"authorization: Bearer {self.key}",
            "content-type: application/json",
            f"content-length: {len(body)}",
        )
        return "\r\n".join([*lines, "", ""]).encode() + body

    def _verdict(
        self, endpoint: str, request_id: str, head: dict[str, str], body: bytes
    ) -> tuple[str, str]:
        status = head["status"]
        expected = text_for(request_id, self.words)
        if status == "200":
            if endpoint == "chat":
                got, ended = json.loads(body)["reply"], True
            else:
                got, ended = text(body), b"event: done\n" in body
            return (WHOLE, status) if ended and got == expected else (LOST, "200, not whole")
        if head.get("content-type") != "application/problem+json":
            return LOST, f"{status} of the load balancer"
        problem = json.loads(body)["type"].rpartition(":")[2]
        verdicts = {"429": LIMITED, "503": REFUSED if "retry-after" in head else LOST}
        return verdicts.get(status, LOST), f"{status} {problem}"


async def _head(reader: asyncio.StreamReader) -> dict[str, str]:
    """The header fields by lower-case name, and `status`."""
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()[:-1]
    head = {"status": first.split()[1]}
    for line in lines:
        name, _, value = line.partition(":")
        head[name.lower()] = value.strip()
    return head


async def _body(reader: asyncio.StreamReader, head: dict[str, str]) -> bytes:
    if "content-length" in head:
        return await reader.readexactly(int(head["content-length"]))
    body = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readuntil(b"\r\n")
    return body
