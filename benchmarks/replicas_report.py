"""The report of several replicas: what was found, in tables, and what of it is a fault."""

import argparse
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from os import cpu_count, getloadavg
from pathlib import Path
from statistics import median

from . import resilience
from .balancer import haproxy
from .callers import LIMITED, LOST, REFUSED, WHOLE
from .report import SHOWN, cpu_model, versions
from .resilience import RESTARTS, Limits, Options, Outage, Restarts
from .results import Result
from .scaling import DELAY, SETTINGS, SLOTS, Scaled
from .tables import aligned


@dataclass
class Found:
    args: argparse.Namespace
    limits: list[tuple[str, Limits]] = field(default_factory=list)  # with the unit
    restarts: list[Restarts] = field(default_factory=list)
    quota: int = 0
    outage: list[Outage] = field(default_factory=list)
    scaled: list[Scaled] = field(default_factory=list)
    scripts: tuple[float, float] = (0.0, 0.0)  # for each request: how many, and microseconds
    held: list[tuple[str, Result]] = field(default_factory=list)  # with the style

    @property
    def options(self) -> Options:
        return Options(self.args.replicas, 0.1 if self.args.quick else 1.0)

    @property
    def held_delay(self) -> float:
        """Seconds that calls in flight take."""
        return 1.0 if self.args.quick else 10.0


def faults(found: Found) -> Iterator[str]:
    """What does not hold, though it must."""
    for unit, one in found.limits:
        fits = one.verdicts[WHOLE] == one.quota
        if unit == "tokens":
            fits = one.quota - one.per_request < one.spent <= one.quota >= one.may_cost
        if not fits:
            yield f"{one.client}: the limit of {unit} does not hold"
        if failed := failures(one.verdicts):
            yield f"{one.client}: {failed}"
    for restart in found.restarts:
        yield from faults_of_restarts(restart)
    for phase, most in zip(found.outage, most_admitted(found), strict=False):
        if failed := failures(phase.verdicts):
            yield f"Redis {phase.phase}: {failed}"
        if phase.verdicts[WHOLE] > most:
            yield f"Redis {phase.phase}: {phase.verdicts[WHOLE]} admitted, not {most}"


def failures(verdicts: Counter[str]) -> dict[str, int]:
    return {verdict: verdicts[verdict] for verdict in (REFUSED, LOST) if verdicts[verdict]}


def faults_of_restarts(restart: Restarts) -> Iterator[str]:
    case = restart.case
    if restart.paid_twice:
        yield f"{case}: {restart.paid_twice} requests were billed twice"
    if restart.lost_later:
        yield f"{case}: {restart.lost_later} requests were lost"
    if RESTARTS[case].loses_nothing and failures(restart.verdicts):
        yield f"{case}: {dict(restart.whys)}"
    if any(restart.statuses):
        yield f"{case}: replicas ended with {restart.statuses}"


def most_admitted(found: Found) -> list[int]:
    """In each phase of the outage: each replica counts for itself, once a window."""
    return [found.quota, found.args.replicas * found.quota, found.quota, 0, 0]


TEXT = """\
Each replica is a process of its own (`python -m`, one worker), with the default settings where no
other is named. All share one Redis; HAProxy is in front of them, asks each for `/readyz` twice a
second, and sends a request to another replica only if a connection was refused. Each request has an
id in its message. *Lost*: an answer that is missing, incomplete or that of another request.
*Refused*: a 503 with `Retry-After` by the service; nothing was billed, and the client may send the
request again. The clients do not; they keep their connections, and
half of them ask for streams. The upstream counts how often it sees each id: *billed twice*."""

LIMITS = """\
Two clients with {many} requests at once each, over all replicas. *Admitted* requests must be
exactly the limit. Of tokens, what was spent must not exceed the limit, nor what all requests in
flight might have spent at any time (*reserved*); and in the end, less than one more request must be
left."""

