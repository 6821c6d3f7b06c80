"""The load generator, a process of its own: `python -m benchmarks.load` with its Work as JSON.

A closed loop: each client sends its next request once it has the response to the last one. It is
asyncio's protocols by themselves, on uvloop if that is there.
"""

import asyncio
import json
import math
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from time import perf_counter

from .client import Client, Exchange
from .endpoints import ENDPOINTS
from .results import Result, percentile
from .usage import Usage, usage_of

HOST = "127.0.0.1"
CONNECT_WITHIN = 20.0  # seconds
PROBE_EVERY = 0.02  # seconds
UNKNOWN = Usage(math.nan, math.nan, math.nan)


@dataclass(frozen=True, kw_only=True)
class Work:
    endpoint: str
    clients: int
    spread: float = 0.0  # seconds over which the clients start
    seconds: float  # how long to measure, once all have started
    patience: float = 0.0  # how long to wait after that for the responses, still under load
    once: bool = False  # one request each, measured from the first on, for `seconds` at most
    words: int | None = None  # that a stream has to bring
    due: float = 0.0  # seconds from the request to when the upstream sends the first chunk
    chunk_delay: float = 0.0  # and from chunk to chunk
    probe: str = ""  # path of a GET that shows how late the event loop is
    port: int = 0
    pids: Sequence[int] = ()  # whose CPU and memory to watch

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @property
    def longest(self) -> float:
        return self.spread + self.seconds + self.patience


@dataclass(frozen=True)
class Window:
    """What is measured: from when to when, and what the service had used until then."""

    begins: float
    ends: float
    before: Usage | None
    after: Usage | None

    def __contains__(self, at: float) -> bool:
        return self.begins <= at <= self.ends


class Run:
    def __init__(self, work: Work) -> None:
        self.work = work
        self.over = False
        self.exchanges: list[Exchange] = []
        self.connects = Counter[str]()
        self.lags: list[tuple[float, float]] = []  # when a probe was due, how late it was answered

    async def __call__(self) -> Result:
        work = self.work
        begins = perf_counter() + (0 if work.once else work.spread)
        step = work.spread / work.clients
        tasks = [asyncio.create_task(self._call(n * step)) for n in range(work.clients)]
        probe = asyncio.create_task(self._probe()) if work.probe else None
        await asyncio.sleep(begins - perf_counter())
        before, own = usage_of(work.pids), time.process_time()
        if work.once:
            await asyncio.wait(tasks, timeout=work.seconds)
        else:
            await asyncio.sleep(begins + work.seconds - perf_counter())
        window = Window(begins, perf_counter(), before, usage_of(work.pids))
        own = time.process_time() - own
        await self._wait_for(lambda: all(e.ended for e in self.exchanges if e.begun < window.ends))
        result = self._result(window, own)
        self.over = True
        for task in (*tasks, *([probe] if probe else ())):
            task.cancel()
        return result

    async def _wait_for(self, done: Callable[[], bool]) -> None:
        ends_at = perf_counter() + self.work.patience
        # The answers come to callbacks: to look at times costs less than an event each.
        while perf_counter() < ends_at and not done():  # noqa: ASYNC110
            await asyncio.sleep(0.1)

    async def _call(self, after: float) -> None:
        """One client, which connects again if the connection is lost."""
        await asyncio.sleep(after)
        endpoint = ENDPOINTS[self.work.endpoint]
        make = partial(Client, endpoint, self.work.words, self.exchanges.append, self._again)
        while not self.over:
            try:
                async with asyncio.timeout(CONNECT_WITHIN):
                    connecting = asyncio.get_running_loop().create_connection(
                        make, HOST, self.work.port
                    )
                    _, client = await connecting
                await client.lost
            except (OSError, TimeoutError) as error:
                self.connects[f"no connection: {type(error).__name__}"] += 1
            if self.work.once:
                return
            await asyncio.sleep(0.05)

    def _again(self) -> bool:
        return not (self.over or self.work.once)

    async def _probe(self) -> None:
        probe = f"GET {self.work.probe} HTTP/1.1\r\nhost: benchmark\r\n\r\n".encode()
        due = perf_counter()
        while True:
            with suppress(OSError, asyncio.IncompleteReadError):
                reader, writer = await asyncio.open_connection(HOST, self.work.port)
                while True:
                    await asyncio.sleep(due - perf_counter())
                    writer.write(probe)
                    head = await reader.readuntil(b"\r\n\r\n")
                    length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
                    await reader.readexactly(int(length))
                    due = self._answered(due)
            await asyncio.sleep(PROBE_EVERY)

    def _answered(self, due: float) -> float:
        """Record a probe, and those that were due while it waited."""
        now = perf_counter()
        while due < now:
            self.lags.append((due, now - due))
            due += PROBE_EVERY
        return due

    def _late(self, exchange: Exchange) -> float:
        """How late the latest chunk was, against when the upstream sends it."""
        late, seen, due = 0.0, 0.0, exchange.begun + self.work.due
        for at, count in exchange.chunks:
            late = max(late, at - due - seen * self.work.chunk_delay)
            seen += count
        return late

    def _result(self, window: Window, own: float) -> Result:
        self._answered(self.lags[-1][0] + PROBE_EVERY if self.lags else window.begins)
        now = perf_counter()
        ended = [e for e in self.exchanges if e.ended and e.ended in window]
        begun = [e for e in self.exchanges if e.ended and e.begun in window]
        waiting = [now - e.begun for e in self.exchanges if not e.ended and e.begun < window.ends]
        took = [e.ended - e.begun for e in begun if e.ended and not e.failure]
        refused = [e.ended - e.begun for e in begun if e.ended and e.failure == "503"]
        failures = Counter(e.failure for e in ended if e.failure) + self.connects
        chunks = sum(n for e in self.exchanges for at, n in e.chunks if at in window)
        first = [e.chunks[0][0] - e.begun for e in self.exchanges if e.begun in window and e.chunks]
        lags = [lag for due, lag in self.lags if due in window]
        late = max((self._late(e) for e in self.exchanges if e.begun in window), default=math.nan)
        before, after = window.before or UNKNOWN, window.after or UNKNOWN
        return Result(
            clients=self.work.clients,
            seconds=window.ends - window.begins,
            answers=sum(not e.failure for e in ended),
            failures=dict(failures),
            waiting=0 if self.work.patience == 0 and not self.work.once else len(waiting),
            p50=percentile(took + waiting, 0.5),
            p99=percentile(took + waiting, 0.99),
            refused_p99=percentile(refused, 0.99),
            chunks=chunks,
            first_p50=percentile(first, 0.5),
            first_p99=percentile(first, 0.99),
            late=late if self.work.chunk_delay else math.nan,
            lag=percentile(lags, 0.99) if self.work.probe else math.nan,
            cpu=after.cpu - before.cpu,
            rss_before=before.rss,
            rss=after.rss,
            peak=after.peak,
            generator_cpu=own,
        )


def main() -> None:
    try:
        import uvloop  # noqa: PLC0415  the services' environment has it, others need not
    except ImportError:
        loop_factory = None
    else:
        loop_factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        result = runner.run(Run(Work(**json.loads(sys.argv[1])))())
    sys.stdout.write(result.to_json())


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # thousands of connections need no closing one by one
