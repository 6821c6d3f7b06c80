"""The report: where and when it was measured, the tables, how to read them, and the picture."""

import json
import platform
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from os import cpu_count, getloadavg
from pathlib import Path
from typing import Any

from .apps import BY_HAND, UPSTREAM
from .scenarios import CHUNK_DELAY, SHORT, STALL, WITHIN, Options
from .tables import TABLES, Measured, Value, chunk_rate, number, rate, table
from .workspace import ROOT, Workspace

SHOWN = ("openai", "httpx2", "fastapi", "starlette", "uvicorn", "uvloop", "aiohttp", "urllib3")

TEXTS = {
    "chat": (
        "Chat",
        (
            "The upstream takes {delay:g} s, so that nothing can exceed clients ÷ {delay:g} s: the"
            " limit. A `≥` is where requests were still in flight when the measurement ended."
        ),
    ),
    "added": (
        "Milliseconds added",
        (
            "One client: how much longer its requests take than those that it sends to the upstream"
            " itself, which takes {tiny:g} ms."
        ),
    ),
    "capacity": (
        "Requests/s within a bound",
        (
            "The largest number of clients whose 99th percentile is at most {bound:g} s, while the"
            " upstream takes {short:g} s; found by bisection, to 10 %."
        ),
    ),
    "streams": (
        "Streams at full speed",
        ("{streams} streams of {words} chunks at a time, from an upstream that does not pause."),
    ),
    "pace": (
        "Streams at a model's pace",
        (
            "{pace_streams} streams of {pace_words} chunks, {pace:g} ms apart, which all begin at"
            " once. *Latest chunk*: by how much it came later than the upstream sends it."
        ),
    ),
    "held": (
        "Streams held without a stall",
        (
            "The largest number of streams, with chunks {pace:g} ms apart, of which no chunk comes"
            " more than {stall:g} s later than the upstream sends it; found by bisection, to 10 %."
        ),
    ),
    "overload": (
        "Overload",
        (
            "{crowd} clients at once, one request each. Ours have `MAX_CONCURRENCY={slots}` and"
            " `MAX_QUEUE={slots}`; the others have no such limit."
        ),
    ),
}

READING = """\
The ratios are the result: each is of two measurements of one round, a few seconds or minutes apart,
and the table has the median of the rounds. The other figures are medians too, and depend on the
machine. *plain* is the plain `AsyncOpenAI` app; it and the others are in [rivals.py](rivals.py).
A client sends its next request when it has the response to the last one. Requests/s and chunks/s
count complete responses with status 200. CPU and memory are those of the service and all its
children. *Loop lag* is how late a probe (`/livez`) that is sent every 20 ms is answered. Each
measurement has a process of its own, which has served some requests before; every service writes a
log line for each request. Ours have the default settings, but for a `MAX_CONCURRENCY` that lets all
clients in where no other number is given."""


def report(measured: Measured, workspace: Workspace, picture: str) -> str:
    options = measured.options
    facts = {
        "delay": options.delay,
        "tiny": 1e3 * SHORT / 10,
        "short": SHORT,
        "bound": SHORT + WITHIN,
        "stall": STALL,
        "pace": 1e3 * CHUNK_DELAY,
        "streams": options.sized(50),
        "words": options.sized(400),
        "pace_streams": options.sized(100),
        "pace_words": options.sized(250),
        "crowd": options.sized(2000),
        "slots": options.sized(100),
    }
    parts = ["# Benchmarks", where_and_when(options, workspace)]
    parts += [f"![The most important figures, by app]({picture})", READING]
    for name in TABLES:
        if any(measured.rows(name)):
            title, text = TEXTS[name]
            parts += [f"## {title}", text.format(**facts), table(measured, name)]
    parts += ["## What limits the measurement", limits(measured)]
    return "\n\n".join(parts) + "\n"


def where_and_when(options: Options, workspace: Workspace) -> str:
    now = datetime.now(UTC)
    litellm = f"LiteLLM is not measured: {workspace.litellm_missing}"
    if options.litellm:
        litellm = f"The LiteLLM proxy, with {versions(workspace.litellm, ('litellm', 'openai'))}"
    return (
        f"{now:%Y-%m-%d}, {cpu_count()} cores ({cpu_model()}) shared with the upstream and the load"
        f" generator, load average {getloadavg()[0]:.1f} at the end. {platform.system()}"
        f" {platform.release()}, {versions(workspace.python, SHOWN)}. {litellm}."
        f" Workers: {options.workers}; rounds: {options.rounds}, of {options.seconds:g} s each."
        " Made by `make bench`."
    )


def versions(python: Path, names: Sequence[str]) -> str:
    code = "import importlib.metadata as m, sys; v = [('Python', sys.version.split()[0])]\n"
    code += f"v += [(n, m.version(n)) for d in m.distributions() if (n := d.name) in {names}]\n"
    code += "print(', '.join(f'{n} {w}' for n, w in sorted(v)))"
    return subprocess.run(
        (python, "-c", code), capture_output=True, text=True, check=True, timeout=60
    ).stdout.strip()


def cpu_model() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def limits(measured: Measured) -> str:
    results = [result for rounds in measured.results.values() for result in rounds]
    share = max(result.generator_cpu / result.seconds for result in results)
    return (
        "The load generator is a process of its own, on asyncio's protocols. It used at most"
        f" {number(100 * share)} % of a core. The row *the upstream itself* is what it gets without"
        " a service in between: where a service comes near that, the upstream limits it. Service,"
        " upstream and load generator share the cores: of two, a service has one and what the"
        " others leave of the second."
    )


def failures(measured: Measured) -> Sequence[str]:
    """What failed where nothing should: all but the refusals of an overload."""
    return [
        f"{scenario}, {app}, {load}: {result.failures}"
        for (scenario, app, load), results in measured.results.items()
        for result in results
        if result.failed and scenario != "overload"
    ]


def draw(measured: Measured, workspace: Workspace, path: Path) -> None:
    subprocess.run(
        (workspace.chart, "-m", "benchmarks.chart", path),
        input=json.dumps(list(panels(measured))),
        text=True,
        cwd=ROOT,
        check=True,
        timeout=120,
    )


def panels(measured: Measured) -> Iterator[dict[str, Any]]:
    """Title and bars of each part of the picture."""
    options = measured.options
    most = max(options.clients)
    upstream = f"upstream {options.delay:g} s"
    yield from panel(measured, "chat", f"Requests/s, {most} clients, {upstream}", rate, load=most)
    yield from panel(measured, "capacity", f"Requests/s with p99 ≤ {SHORT + WITHIN:g} s", rate)
    yield from panel(measured, "streams", "Streamed chunks/s at full speed", chunk_rate)
    yield from panel(measured, "held", "Streams without a stall", lambda r: r.clients)
    upstream_p50 = {row.app: row.median(lambda r: r.p50) for row in measured.rows("added")}
    base = upstream_p50.get(UPSTREAM, 0)
    yield from panel(measured, "added", "Milliseconds added (p50)", lambda r: 1e3 * (r.p50 - base))
    cpu: Value = lambda r: 1e3 * r.cpu_per_answer  # noqa: E731
    yield from panel(measured, "chat", f"CPU ms/request, {most} clients", cpu, load=most)


def panel(
    measured: Measured, scenario: str, title: str, value: Value, load: int | None = None
) -> Iterator[dict[str, Any]]:
    bars = [
        (row.app.name, row.app.label, row.median(value))
        for row in measured.rows(scenario)
        if load in (None, row.load) and row.app not in (*BY_HAND, UPSTREAM)
    ]
    if bars:
        yield {"title": title, "bars": bars}
