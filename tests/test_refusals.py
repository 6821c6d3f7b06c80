"""A refused answer leaves nothing behind, and says what to do."""

import json
import shlex
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from cookiecutter.exceptions import FailedHookException
from cookiecutter.main import cookiecutter

from .answers import AWKWARD, HOSTILE
from .projects import bake, files, run

COOKIECUTTER = (sys.executable, "-m", "cookiecutter")
TEXTS = sorted({name for name, _, _ in HOSTILE})  # the questions that take any text


def refuse(output: Path, *command: str | Path) -> list[str]:
    """What is said about the answers in this command: sentences, and a command of two lines."""
    done = run(*command, cwd=output)

    assert done.returncode == 1
    assert done.stderr == ""
    assert list(output.iterdir()) == []
    return done.stdout.splitlines()


def replay_file(template: Path, folder: Path) -> Path:
    """Make a project there, and get the file that --replay would read."""
    config = folder / "config.yaml"
    config.write_text(f"replay_dir: {folder / 'replay'}\n")
    cookiecutter(str(template), no_input=True, config_file=str(config), output_dir=str(folder))
    return folder / "replay" / f"{template.name}.json"


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
    wrong = (
        *("project_name=", "project_slug=json", "project_description=x ", "author_name=a\u202e"),
        *("author_email=x", "openai_model= ", "handlerstyle=sync", "日=x"),
    )
    *sentences, _, _ = refuse(tmp_path, *COOKIECUTTER, template, "--no-input", *wrong)

    assert len(sentences) == len(wrong)
    assert all(sentence.isascii() and sentence.endswith(".") for sentence in sentences)


def test_a_question_that_does_not_exist_is_named(template: Path, tmp_path: Path) -> None:
    """Cookiecutter itself would go on without the answer."""
    command = (*COOKIECUTTER, template, "--no-input", "handlerstyle=sync")
    sentence, _, corrected = refuse(tmp_path, *command)

    assert sentence.startswith("'handlerstyle' is no question: write one of project_name, ")
    assert "handlerstyle" not in corrected


def test_a_wrong_choice_leaves_nothing(template: Path, tmp_path: Path) -> None:
    """Cookiecutter finds it before it loads anything of the template, and says which there are."""
    done = run(*COOKIECUTTER, template, "--no-input", "license=GPL", cwd=tmp_path)

    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "ValueError: GPL provided for choice variable license,"
        " but the choices are ['MIT', 'Apache-2.0', 'Proprietary']."
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [("project_name", "null"), ("author_name", "true"), ("project_slug", "{a: b}")],
)
def test_a_default_of_the_user_that_is_no_text(
    template: Path, tmp_path: Path, name: str, value: str
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"replay_dir: {tmp_path}\ndefault_context: {{{name}: {value}}}\n")
    (tmp_path / "output").mkdir()
    command = (*COOKIECUTTER, template, "--no-input", "--config-file", config)

    sentence, *_ = refuse(tmp_path / "output", *command)

    assert sentence == f"{name} has no text: write one; in a file of answers, in quotes."


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"project_slug": "json"}, "project_slug 'json' would hide"),
        ({"project_description": "two\nlines"}, "project_description holds a line break"),
        ({"author_name": None}, "author_name has no text"),
        ({"license": "GPL"}, "license 'GPL' is not offered"),
    ],
)
def test_answers_of_replay_are_checked(
    template: Path, tmp_path: Path, change: dict[str, str | None], why: str
) -> None:
    """An older version of the template may have taken them. A new command has the others."""
    replay = replay_file(template, tmp_path)
    context = json.loads(replay.read_text(encoding="utf-8"))
    context["cookiecutter"] |= change
    replay.write_text(json.dumps(context))
    (tmp_path / "output").mkdir()

    command = (*COOKIECUTTER, template, "--replay-file", replay, "-f")
    sentence, _, corrected = refuse(tmp_path / "output", *command)

    assert sentence.startswith(why)
    words = shlex.split(corrected)
    assert "--overwrite-if-exists" in words
    assert "--no-input" in words  # not also --replay, which cookiecutter refuses
    assert not any(word.startswith("--replay") for word in words)


