"""What each style promises of its code."""

import json
from functools import partial
from pathlib import Path

import pytest

from needs_cookiecutter_2_1 import slug_problems

from .projects import ROOT, STYLES, bake, run

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("style", STYLES)
def test_imports_keep_to_the_wings(template: Path, tmp_path: Path, venv: Path, style: str) -> None:
    project = bake(template, tmp_path, handler_style=style)

    check = (venv / "lint-imports", "--no-cache")
    assert run(*check, cwd=project, PYTHONPATH=str(project / "src")).returncode == 0


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
