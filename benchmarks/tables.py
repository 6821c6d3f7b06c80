"""The measurements as tables: medians over the rounds, and ratios within one round."""

import math
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from .apps import BY_HAND, LITELLM, OURS, PLAIN, UPSTREAM, App
from .results import Result
from .scenarios import Options

Value = Callable[[Result], float]
Cell = Callable[["Row"], str]
APPS = {app.name: app for app in (*OURS.values(), PLAIN, LITELLM, *BY_HAND, UPSTREAM)}


@dataclass
class Measured:
    options: Options
    # By scenario, app and load, a result for each round.
    results: dict[tuple[str, str, int], list[Result]] = field(default_factory=dict)

    def rows(self, scenario: str) -> Iterator["Row"]:
        for name, app, load in self.results:
            if name == scenario:
                yield Row(self, scenario, APPS[app], load)


@dataclass(frozen=True)
class Row:
    measured: Measured
    scenario: str
    app: App
    load: int

    def results(self, app: App | None = None) -> list[Result]:
        key = self.scenario, (app or self.app).name, self.load
        return self.measured.results.get(key, [])

    def median(self, value: Value, app: App | None = None) -> float:
        known = [x for result in self.results(app) if not math.isnan(x := value(result))]
        return median(known) if known else math.nan

    def ratio(self, value: Value, other: App) -> float:
        """The app's value in units of the other's of the same round."""
        pairs = zip(self.results(), self.results(other), strict=False)
        ratios = [value(ours) / value(theirs) for ours, theirs in pairs if value(theirs)]
        return median(ratios) if ratios else math.nan


def number(value: float, digits: int = 0, unit: str = "") -> str:
    return "-" if math.isnan(value) else f"{value:,.{digits}f}{unit}"


def of(value: Value, digits: int = 0, unit: str = "") -> Cell:
    return lambda row: number(row.median(value), digits, unit)


def ratio(value: Value, other: App, digits: int = 2) -> Cell:
    return lambda row: number(row.ratio(value, other), digits)


def more(value: Value, digits: int = 1) -> Cell:
    """Than the upstream itself."""
    return lambda row: number(row.median(value) - row.median(value, UPSTREAM), digits)


def latency(share: float, value: Value) -> Cell:
    def cell(row: Row) -> str:
        bound = any(result.is_bound(share) for result in row.results())
        return ("≥ " if bound else "") + number(row.median(value), 2)

    return cell


def of_the_limit(row: Row) -> str:
    limit = row.load / row.measured.options.delay
    return number(100 * row.median(lambda r: r.rate) / limit, 0, " %")


def rate(result: Result) -> float:
    return result.rate


def chunk_rate(result: Result) -> float:
    return result.chunk_rate


def chunk_cpu(result: Result) -> float:
    return 1e3 * result.cpu_per_chunk


APP: dict[str, Cell] = {"app": lambda row: row.app.label}
FAILED: dict[str, Cell] = {"failed": of(lambda r: r.failed)}
REQUEST_CPU: dict[str, Cell] = {"CPU ms/request": of(lambda r: 1e3 * r.cpu_per_answer, 2)}
CHUNK_CPU: dict[str, Cell] = {
    "CPU ms/chunk": of(chunk_cpu, 3),
    "CPU × plain": ratio(chunk_cpu, PLAIN),
}
MEMORY: dict[str, Cell] = {"memory MB": of(lambda r: r.rss)}
LAG: dict[str, Cell] = {"loop lag p99 ms": of(lambda r: 1e3 * r.lag, 1)}
CHUNKS: dict[str, Cell] = {
    "chunks/s": of(chunk_rate),
    "× plain": ratio(chunk_rate, PLAIN),
    "× upstream": ratio(chunk_rate, UPSTREAM, 3),
}

TABLES: dict[str, dict[str, Cell]] = {
    "chat": {"clients": lambda row: str(row.load)}
    | APP
    | {"requests/s": of(rate, 1), "× plain": ratio(rate, PLAIN), "of the limit": of_the_limit}
    | FAILED
    | {"p50 s": latency(0.5, lambda r: r.p50), "p99 s": latency(0.99, lambda r: r.p99)}
    | REQUEST_CPU
    | MEMORY
    | LAG,
    "added": APP
    | {"p50 ms": more(lambda r: 1e3 * r.p50), "p99 ms": more(lambda r: 1e3 * r.p99)}
    | FAILED
    | REQUEST_CPU,
    "capacity": APP
    | {"clients": of(lambda r: r.clients), "requests/s": of(rate, 0)}
    | {"× plain": ratio(rate, PLAIN), "p99 s": of(lambda r: r.p99, 2)}
    | REQUEST_CPU,
    "streams": APP | CHUNKS | FAILED | CHUNK_CPU | MEMORY | LAG,
    "pace": APP
    | CHUNKS
    | FAILED
    | CHUNK_CPU
    | {"first chunk p50 ms": of(lambda r: 1e3 * r.first_p50)}
    | {"p99 ms": of(lambda r: 1e3 * r.first_p99), "latest chunk ms": of(lambda r: 1e3 * r.late)},
    "held": APP
    | {"streams": of(lambda r: r.clients), "× plain": ratio(lambda r: r.clients, PLAIN)}
    | {"chunks/s": of(chunk_rate), "latest chunk ms": of(lambda r: 1e3 * r.late)}
    | CHUNK_CPU,
    "overload": APP
    | {"200": of(lambda r: r.answers), "503": of(lambda r: r.failures.get("503", 0))}
    | {"resets and others": of(lambda r: r.failed - r.failures.get("503", 0))}
    | {"no answer": of(lambda r: r.waiting), "seconds in all": of(lambda r: r.seconds, 1)}
    | {"503 p99 s": of(lambda r: r.refused_p99, 2), "200 p99 s": of(lambda r: r.p99, 2)}
    | {"memory MB": of(lambda r: r.rss_before), "growth MB": of(lambda r: r.peak - r.rss_before)}
    | LAG,
}


def table(measured: Measured, scenario: str) -> str:
    return aligned(
        {
            title: [cell(row) for row in measured.rows(scenario)]
            for title, cell in TABLES[scenario].items()
        }
    )


def aligned(columns: Mapping[str, Sequence[str]], texts: Container[str] = ("app",)) -> str:
    """In Markdown, and aligned for a terminal; `texts` to the left, numbers to the right."""
    padded = []
    for title, cells in columns.items():
        width, left = max(map(len, [title, *cells])), title in texts
        head, *rest = [c.ljust(width) if left else c.rjust(width) for c in [title, *cells]]
        padded.append([head, "-" * width if left else "-" * (width - 1) + ":", *rest])
    return "\n".join(f"| {' | '.join(line)} |" for line in zip(*padded, strict=True))
