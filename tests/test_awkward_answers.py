"""Any text in one line is fine as a name or a description, and comes out as it was typed."""

import json
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from cookiecutter.main import cookiecutter

from .answers import AWKWARD
from .conftest import Bake
from .projects import bake, run

EMAIL = "o'brien@example.com"
# Texts that Jinja would change, refuse or stumble over.
TEMPLATES = ["{{ cookiecutter.license }}", "{% bad", "{{", "{{ 1 / 0 }}", "{# gone #}x"]


Give = Callable[[Path, Path, str], Path]


def bake_by_typing(template: Path, output: Path, text: str) -> Path:
    """Answer as a person does."""
    answers = [text, "typed", text, text, EMAIL, "1", "gpt-5.4-mini", "1", "1", "1", "1"]
    subprocess.run(
        [sys.executable, "-X", "utf8", "-m", "cookiecutter", template, "--output-dir", output],
        input="\n".join([*answers, ""]),
        encoding="utf-8",
        check=True,
    )
    return output / "typed"


def bake_by_command(template: Path, output: Path, text: str) -> Path:
    texts = dict.fromkeys(("project_name", "project_description", "author_name"), text)
    return bake(template, output, project_slug="typed", author_email=EMAIL, **texts)


def bake_by_defaults(template: Path, output: Path, text: str) -> Path:
    """Have the answers in cookiecutter's own configuration file."""
    texts = dict.fromkeys(("project_name", "project_description", "author_name"), text)
    answers = texts | {"project_slug": "typed", "author_email": EMAIL}
    config = output / "config.yaml"  # JSON is YAML
    content = {"replay_dir": str(output), "default_context": answers}
    config.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    cookiecutter(str(template), no_input=True, config_file=str(config), output_dir=str(output))
    return output / "typed"


def checked(project: Path) -> Path:
    """The project, if its Python is as tidy as after any other answer."""
    for command in (["check"], ["format", "--check"]):
        done = run(sys.executable, "-m", "ruff", *command, "--no-cache", ".", cwd=project)
        done.check_returncode()
    return project


@pytest.mark.parametrize(
    ("bake_by", "text"),
    [
        *((bake_by_typing, text) for text in AWKWARD),
        *((bake_by_command, text) for text in TEMPLATES),
        (bake_by_command, " ".join(AWKWARD)),
        (bake_by_defaults, " ".join(AWKWARD)),
    ],
)
def test_text_comes_out_as_it_was_given(
    template: Path, tmp_path: Path, bake_by: Give, text: str
) -> None:
    project = checked(bake_by(template, tmp_path, text))

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
from typed.app import create_app
from typed.settings import Settings
app = create_app(Settings(openai_api_key="sk-" + "0123456789abcdef" * 3, openai_model="m"))
print(json.dumps([app.title, metadata("typed")["Summary"], metadata("typed")["Author-email"]]))
"""
    shown = run(venv / "python", "-c", code, cwd=tmp_path, PYTHONPATH=str(tmp_path / "lib"))

    title, summary, author = json.loads(shown.stdout)
    assert title == summary == text
    assert author.endswith(f"<{EMAIL}>")


@pytest.mark.parametrize("slug", ["a", "zz-9", "a-very-long-name-of-a-service-of-forty-x"])
def test_slug_of_any_length_and_place_in_the_alphabet(baked: Bake, slug: str) -> None:
    """Neither the length of lines nor the order of imports depends on it."""
    checked(baked(project_slug=slug))
