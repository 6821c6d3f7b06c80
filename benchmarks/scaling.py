"""How throughput grows with replicas, what limits in Redis cost, and what calls in flight need."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from .fleet import Fleet, Fleets
from .load import Work
from .processes import generate_load
from .results import Result
from .upstream import Behaviour
from .usage import usage_of

SLOTS = 50  # of each replica
DELAY = 1.0  # seconds of the upstream, so that one replica serves at most 50 requests a second
CROWD = 1.2  # clients for each slot: some wait in the queue, none is refused
# With limits that no client reaches.
LIMITED = {
    "RATE_LIMIT": "6000000/minute; 100000000/day",
    "TOKEN_LIMIT": "1000000000/day",
    "MAX_OUTPUT_TOKENS": "100",
}
SETTINGS: dict[str, dict[str, str]] = {"no limits": {}, "limits in Redis": LIMITED}
ASKED = 200  # requests of which Redis' scripts are counted


@dataclass(frozen=True)
class Scaled:
    limits: str  # in SETTINGS
    replicas: int
    result: Result
    others_cpu: float  # cores used by load balancer, upstream and Redis, about


def throughput(
    fleets: Fleets, counts: Sequence[int], rounds: int, seconds: float
) -> Iterator[Scaled]:
    """In each round all, so that what is compared is near."""
    upstream = Behaviour(delay=DELAY)
    with ExitStack() as stack:
        running = {
            limits: stack.enter_context(
                fleets.running(
                    max(counts),
                    upstream,
                    {"MAX_CONCURRENCY": str(SLOTS)} | settings,
                    app="upstream",
                    name=limits.replace(" ", "-"),
                )
            )
            for limits, settings in SETTINGS.items()
        }
        for _ in range(rounds):
            for count in counts:
                for limits, fleet in running.items():
                    yield _scaled(fleets, fleet, limits, count, seconds)


def _scaled(fleets: Fleets, fleet: Fleet, limits: str, count: int, seconds: float) -> Scaled:
    for number in range(len(fleet.replicas)):
        fleet.balancer.set_state(number, "ready" if number < count else "maint")
    work = Work(
        endpoint="chat",
        clients=round(CROWD * SLOTS * count),
        spread=2 * DELAY,
        seconds=seconds,
        port=fleet.balancer.port,
        pids=[replica.process.pid for replica in fleet.replicas[:count]],
    )
    before = usage_of(fleet.others)
    result = generate_load(fleets.python, work, fleets.folder / "load.log")
    after = usage_of(fleet.others)
    others = (after.cpu - before.cpu) / (work.spread + seconds) if before and after else 0
    return Scaled(limits, count, result, others)


def redis_scripts(fleets: Fleets) -> tuple[float, float]:
    """How many Redis runs for each request, and the microseconds of its CPU that they take."""
    with fleets.running(1, Behaviour(), LIMITED, app="upstream") as fleet:
        work = Work(endpoint="chat", clients=ASKED, once=True, seconds=30, port=fleet.balancer.port)
        calls, microseconds = fleet.redis.scripts()
        result = generate_load(fleets.python, work, fleets.folder / "load.log")
        time.sleep(0.5)  # tokens are counted after the answer
        more, longer = fleet.redis.scripts()
        return (more - calls) / result.answers, (longer - microseconds) / result.answers


def held(fleets: Fleets, calls: Sequence[int], delay: float) -> Iterator[Result]:
    """One replica with so many calls in flight at once."""
    for clients in calls:
        slots = {"MAX_CONCURRENCY": str(clients)}
        with fleets.running(1, Behaviour(delay=delay), slots, app="upstream") as fleet:
            work = Work(
                endpoint="chat",
                clients=clients,
                once=True,
                seconds=4 * delay,
                port=fleet.balancer.port,
                pids=[fleet.replicas[0].process.pid],
            )
            # The first requests pay for what is imported or built on first use.
            warm = replace(work, clients=2)
            generate_load(fleets.python, warm, fleets.folder / "load.log")
            yield generate_load(fleets.python, work, fleets.folder / "load.log")
