"""A project of each style is installed from nothing and passes its checks: by pip, by uv, on each
Python, with the oldest dependencies that it allows as with the newest."""

import os
import re
import shutil
import sys
import tomllib
from pathlib import Path

import pytest

from .conftest import Bake
from .projects import STYLES, bake, environment, install, interpreter, run, uv
from .servers import processes_with

pytestmark = pytest.mark.slow

TEST = ("-m", "pytest", "-n", "3", "--dist", "worksteal")  # other tests run beside these
# Tests of files that are the same in all styles, and that reach none that is not.
STYLE_INDEPENDENT = (
    "server/test_rate_limiter",
    "server/test_windows",
    "test_docs",
    "test_keys",
    "test_secrets",
    "test_settings",
    "upstream/test_key_check",
    "upstream/test_sse",
)
# A Python for each style. Where it is not installed, the one that runs the tests stands in.
PYTHONS = {"to_thread": "3.11", "sync": "3.12", "async": "3.13"}


@pytest.fixture(scope="module")
def without_uv(tmp_path_factory: pytest.TempPathFactory) -> str:
    """PATH without the folders that have uv, but with make."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "make").symlink_to(shutil.which("make") or "")
    paths = os.environ["PATH"].split(os.pathsep)
    return os.pathsep.join([str(folder), *(p for p in paths if not shutil.which("uv", path=p))])


@pytest.fixture(scope="module")
def with_uv(tmp_path_factory: pytest.TempPathFactory) -> str:
    """PATH with a folder of uv alone."""
    folder = environment(tmp_path_factory.mktemp("uv"), "uv")
    return os.pathsep.join([str(folder), os.environ["PATH"]])


def test_pip_installs_what_a_new_user_checks(
    template: Path, tmp_path: Path, without_uv: str
) -> None:
    """With nothing but its own Makefile: the coverage that it demands of itself included.

    In a folder whose name means something to make, to a shell and to the first line of a script.
    """
    project = bake(template, tmp_path / "My Projects" / "it's $HOME #1 %s ü")

    checked = run("make", "check", f"PYTHON={sys.executable}", cwd=project, PATH=without_uv)
    asked = run("make", "demo", cwd=project, PATH=without_uv)

    assert (checked.returncode, asked.returncode) == (0, 0)
    assert "Installing" in checked.stdout
    assert "Installing" not in asked.stdout
    assert not (project / "uv.lock").exists()
    assert list(processes_with(project)) == [], "its tests leave nothing running"


@pytest.mark.parametrize("style", STYLES[1:])
def test_pip_installs_the_other_styles(baked: Bake, without_uv: str, style: str) -> None:
    """As far as the first style does not show it: what they depend on."""
    project = baked(handler_style=style)

    env = {"PATH": without_uv, "PIP_NO_COMPILE": "1"}  # only what is run is compiled
    asked = run("make", "demo", f"PYTHON={sys.executable}", cwd=project, **env)

    assert asked.returncode == 0
    assert "event: done" in asked.stdout


@pytest.mark.parametrize("style", STYLES)
def test_the_first_command_makes_the_lock_file_with_uv(
    baked: Bake, with_uv: str, style: str
) -> None:
    """Which the next commands keep to, and which is right."""
    project = baked(handler_style=style)
    python = interpreter(PYTHONS[style]) or sys.executable
    env = {"PATH": with_uv, "UV_PYTHON_DOWNLOADS": "never"}

    asked = run("make", "demo", f"PYTHON={python}", cwd=project, **env)

    assert asked.returncode == 0
    assert "event: done" in asked.stdout
    assert uv("lock", "--check", cwd=project).returncode == 0
    if style != STYLES[0]:  # whose tests pip's environment runs
        ignored = [f"--ignore=tests/{name}.py" for name in STYLE_INDEPENDENT]
        assert run(project / ".venv/bin/python", *TEST, *ignored, cwd=project).returncode == 0


@pytest.mark.parametrize(
    ("style", "folders"), [("to_thread", ("api", "server", "upstream")), ("async", ("upstream",))]
)
def test_passes_its_tests_with_the_oldest_dependencies(
    template: Path, tmp_path: Path, style: str, folders: tuple[str, ...]
) -> None:
    """Those of `pyproject.toml`, which has a lower bound for each.

    In `async`, another client is behind `upstream`; the rest is the same.
    """
    project = bake(template, tmp_path, handler_style=style)
    commands = environment(tmp_path)
    oldest = ("--resolution", "lowest-direct")
    options = (*oldest, "--compile-bytecode", "--editable", ".", "--group", "dev")
    install(commands / "python", *options, cwd=project).check_returncode()

    metadata = tomllib.loads((project / "pyproject.toml").read_text())
    requirements = [*metadata["project"]["dependencies"], *metadata["dependency-groups"]["dev"]]
    bounds = dict(re.findall(r"([\w-]+)>=([\d.]+)", "\n".join(requirements)))
    assert len(bounds) == len({re.split("[>;]", one)[0] for one in requirements})
    freeze = uv("pip", "freeze", "--python", commands / "python", cwd=project).stdout
    installed = dict(re.findall(r"^([\w-]+)==([\d.]+)", freeze, re.MULTILINE))
    for name, bound in bounds.items():
        assert installed[name].startswith(bound)
    tests = [f"tests/{folder}" for folder in folders]
    assert run(commands / "python", *TEST, *tests, cwd=project).returncode == 0
