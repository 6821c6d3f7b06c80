"""Which versions of cookiecutter make a project, and what the others say."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Bake
from .projects import files, run

pytestmark = pytest.mark.slow


@pytest.fixture
def install(tmp_path: Path) -> Callable[[str], str]:
    """Install a version of cookiecutter, and get the PYTHONPATH where it is."""

    def install(version: str) -> str:
        folder = tmp_path / "installed"
        pip = (sys.executable, "-m", "pip", "install", "--quiet", "--target", folder)
        run(*pip, f"cookiecutter=={version}", "setuptools<81", cwd=tmp_path).check_returncode()
        return str(folder)

    return install


def test_the_oldest_that_is_promised(
    install: Callable[[str], str], baked: Bake, template: Path, tmp_path: Path
) -> None:
    """Also with answers that it would render."""
    text = "{{ 7*7 }} it's"
    command = (sys.executable, "-m", "cookiecutter", template, "--no-input", "--output-dir", "old")
    answers = (f"project_description={text}", "project_name=Test")
    done = run(*command, *answers, cwd=tmp_path, PYTHONPATH=install("2.1.1"))

    assert done.returncode == 0
    wanted = baked(project_description=text, project_name="Test")
    assert files(tmp_path / "old" / "my-test") == files(wanted)


def test_an_older_one_says_that_it_is_too_old(
    install: Callable[[str], str], template: Path, tmp_path: Path
) -> None:
    command = (sys.executable, "-m", "cookiecutter", template, "--output-dir", "old")
    done = run(*command, cwd=tmp_path, PYTHONPATH=install("1.7.3"))

    assert done.returncode == 1
    assert (done.stdout + done.stderr).splitlines() == [
        "Unable to load extension: No module named 'needs_cookiecutter_2_1'"
    ]
    assert not (tmp_path / "old").exists()
