"""What comes out: the right files, whole, by whichever way."""

import re
import sys
from pathlib import Path

import pytest

from .conftest import Bake
from .projects import FILES, ROOT, STYLES, bake, files, run

STYLED = {
    "README.md",  # it tells about the style
    "pyproject.toml",  # only one depends on aiohttp
    "src/chat_service/chat.py",
    "src/chat_service/openai_service.py",
    "src/chat_service/streams.py",
    "src/chat_service/transport.py",
    "tests/test_openai_service.py",
}
JINJA = re.compile(rb"\{\{|\{%|\{#|cookiecutter\.")  # what closes a tag closes a dict, too
IN_PYTHON = re.compile(rb"cookiecutter")  # an f-string doubles braces, too


@pytest.mark.parametrize("style", STYLES)
def test_has_exactly_the_files_that_it_should(baked: Bake, style: str) -> None:
    assert files(baked(handler_style=style)).keys() == FILES


@pytest.mark.parametrize("style", STYLES)
def test_the_command_line_makes_the_same_as_the_api(
    baked: Bake, template: Path, tmp_path: Path, style: str
) -> None:
    cookiecutter = (sys.executable, "-m", "cookiecutter", template, "--no-input")
    done = run(*cookiecutter, "--output-dir", "cli", f"handler_style={style}", cwd=tmp_path)

    assert (done.returncode, done.stderr) == (0, "")
    assert files(tmp_path / "cli" / "chat-service") == files(baked(handler_style=style))


@pytest.mark.parametrize("style", STYLES)
def test_leaves_no_jinja_behind(baked: Bake, style: str) -> None:
    project = files(baked(handler_style=style))

    left = [
        name
        for name, content in project.items()
        if (IN_PYTHON if name.endswith(".py") else JINJA).search(content)
    ]
    assert left == []


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


def test_says_what_to_do_next(template: Path, tmp_path: Path) -> None:
    """In ASCII, which every console can show, and a pipe of Windows as well."""
    cookiecutter = (sys.executable, "-m", "cookiecutter", template, "--no-input")
    done = run(*cookiecutter, "project_name=Zoë", cwd=tmp_path, PYTHONIOENCODING="ascii")

    assert done.returncode == 0
    lines = [line.split("#")[0].strip() for line in done.stdout.splitlines()]
    assert [line for line in lines if line.startswith(("cd", "make"))] == [
        "cd zoe",
        "make demo",
        "make run",
        "make test",
    ]
    assert "OPENAI_API_KEY" in done.stdout
    assert done.stdout.isascii()
