"""A refused answer leaves nothing behind, and says what to do."""

import sys
from pathlib import Path

import pytest

from .projects import run


def refuse(template: Path, output: Path, *answers: str) -> list[str]:
    """What is said about these answers on standard error, line by line."""
    cookiecutter = (sys.executable, "-m", "cookiecutter", template, "--no-input")
    done = run(*cookiecutter, *answers, cwd=output)

    assert done.returncode == 1
    assert list(output.iterdir()) == []
    return done.stderr.splitlines()


@pytest.mark.parametrize(
    "answer",
    [
        "project_name=",
        "project_slug=Not A Slug",
        "project_slug=../elsewhere",
        "project_slug=asyncio",
        "project_slug=fastapi",
        "project_slug=" + "x" * 41,
        "project_description=two\nlines",
        "author_name= ",
        "author_email=nobody",
        'openai_model="gpt"',
    ],
)
def test_says_one_sentence_and_leaves_nothing(template: Path, tmp_path: Path, answer: str) -> None:
    [sentence] = refuse(template, tmp_path, answer)

    assert sentence.startswith(answer.partition("=")[0])
    assert sentence.endswith(".")


def test_says_a_sentence_for_each_wrong_answer(template: Path, tmp_path: Path) -> None:
    sentences = refuse(template, tmp_path, "project_slug=json", "author_email=x", "openai_model= ")

    assert len(sentences) == 3


def test_runs_nothing_that_an_answer_says(template: Path, tmp_path: Path) -> None:
    """Code that would leave a file, in an answer that is refused."""
    code = 'open("pwned", "w")'
    for answer in (f'"""\n{code}\n"""', f"'''\n{code}\n'''", f'"); {code} #', f"$({code})"):
        refuse(template, tmp_path, f"project_slug={answer}", f"author_email={answer}")
