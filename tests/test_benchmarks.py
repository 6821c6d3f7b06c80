"""`make bench` in little: that it measures everything, and never how fast it was."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from .projects import run

STYLE = "to_thread, this template"
PLAIN = "plain AsyncOpenAI"
BARE = ("bare asyncio.to_thread", "bare def")
UPSTREAM = "the upstream itself"
STREAMS = [STYLE, PLAIN, UPSTREAM]
ROWS = {
    "Chat": [STYLE, PLAIN, *BARE, "blocking call in async def", UPSTREAM],
    "Streams at full speed": STREAMS,
    "Streams at a model's pace": STREAMS,
    "The first chunk": STREAMS,
    "Probes": [STYLE, PLAIN],
    "Overload": [STYLE, PLAIN],
    "Two workers": [STYLE],
}


def benchmarks(template: Path, venv: Path, scratch: Path, *options: str) -> list[str | Path]:
    command: list[str | Path] = [sys.executable, "-m", "benchmarks", "--styles", "to_thread"]
    return [*command, "--python", venv / "python", "--scratch", scratch, *options]


def tables(report: str) -> dict[str, list[dict[str, str]]]:
    """The rows of each section's table, by the titles of its columns."""
    found = {}
    for section in report.split("\n## ")[1:]:
        header, _, *rows = [
            [cell.strip() for cell in line.strip("|").split("|")]
            for line in section.splitlines()
            if line.startswith("|")
        ] or [[], []]
        if header:
            title = section.partition("\n")[0]
            found[title] = [dict(zip(header, row, strict=True)) for row in rows]
    return found


def test_the_report_and_the_picture_have_everything(
    template: Path, venv: Path, tmp_path: Path
) -> None:
    """Every row and column, filled but where there is nothing to say; and no request failed."""
    done = run(*benchmarks(template, venv, tmp_path, "--quick"), cwd=template)

    assert (done.returncode, done.stderr) == (0, "")
    found = tables((tmp_path / "results.md").read_text())
    assert {title: [row["app"] for row in rows] for title, rows in found.items()} == ROWS
    for title, rows in found.items():
        for row in rows:
            empty = {name for name, cell in row.items() if cell == "-"}
            assert empty <= {"loop lag p99 ms", "/livez p99 ms", "503 p99 s"}, title
            assert row.get("failed", "0") == "0", title
    for row in found["Overload"]:
        assert (row["resets and others"], row["no answer"]) == ("0", "0")
        assert int(row["200"]) + int(row["503"]) == 80
        assert row["200 afterwards"] == "4 of 4"

    picture = ET.fromstring((tmp_path / "results.svg").read_text())  # noqa: S314  our own
    texts = {text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")}
    assert {STYLE, PLAIN, *BARE, "2 callers", "2 streams", "4 streams"} <= texts


def test_ctrl_c_ends_every_process(template: Path, venv: Path, tmp_path: Path) -> None:
    command = benchmarks(template, venv, tmp_path, "--quick")
    with subprocess.Popen(
        command,
        cwd=template,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as bench:
        assert bench.stdout
        for line in bench.stdout:
            if line.startswith("[2/"):
                break
        bench.send_signal(signal.SIGINT)
        said = bench.stdout.read()
        assert bench.wait(timeout=20) == 130
    assert said.endswith("Stopped: there is no report.\n")
    commands = (path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline"))
    assert not [command for command in commands if bytes(venv / "python") in command]


@pytest.mark.parametrize(
    "options", [("--styles", "threads"), ("--only", "chat,speed"), ("--callers", "0")]
)
def test_says_which_option_is_wrong(template: Path, options: tuple[str, ...]) -> None:
    done = run(sys.executable, "-m", "benchmarks", *options, cwd=template)

    assert done.returncode == 2
    assert re.search(f"argument {options[0]}: ", done.stderr)