RESTARTED = """\
One replica after another is stopped and started again, under the load of {clients} clients; a
stream takes 3 s. *Drained* is as in Kubernetes: the replica gets no new requests, {drained:g} s
later SIGTERM, and new requests once the new process is ready. *Connections balanced*: as by a
Kubernetes Service, and not requests as by an ingress controller; a client then stays with its
replica as long as it keeps its connection. After a `kill -9`, what was in flight on the replica is
lost, and may have been billed; OpenAI is not asked again."""

AWAY = """\
A limit of {quota} requests, and clients that keep asking when they are over it. While Redis is
away, each replica counts for itself: of each window, at most the limit for each replica more. A
Redis that lost its data begins anew: once more the limit."""

THROUGHPUT = """\
The upstream takes {delay:g} s and each replica has `MAX_CONCURRENCY={slots}`, so that it serves at
most {most:g} requests/s: *of the slots* is the share of that. More replicas serve more, until the
{cores} cores are used: replicas, HAProxy, upstream, Redis and clients share them. *Limits in
Redis*: `RATE_LIMIT` with two windows and `TOKEN_LIMIT` with one; Redis then runs {scripts:.1f}
scripts for each request, each of them a round trip, and takes {microseconds:.0f} µs for them.
Medians of {rounds} rounds, with the lowest and highest; ratios are of one round."""

MEMORY = """\
One replica with so many calls in flight, all of which start at once, of an upstream that takes
{delay:g} s; `MAX_CONCURRENCY` is as high. CPU is for each call, its share of the burst included."""


def report(found: Found, python: Path) -> str:
    args = found.args
    options = found.options
    balancer = subprocess.run(
        (haproxy(), "-v"), capture_output=True, text=True, check=True, timeout=60
    ).stdout.split()[2]
    parts = [
        "# Several replicas on one machine",
        (
            f"{datetime.now(UTC):%Y-%m-%d}, {cpu_count()} cores ({cpu_model()}), load average"
            f" {getloadavg()[0]:.1f} at the end. {versions(python, (*SHOWN, 'redis'))}, HAProxy"
            f" {balancer}. Style {args.style}; {args.replicas} replicas. Made by `make replicas`."
        ),
        TEXT,
    ]
    if found.limits:
        text = LIMITS.format(many=2 * options.sized(60))
        parts += ["## Limits hold across replicas", text, limits_table(found)]
    if found.restarts:
        text = RESTARTED.format(clients=2 * options.sized(20), drained=resilience.DRAINED)
        parts += ["## Restarts under load", text, restarts_table(found)]
    if found.outage:
        text = AWAY.format(quota=found.quota)
        parts += ["## Redis outage", text, outage_table(found)]
    if found.scaled:
        text = THROUGHPUT.format(
            delay=DELAY,
            slots=SLOTS,
            most=SLOTS / DELAY,
            cores=cpu_count(),
            scripts=found.scripts[0],
            microseconds=found.scripts[1],
            rounds=args.rounds,
        )
        parts += ["## Throughput", text, throughput_table(found)]
    if found.held:
        text = MEMORY.format(delay=found.held_delay)
        parts += ["## Calls in flight", text, memory_table(found)]
    return "\n\n".join(parts) + "\n"


def limits_table(found: Found) -> str:
    ones = [one for _, one in found.limits]
    return aligned(
        {
            "of": [unit for unit, _ in found.limits],
            "client": [one.client for one in ones],
            "limit": [f"{one.quota:,}" for one in ones],
            "sent": [f"{len(one.answers):,}" for one in ones],
            "admitted": [f"{one.verdicts[WHOLE]:,}" for one in ones],
            "by replica": [one.by_replica for one in ones],
            "429": [f"{one.verdicts[LIMITED]:,}" for one in ones],
            "others": [str(one.verdicts[REFUSED] + one.verdicts[LOST]) for one in ones],
            "tokens spent": [f"{one.spent:,}" if one.spent else "-" for one in ones],
            "reserved at most": [f"{one.may_cost:,}" if one.spent else "-" for one in ones],
        },
        ("of", "client", "by replica"),
    )


