"""Projects of each deployment and CI, in a repository each."""

import itertools
from pathlib import Path

import pytest

from ..projects import bake
from .repositories import DEPLOYMENTS, THIS_PYTHON, committed


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
