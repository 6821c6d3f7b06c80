"""What processes and their children use, as Linux tells it; other systems have no /proc."""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True)
class Usage:
    cpu: float  # seconds so far, of all its threads
    rss: float  # MB now
    peak: float  # MB at most so far


def usage_of(pids: Sequence[int]) -> Usage | None:
    """None where there is no /proc."""
    if not (PROC / "self" / "stat").exists():
        return None
    cpu = rss = peak = 0.0
    for one, ticks in _trees(pids).items():
        cpu += ticks / os.sysconf("SC_CLK_TCK")
        rss += _megabytes(one, "VmRSS")
        peak += _megabytes(one, "VmHWM")
    return Usage(cpu, rss, peak)


def _trees(roots: Sequence[int]) -> dict[int, int]:
    """These processes and all under them, with the clock ticks that each has used."""
    parents, ticks = {}, {}
    for path in PROC.glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended meanwhile
            # The name in brackets may hold anything; proc(5) numbers what follows from 3 on.
            fields = path.read_text().rpartition(") ")[2].split()
            pid = int(path.parent.name)
            parents[pid], ticks[pid] = int(fields[1]), int(fields[11]) + int(fields[12])
    family = set(roots)
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    return {pid: ticks[pid] for pid in family & ticks.keys()}


def _megabytes(pid: int, name: str) -> float:
    with suppress(OSError):
        for line in (PROC / str(pid) / "status").read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) / 1024
    return 0.0
