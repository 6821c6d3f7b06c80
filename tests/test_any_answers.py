"""Whatever is typed: it is refused in sentences, or every file shows it."""

import tempfile
from pathlib import Path
from string import punctuation
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from needs_cookiecutter_2_1 import (
    ASKED,
    as_markdown,
    default_slug,
    find_problems,
    line_problems,
    slug_problems,
)

from .answers import GOOD, HOSTILE, LINES, LINES_TAKEN
from .projects import bake
from .shown import GITHUB, assert_shows, rendered

CHOICES = {name: default for name, default in ASKED.items() if isinstance(default, list)}
TEXTS = [name for name in ASKED if name not in CHOICES]
HARDER = {name: [text for question, text, _ in HOSTILE if question == name] for name in TEXTS}
# Parts of which texts are made that mean something to one of the programs that read them.
PARTS = st.sampled_from(
    [
        *(*punctuation, *"abc 1é日🙂\N{COMBINING ACUTE ACCENT}\N{NO-BREAK SPACE}\u202e\n\ud800"),
        *("{{", "}}", "{%", "%}", "{#", "#}", "${", "$(", "&amp;", "&#35;", "<!--", "-->", "---"),
        *("'''", '"""', "\\\\", "](x)", "]: x", "```", "1. ", "# ", "  ", "http://a_b", "EOF"),
    ]
)
LINE = st.lists(PARTS, max_size=12).map("".join) | st.text(max_size=40)
cheap = settings(max_examples=500, deadline=None, derandomize=True, database=None)


def problems(name: str, answer: str) -> list[str]:
    return [why for question, why in find_problems(GOOD | {name: answer}) if question == name]


def taken(name: str) -> st.SearchStrategy[str]:
    return (LINE | st.sampled_from(HARDER[name])).filter(lambda text: not problems(name, text))


ANSWERS = {name: LINE | st.sampled_from(HARDER[name]) for name in TEXTS}
TAKEN_ANSWERS = {
    name: taken(name)
    if name in LINES
    else st.sampled_from([text for text in HARDER[name] if not problems(name, text)])
    for name in TEXTS
}
CHOSEN = {name: st.sampled_from(choices) for name, choices in CHOICES.items()}
# Of a configuration file, of --replay, of the API.
VALUES = st.none() | st.booleans() | st.integers() | st.lists(st.text()) | st.text()


@cheap
@given(st.fixed_dictionaries(ANSWERS | CHOSEN) | st.dictionaries(st.sampled_from([*ASKED]), VALUES))
def test_problems_are_sentences(answers: dict[str, Any]) -> None:
    """In ASCII, which every console has; each about an answer that there is."""
    for name, problem in find_problems(answers):
        assert name in ASKED
        assert problem.isascii()
        assert problem.isprintable()
        assert problem.endswith(".")


@cheap
@given(VALUES | LINE)
def test_the_slug_that_is_offered_is_never_refused(name: object) -> None:
    assert [*slug_problems(default_slug(name))] == []


@cheap
@given(LINE.filter(lambda text: not any(line_problems(text))))
def test_markdown_shows_what_was_typed(text: str) -> None:
    assert_rendered(text)


@pytest.mark.parametrize("text", LINES_TAKEN)
def test_markdown_shows_what_is_hard_to_show(text: str) -> None:
    assert_rendered(text)


def assert_rendered(text: str) -> None:
    escaped = as_markdown(text)

    page = rendered(f"# {escaped}\n\n{escaped}\n\nThe rest.\n")
    assert page == [("h1", text), ("p", text), ("p", "The rest.")]


def test_the_renderer_would_show_it_otherwise() -> None:
    """Else the test above could not fail."""
    assert rendered("# *x* &amp; <b>\n") != [("h1", "*x* &amp; <b>")]
    assert [token.type for token in GITHUB.parse("<!--\n\n# x\n")] == ["html_block"]


@pytest.mark.slow
@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],  # to shrink an example would take minutes
)
@given(st.fixed_dictionaries(TAKEN_ANSWERS | CHOSEN))
def test_what_is_not_refused_is_shown(template: Path, answers: dict[str, str]) -> None:
    answers |= {"license": "MIT"} if answers["license"] == "Apache-2.0" else {}  # names no holder
    with tempfile.TemporaryDirectory() as folder:
        assert_shows(bake(template, Path(folder), **answers), answers)
        assert not any(Path(folder).rglob("pwned"))
