"""The offline OpenAI, which comes with every project, does as the SDK expects."""

import shutil
from pathlib import Path

import pytest

from .conftest import Bake
from .projects import ROOT, run


@pytest.mark.slow
def test_the_offline_openai_passes_its_tests(
    baked: Bake, venv: Path, mypy: tuple[str | Path, ...]
) -> None:
    """In the environment of a project, for they need the SDK."""
    project = baked(handler_style="to_thread")
    path = project / "tests" / "test_offline_openai.py"
    shutil.copy(ROOT / "tests" / "offline_openai.py", path)
    for command in ((*mypy, path), (venv / "pytest", path)):
        assert run(*command, cwd=project, PYTHONPATH=str(project / "src")).returncode == 0
