"""`make bench` in small: that it measures everything, not how fast it was."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from .projects import run
from .servers import processes_with, wait_until

pytestmark = pytest.mark.slow

STYLE = "to_thread, this template"
PLAIN = "plain AsyncOpenAI"
BARE = ("bare asyncio.to_thread", "bare def")
UPSTREAM = "the upstream itself"
ROWS = {
    "Chat": [STYLE, PLAIN, *BARE, "blocking call in async def"],
    "Milliseconds added": [STYLE, PLAIN, UPSTREAM],
    "Requests/s within a bound": [STYLE, PLAIN],
    "Streams at full speed": [STYLE, PLAIN, UPSTREAM],
    "Streams at a model's pace": [STYLE, PLAIN, UPSTREAM],
    "Streams held without a stall": [STYLE, PLAIN],
    "Overload": [STYLE, PLAIN],
}
SEARCHES = {"Requests/s within a bound": "clients", "Streams held without a stall": "streams"}


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all tests: installing what draws the picture takes a while."""
    return tmp_path_factory.mktemp("bench")


def benchmarks(venv: Path, scratch: Path) -> list[str | Path]:
    """Without LiteLLM, which takes a minute to install: the requirement cannot be met."""
    command: list[str | Path] = [sys.executable, "-m", "benchmarks", "--quick"]
    command += ["--styles", "to_thread", "--litellm", "./no-such-folder"]
    return [*command, "--python", venv / "python", "--scratch", scratch]


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
    template: Path, venv: Path, scratch: Path
) -> None:
    """Every row and column, filled but where there is nothing to say; and no request failed."""
    done = run(*benchmarks(venv, scratch), cwd=template)

    assert done.returncode == 0, done.stderr
    assert "Failed: " not in done.stderr
    missing = "LiteLLM is not measured: pip could not install ./no-such-folder."
    report = (scratch / "results.md").read_text()
    assert missing in done.stderr
    assert missing in report
    found = tables(report)
    assert {title: [row["app"] for row in rows] for title, rows in found.items()} == ROWS
    for title, rows in found.items():
        for row in rows:
            empty = {name for name, cell in row.items() if cell == "-"}
            assert empty <= {"loop lag p99 ms", "503 p99 s"}, (title, row)
            assert row.get("failed", "0") == "0", title
    for title, column in SEARCHES.items():
        assert all(int(row[column]) > 0 for row in found[title]), title
    for row in found["Overload"]:
        assert (row["resets and others"], row["no answer"]) == ("0", "0")
        assert int(row["200"]) + int(row["503"]) == 80

    picture = ET.fromstring((scratch / "results.svg").read_text())  # noqa: S314  our own
    texts = {text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")}
    assert {STYLE, PLAIN, "Milliseconds added (p50)", "Streams without a stall"} <= texts


def test_ctrl_c_ends_every_process(template: Path, venv: Path, scratch: Path) -> None:
    command = benchmarks(venv, scratch)
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
    wait_until(lambda: not any(b"benchmarks" in one for one in processes_with(venv / "python")))


@pytest.mark.parametrize(
    "options", [("--styles", "threads"), ("--only", "chat,speed"), ("--clients", "0")]
)
def test_says_which_option_is_wrong(template: Path, options: tuple[str, ...]) -> None:
    done = run(sys.executable, "-m", "benchmarks", *options, cwd=template)

    assert done.returncode == 2
    assert re.search(f"argument {options[0]}: ", done.stderr)
