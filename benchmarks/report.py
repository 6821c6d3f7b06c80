"""The report: where and when it was measured, the tables, and how to read them."""

import platform
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from os import cpu_count, getloadavg
from pathlib import Path

from .scenarios import HASTY, SLOW, Options
from .tables import TABLES, Measured, number
from .workshop import Workshop

SHOWN = ("openai", "httpx2", "fastapi", "starlette", "uvicorn", "uvloop", "aiohttp")

TEXTS = {
    "chat": (
        "Chat",
        (
            "A closed loop of callers, each of whom asks again once it is answered. The upstream"
            " takes {delay:g} s, so that nothing can do more than callers ÷ {delay:g} s: the"
            " limit. A `≥` is where callers still waited when their patience ended."
        ),
    ),
    "streams": (
        "Streams at full speed",
        "{streams} streams of {words} chunks at a time, from an upstream that does not pause.",
    ),
    "pace": (
        "Streams at a model's pace",
        "{pace_streams} streams of {pace_words} chunks at a time, 20 ms apart.",
    ),
    "first_chunk": (
        "The first chunk",
        (
            "{streams} streams at a time that do not saturate a core: how much later than the"
            " upstream's own a caller has its first chunk."
        ),
    ),
    "probes": (
        "Probes",
        "`/livez` while {most} callers wait for an upstream that takes {long:g} s.",
    ),
    "overload": (
        "Overload",
        (
            "{crowd} callers at once against `MAX_CONCURRENCY={room}` and `MAX_QUEUE={room}`, one"
            " request each; then {room} more."
        ),
    ),
    "workers": (
        "Two workers",
        "{most} callers, with one worker and with two; the upstream takes {short:g} s.",
    ),
}

READING = """\
The ratios are the result: each is of two measurements of one round, a few seconds or minutes apart,
and the table has the median of the rounds. The other figures are medians too, and are the machine's
as much as the apps'. *plain* is the plain `AsyncOpenAI` app; what the others are is in
[rivals.py](rivals.py). Requests/s and chunks/s count whole answers with status 200, read to their
end. CPU and memory are those of the service and all its children. *Loop lag* is how late `/livez`
is answered that is asked for every 20 ms. Each measurement has a process of its own and, but for
the overload, a warm-up; every service logs a line a request. Ours have the default settings, but
for `MAX_CONCURRENCY`, which lets all callers in where no other number is given."""


def report(measured: Measured, workshop: Workshop, picture: str | None) -> str:
    options = measured.options
    measured_here = [name for name in TABLES if any(measured.rows(name))]
    facts = {
        "delay": options.delay,
        "streams": options.sized(50),
        "words": options.sized(400),
        "pace_streams": options.sized(100),
        "pace_words": options.sized(200),
        "crowd": options.sized(2000),
        "room": options.sized(100),
        "most": max(options.callers),
        "long": SLOW * options.delay,
        "short": options.delay / HASTY,
    }
    parts = ["# Benchmarks", where_and_when(options, workshop)]
    if picture:
        parts.append(f"![Requests and chunks per second, by app]({picture})")
    parts.append(READING)
    for name in measured_here:
        title, text = TEXTS[name]
        parts += [f"## {title}", text.format(**facts), TABLES[name](measured)]
    parts += ["## What limits the measurement", limits(measured)]
    return "\n\n".join(parts) + "\n"


def where_and_when(options: Options, workshop: Workshop) -> str:
    now = datetime.now(UTC)
    code = "import importlib.metadata as m, sys; v = [('Python', sys.version.split()[0])]\n"
    code += f"v += [(n, m.version(n)) for d in m.distributions() if (n := d.name) in {SHOWN}]\n"
    code += "print(', '.join(f'{n} {w}' for n, w in v))"
    versions = subprocess.run(
        (workshop.python, "-c", code), capture_output=True, text=True, check=True, timeout=60
    )
    return (
        f"{now:%Y-%m-%d}, {cpu_count()} cores ({cpu_model()}) shared with the upstream and the load"
        f" generator, load average {getloadavg()[0]:.1f} at the end. {platform.system()}"
        f" {platform.release()}, {versions.stdout.strip()}."
        f" Workers: {options.workers}; rounds: {options.rounds}, of {options.seconds:g} s each."
        " Made by `make bench`."
    )


def cpu_model() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def limits(measured: Measured) -> str:
    results = [result for rounds in measured.results.values() for result in rounds]
    share = max(result.generator_cpu / result.seconds for result in results)
    text = (
        "The load generator is a process of its own: raw asyncio protocols. It used at"
        f" most {number(100 * share)} % of a core. "
    )
    fastest = max(results, key=lambda result: result.chunks / result.generator_cpu)
    if fastest.chunks:
        per_core = fastest.chunks / fastest.generator_cpu
        text += f"A core of it reads {number(per_core, 0)} chunks/s where it reads most. "
    return text + (
        "The row *the upstream itself* is what it gets without a service in between: where a"
        " service comes near it, or beyond, it is the offline OpenAI that limits. The service, the"
        " upstream and the load generator share the cores: of two, a service has one and what the"
        " others leave of the second. Two workers with threads cannot use that as well as two"
        " without: each hands its interpreter's lock from thread to thread, and from core to core."
    )


def failures(measured: Measured) -> Sequence[str]:
    """What went wrong where nothing should: all but the refusals of an overload."""
    return [
        f"{scenario}, {app}, {load}: {result.failures}"
        for (scenario, app, load), results in measured.results.items()
        for result in results
        if result.failed and scenario != "overload"
    ]
