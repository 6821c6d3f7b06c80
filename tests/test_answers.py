"""Which answers are refused, and with which words."""

import sys
from pathlib import Path

import pytest

from .answers import AWKWARD, GOOD
from .hooks import load, render
from .projects import ROOT, run

hook = load(ROOT / "hooks" / "pre_gen_project.py")


def problems(**answers: str) -> list[str]:
    return list(hook.find_problems(GOOD | answers))


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
        ("compression", "a module of Python's standard library"),
        ("openai", "a package that the service needs"),
        ("pydantic-settings", "a package that the service needs"),
        ("python-dotenv", "a package that the service needs"),
        ("trio", "a package that the service's dependencies use if they find it"),
        ("tests", "a folder of the project"),
        ("com1", "a device of Windows"),
    ],
)
def test_refuses_a_slug_that_would_hide_something(slug: str, what: str) -> None:
    assert problems(project_slug=slug) == [
        f"project_slug '{slug}' would hide {what}: choose another, such as my-{slug}."
    ]


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
def test_takes_any_text_in_one_line_as_data(tmp_path: Path, name: str, answer: str) -> None:
    """Also if it looks like Python, a template, a shell command or an end of the string."""
    script = render("pre_gen_project", GOOD | {name: answer}, tmp_path)

    done = run(sys.executable, script, cwd=tmp_path)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == [script]


def test_reports_all_problems_at_once_in_ascii(tmp_path: Path) -> None:
    bad = {"project_slug": "Ä", "author_email": "ü", "openai_model": "日", "author_name": ""}
    script = render("pre_gen_project", GOOD | bad, tmp_path)

    done = run(sys.executable, script, cwd=tmp_path, PYTHONIOENCODING="ascii:strict")

    assert (done.returncode, done.stdout) == (1, "")
    names = [line.split()[0] for line in done.stderr.splitlines()]
    assert sorted(names) == sorted(bad)
    assert all(line.endswith(".") for line in done.stderr.splitlines())
