"""What must hold with several replicas: limits, restarts under load, and a Redis that is away."""

import asyncio
import hashlib
import signal
import time
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import perf_counter

from .callers import LIMITED, LOST, REFUSED, WHOLE, Answer, Callers
from .fleet import Fleet, Fleets, Replica
from .recorder import TOKENS
from .results import percentile
from .upstream import Behaviour

CLIENTS = ("web", "batch")
BOTH = ("chat", "stream")
MAX_OUTPUT_TOKENS = 100
DRAINED = 1.0  # seconds between the last new request of a replica and its SIGTERM


@dataclass(frozen=True)
class Options:
    replicas: int
    size: float  # of all numbers: 1 for the report

    def sized(self, number: int) -> int:
        return max(2, round(number * self.size))

    @property
    def drain(self) -> dict[str, str]:
        """In short if all is: the load balancer checks twice a second."""
        return {} if self.size == 1 else {"SHUTDOWN_DRAIN_SECONDS": "2"}

    @property
    def upstream(self) -> Behaviour:
        """A reply after 0.5 s; a stream of 30 chunks in 3 s."""
        words = self.sized(30)
        return Behaviour(delay=0.5 * self.size, chunk_delay=0.1 * self.size, words=words)


@dataclass
class Limits:
    """What one client got, of requests and of tokens."""

    client: str
    quota: int
    answers: list[Answer]
    spent: int = 0
    may_cost: int = 0  # the most that all in flight might have cost at one time, and all before
    per_request: int = 0  # what one may cost

    @property
    def verdicts(self) -> Counter[str]:
        return Counter(answer.verdict for answer in self.answers)

    @property
    def by_replica(self) -> str:
        whole = Counter(answer.replica for answer in self.answers if answer.verdict == WHOLE)
        return " + ".join(str(whole[name]) for name in sorted(whole))


@dataclass
class Restarts:
    case: str
    answers: list[Answer]
    seen: dict[str, int]  # by the upstream: how often each request
    restarted: int
    statuses: list[int] = field(default_factory=list)
    in_flight: int = 0  # at the replicas when they were killed
    killed: list[tuple[float, float]] = field(default_factory=list)  # from when to when

    @property
    def verdicts(self) -> Counter[str]:
        return Counter(answer.verdict for answer in self.answers)

    @property
    def whys(self) -> Counter[str]:
        return Counter(a.why for a in self.answers if a.verdict in (REFUSED, LOST))

    @property
    def paid_twice(self) -> int:
        return sum(times > 1 for times in self.seen.values())

    @property
    def paid_in_vain(self) -> int:
        whole = {answer.id for answer in self.answers if answer.verdict == WHOLE}
        return len(self.seen.keys() - whole)

    @property
    def lost_later(self) -> int:
        """Lost, though not in flight when a replica was killed."""
        return sum(
            not any(a.ended - a.seconds < end and a.ended > begin for begin, end in self.killed)
            for a in self.answers
            if a.verdict == LOST
        )


@dataclass
class Outage:
    phase: str
    seconds: float
    answers: list[Answer]

    @property
    def verdicts(self) -> Counter[str]:
        return Counter(answer.verdict for answer in self.answers)

    @property
    def p99(self) -> float:
        return percentile([answer.seconds for answer in self.answers], 0.99)


def key_of(client: str) -> str:
    """As well-formed as one that `python -m chat_service.keys new` makes."""
    body = f"svc_{hashlib.sha1(client.encode()).hexdigest()}"  # noqa: S324  no secret
    return f"{body}{zlib.crc32(body.encode()):08x}"


KEYS = ",".join(f"{name}:{hashlib.sha256(key_of(name).encode()).hexdigest()}" for name in CLIENTS)


async def request_limits(fleets: Fleets, options: Options) -> list[Limits]:
    """Two clients, each with many requests at once, over all replicas."""
    quota, many = options.sized(300), options.sized(60)
    settings = {"SERVICE_API_KEYS": KEYS, "RATE_LIMIT": f"{quota}/day"}
    upstream = Behaviour(delay=0.05, words=3)
    with fleets.running(options.replicas, upstream, settings) as fleet:
        callers = [
            Callers(fleet.balancer.port, upstream.words, name, key_of(name)) for name in CLIENTS
        ]
        for one in callers:
            one.again = lambda one=one: one.sent < 3 * quota  # type: ignore[misc]
        await asyncio.gather(*(one.run(BOTH * many) for one in callers))
        return [Limits(one.name, quota, one.answers) for one in callers]


