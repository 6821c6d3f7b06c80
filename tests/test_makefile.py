"""The first words that a clone says when something is missing."""

from pathlib import Path

import pytest

from .projects import run


@pytest.mark.parametrize("style", ["", "threads", "sync async", "%"])
def test_demo_says_which_styles_there_are(template: Path, style: str) -> None:
    done = run("make", "demo", f"STYLE={style}", cwd=template)

    assert done.returncode != 0
    assert f"STYLE={style} is no handler style: choose to_thread, sync or async" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def python_that(folder: Path, script: str) -> str:
    interpreter = folder / "python-of-a-test"
    interpreter.write_text(f"#!/bin/sh\n{script}\n")
    interpreter.chmod(0o755)
    return f"PYTHON={interpreter}"


def test_says_that_python_is_too_old(template: Path, tmp_path: Path) -> None:
    done = run("make", "demo", python_that(tmp_path, "exit 1"), cwd=template)

    assert done.returncode != 0
    assert "is not Python 3.11 or newer" in done.stderr.splitlines()[0]


def test_says_that_the_venv_module_is_missing(template: Path, tmp_path: Path) -> None:
    script = 'case "$2" in *ensurepip*) exit 1;; esac'
    done = run("make", "demo", python_that(tmp_path, script), cwd=template)

    assert done.returncode != 0
    assert "has no venv module" in done.stderr.splitlines()[0]
