"""Which answers are refused, and with which words; which slug is offered."""

import json
import os
import subprocess
import unicodedata
from collections.abc import Callable

import pytest
from cookiecutter.utils import create_env_with_context

from needs_cookiecutter_2_1 import RESERVED, SLUG, find_problems, slug_problems

from .answers import AWKWARD, GOOD
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


@pytest.mark.parametrize("slug", ["a", "a1-2b", "x" * 40, "match", "my-openai", "chat-service"])
def test_accepts_a_slug(slug: str) -> None:
    assert problems(project_slug=slug) == []


@pytest.mark.parametrize(
    "slug",
    ["", "A", "1a", "a_b", "a--b", "-a", "a-", "a b", "a.b", "../a", "a/b", "ä", "a\n", "a;b"],
)
def test_refuses_a_malformed_slug(slug: str) -> None:
    [problem] = problems(project_slug=slug)
    assert "must begin with a letter" in problem


def test_refuses_a_long_slug() -> None:
    assert problems(project_slug="x" * 41) == [
        "project_slug has 41 characters: shorten it to at most 40."
    ]


@pytest.mark.parametrize(
    ("slug", "what"),
    [
        ("class", "a keyword of Python"),
        ("json", "a module of Python's standard library"),
        ("test", "a module of Python's standard library"),
        ("sitecustomize", "a module that Python imports when it starts"),
        ("openai", "a package that the service needs"),
        ("pydantic-settings", "a package that the service needs"),
        ("python-dotenv", "a package that the service needs"),
        ("gunicorn", "a package that comes with a server or that the service's dependencies use"),
        ("tests", "a folder of the project"),
        ("offline-openai", "a service in compose.yaml"),
        ("com1", "a device of Windows"),
    ],
)
def test_refuses_a_slug_that_would_hide_something(slug: str, what: str) -> None:
    assert problems(project_slug=slug) == [
        f"project_slug '{slug}' would hide {what}: choose another, such as my-{slug}."
    ]


@pytest.mark.parametrize("slug", ["null", "true", "off", "n"])
def test_refuses_a_slug_that_yaml_reads_as_something_else(slug: str) -> None:
    assert problems(project_slug=slug) == [
        f"project_slug '{slug}' means something else in YAML: choose another, such as my-{slug}."
    ]


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
        if unicodedata.category(chr(code))[0] in "LN" and code % 7 == 0:  # enough, and quick
            names += [chr(code), f"{chr(code)} 1", chr(code) * 45]

    assert {name: slug(name) for name in names if any(slug_problems(slug(name)))} == {}


@pytest.mark.parametrize("email", ["o'brien+x@mail.example.org", "me@münchen.de", "a.b@c-d.io"])
def test_accepts_an_email_address(email: str) -> None:
    assert problems(author_email=email) == []


@pytest.mark.parametrize(
    "email",
    [
        *("", "ann", "@x.org", "ann@", "ann@x", "ann@.org", "<ann@x.org>", "ann@bob@x.org"),
        *("a b@x.org", 'a"@x.org', "a\\@x.org", "a..b@x.org", "ann@x.org\n", "ü@x.org"),
    ],
)
def test_refuses_what_is_no_email_address(email: str) -> None:
    [problem] = problems(author_email=email)
    assert problem.endswith("is no e-mail address: write one such as you@example.com.")


@pytest.mark.parametrize("model", ["o4-mini", "ft:gpt-5.4-mini:acme::x1", "org/model@v1.0", "A_b"])
def test_accepts_a_model(model: str) -> None:
    assert problems(openai_model=model) == []


@pytest.mark.parametrize("model", ["", "a b", "a\n", '"a"', "'a'", "a$b", "a#b", "a\\b", "{{ 7 }}"])
def test_refuses_a_malformed_model(model: str) -> None:
    [problem] = problems(openai_model=model)
    assert "may hold only letters" in problem


@pytest.mark.parametrize("name", ["project_name", "author_name"])
@pytest.mark.parametrize("answer", ["", "  ", "\u00a0"])
def test_refuses_an_empty_name(name: str, answer: str) -> None:
    assert problems(**{name: answer}) == [f"{name} is empty: write at least one word."]


@pytest.mark.parametrize("name", ["project_name", "project_description", "author_name"])
@pytest.mark.parametrize("character", ["\n", "\r", "\t", "\0", "\x1b", "\x85", "\u2028", "\ud800"])
def test_refuses_a_control_character(name: str, character: str) -> None:
    assert problems(**{name: f"a{character}b"}) == [
        f"{name} holds a line break or another control character: write it on one line."
    ]


@pytest.mark.parametrize("name", ["project_name", "project_description", "author_name"])
@pytest.mark.parametrize("answer", AWKWARD)
def test_takes_any_text_in_one_line(name: str, answer: str) -> None:
    assert problems(**{name: answer}) == []


def test_reports_all_problems_at_once_in_ascii() -> None:
    bad = {"project_slug": "Ä", "author_email": "ü", "openai_model": "日", "author_name": ""}
    sentences = problems(**bad)

    assert sorted(sentence.split()[0] for sentence in sentences) == sorted(bad)
    assert all(sentence.isascii() and sentence.endswith(".") for sentence in sentences)
