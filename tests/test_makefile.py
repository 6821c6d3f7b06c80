"""The template's own `make`: what a clone says first, and what `make demo` does and keeps."""

import shutil
import sys
from pathlib import Path

import pytest

from .projects import run, stand_in

pytestmark = pytest.mark.slow

DEMO = Path(".demo/to_thread/chat-service")
BAKED = ".demo/to_thread/baked"  # what `make demo` makes before it runs it
MAKE = ("make", "INSTALLED=")  # with nothing to install


@pytest.fixture
def clone(template: Path, venv: Path, tmp_path: Path) -> Path:
    """In a folder that means something to make and to a shell; everything is installed."""
    clone = tmp_path / "My Projects" / "it's $HOME #1 %s ü"
    shutil.copytree(template, clone)
    stand_in(Path(sys.executable), clone)
    stand_in(venv / "python", clone / DEMO)
    return clone


def change_template(clone: Path) -> None:
    readme = clone / "{{cookiecutter.project_slug}}" / "README.md"
    readme.write_text(f"Changed. {readme.read_text()}")


@pytest.mark.parametrize("style", ["", "threads", "sync async", "%"])
def test_demo_says_which_styles_there_are(template: Path, style: str) -> None:
    done = run("make", "demo", f"STYLE={style}", cwd=template)

    assert done.returncode != 0
    assert f"STYLE={style} is no handler style: choose to_thread, sync or async" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def python_that(folder: Path, script: str) -> str:
    interpreter = folder / "it's the python of a test"
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


def test_demo_works_in_a_folder_of_any_name_and_ends_with_commands_that_work(clone: Path) -> None:
    done = run(*MAKE, "demo", cwd=clone)

    assert done.returncode == 0
    assert "event: done" in done.stdout

    *_, bake, show = done.stdout.splitlines()
    script = f"{bake} && {show} -n"  # -n: only say what would be done
    assert run("sh", "-c", script, cwd=clone).returncode == 0
    _, readme = done.stdout.split("How to run it with a key of yours: ")
    assert Path(readme.splitlines()[0]).is_file()


def test_demo_follows_the_template(clone: Path) -> None:
    """And leaves the environment and the key where they are."""
    run(*MAKE, BAKED, cwd=clone).check_returncode()
    (clone / DEMO / ".env").touch()
    change_template(clone)

    assert run(*MAKE, BAKED, cwd=clone).stderr == ""

    assert (clone / DEMO / "README.md").read_text().startswith("Changed. ")
    assert (clone / DEMO / ".env").exists()
    assert (clone / DEMO / ".venv").exists()


@pytest.mark.parametrize("name", ["README.md", "src/mine.py"])
def test_demo_keeps_what_was_edited_and_says_so(clone: Path, name: str) -> None:
    run(*MAKE, BAKED, cwd=clone).check_returncode()
    (clone / DEMO / name).write_text("mine")
    change_template(clone)

    for _ in range(2):
        done = run(*MAKE, BAKED, cwd=clone)
        assert (clone / DEMO / name).read_text() == "mine"
        difference, sentence = done.stderr.splitlines()
        assert Path(name).name in difference
        assert sentence.startswith(f"Kept {DEMO} as it is, because you changed it")
    assert not (clone / DEMO / "README.md").read_text().startswith("Changed. ")
