"""The measurements as tables: medians over the rounds, and ratios within one round."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median

from .apps import OURS, PLAIN, RIVALS, UPSTREAM, App
from .results import Result
from .scenarios import Options

Value = Callable[[Result], float]
APPS = {app.name: app for app in (*OURS.values(), *RIVALS, UPSTREAM)}


@dataclass
class Measured:
    """Results by scenario, app and load, a result for each round."""

    options: Options
    results: dict[tuple[str, str, int], list[Result]] = field(default_factory=dict)
    afterwards: dict[tuple[str, str, int], list[Result]] = field(default_factory=dict)

    def rows(self, scenario: str) -> Iterator[tuple[App, int]]:
        """The apps and loads of a scenario, as they were measured."""
        return ((APPS[app], load) for name, app, load in self.results if name == scenario)

    def median(self, scenario: str, app: App, load: int, value: Value) -> float:
        return _median([value(result) for result in self.results[scenario, app.name, load]])

    def ratio(self, scenario: str, app: App, other: App, load: int, value: Value) -> float:
        """The app's value in units of the other's of the same round."""
        others = self.results.get((scenario, other.name, load), [])
        pairs = zip(self.results[scenario, app.name, load], others, strict=False)
        return _median([value(ours) / value(theirs) for ours, theirs in pairs if value(theirs)])


def _median(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return median(known) if known else math.nan


def number(value: float, digits: int = 0, unit: str = "") -> str:
    return "-" if math.isnan(value) else f"{value:,.{digits}f}{unit}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown, and aligned for a terminal; text to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    left = [title == "app" for title in header]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if to_left else cell.rjust(width)
            for cell, width, to_left in zip(cells, widths, left, strict=True)
        ]
        return f"| {' | '.join(padded)} |"

    rule = [
        "-" * width if to_left else "-" * (width - 1) + ":"
        for width, to_left in zip(widths, left, strict=True)
    ]
    return "\n".join([line(header), line(rule), *map(line, rows)])


def chat(measured: Measured) -> str:
    def latency(app: App, load: int, share: float, value: Value) -> str:
        bound = any(r.is_bound(share) for r in measured.results["chat", app.name, load])
        return ("≥ " if bound else "") + number(measured.median("chat", app, load, value), 2)

    rows = []
    for app, load in measured.rows("chat"):
        limit = load / measured.options.delay
        rate = measured.median("chat", app, load, lambda r: r.rate)
        rows.append(
            [
                str(load),
                app.label,
                number(rate, 1),
                number(measured.ratio("chat", app, PLAIN, load, lambda r: r.rate), 2),
                number(100 * rate / limit, 0, " %"),
                number(measured.median("chat", app, load, lambda r: r.failed)),
                latency(app, load, 0.5, lambda r: r.p50),
                latency(app, load, 0.99, lambda r: r.p99),
                number(measured.median("chat", app, load, lambda r: 1e3 * r.cpu_per_answer), 2),
                number(measured.median("chat", app, load, lambda r: r.rss)),
                number(measured.median("chat", app, load, lambda r: 1e3 * r.lag), 1),
            ]
        )
    header = ["callers", "app", "requests/s", "× plain", "of the limit", "failed", "p50 s", "p99 s"]
    return table([*header, "CPU ms/request", "memory MB", "loop lag p99 ms"], rows)


def streams(measured: Measured, scenario: str = "streams") -> str:
    def row(app: App, load: int) -> list[str]:
        def of(value: Value, digits: int = 0) -> str:
            return number(measured.median(scenario, app, load, value), digits)

        def share(other: App) -> float:
            return measured.ratio(scenario, app, other, load, lambda r: r.chunk_rate)

        return [
            app.label,
            of(lambda r: r.chunk_rate),
            number(share(PLAIN), 2),
            number(100 * share(UPSTREAM), 1, " %"),
            of(lambda r: r.failed),
            of(lambda r: 1e3 * r.cpu_per_chunk, 3),
            of(lambda r: r.rss),
            of(lambda r: 1e3 * r.lag, 1),
        ]

    header = ["app", "chunks/s", "× plain", "of the upstream's", "failed", "CPU ms/chunk"]
    header += ["memory MB", "loop lag p99 ms"]
    return table(header, [row(app, load) for app, load in measured.rows(scenario)])


def pace(measured: Measured) -> str:
    return streams(measured, "pace")


def first_chunk(measured: Measured) -> str:
    def row(app: App, load: int) -> list[str]:
        def later(value: Value) -> float:
            return 1e3 * (
                measured.median("first_chunk", app, load, value)
                - measured.median("first_chunk", UPSTREAM, load, value)
            )

        cpu = measured.median("first_chunk", app, load, lambda r: 100 * r.cpu / r.seconds)
        return [
            app.label,
            number(later(lambda r: r.first_p50), 1),
            number(later(lambda r: r.first_p99), 1),
            number(measured.median("first_chunk", app, load, lambda r: r.failed)),
            number(cpu, 0, " %"),
        ]

    header = ["app", "p50 later by ms", "p99 later by ms", "failed", "CPU of one core"]
    return table(header, [row(app, load) for app, load in measured.rows("first_chunk")])


def probes(measured: Measured) -> str:
    def row(app: App, load: int) -> list[str]:
        def of(value: Value, digits: int = 0) -> str:
            return number(measured.median("probes", app, load, value), digits)

        return [
            app.label,
            of(lambda r: 1e3 * r.lag, 1),
            of(lambda r: r.failed),
            of(lambda r: 100 * r.cpu / r.seconds) + " %",
        ]

    header = ["app", "/livez p99 ms", "failed", "CPU of one core"]
    return table(header, [row(app, load) for app, load in measured.rows("probes")])


def overload(measured: Measured) -> str:
    def row(app: App, load: int) -> list[str]:
        def of(value: Value, digits: int = 0) -> str:
            return number(measured.median("overload", app, load, value), digits)

        later = measured.afterwards["overload", app.name, load]
        came = sum(r.answers + r.failed + r.waiting for r in later)
        return [
            app.label,
            of(lambda r: r.answers),
            of(lambda r: r.failures.get("503", 0)),
            of(lambda r: r.failed - r.failures.get("503", 0)),
            of(lambda r: r.waiting),
            of(lambda r: r.seconds, 1),
            of(lambda r: r.refused_p99, 2),
            of(lambda r: r.p99, 2),
            of(lambda r: r.rss_before),
            of(lambda r: r.peak - r.rss_before),
            of(lambda r: 1e3 * r.lag, 1),
            f"{sum(r.answers for r in later)} of {came}",
        ]

    header = ["app", "200", "503", "resets and others", "no answer", "seconds in all", "503 p99 s"]
    header += ["200 p99 s", "memory MB", "growth MB", "loop lag p99 ms", "200 afterwards"]
    return table(header, [row(app, load) for app, load in measured.rows("overload")])


def workers(measured: Measured) -> str:
    def row(app: App) -> list[str]:
        one, two = (measured.results["workers", app.name, count] for count in (1, 2))
        gains = [b.rate / a.rate for a, b in zip(one, two, strict=True) if a.rate]
        return [
            app.label,
            *(number(measured.median("workers", app, n, lambda r: r.rate), 1) for n in (1, 2)),
            number(_median(gains), 2),
            number(measured.median("workers", app, 2, lambda r: r.failed)),
            number(measured.median("workers", app, 2, lambda r: 1e2 * r.cpu / r.seconds), 0, " %"),
        ]

    header = ["app", "one: requests/s", "two: requests/s", "two ÷ one", "failed", "CPU of two"]
    return table(header, [row(app) for app, load in measured.rows("workers") if load == 1])


TABLES: dict[str, Callable[[Measured], str]] = {
    "chat": chat,
    "streams": streams,
    "pace": pace,
    "first_chunk": first_chunk,
    "probes": probes,
    "overload": overload,
    "workers": workers,
}
