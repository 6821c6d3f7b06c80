"""A refused answer leaves nothing behind, and says what to do."""

import shlex
import sys
from pathlib import Path

import pytest

from .answers import AWKWARD
from .projects import files, run

COOKIECUTTER = (sys.executable, "-m", "cookiecutter")


def refuse(output: Path, *command: str | Path) -> list[str]:
    """What is said about the answers in this command: sentences, and a command of two lines."""
    done = run(*command, cwd=output)

    assert done.returncode == 1
    assert done.stderr == ""
    assert list(output.iterdir()) == []
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    "answer",
    [
        "project_name=",
        "project_slug=",
        "project_slug=Not A Slug",
        "project_slug=../elsewhere",
        "project_slug=/",
        "project_slug=a/b",
        "project_slug=a\\b",
        "project_slug={{ 7*7 }}",
        "project_slug=asyncio",
        "project_slug=fastapi",
        "project_slug=test",
        "project_slug=" + "x" * 300,
        "project_description=two\nlines",
        "author_name= ",
        "author_email=nobody",
        'openai_model="gpt"',
    ],
)
def test_says_one_sentence_and_leaves_nothing(template: Path, tmp_path: Path, answer: str) -> None:
    sentence, *command = refuse(tmp_path, *COOKIECUTTER, template, "--no-input", answer)

    assert sentence.startswith(answer.partition("=")[0])
    assert sentence.endswith(".")
    assert len(command) == 2


def test_says_a_sentence_for_each_wrong_answer(template: Path, tmp_path: Path) -> None:
    wrong = ("project_slug=json", "author_email=x", "openai_model= ")
    *sentences, _, _ = refuse(tmp_path, *COOKIECUTTER, template, "--no-input", *wrong)

    assert len(sentences) == 3


def test_ends_with_a_command_that_keeps_the_other_answers(template: Path, tmp_path: Path) -> None:
    """Also the options of the command that was refused, and answers that look like something."""
    text = " ".join(AWKWARD)
    others = [f"project_description={text}", "license=Proprietary", "handler_style=async"]
    options = (template, "--no-input", "--output-dir", tmp_path / "it's")
    *_, command = refuse(tmp_path, *COOKIECUTTER, *options, "project_slug=json", *others)

    words = shlex.split(command)
    assert refuse(tmp_path, *words)[0].startswith("project_slug ")
    filled = [f"{word}chat-service" if word == "project_slug=" else word for word in words]
    again = run(*filled, cwd=tmp_path)
    wanted = run(*COOKIECUTTER, template, "--no-input", *others, cwd=tmp_path)

    assert (again.returncode, wanted.returncode) == (0, 0)
    assert files(tmp_path / "it's" / "chat-service") == files(tmp_path / "chat-service")


def test_a_console_without_the_letters_of_an_answer_is_no_problem(
    template: Path, tmp_path: Path
) -> None:
    answers = ("project_name=日本", "project_slug=json")
    command = (*COOKIECUTTER, template, "--no-input", *answers)

    assert run(*command, cwd=tmp_path, PYTHONIOENCODING="cp1252").stderr == ""


def test_runs_nothing_that_an_answer_says(template: Path, tmp_path: Path) -> None:
    """Code that would leave a file, in an answer that is refused."""
    code = 'open("pwned", "w")'
    for answer in (f'"""\n{code}\n"""', f"'''\n{code}\n'''", f'"); {code} #', f"$({code})"):
        answers = (f"project_slug={answer}", f"author_email={answer}")
        refuse(tmp_path, *COOKIECUTTER, template, "--no-input", *answers)
