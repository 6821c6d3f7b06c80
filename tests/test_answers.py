"""Which answers are refused, and with which words; which slug is offered."""

import json
import os
import re
import subprocess
import sys
import unicodedata
from collections.abc import Callable

import pytest
from cookiecutter.utils import create_env_with_context

from needs_cookiecutter_2_1 import ASKED, RESERVED, SLUG, find_problems, slug_problems

from .answers import GOOD, HOSTILE
from .conftest import Bake
from .projects import ROOT

STDLIB = RESERVED["a module of Python's standard library"]
# What an interpreter brings along, also if it does not list it, as it does not list `test`.
MODULES = """
import json, os, pkgutil, sys
lib = os.path.dirname(os.__file__)
found = {module.name for module in pkgutil.iter_modules([lib, os.path.join(lib, "lib-dynload")])}
print(json.dumps(sorted(found | set(sys.stdlib_module_names))))
"""


def slug_filter() -> Callable[[str], str]:
    """What cookiecutter.json makes of a project's name."""
    questions = json.loads((ROOT / "cookiecutter.json").read_text(encoding="utf-8"))
    environment = create_env_with_context({"cookiecutter": questions})
    template = environment.from_string(questions["project_slug"])
    return lambda name: str(template.render(cookiecutter={"project_name": name}))


def problems(**answers: str) -> list[str]:
    return [" ".join(problem) for problem in find_problems(GOOD | answers)]


def test_good_answers_have_no_problem() -> None:
    assert problems() == []


@pytest.mark.parametrize(("name", "answer", "why"), HOSTILE)
def test_takes_an_answer_or_says_what_to_type(name: str, answer: str, why: str | None) -> None:
    found = problems(**{name: answer})

    assert len(found) == (why is not None)
    assert all(
        sentence.startswith(f"{name} ") and sentence.endswith(f"{why}") for sentence in found
    )


@pytest.mark.parametrize("answer", [None, True, 42, ["a"], {"a": "b"}])
@pytest.mark.parametrize("name", ASKED)
def test_an_answer_is_a_text(name: str, answer: object) -> None:
    """It may come from a file, or from a program."""
    [problem] = find_problems(GOOD | {name: answer})
    assert problem == (name, "has no text: write one; in a file of answers, in quotes.")


@pytest.mark.parametrize("name", ASKED)
def test_an_answer_may_be_missing(name: str) -> None:
    """In what --replay reads, if the question is new."""
    answers = {question: answer for question, answer in GOOD.items() if question != name}
    assert [question for question, _ in find_problems(answers)] == [name]


def test_says_what_is_offered() -> None:
    assert problems(license="GPL") == [
        "license 'GPL' is not offered: write one of MIT, Apache-2.0, Proprietary."
    ]


def test_no_tool_skips_a_package() -> None:
    """Ruff says which folders it looks into by default; mypy's documentation, too."""
    ruff = [sys.executable, "-m", "ruff", "config", "exclude", "--output-format", "json"]
    done = subprocess.run(ruff, capture_output=True, text=True, check=True)
    skipped = re.findall(r"[\w.-]+", json.loads(done.stdout)["default"])

    assert "node_modules" in skipped
    slugs = [name.replace("_", "-") for name in [*skipped, "site-packages", "node_modules"]]
    assert [s for s in slugs if SLUG.fullmatch(s) and not any(slug_problems(s))] == []


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14"])
def test_refuses_what_python_brings_along(version: str) -> None:
    """In every version that a project may run on, if it is here to be asked."""
    try:
        done = subprocess.run(
            [f"python{version}", "-c", MODULES],
            env=os.environ | {"PYENV_VERSION": version},  # else pyenv hides all but one version
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip(f"no Python {version} here")

    slugs = [name.replace("_", "-") for name in json.loads(done.stdout)]
    assert [s for s in slugs if SLUG.fullmatch(s) and not any(slug_problems(s))] == []


def test_what_python_brings_along_does_not_depend_on_the_version_that_checks() -> None:
    """Gone since 3.12 or 3.13, or new in 3.14."""
    assert {"asyncore", "imp", "distutils", "pipes", "chunk", "compression"} <= set(STDLIB)


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Chat Service", "chat-service"),
        ("Zoë's  _Bot_ No1!", "zoe-s-bot-no1"),
        ("W" * 39 + " and more", "w" * 39),
        ("日本語", "ri-ben-yu"),
        ("!!!", "chat-service"),
        ("🙂", "chat-service"),
        ("OpenAI", "my-openai"),
        ("FastAPI", "my-fastapi"),
        ("3D Printer", "my-3d-printer"),
        ("9" * 50, "my-" + "9" * 37),
        ("9" * 36 + " 99 9", "my-" + "9" * 36),
    ],
)
def test_slug_is_derived_from_the_name(baked: Bake, name: str, slug: str) -> None:
    assert baked(project_name=name).name == slug


def test_no_name_derives_a_slug_that_is_refused() -> None:
    """Every reserved name, and names that begin with any letter or digit that there is."""
    slug = slug_filter()
    names = [name for reserved in RESERVED.values() for name in reserved]
    names += [name.replace("_", " ").title() for name in names]
    for code in range(0x110000):
        if unicodedata.category(chr(code))[0] in "LN" and code % 29 == 0:  # enough, and quick
            names += [chr(code), f"{chr(code)} 1", chr(code) * 45]

    assert {name: slug(name) for name in names if any(slug_problems(slug(name)))} == {}


def test_reports_all_problems_at_once_in_ascii() -> None:
    bad = {"project_slug": "Ä", "author_email": "ü", "openai_model": "日", "author_name": ""}
    sentences = problems(**bad)

    assert sorted(sentence.split()[0] for sentence in sentences) == sorted(bad)
    assert all(sentence.isascii() and sentence.endswith(".") for sentence in sentences)