def test_private_values_of_replay_are_made_anew(template: Path, tmp_path: Path) -> None:
    """They follow from the answers and the version of the template, whatever was stored."""
    replay = replay_file(template, tmp_path)
    context = json.loads(replay.read_text(encoding="utf-8"))
    context["cookiecutter"] |= {"__package_name": "../../x", "_copy_without_render": ["docs/*"]}
    replay.write_text(json.dumps(context))
    command = (*COOKIECUTTER, template, "--replay-file", replay, "--output-dir", "again")
    run(*command, cwd=tmp_path).check_returncode()

    assert files(tmp_path / "again" / "chat-service") == files(tmp_path / "chat-service")


@pytest.mark.parametrize("name", ["__package_name", "__asking"])
def test_private_values_cannot_be_given(template: Path, tmp_path: Path, name: str) -> None:
    """Else answers would not be checked, or rendered."""
    answers = (f"{name}=../../x", "project_description={{ 7*7 }}")
    run(*COOKIECUTTER, template, "--no-input", *answers, cwd=tmp_path).check_returncode()

    assert "{{ 7*7 }}" in (tmp_path / "chat-service" / "pyproject.toml").read_text(encoding="utf-8")
    (tmp_path / "output").mkdir()
    wrong = (f"{name}=x", "project_slug=json")
    refuse(tmp_path / "output", *COOKIECUTTER, template, "--no-input", *wrong)


@pytest.mark.parametrize(
    "options",
    [
        ("--output-dir", "it's", "--overwrite-if-exists"),
        ("-fvo", "it's"),
        ("--output-dir=it's", "--accept-hooks=yes", "--debug-file", "project_name=log"),
    ],
    ids=" ".join,
)
def test_ends_with_a_command_that_keeps_the_other_answers(
    template: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    """Also the options of the command that was refused, and answers that look like something."""
    text = " ".join(AWKWARD)
    others = [f"project_description={text}", "license=Proprietary", "handler_style=async"]
    before = (*options, "--no-input")
    after = (str(template), "--", "project_slug=json", *others)
    (tmp_path / "refused").mkdir()
    done = run(*COOKIECUTTER, *before, *after, cwd=tmp_path / "refused")

    words = shlex.split(done.stdout.splitlines()[-1])
    filled = [f"{word}chat-service" if word == "project_slug=" else word for word in words]
    again = run(*filled, cwd=tmp_path)
    wanted = run(*COOKIECUTTER, template, "--no-input", *others, cwd=tmp_path)

    assert (done.returncode, again.returncode, wanted.returncode) == (1, 0, 0)
    assert files(tmp_path / "it's" / "chat-service") == files(tmp_path / "chat-service")


def test_a_console_without_the_letters_of_an_answer_is_no_problem(
    template: Path, tmp_path: Path
) -> None:
    answers = ("project_name=日本", "project_slug=json")
    command = (*COOKIECUTTER, template, "--no-input", *answers)

    assert run(*command, cwd=tmp_path, PYTHONIOENCODING="cp1252").stderr == ""


CODES = [
    'open("pwned", "w")',
    "__import__('pathlib').Path('pwned').touch()",
    "{{ cycler.__init__.__globals__.os.system('touch pwned') }}",
    "touch pwned",
]
WRAPPINGS = [
    "{}",
    '"""\n{}\n"""',
    "'''\n{}\n'''",
    '"); {} #',
    "$({})",
    "`{}`",
    "{{{{ {} }}}}",
    "\n{}\n",
]


@pytest.mark.parametrize("name", TEXTS)
def test_runs_nothing_that_an_answer_says(
    template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Code that would leave a file, in each answer, whether it is refused or not."""
    monkeypatch.chdir(tmp_path)
    for number, wrapping in enumerate(WRAPPINGS):
        text = " ".join(wrapping.format(code) for code in CODES)
        with suppress(FailedHookException):
            bake(template, tmp_path / str(number), **{name: text})

    assert not any(tmp_path.rglob("pwned"))
