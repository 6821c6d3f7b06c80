"""The offline OpenAI, which comes with every project, does as the SDK expects."""

import shutil
from pathlib import Path

from .conftest import Bake
from .projects import ROOT, run


def test_the_offline_openai_passes_its_tests(baked: Bake, venv: Path) -> None:
    """In the environment of a project, for they need the SDK."""
    project = baked(handler_style="to_thread")
    path = project / "tests" / "test_offline_openai.py"
    shutil.copy(ROOT / "tests" / "offline_openai.py", path)
    for command in (("mypy",), ("pytest", path)):
        assert run(venv / command[0], *command[1:], cwd=project).returncode == 0
