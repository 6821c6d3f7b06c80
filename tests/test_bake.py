"""What comes out: the right files, whole, by whichever way."""

import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from .conftest import Bake
from .projects import (
    ROOT,
    STYLES,
    bake,
    files,
    run,
)

STYLED = {
    ".template.json",  # has the answers
    "AGENTS.md",  # these three tell about the style
    "README.md",
    "docs/recipes.md",
    "pyproject.toml",  # one depends on aiohttp, the others on urllib3
    "src/chat_service/api/chat.py",
    "src/chat_service/api/chat_events.py",
    "src/chat_service/upstream/call.py",  # of threads
    "src/chat_service/upstream/client.py",
    "src/chat_service/upstream/openai_service.py",
    "src/chat_service/upstream/streaming.py",
    "src/chat_service/upstream/transport.py",
    "tests/upstream/test_openai_service.py",
}
COOKIECUTTER = (sys.executable, "-m", "cookiecutter")


@pytest.mark.parametrize("style", STYLES)
def test_the_command_line_makes_the_same_as_the_api(
    baked: Bake, template: Path, tmp_path: Path, style: str
) -> None:
    options = ("--no-input", "--output-dir", "cli", f"handler_style={style}")
    done = run(*COOKIECUTTER, template, *options, cwd=tmp_path)

    assert (done.returncode, done.stderr) == (0, "")
    assert files(tmp_path / "cli" / "chat-service") == files(baked(handler_style=style))


def test_styles_differ_only_in_the_endpoints_and_the_service(
    template: Path, tmp_path: Path
) -> None:
    first, *others = [
        files(bake(template, tmp_path / style, handler_style=style)) for style in STYLES
    ]
    for other in others:
        names = first.keys() | other.keys()
        assert {name for name in names if first.get(name) != other.get(name)} <= STYLED


def test_python_is_plain_in_the_template(baked: Bake) -> None:
    """All but tests/conftest.py is copied, not rendered: f-strings may double their braces."""
    plain = {
        name.replace("{{cookiecutter.__package_name}}", "chat_service"): content
        for name, content in files(ROOT / "{{cookiecutter.project_slug}}").items()
        if name.endswith(".py") and name != "tests/conftest.py"
    }
    project = files(baked())

    assert "dev/offline_openai.py" in plain
    assert [name for name in plain.keys() & project if plain[name] != project[name]] == []


def test_says_what_to_do_next_in_commands_that_work(template: Path, tmp_path: Path) -> None:
    """Also with --output-dir, names that a shell reads otherwise, and a console of few letters."""
    options = ("--no-input", "--output-dir", "it's", "project_name=Zoë")
    done = run(*COOKIECUTTER, template, *options, cwd=tmp_path, PYTHONIOENCODING="ascii")

    assert done.returncode == 0
    steps = [line.split("#")[0].strip() for line in done.stdout.splitlines() if line[:2] == "  "]
    assert steps == [*steps[:1], "make demo", "make run", "make test"]
    assert "OPENAI_API_KEY" in done.stdout
    for step in steps[1:]:  # -n: only say what would be done
        assert run("sh", "-c", f"{steps[0]} && {step} -n", cwd=template).returncode == 0


def test_a_folder_that_the_console_has_no_letters_for(template: Path, tmp_path: Path) -> None:
    options = ("--no-input", "--output-dir", "日本")
    done = run(*COOKIECUTTER, template, *options, cwd=tmp_path, PYTHONIOENCODING="ascii")

    assert (done.returncode, done.stderr) == (0, "")


def test_says_where_the_commands_without_make_are(template: Path, tmp_path: Path) -> None:
    done = run(*COOKIECUTTER, template, "--no-input", cwd=tmp_path, PATH=str(tmp_path))

    assert "make demo" not in done.stdout
    assert "README.md" in done.stdout


def test_a_project_made_without_hooks_says_so(template: Path, tmp_path: Path) -> None:
    """And with which command it is made again, with the same answers."""
    answers = ("--no-input", "handler_style=sync", "project_description={{ 7*7 }}")
    folder = tmp_path / "chat-service"
    run(*COOKIECUTTER, template, *answers, "--accept-hooks=no", cwd=tmp_path).check_returncode()

    said = (folder / "HOOKS_DID_NOT_RUN.md").read_text(encoding="utf-8")
    assert "--accept-hooks=no" in said
    shutil.rmtree(folder)
    (command,) = re.findall("^cookiecutter (.+)$", said, re.MULTILINE)
    run(*COOKIECUTTER, *shlex.split(command), cwd=tmp_path).check_returncode()

    run(*COOKIECUTTER, template, *answers, "--output-dir", "wanted", cwd=tmp_path)
    assert files(folder) == files(tmp_path / "wanted" / "chat-service")


def test_git_keeps_out_secrets_and_what_tools_leave(baked: Bake) -> None:
    project = baked()
    wanted = files(project).keys()
    unwanted = [".env", ".env.local", ".venv/x", "htmlcov/x", ".idea/x", ".vscode/x", "src/x.swp"]
    for name in (*unwanted, ".DS_Store", "dev/.DS_Store", "README.md~"):
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).touch()
    run("git", "init", "--quiet", cwd=project).check_returncode()

    shown = run("git", "ls-files", "--others", "--exclude-standard", cwd=project)
    assert set(shown.stdout.splitlines()) == wanted


@pytest.mark.parametrize("version", ["3.11", "3.14"])
def test_names_the_python_that_uv_and_pyenv_take(baked: Bake, version: str) -> None:
    assert (baked(python_version=version) / ".python-version").read_text() == f"{version}\n"
