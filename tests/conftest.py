import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .projects import ROOT, bake, run

Bake = Callable[..., Path]


@pytest.fixture(scope="session", autouse=True)
def _bare_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is baked does not depend on who bakes it.

    Not on their cookiecutter defaults, and not on the make that may have started the tests.
    """
    home = tmp_path_factory.mktemp("home")
    config = home / "config.yaml"
    config.write_text(f"cookiecutters_dir: {home}/templates\nreplay_dir: {home}/replay\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COOKIECUTTER_CONFIG", str(config))
        for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PYTHON", "STYLE"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template as a clone would have it, without what tools have left in the work tree."""
    ignore = shutil.ignore_patterns(".git", ".venv", ".demo", "__pycache__", ".*_cache")
    return shutil.copytree(ROOT, tmp_path_factory.mktemp("template") / "template", ignore=ignore)


@pytest.fixture
def baked(template: Path, tmp_path: Path) -> Bake:
    """Bake with these answers and get the project's folder."""

    def bake_here(**answers: str) -> Path:
        return bake(template, tmp_path, **answers)

    return bake_here


@pytest.fixture(scope="session")
def venv(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands of an environment with what all projects need: `async` projects, and urllib3.

    Installed by plain pip from a project's own pyproject.toml, as its Makefile does without uv.
    """
    project = bake(template, tmp_path_factory.mktemp("venv"), handler_style="async")
    run(sys.executable, "-m", "venv", ".venv", cwd=project).check_returncode()
    commands = project / ".venv" / "bin"
    pip = (commands / "python", "-m", "pip", "install", "--quiet")
    run(*pip, "--upgrade", "pip", cwd=project).check_returncode()
    run(
        *pip, "--editable", ".", "urllib3>=2.8,<3", "--group", "dev", cwd=project
    ).check_returncode()
    return commands
