"""The load generator, a process of its own: `python -m benchmarks.load` with its Work as JSON.

A closed loop: so many callers, each of whom asks again once it has its answer. Their starts are
spread over the warm-up. It is asyncio's protocols by themselves, on uvloop if that is there.
"""

import asyncio
import json
import math
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from time import perf_counter

from .caller import Caller, Exchange
from .dialects import DIALECTS
from .results import Result, percentile
from .usage import Usage, usage_of

HOST = "127.0.0.1"
CONNECT_WITHIN = 20.0  # seconds
PROBE_EVERY = 0.02  # seconds
UNKNOWN = Usage(math.nan, math.nan, math.nan)
PROBE = b"GET /livez HTTP/1.1\r\nhost: benchmark\r\n\r\n"


@dataclass(frozen=True, kw_only=True)
class Work:
    dialect: str
    callers: int
    warmup: float = 0.0  # seconds
    seconds: float  # how long to measure
    patience: float = 0.0  # how long to wait on, under load, for the answers to what was asked then
    once: bool = False  # all at once, one request each; `seconds` is the longest that it may take
    words: int | None = None  # that a stream has to bring
    probe: bool = False  # watch the event loop by /livez
    port: int = 0
    pid: int = 0  # whose CPU and memory to watch

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @property
    def longest(self) -> float:
        return self.warmup + self.seconds + self.patience


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
        begins = perf_counter() + work.warmup
        spread = 0 if work.once else work.warmup / work.callers
        tasks = [asyncio.create_task(self._call(n * spread)) for n in range(work.callers)]
        probe = asyncio.create_task(self._probe()) if work.probe else None
        await asyncio.sleep(begins - perf_counter())
        before, own = usage_of(work.pid), time.process_time()
        if work.once:
            await asyncio.wait(tasks, timeout=work.seconds)
        else:
            await asyncio.sleep(begins + work.seconds - perf_counter())
        window = Window(begins, perf_counter(), before, usage_of(work.pid))
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
        """One caller, who connects again if the connection is lost."""
        await asyncio.sleep(after)
        dialect = DIALECTS[self.work.dialect]
        make = partial(Caller, dialect, self.work.words, self.exchanges.append, self._again)
        while not self.over:
            try:
                async with asyncio.timeout(CONNECT_WITHIN):
                    connecting = asyncio.get_running_loop().create_connection(
                        make, HOST, self.work.port
                    )
                    _, caller = await connecting
                await caller.lost
            except (OSError, TimeoutError) as error:
                self.connects[f"no connection: {type(error).__name__}"] += 1
            if self.work.once:
                return
            await asyncio.sleep(0.05)

    def _again(self) -> bool:
        return not (self.over or self.work.once)

    async def _probe(self) -> None:
        due = perf_counter()
        while True:
            with suppress(OSError, asyncio.IncompleteReadError):
                reader, writer = await asyncio.open_connection(HOST, self.work.port)
                while True:
                    await asyncio.sleep(due - perf_counter())
                    writer.write(PROBE)
                    head = await reader.readuntil(b"\r\n\r\n")
                    length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
                    await reader.readexactly(int(length))
                    due = self._answered(due)
            await asyncio.sleep(PROBE_EVERY)

    def _answered(self, due: float) -> float:
        """Put a probe on record, and those that were due while it waited."""
        now = perf_counter()
        while due < now:
            self.lags.append((due, now - due))
            due += PROBE_EVERY
        return due

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
        before, after = window.before or UNKNOWN, window.after or UNKNOWN
        return Result(
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
