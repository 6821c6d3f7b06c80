"""Any text in one line is fine as a name or a description, and comes out as it was typed."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from .answers import AWKWARD
from .conftest import Bake
from .projects import run

EMAIL = "o'brien@example.com"


def bake_by_typing(template: Path, output: Path, text: str) -> Path:
    """Answer as a person does. Given with --no-input, Jinja in an answer would be rendered."""
    answers = [text, "typed", text, text, EMAIL, "1", "gpt-5.4-mini", "1", "1"]
    subprocess.run(
        [sys.executable, "-X", "utf8", "-m", "cookiecutter", template, "--output-dir", output],
        input="\n".join([*answers, ""]),
        encoding="utf-8",
        check=True,
    )
    return output / "typed"


def checked(project: Path) -> Path:
    """The project, if its Python is as tidy as after any other answer."""
    for command in (["check"], ["format", "--check"]):
        done = run(sys.executable, "-m", "ruff", *command, "--no-cache", ".", cwd=project)
        done.check_returncode()
    return project


@pytest.mark.parametrize("text", AWKWARD)
def test_text_comes_out_as_it_was_typed(template: Path, tmp_path: Path, text: str) -> None:
    project = checked(bake_by_typing(template, tmp_path, text))

    metadata = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert metadata["description"] == text
    assert metadata["authors"] == [{"name": text, "email": EMAIL}]
    for name in ("LICENSE", "README.md"):
        assert text in (project / name).read_text(encoding="utf-8")
    assert list(tmp_path.rglob("pwned")) == []


def test_installs_and_starts_with_any_text(template: Path, tmp_path: Path, venv: Path) -> None:
    text = " ".join(AWKWARD)
    project = bake_by_typing(template, tmp_path, text)
    pip = (venv / "python", "-m", "pip", "install", "--quiet", "--no-deps", "--target", "lib")
    run(*pip, project, cwd=tmp_path).check_returncode()

    code = """
import json
from importlib.metadata import metadata
import typed.app
print(json.dumps([metadata("typed")["Summary"], metadata("typed")["Author-email"]]))
"""
    shown = run(venv / "python", "-c", code, cwd=tmp_path, PYTHONPATH=str(tmp_path / "lib"))

    summary, author = json.loads(shown.stdout)
    assert summary == text
    assert author.endswith(f"<{EMAIL}>")


@pytest.mark.parametrize("slug", ["a", "zz-9", "a-very-long-name-of-a-service-of-forty-x"])
def test_slug_of_any_length_and_place_in_the_alphabet(baked: Bake, slug: str) -> None:
    """Neither the length of lines nor the order of imports depends on it."""
    checked(baked(project_slug=slug))
