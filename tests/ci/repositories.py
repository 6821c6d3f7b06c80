"""What workflows and pipelines are committed to, and read from."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]  # ships no types; cookiecutter depends on it

from ..projects import run

DEPLOYMENTS = ("docker", "kubernetes", "none")
THIS_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
QUIET = {"NO_COLOR": "1", "UV_NO_PROGRESS": "1", "UV_PYTHON_DOWNLOADS": "never"}


def git(project: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    identity = ("-c", "user.name=Ann", "-c", "user.email=ann@example.org")
    return run("git", *identity, *arguments, cwd=project, **env)


def committed(project: Path) -> Path:
    for arguments in (("init", "-q", "-b", "main"), ("add", "-A"), ("commit", "-q", "-m", "First")):
        git(project, *arguments).check_returncode()
    return project


def read(path: Path) -> Any:  # noqa: ANN401 - YAML of any shape
    loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {("on" if key is True else key): value for key, value in loaded.items()}


def workflows(repository: Path) -> dict[str, Any]:
    return {path.name: read(path) for path in (repository / ".github" / "workflows").iterdir()}
