"""Any text in one line is fine as a name or a description, and comes out as it was typed."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from itertools import cycle, islice, zip_longest
from pathlib import Path

import pytest
from cookiecutter.main import cookiecutter

from .answers import AWKWARD, GOOD, HOSTILE, LINES, LINES_TAKEN, TEMPLATES
from .conftest import Bake
from .projects import bake, install, run
from .shown import assert_shows

OTHERS = {"project_slug": "typed", "author_email": "o'brien@example.com", "openai_model": "m-1"}
EXPRESSIONS = [
    "{{ cookiecutter.project_name | default_slug }}",
    "{{ cookiecutter | package_name }}",
]
Give = Callable[[Path, Path, dict[str, str]], None]


def texts(number: int) -> dict[str, str]:
    """Answers with all awkward texts, each in another place for another number."""
    joined = [" ".join(AWKWARD), " ".join(TEMPLATES), " ".join(LINES_TAKEN[-15:])]
    return OTHERS | {name: joined[(number + i) % 3] for i, name in enumerate(LINES)}


def by_typing(template: Path, output: Path, answers: dict[str, str]) -> None:
    """Answer as a person does."""
    choices = {"handler_style": "1", "python_version": "1", "license": "1", "deployment": "1"}
    given = GOOD | answers | choices | {"ci": "1"}
    order = json.loads((template / "cookiecutter.json").read_text(encoding="utf-8"))
    typed = [given[name] for name in order if not name.startswith("_")]
    subprocess.run(
        [sys.executable, "-X", "utf8", "-m", "cookiecutter", template, "--output-dir", output],
        input="\n".join([*typed, ""]),
        encoding="utf-8",
        check=True,
    )


def by_command(template: Path, output: Path, answers: dict[str, str]) -> None:
    given = [f"{name}={answer}" for name, answer in answers.items()]
    done = run(sys.executable, "-m", "cookiecutter", template, "--no-input", *given, cwd=output)
    done.check_returncode()


def by_defaults(template: Path, output: Path, answers: dict[str, str]) -> None:
    """Have the answers in cookiecutter's own configuration file."""
    config = output / "config.yaml"  # JSON is YAML
    content = {"replay_dir": str(output), "default_context": answers}
    config.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    cookiecutter(str(template), no_input=True, config_file=str(config), output_dir=str(output))


def by_replay(template: Path, output: Path, answers: dict[str, str]) -> None:
    """Have them from the command before, for which they were checked, too."""
    by_defaults(template, output, answers)
    shutil.rmtree(output / answers["project_slug"])
    cookiecutter(
        str(template),
        replay=True,
        config_file=str(output / "config.yaml"),
        output_dir=str(output),
    )


def check_style(project: Path) -> None:
    for command in (["check"], ["format", "--check"]):
        done = run(sys.executable, "-m", "ruff", *command, "--no-cache", ".", cwd=project)
        done.check_returncode()


@pytest.mark.parametrize(
    ("give", "number"), [(by_typing, 0), (by_command, 1), (by_defaults, 2), (by_replay, 0)]
)
def test_text_comes_out_as_it_was_given(
    template: Path, tmp_path: Path, give: Give, number: int
) -> None:
    """In every way to give it, and nothing that it says is run."""
    answers = texts(number)
    give(template, tmp_path, answers)

    assert_shows(tmp_path / "typed", answers)
    check_style(tmp_path / "typed")
    assert list(tmp_path.rglob("pwned")) == []


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_of_the_template_is_a_text_too(
    template: Path, tmp_path: Path, expression: str
) -> None:
    """Cookiecutter gives it to Jinja, as it does the template's own."""
    answers = texts(0) | {"author_name": expression}
    by_command(template, tmp_path, answers)

    assert_shows(tmp_path / "typed", answers)


def taken(question: str) -> list[str]:
    return [text for name, text, why in HOSTILE if (name, why) == (question, None)]


# Each text that is taken, once; with the other questions' in turn.
LINES_IN_TURN = zip_longest(*(islice(LINES_TAKEN, i, None, 3) for i in range(3)), fillvalue="x")
OTHERS_IN_TURN = {
    name: cycle(taken(name)) for name in ("project_slug", "author_email", "openai_model")
} | {
    "license": cycle(["MIT", "Proprietary"]),  # in the third, nobody is named
    "deployment": cycle(["kubernetes", "docker", "none"]),
    "ci": cycle(["github", "gitlab", "none"]),
}
MIXED = [
    dict(zip(LINES, lines, strict=True))
    | {name: next(turn) for name, turn in OTHERS_IN_TURN.items()}
    for lines in LINES_IN_TURN
]


@pytest.mark.slow
@pytest.mark.parametrize("answers", MIXED, ids=range(len(MIXED)))
def test_every_file_shows_what_was_typed(baked: Bake, answers: dict[str, str]) -> None:
    assert_shows(baked(**answers), answers)


METADATA = """
import json
from email.utils import getaddresses
from importlib.metadata import metadata
from typed.app import create_app
from typed.settings import Settings
app = create_app(Settings(openai_api_key="sk-" + "0123456789abcdef" * 3, openai_model="m"))
about = metadata("typed")
print(json.dumps([app.title, app.summary, about["Summary"], getaddresses([about["Author-email"]])]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", range(3))
def test_installs_and_starts_with_any_text(
    template: Path, tmp_path: Path, venv: Path, number: int
) -> None:
    answers = texts(number)
    project = bake(template, tmp_path, **answers)
    options = ("--no-deps", "--target", "lib")
    install(venv / "python", *options, project, cwd=tmp_path).check_returncode()

    shown = run(venv / "python", "-c", METADATA, cwd=tmp_path, PYTHONPATH=str(tmp_path / "lib"))

    description = answers["project_description"]
    author = [answers["author_name"], answers["author_email"]]
    assert json.loads(shown.stdout) == [answers["project_name"], description, description, [author]]


@pytest.mark.slow
def test_every_reader_of_the_settings_finds_the_model(
    template: Path, tmp_path: Path, venv: Path
) -> None:
    """pydantic-settings and podman-compose read `.env` by python-dotenv."""
    models = taken("openai_model")
    for number, model in enumerate(models):
        bake(template, tmp_path, project_slug=f"p{number}", openai_model=model)
    code = """
import json, pathlib, dotenv
files = sorted(pathlib.Path().glob("p*/.env.example"), key=lambda file: int(file.parent.name[1:]))
print(json.dumps([dotenv.dotenv_values(file)["OPENAI_MODEL"] for file in files]))
"""
    assert json.loads(run(venv / "python", "-c", code, cwd=tmp_path).stdout) == models


@pytest.mark.parametrize("slug", ["a", "zz-9", "a-very-long-name-of-a-service-of-forty-x"])
def test_slug_of_any_length_and_place_in_the_alphabet(baked: Bake, slug: str) -> None:
    """Neither the length of lines nor the order of imports depends on it."""
    check_style(baked(project_slug=slug))
