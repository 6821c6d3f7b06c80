"""The questions are whole sentences, and each of them does something."""

import json
import os
import tomllib
from pathlib import Path
from typing import Any

import pytest

from .conftest import Bake
from .projects import ROOT, bake, files, run

QUESTIONS: dict[str, Any] = json.loads((ROOT / "cookiecutter.json").read_text())
PROMPTS: dict[str, Any] = QUESTIONS["__prompts__"]
ANSWERS = {name: value for name, value in QUESTIONS.items() if not name.startswith("_")}
CHOICES = {name: value for name, value in ANSWERS.items() if isinstance(value, list)}
OTHER_ANSWERS = {
    "project_name": "Other",
    "project_slug": "other",
    "project_description": "Another.",
    "author_name": "Somebody else",
    "author_email": "other@example.com",
    "openai_model": "other-1",
} | {name: choices[1] for name, choices in CHOICES.items()}


def license_text(project: Path) -> str:
    return (project / "LICENSE").read_text(encoding="utf-8")


def metadata(project: Path) -> dict[str, Any]:
    content = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))
    return dict(content["project"])


def test_every_question_is_asked_in_a_sentence() -> None:
    prompts = {
        name: prompt["__prompt__"] if name in CHOICES else prompt
        for name, prompt in PROMPTS.items()
    }

    assert prompts.keys() == ANSWERS.keys()
    assert all(prompt[0].isupper() and prompt.endswith("?") for prompt in prompts.values())


@pytest.mark.parametrize("name", CHOICES)
def test_every_choice_has_a_label(name: str) -> None:
    assert PROMPTS[name].keys() == {"__prompt__", *CHOICES[name]}


@pytest.mark.parametrize("name", ANSWERS)
def test_every_question_does_something(template: Path, tmp_path: Path, name: str) -> None:
    default = bake(template, tmp_path / "default", project_slug="same")
    other = bake(
        template, tmp_path / "other", **{"project_slug": "same", name: OTHER_ANSWERS[name]}
    )

    assert files(other) != files(default)


def test_answers_become_metadata(baked: Bake) -> None:
    project = metadata(
        baked(
            project_name="My Bot",
            project_description="It answers.",
            author_name="Ann",
            author_email="ann@example.org",
        )
    )

    assert project["name"] == "my-bot"
    assert project["description"] == "It answers."
    assert project["authors"] == [{"name": "Ann", "email": "ann@example.org"}]
    assert project["requires-python"] == ">=3.11"


@pytest.mark.parametrize(
    ("name", "spdx", "first_words"),
    [
        ("MIT", "MIT", "MIT License"),
        ("Apache-2.0", "Apache-2.0", "Apache License"),
        ("Proprietary", "LicenseRef-Proprietary", "Copyright (c) 2"),
    ],
)
def test_license(baked: Bake, name: str, spdx: str, first_words: str) -> None:
    project = baked(license=name, author_name="Ann")

    assert metadata(project)["license"] == spdx
    assert metadata(project)["license-files"] == ["LICENSE"]
    assert license_text(project).lstrip().startswith(first_words)
    assert (" Ann" in license_text(project)) == (name != "Apache-2.0")


@pytest.mark.parametrize("version", CHOICES["python_version"])
@pytest.mark.parametrize("installed", [True, False])
def test_python_version_is_preferred_where_it_is_installed(
    baked: Bake, tmp_path: Path, version: str, installed: bool
) -> None:
    """One that is on PATH but cannot run, as a shim of pyenv may be, is not installed."""
    interpreter = tmp_path / f"python{version}"
    interpreter.write_text(f"#!/bin/sh\nexit {0 if installed else 127}\n")
    interpreter.chmod(0o755)
    project = baked(python_version=version)
    (project / "show.mk").write_text("include Makefile\nshow: ; @echo $(PYTHON)\n")

    path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
    shown = run("make", "-f", "show.mk", "show", cwd=project, PATH=path)

    assert shown.stdout.strip() == (f"python{version}" if installed else "python3")


def test_openai_model_is_the_one_in_the_settings(baked: Bake) -> None:
    settings = (baked(openai_model="ft:gpt-5.4-mini:acme::x1") / ".env.example").read_text()

    assert "OPENAI_MODEL=ft:gpt-5.4-mini:acme::x1" in settings.splitlines()
