"""What is measured: each scenario is a list of cases, which every round goes through in turn."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from .apps import BY_HAND, LITELLM, OURS, PLAIN, UPSTREAM, App, Stage
from .load import Work
from .processes import generate_load
from .results import Result
from .upstream import Behaviour
from .workspace import Workspace

CHUNK_DELAY = 0.02  # seconds: a model's pace, 50 chunks/s
SHORT = 0.1  # seconds: a fast upstream
WITHIN = 0.25  # seconds that a service may add to the upstream's SHORT, at the 99th percentile
STALL = 0.5  # seconds by which a chunk may be late
PRECISION = 1.1  # a search ends when what holds and what does not are so near
SEARCHED_ROUNDS = 2  # a search is many measurements


@dataclass(frozen=True, kw_only=True)
class Options:
    styles: Sequence[str]
    litellm: bool
    clients: Sequence[int]
    delay: float  # seconds that the upstream takes
    seconds: float  # how long each case is measured
    rounds: int
    workers: int
    size: float = 1.0  # of what the others do not say: streams, their length, the overload

    @property
    def compared(self) -> list[App]:
        return [*(OURS[name] for name in self.styles), PLAIN, *([LITELLM] if self.litellm else [])]

    def sized(self, number: int) -> int:
        return max(2, round(number * self.size))


@dataclass(frozen=True, kw_only=True)
class Case:
    app: App
    load: int  # what a scenario varies: clients, or streams
    upstream: Behaviour
    work: Work
    settings: dict[str, str] = field(default_factory=dict)
    probe: bool = False  # ask for App.live all the time, which takes some of the CPU
    # For a search of the largest number of clients for which this holds: from `load` on.
    holds: Callable[[Result], bool] | None = None
    most: int = 0

    def measure(self, workspace: Workspace, workers: int) -> Result:
        log = workspace.folder / "load.log"
        stage = Stage(workspace, self.upstream, self.settings, workers)
        with stage.serving(self.app) as served:

            def load(work: Work) -> Result:
                work = replace(
                    work,
                    endpoint=self.app.api + work.endpoint,
                    probe=self.app.live if self.probe else "",
                    port=served.port,
                    pids=[served.pid],
                )
                return generate_load(workspace.python, work, log)

            # The first requests pay for what is imported or built on first use.
            load(replace(self.work, clients=2, spread=0, seconds=2, once=True, patience=0))
            return self._search(load) if self.holds else load(self.work)

    def _search(self, load: Callable[[Work], Result]) -> Result:
        """Double the clients, or halve them, and then bisect; 0 clients if it never holds."""
        assert self.holds  # noqa: S101  for the type checker
        best: Result | None = None
        low, high, clients = 0, self.most + 1, min(self.load, self.most)
        while True:
            result = load(replace(self.work, clients=clients))
            if self.holds(result):
                best, low = result, clients
            else:
                high = clients
            if high - low <= 1 or (low and high / low <= PRECISION):
                return best or replace(result, clients=0, answers=0)
            if high > self.most:
                clients = min(2 * low, self.most)
            else:
                clients = round(math.sqrt(low * high)) if low else high // 2


def chat(options: Options) -> Iterator[Case]:
    fewest = min(options.clients)
    for clients in options.clients:
        # By hand with few threads, more clients would only wait longer.
        for app in (*options.compared, *(BY_HAND if clients == fewest else ())):
            yield Case(
                app=app,
                load=clients,
                upstream=Behaviour(delay=options.delay),
                work=Work(
                    endpoint="chat",
                    clients=clients,
                    # The last term: until each client has been served once by few threads.
                    spread=2 * options.delay + 2 * options.size + clients / 100,
                    seconds=options.seconds,
                    patience=options.seconds,
                ),
                probe=True,
            )


def added(options: Options) -> Iterator[Case]:
    """One client, and an upstream so fast that there are many samples."""
    for app in (*options.compared, UPSTREAM):
        yield Case(
            app=app,
            load=1,
            upstream=Behaviour(delay=SHORT / 10),
            work=Work(endpoint="chat", clients=1, spread=options.size, seconds=options.seconds),
        )


def capacity(options: Options) -> Iterator[Case]:
    """The largest number of clients whose 99th percentile stays within a bound."""
    for app in options.compared:
        yield Case(
            app=app,
            load=options.sized(40),
            upstream=Behaviour(delay=SHORT),
            work=Work(
                endpoint="chat",
                clients=0,
                spread=options.size,
                seconds=max(0.5, 2.5 * options.size),
                patience=1,
            ),
            holds=lambda result: result.p99 <= SHORT + WITHIN and not result.failed,
            most=max(2, round(2000 * options.size**2)),
        )


def streams(options: Options) -> Iterator[Case]:
    """At full speed, each client one stream after another."""
    upstream, clients = Behaviour(words=options.sized(400)), options.sized(50)
    for app in (*options.compared, UPSTREAM):
        yield Case(
            app=app,
            load=clients,
            upstream=upstream,
            work=Work(
                endpoint="stream",
                clients=clients,
                spread=1.5 * options.size,
                seconds=options.seconds,
                words=upstream.words,
            ),
            probe=app is not UPSTREAM,
        )


def pace(options: Options) -> Iterator[Case]:
    """At a model's pace: all streams begin at once."""
    upstream = Behaviour(words=options.sized(250), chunk_delay=CHUNK_DELAY)
    for app in (*options.compared, UPSTREAM):
        yield _paced(app, options.sized(100), upstream, seconds=40)


def held(options: Options) -> Iterator[Case]:
    """The largest number of streams at a model's pace of which none stalls."""
    upstream = Behaviour(words=options.sized(150), chunk_delay=CHUNK_DELAY)
    longest = options.size + upstream.words * CHUNK_DELAY + 3 * STALL
    for app in options.compared:
        case = _paced(app, options.sized(40), upstream, seconds=longest, spread=options.size)
        yield replace(
            case,
            holds=lambda result: result.late <= STALL and not result.failed + result.waiting,
            most=max(2, round(1000 * options.size**2)),
        )


def _paced(
    app: App, clients: int, upstream: Behaviour, *, seconds: float, spread: float = 0.0
) -> Case:
    work = Work(
        endpoint="stream",
        clients=clients,
        once=True,
        spread=spread,
        seconds=seconds,
        words=upstream.words,
        due=upstream.delay,
        chunk_delay=upstream.chunk_delay,
    )
    return Case(app=app, load=clients, upstream=upstream, work=work)


def overload(options: Options) -> Iterator[Case]:
    """All at once, one request each: which of them is served, which refused."""
    clients, slots = options.sized(2000), str(options.sized(100))
    for app in options.compared:
        yield Case(
            app=app,
            load=clients,
            upstream=Behaviour(delay=options.delay),
            work=Work(endpoint="chat", clients=clients, seconds=60, once=True),
            settings={"MAX_CONCURRENCY": slots, "MAX_QUEUE": slots},
            probe=True,
        )


SCENARIOS: dict[str, Callable[[Options], Iterator[Case]]] = {
    "chat": chat,
    "added": added,
    "capacity": capacity,
    "streams": streams,
    "pace": pace,
    "held": held,
    "overload": overload,
}


def cases(names: Sequence[str], options: Options) -> Iterator[tuple[int, str, Case]]:
    """Scenario by scenario, and in each round all of its apps, so that what is compared is near."""
    for name in names:
        for turn in range(1, options.rounds + 1):
            for case in SCENARIOS[name](options):
                if not case.holds or turn <= SEARCHED_ROUNDS:
                    yield turn, name, case