async def token_limits(fleets: Fleets, options: Options) -> list[Limits]:
    """More requests at once than the limit can reserve tokens for."""
    many = options.sized(60)
    settings = {"SERVICE_API_KEYS": KEYS, "MAX_OUTPUT_TOKENS": str(MAX_OUTPUT_TOKENS)}
    reserved = len("batch-1234") + 16 + MAX_OUTPUT_TOKENS
    quota = many * reserved
    upstream = Behaviour(delay=0.3, words=3)
    settings["TOKEN_LIMIT"] = f"{quota}/day"
    with fleets.running(options.replicas, upstream, settings) as fleet:
        callers = Callers(fleet.balancer.port, upstream.words, CLIENTS[0], key_of(CLIENTS[0]))
        # Until the limit is reached and nothing is in flight that would give tokens back.
        ends_at = perf_counter() + 60
        callers.again = lambda: perf_counter() < ends_at and not is_used_up(callers)
        await callers.run(BOTH * many)
        seen = fleet.seen()
        spent = seen["answered"] * TOKENS
        found = Limits(callers.name, quota, callers.answers, spent, seen["may_cost"], reserved)
        return [found]


def is_used_up(callers: Callers) -> bool:
    """Whether nothing was admitted in the latest answers, longer than a reply takes."""
    latest = [a for a in callers.answers if a.ended > perf_counter() - 1.5]
    return bool(latest) and all(answer.verdict == LIMITED for answer in latest)


Restart = Callable[[Fleet, Replica, Restarts], None]


def drained(fleet: Fleet, replica: Replica, found: Restarts) -> None:
    fleet.balancer.set_state(replica.number, "drain")
    time.sleep(DRAINED)
    terminated(fleet, replica, found)
    fleet.balancer.set_state(replica.number, "ready")


def terminated(_fleet: Fleet, replica: Replica, found: Restarts) -> None:
    found.statuses.append(replica.terminate())
    replica.start()
    replica.wait_until_ready()


def killed(fleet: Fleet, replica: Replica, found: Restarts) -> None:
    found.in_flight += fleet.balancer.in_flight(replica.number)
    began = perf_counter()
    replica.kill()
    found.killed.append((began, perf_counter()))
    time.sleep(DRAINED)
    replica.start()
    replica.wait_until_ready()


@dataclass(frozen=True)
class Case:
    restart: Restart
    mode: str  # of the load balancer
    loses_nothing: bool = False


RESTARTS = {
    "drained, then SIGTERM": Case(drained, "http", loses_nothing=True),
    "SIGTERM, not drained": Case(terminated, "http", loses_nothing=True),
    "kill -9": Case(killed, "http"),
    "connections balanced: drained, then SIGTERM": Case(drained, "tcp", loses_nothing=True),
    "connections balanced: SIGTERM, not drained": Case(terminated, "tcp", loses_nothing=True),
}


async def restarts(fleets: Fleets, options: Options, case: str) -> Restarts:
    """One replica after another, while clients send requests all the time."""
    upstream, mode = options.upstream, RESTARTS[case].mode
    with fleets.running(options.replicas, upstream, options.drain, mode=mode) as fleet:
        found = Restarts(case, [], {}, len(fleet.replicas))
        async with calling(Callers(fleet.balancer.port, upstream.words), options) as callers:
            await asyncio.sleep(1)
            for replica in fleet.replicas:
                await asyncio.to_thread(RESTARTS[case].restart, fleet, replica, found)
                await asyncio.to_thread(fleet.balancer.wait_until_up, replica.number)
            await asyncio.sleep(1)
        found.answers, found.seen = callers.answers, fleet.seen()["seen"]
        return found


@asynccontextmanager
async def calling(callers: Callers, options: Options) -> AsyncIterator[Callers]:
    """Clients that call until the block ends, half of them for streams."""
    over = False
    callers.again = lambda: not over
    async with asyncio.TaskGroup() as group:
        group.create_task(callers.run(BOTH * options.sized(20)))
        try:
            yield callers
        finally:
            over = True


async def outage(fleets: Fleets, options: Options) -> tuple[int, list[Outage]]:
    """A quota, and what clients over it get while Redis is killed, empty again, frozen and back."""
    quota, seconds = options.sized(200), 2 + 4 * options.size
    upstream = Behaviour(delay=0.05, words=3)
    settings = {"RATE_LIMIT": f"{quota}/day"}
    with fleets.running(options.replicas, upstream, settings) as fleet:
        redis, found = fleet.redis, list[Outage]()
        phases: dict[str, Callable[[], None]] = {
            "Redis answers": lambda: None,
            "killed": redis.stop,
            "restarted, empty": redis.start,
            "frozen": lambda: redis.signal(signal.SIGSTOP),
            "resumed": lambda: redis.signal(signal.SIGCONT),
        }
        async with calling(Callers(fleet.balancer.port, upstream.words), options) as callers:
            for phase, begin in phases.items():
                await asyncio.to_thread(begin)
                before = len(callers.answers)
                await asyncio.sleep(seconds)
                found.append(Outage(phase, seconds, callers.answers[before:]))
        return quota, found
