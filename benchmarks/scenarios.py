"""What is measured: each scenario is a list of cases, which every round goes through in turn."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from .apps import OURS, PLAIN, RIVALS, UPSTREAM, App, Stage, Upstream
from .load import Work
from .processes import generate_load
from .results import Result
from .workshop import Workshop

FIRST_CHUNK_STREAMS = 50
SLOW, HASTY = 20, 5  # upstreams that take so many times the usual delay, or that part of it
OVERLOAD_CALLERS = 2000
AFTERWARDS = 100  # callers who come after the overload


@dataclass(frozen=True, kw_only=True)
class Options:
    styles: Sequence[str]
    callers: Sequence[int]
    delay: float  # seconds that the upstream takes
    seconds: float  # how long each case is measured
    rounds: int
    workers: int
    size: float = 1.0  # of what is not said by the others: streams, their length, the overload

    @property
    def ours(self) -> list[App]:
        return [OURS[style] for style in self.styles]

    def sized(self, number: int) -> int:
        return max(2, round(number * self.size))


@dataclass(frozen=True, kw_only=True)
class Case:
    app: App
    load: int  # what a scenario varies: callers, or workers
    upstream: Upstream
    work: Work
    settings: dict[str, str] = field(default_factory=dict)
    workers: int = 1
    then: Work | None = None  # more work for the same process

    def measure(self, workshop: Workshop) -> tuple[Result, Result | None]:
        stage = Stage(workshop, self.upstream, self.settings, self.workers)
        with stage.serving(self.app) as served:
            results = [
                generate_load(
                    workshop.python,
                    replace(work, port=served.port, pid=served.pid),
                    workshop.folder / "load.log",
                )
                for work in (self.work, self.then)
                if work
            ]
        return results[0], results[1] if self.then else None


def chat(options: Options) -> Iterator[Case]:
    fewest = min(options.callers)
    for callers in options.callers:
        for app in (*options.ours, *RIVALS, UPSTREAM):
            if app.few_callers_only and callers > fewest:
                continue
            yield Case(
                app=app,
                load=callers,
                upstream=Upstream(delay=options.delay),
                work=_chat_work(app, callers, options),
                workers=options.workers,
            )


def workers(options: Options) -> Iterator[Case]:
    """One worker and two, with so many callers, and so short a delay, that CPU is what limits."""
    options = replace(options, delay=options.delay / HASTY)
    for app in options.ours:
        for count in (1, 2):
            yield Case(
                app=app,
                load=count,
                upstream=Upstream(delay=options.delay),
                work=_chat_work(app, max(options.callers), options),
                workers=count,
            )


def _chat_work(app: App, callers: int, options: Options) -> Work:
    return Work(
        dialect="openai chat" if app.is_upstream else "chat",
        callers=callers,
        # The last term: until many callers have each been answered once by those with few threads.
        warmup=2 * options.delay + 2 * options.size + callers / 100,
        seconds=options.seconds,
        patience=2 * options.seconds,
        probe=not app.is_upstream,
    )


def streams(options: Options) -> Iterator[Case]:
    """At full speed: a closed loop of callers, whose streams follow one another."""
    return _streams(options, Upstream(words=options.sized(400)), options.sized(50))


def pace(options: Options) -> Iterator[Case]:
    """At a model's pace."""
    upstream = Upstream(words=options.sized(200), chunk_delay=0.02)
    return _streams(options, upstream, options.sized(100))


def first_chunk(options: Options) -> Iterator[Case]:
    """Ten chunks a second each: what limits is no core, so that only the delay itself shows."""
    upstream = Upstream(words=options.sized(20), chunk_delay=0.1 * min(1, 5 * options.size))
    return _streams(options, upstream, options.sized(FIRST_CHUNK_STREAMS))


def _streams(options: Options, upstream: Upstream, callers: int) -> Iterator[Case]:
    words = upstream.words or 0
    for app in (*options.ours, PLAIN, UPSTREAM):
        yield Case(
            app=app,
            load=callers,
            upstream=upstream,
            work=Work(
                dialect="openai stream" if app.is_upstream else "stream",
                callers=callers,
                # The starts are spread over the length of a stream: they are not all to end, and
                # begin again, at the same moment.
                warmup=upstream.chunk_delay * words + 1.5 * options.size,
                seconds=options.seconds,
                words=words,
                probe=not app.is_upstream,
            ),
            workers=options.workers,
        )


def probes(options: Options) -> Iterator[Case]:
    """While callers wait for a slow upstream: whether `/livez` does as well."""
    callers, delay = max(options.callers), SLOW * options.delay
    for app in (*options.ours, PLAIN):
        yield Case(
            app=app,
            load=callers,
            upstream=Upstream(delay=delay),
            work=Work(
                dialect="chat", callers=callers, warmup=delay, seconds=options.seconds, probe=True
            ),
            workers=options.workers,
        )


def overload(options: Options) -> Iterator[Case]:
    """All at once, one request each, and then a few more: who gets which answer."""
    callers, room = options.sized(OVERLOAD_CALLERS), str(options.sized(100))
    once = Work(dialect="chat", callers=callers, seconds=60, once=True, probe=True)
    for app in (*options.ours, PLAIN):
        yield Case(
            app=app,
            load=callers,
            upstream=Upstream(delay=options.delay),
            work=once,
            settings={"MAX_CONCURRENCY": room, "MAX_QUEUE": room},
            then=replace(once, callers=options.sized(AFTERWARDS)),
            workers=options.workers,
        )


SCENARIOS: dict[str, Callable[[Options], Iterator[Case]]] = {
    "chat": chat,
    "streams": streams,
    "pace": pace,
    "first_chunk": first_chunk,
    "probes": probes,
    "overload": overload,
    "workers": workers,
}
