"""Run the benchmarks: `make bench`, with options in `make bench ARGS="--help"`."""

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from .apps import STYLES
from .processes import ProcessError
from .report import draw, failures, report
from .scenarios import SCENARIOS, Case, Options, cases
from .tables import Measured
from .workspace import LITELLM, ROOT, Workspace, set_up

SCRATCH = ROOT / ".demo" / "bench"


def names(known: Sequence[str]) -> "argparse._ActionType":
    def parse(text: str) -> list[str]:
        chosen = [name.strip() for name in text.split(",")]
        for name in chosen:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return [name for name in known if name in chosen]

    return parse


def numbers(text: str) -> list[int]:
    chosen = sorted({int(number) for number in text.split(",")})
    if chosen[0] < 1:
        raise ValueError
    return chosen


def add_common_options(
    parser: argparse.ArgumentParser, parts: Iterable[str], scratch: Path, results: str
) -> None:
    """Those of this and of `benchmarks.replicas`: what is measured, with what, and where to."""
    every = list(parts)
    parser.add_argument(
        "--only", type=names(every), default=",".join(every), help=f"some of {','.join(every)}"
    )
    parser.add_argument("--quick", action="store_true", help="tiny numbers: to see that it works")
    parser.add_argument(
        "--python", type=Path, help="of an environment that has the projects' dependencies"
    )
    parser.add_argument("--scratch", type=Path, default=scratch, help="where projects are made")
    parser.add_argument(
        "--output",
        type=Path,
        help=f"where {results} go (benchmarks/ if all is measured, else --scratch)",
    )


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--clients", type=numbers, default="200,500")
    parser.add_argument("--delay", type=float, default=0.5, help="seconds that the upstream takes")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--styles", type=names(STYLES), default=",".join(STYLES))
    parser.add_argument("--litellm", default=LITELLM, help="what pip installs as LiteLLM")
    parser.add_argument("--workers", type=int, default=1, help="of each service")
    add_common_options(parser, SCENARIOS, SCRATCH, "results.md and .svg")
    args = parser.parse_args(argv)
    if args.quick:
        args.clients, args.delay, args.seconds, args.rounds = [2], 0.05, 0.3, 1
    whole = (args.only, args.styles, args.quick) == (list(SCENARIOS), list(STYLES), False)
    args.output = args.output or (ROOT / "benchmarks" if whole else args.scratch)
    return args


def measure(
    plan: Sequence[tuple[int, str, Case]], measured: Measured, workspace: Workspace
) -> None:
    started = time.monotonic()
    for done, (turn, scenario, case) in enumerate(plan):
        left = (time.monotonic() - started) / done * (len(plan) - done) / 60 if done else 0
        about = f", about {left:.0f} min left" if left >= 1 else ""
        print(
            f"[{done + 1}/{len(plan)}{about}] round {turn}, {scenario} {case.load},"
            f" {case.app.label}: ",
            end="",
            flush=True,
        )
        result = case.measure(workspace, measured.options.workers)
        said = f"{result.chunk_rate:,.0f} chunks/s" if result.chunks else f"{result.rate:.1f}/s"
        found = f"{result.clients} clients, " if case.holds else ""
        print(found + said, result.failures or "", flush=True)
        key = scenario, case.app.name, case.load
        measured.results.setdefault(key, []).append(result)


def main() -> int:
    args = arguments()
    # As on Ctrl-C: what was started has to end with us.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        print(f"Making a project of each style in {args.scratch} ...", flush=True)
        workspace = set_up(args.scratch, args.styles, args.python, args.litellm)
        options = Options(
            styles=args.styles,
            litellm=not workspace.litellm_missing,
            clients=args.clients,
            delay=args.delay,
            seconds=args.seconds,
            rounds=args.rounds,
            workers=args.workers,
            size=0.04 if args.quick else 1.0,
        )
        measured = Measured(options)
        measure(list(cases(args.only, options)), measured, workspace)
    except KeyboardInterrupt:
        print("\nStopped: there is no report.", file=sys.stderr)
        return 130
    except (ProcessError, subprocess.SubprocessError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    args.output.mkdir(parents=True, exist_ok=True)
    draw(measured, workspace, (args.output / "results.svg").absolute())
    text = report(measured, workspace, "results.svg")
    (args.output / "results.md").write_text(text)
    print(f"\n{text}\nWritten: {args.output}/results.md and .svg")
    for failure in failures(measured):
        print(f"Failed: {failure}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
