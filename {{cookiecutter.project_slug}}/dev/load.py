"""Put a running service under load: `make load`, with options in `make load ARGS=--help`."""

import argparse
import asyncio
import json
import ssl
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx2
from pydantic import ValidationError
from pydantic_settings import BaseSettings

SHOWN_EVERY = 1.0  # seconds
PAUSE = 0.1  # seconds: who is refused should not ask again as fast as it can
QUESTION = {"messages": [{"role": "user", "content": "What is an event loop?"}]}


class Address(BaseSettings, env_file=".env", env_ignore_empty=True, extra="ignore"):
    """Where `make run` has the service listen."""

    host: str = "127.0.0.1"
    port: int = 8000

    @property
    def url(self) -> str:
        # Who listens at every address does so at loopback, too.
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104
        return str(httpx2.URL(scheme="http", host=host, port=self.port))


@dataclass
class Load:
    """What has come back so far; times are seconds."""

    url: str
    callers: int
    seconds: float
    stream: bool
    headers: dict[str, str]
    answers: Counter[str] = field(default_factory=Counter)  # by status and type of problem
    latencies: list[float] = field(default_factory=list)  # of the good ones
    first_chunks: list[float] = field(default_factory=list)
    started: float = field(default_factory=time.perf_counter)

    async def run(self) -> None:
        tls = ssl.create_default_context()  # once for all: it takes as long as many requests
        # A client each: one pool for all would look through all of its connections each time.
        clients = [
            httpx2.AsyncClient(base_url=self.url, headers=self.headers, verify=tls, timeout=120)
            for _ in range(self.callers)
        ]
        try:
            await clients[0].get("/livez")
            self.started = time.perf_counter()
            async with asyncio.timeout(self.seconds):
                await asyncio.gather(self._show(), *map(self._call, clients))
        except TimeoutError:  # the time is over
            pass
        finally:
            self.seconds = time.perf_counter() - self.started
            await asyncio.gather(*(client.aclose() for client in clients))

    async def _show(self) -> None:
        while True:
            before = self.answers.total()
            await asyncio.sleep(SHOWN_EVERY)
            answers, good = self.answers.total(), len(self.latencies)
            passed, rest = time.perf_counter() - self.started, answers - good
            line = f"{answers - before:6} answers, in all {good} good and {rest} not"
            print(f"{passed:4.0f} s  {line}", flush=True)

    async def _call(self, client: httpx2.AsyncClient) -> None:
        while True:
            begun = time.perf_counter()
            try:
                kind = await (self._stream if self.stream else self._chat)(client, begun)
            except httpx2.RequestError as error:
                kind = f"no answer: {type(error).__name__}"
            self.answers[kind] += 1
            if kind == "200":
                self.latencies.append(time.perf_counter() - begun)
            else:
                await asyncio.sleep(PAUSE)

    async def _chat(self, client: httpx2.AsyncClient, _begun: float) -> str:
        response = await client.post("/v1/chat", json=QUESTION)
        return _kind(response.status_code, response.text)

    async def _stream(self, client: httpx2.AsyncClient, begun: float) -> str:
        async with client.stream("POST", "/v1/chat/stream", json=QUESTION) as response:
            if not response.is_success:
                return _kind(response.status_code, (await response.aread()).decode())
            event, data = "", ""
            async for line in response.aiter_lines():
                name, _, value = line.partition(": ")
                if name == "data":
                    data = value
                elif name == "event":
                    if not event:
                        self.first_chunks.append(time.perf_counter() - begun)
                    event = value
            return "200" if event == "done" else _kind(200, data, "ended by ")

    def summary(self) -> str:
        good, rate = len(self.latencies), len(self.latencies) / max(self.seconds, 0.001)
        lines = [
            f"{good} good answers in {self.seconds:.1f} s: {rate:.1f}/s",
            f"seconds to the answer       {_spread(self.latencies)}",
        ]
        if self.stream:
            lines.append(f"seconds to the first chunk  {_spread(self.first_chunks)}")
        lines += [f"{count:7}  {kind}" for kind, count in self.answers.most_common()]
        return "\n".join(lines)


def _kind(status: int, body: str, how: str = "") -> str:
    """The status, and of a problem the end of its type."""
    try:
        problem = json.loads(body).get("type", "").rpartition(":")[2]
    except (AttributeError, ValueError):
        problem = "with no answer of ours"
    return f"{status} {how}{problem}".strip()


def _spread(seconds: Sequence[float]) -> str:
    if not seconds:
        return "-"
    ordered = sorted(seconds)
    p50, p99 = (ordered[int(len(ordered) * share)] for share in (0.5, 0.99))
    return f"p50 {p50:.3f}  p99 {p99:.3f}  max {ordered[-1]:.3f}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m dev.load", description=__doc__)
    parser.add_argument("url", nargs="?", help="by default, as HOST and PORT say")
    parser.add_argument("--callers", default=10, type=int, help="who ask at the same time")
    parser.add_argument("--seconds", default=10.0, type=float)
    parser.add_argument("--stream", action="store_true", help="ask for streams")
    parser.add_argument("--header", default=[], action="append", help="such as 'X-Name: value'")
    args = parser.parse_args(arguments)
    if not "".join(args.header).isascii():
        parser.error("a header is in ASCII")
    pairs = (header.partition(":") for header in args.header)
    headers = {name: value.strip() for name, _, value in pairs}
    try:
        url = args.url or Address().url
    except (ValidationError, httpx2.InvalidURL):
        parser.error("HOST or PORT, in the environment or in .env, is wrong")
    load = Load(url, max(1, args.callers), args.seconds, args.stream, headers)
    print(f"{load.callers} callers ask {load.url} for {load.seconds:g} s; Ctrl-C ends it earlier.")
    print("Each request is paid for if the service calls the real OpenAI.", flush=True)
    try:
        asyncio.run(load.run())
    except (httpx2.RequestError, httpx2.InvalidURL) as error:
        print(
            f"No service answers at {load.url} ({error}): start it, or correct the address.",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print()
    print(load.summary())
    return 0 if load.latencies else 1


if __name__ == "__main__":
    sys.exit(main())