def restarts_table(found: Found) -> str:
    ones = found.restarts
    return aligned(
        {
            "case": [one.case for one in ones],
            "restarted": [str(one.restarted) for one in ones],
            "requests": [f"{len(one.answers):,}" for one in ones],
            "complete": [f"{one.verdicts[WHOLE]:,}" for one in ones],
            "refused": [str(one.verdicts[REFUSED]) for one in ones],
            "lost": [str(one.verdicts[LOST]) for one in ones],
            "in flight at the kill": [str(one.in_flight) if one.killed else "-" for one in ones],
            "lost, not in flight": [str(one.lost_later) for one in ones],
            "billed twice": [str(one.paid_twice) for one in ones],
            "billed, not delivered": [str(one.paid_in_vain) for one in ones],
        },
        ("case",),
    )


def outage_table(found: Found) -> str:
    ones = found.outage
    return aligned(
        {
            "Redis": [one.phase for one in ones],
            "admitted": [str(one.verdicts[WHOLE]) for one in ones],
            "at most": [str(most) for most in most_admitted(found)],
            "429": [f"{one.verdicts[LIMITED]:,}" for one in ones],
            "others": [str(one.verdicts[REFUSED] + one.verdicts[LOST]) for one in ones],
            "p99 s": [f"{one.p99:.2f}" for one in ones],
        },
        ("Redis",),
    )


def throughput_table(found: Found) -> str:
    free, limited = SETTINGS

    def rounds(limits: str, count: int) -> list[Scaled]:
        return [one for one in found.scaled if (one.limits, one.replicas) == (limits, count)]

    def rates(limits: str, count: int) -> list[float]:
        return [one.result.rate for one in rounds(limits, count)]

    def ratio(above: list[float], below: list[float]) -> str:
        return f"{median(a / b for a, b in zip(above, below, strict=True) if b):.2f}"

    def spread(values: list[float]) -> str:
        return f"{median(values):,.0f} ({min(values):,.0f}–{max(values):,.0f})"

    def cpu(limits: str, count: int) -> str:
        return f"{median(1e3 * one.result.cpu_per_answer for one in rounds(limits, count)):.2f}"

    def cores(count: int) -> str:
        used = [
            (one.result.cpu + one.result.generator_cpu) / one.result.seconds + one.others_cpu
            for one in rounds(free, count)
        ]
        return f"{median(used):.2f}"

    counts = sorted({one.replicas for one in found.scaled})
    one = [rates(free, counts[0]), rates(limited, counts[0])]
    slots = [
        f"{100 * median(rates(free, count)) / (count * SLOTS / DELAY):.0f} %" for count in counts
    ]
    return aligned(
        {
            "replicas": [str(count) for count in counts],
            "requests/s": [spread(rates(free, count)) for count in counts],
            f"× {counts[0]}": [ratio(rates(free, count), one[0]) for count in counts],
            "of the slots": slots,
            "CPU ms/request": [cpu(free, count) for count in counts],
            "cores in all": [cores(count) for count in counts],
            "with limits in Redis": [spread(rates(limited, count)) for count in counts],
            f"limits × {counts[0]}": [ratio(rates(limited, count), one[1]) for count in counts],
            "limits × no limits": [
                ratio(rates(limited, count), rates(free, count)) for count in counts
            ],
            "CPU ms/request, limits": [cpu(limited, count) for count in counts],
        },
        (),
    )


def memory_table(found: Found) -> str:
    ones = [one for _, one in found.held]
    growth = [one.peak - one.rss_before for one in ones]
    return aligned(
        {
            "style": [style for style, _ in found.held],
            "calls in flight": [f"{one.clients:,}" for one in ones],
            "complete": [f"{one.answers:,}" for one in ones],
            "MB before": [f"{one.rss_before:.0f}" for one in ones],
            "MB at most": [f"{one.peak:.0f}" for one in ones],
            "KB a call": [
                f"{1024 * more / one.clients:.0f}" for more, one in zip(growth, ones, strict=True)
            ],
            "CPU ms a call": [f"{1e3 * one.cpu_per_answer:.2f}" for one in ones],
        },
        ("style",),
    )
