"""Every style passes its own checks, as it comes out."""

import json
import sys
from functools import partial
from pathlib import Path

import pytest

from needs_cookiecutter_2_1 import slug_problems

from .projects import ROOT, STYLES, bake, run

# Tests of files that are the same in all styles, and that reach none that is not.
STYLE_INDEPENDENT = (
    "test_settings",
    "upstream/test_key_check",
    "upstream/test_sse",
)


@pytest.fixture(scope="module", params=STYLES)
def project(
    request: pytest.FixtureRequest,
    template: Path,
    venv: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A project of each style, one after the other the one that the environment has installed."""
    folder = bake(template, tmp_path_factory.mktemp("project"), handler_style=request.param)
    pip = (venv / "python", "-m", "pip", "install", "--quiet", "--no-deps", "--editable", ".")
    run(*pip, cwd=folder).check_returncode()
    return folder


@pytest.mark.parametrize(
    "command",
    [
        ("ruff", "check"),
        ("ruff", "format", "--check"),
        ("mypy",),
        ("lint-imports",),
        ("python", "-m", "dev.demo", "chat_service"),
    ],
    ids=" ".join,
)
def test_passes_its_own(project: Path, venv: Path, command: tuple[str, ...]) -> None:
    assert run(venv / command[0], *command[1:], cwd=project).returncode == 0


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("upstream/deadline.py", "from ..server import problems"),
        ("upstream/deadline.py", "import starlette"),
        ("server/shutdown.py", "from ..upstream import retries"),
        ("server/shutdown.py", "import openai"),
        ("server/shutdown.py", "from ..api import schemas"),
        ("errors.py", "from .server import problems"),
    ],
)
def test_an_import_from_the_wrong_wing_is_found(
    template: Path, tmp_path: Path, venv: Path, module: str, line: str
) -> None:
    project = bake(template, tmp_path)
    check = partial(
        run, venv / "lint-imports", "--no-cache", cwd=project, PYTHONPATH=str(project / "src")
    )
    assert check().returncode == 0

    with (project / "src" / "chat_service" / module).open("a") as file:
        file.write(f"{line}\n")

    assert check().returncode == 1


@pytest.mark.parametrize("style", STYLES[1:])
def test_passes_its_own_tests(template: Path, tmp_path: Path, venv: Path, style: str) -> None:
    """All that a style can make a difference to; `make check` below runs all of the first style."""
    project = bake(template, tmp_path, handler_style=style)
    ignored = [f"--ignore=tests/{name}.py" for name in STYLE_INDEPENDENT]

    options = ("-n", "3", "--dist", "worksteal", *ignored)
    done = run(venv / "pytest", *options, cwd=project, PYTHONPATH=str(project / "src"))

    assert done.returncode == 0


def test_passes_as_a_new_user_would_check_it(template: Path, tmp_path: Path) -> None:
    """With nothing but its own Makefile: the coverage that it demands of itself included.

    In a folder whose name means something to make, to a shell and to the first line of a script.
    """
    project = bake(template, tmp_path / "My Projects" / "it's $HOME #1 %s ü")

    checked = run("make", "check", f"PYTHON={sys.executable}", cwd=project)
    asked = run("make", "demo", cwd=project)

    assert (checked.returncode, asked.returncode) == (0, 0)
    assert "Installing" in checked.stdout
    assert "Installing" not in asked.stdout


def test_styles_publish_the_same_openapi_document(
    template: Path, tmp_path: Path, venv: Path
) -> None:
    code = """
import json
from chat_service.app import create_app
from chat_service.settings import Settings
settings = Settings(openai_api_key="sk-" + "0123456789abcdef" * 3, openai_model="m")
print(json.dumps(create_app(settings).openapi(), indent=1))
"""
    documents = []
    for style in STYLES:
        project = bake(template, tmp_path / style, handler_style=style)
        done = run(venv / "python", "-c", code, cwd=project, PYTHONPATH=str(project / "src"))
        assert done.returncode == 0
        documents.append(done.stdout.splitlines())

    assert documents[1] == documents[0]
    assert documents[2] == documents[0]
    assert any('"/v1/chat/stream"' in line for line in documents[0])


def test_no_service_can_take_the_name_of_what_is_installed(venv: Path) -> None:
    """The list of reserved names grows with the dependencies."""
    code = """
import importlib.metadata as m, json
names = {d.metadata["Name"] for d in m.distributions()} | set(m.packages_distributions())
print(json.dumps(sorted(n.lower().replace("-", "_") for n in names)))
"""
    names = json.loads(run(venv / "python", "-c", code, cwd=ROOT).stdout)

    free = [name for name in names if not any(slug_problems(name.replace("_", "-")))]
    assert free == ["chat_service"]
