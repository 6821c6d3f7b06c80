"""GitLab's pipelines: which jobs they have, and what these run."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]  # ships no types; cookiecutter depends on it

from ..projects import run
from .repositories import DEPLOYMENTS, QUIET

GITLAB_CI_LOCAL = "gitlab-ci-local@4.61.0"  # newer versions need Node.js 22


@pytest.fixture(scope="module")
def gitlab_ci_local(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """The command of a reader of GitLab's pipelines: includes, rules and needs."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        pytest.skip("needs Node.js and npm")
    folder = tmp_path_factory.mktemp("gitlab-ci-local")
    run(npm, "install", "--no-audit", "--no-fund", GITLAB_CI_LOCAL, cwd=folder).check_returncode()
    return node, str(folder / "node_modules" / ".bin" / "gitlab-ci-local")


def jobs(command: tuple[str, ...], project: Path, **variables: str) -> set[str]:
    """The names of the jobs in a pipeline with these variables."""
    options = [f"--variable={name}={value}" for name, value in variables.items()]
    done = run(*command, "--list-csv", *options, cwd=project)
    done.check_returncode()
    names = {line.split(";")[0] for line in done.stdout.splitlines() if ";" in line}
    return names - {"name"}  # the first line says what the columns are


@pytest.mark.parametrize("deployment", DEPLOYMENTS)
def test_pipelines_have_the_jobs_of_the_answers(
    projects: dict[str, Path], tools: Path, gitlab_ci_local: tuple[str, ...], deployment: str
) -> None:
    project = projects[f"{deployment}-gitlab"]
    files = [project / ".gitlab-ci.yml", *(project / ".gitlab").iterdir()]
    schema = ("--builtin-schema", "vendor.gitlab-ci")
    assert run(tools / "check-jsonschema", *schema, *files, cwd=project).returncode == 0

    pushed = {"check", "wheel"}
    released = {"version", "release"}
    if deployment != "none":
        pushed |= {"image:build", "image:start", "image:scan"}
        released |= {"image:publish"}
    if deployment == "kubernetes":
        pushed |= {"manifests", "manifests:validate"}
        released |= {"manifests:release"}
    assert jobs(gitlab_ci_local, project) == pushed
    assert jobs(gitlab_ci_local, project, CI_COMMIT_TAG="v0.1.0") == pushed | released
    bare = {"check", "wheel", "manifests", "manifests:validate"} & pushed
    assert jobs(gitlab_ci_local, project, CI_REGISTRY_IMAGE="") == bare


@pytest.fixture(scope="module")
def scripts(projects: dict[str, Path], gitlab_ci_local: tuple[str, ...]) -> dict[str, str]:
    """What the jobs of a project with all of them run, as the runner puts the lines together."""
    done = run(*gitlab_ci_local, "--preview", cwd=projects["kubernetes-gitlab"])
    done.check_returncode()
    return {
        name: "\n".join(["#!/bin/sh", "set -e", *job.get("before_script", ()), *job["script"]])
        for name, job in yaml.safe_load(done.stdout).items()
        if "script" in job
    }


def test_shellcheck_finds_nothing_in_the_jobs(
    scripts: dict[str, str], tools: Path, tmp_path: Path
) -> None:
    """Which run in the plain shell of small images, too."""
    for name, script in scripts.items():
        path = tmp_path / f"{name.replace(':', '_')}.sh"
        path.write_text(f"{script}\n")
    assert len(list(tmp_path.iterdir())) == 12
    assert run(tools / "shellcheck", *tmp_path.iterdir(), cwd=tmp_path).returncode == 0


def in_the_job(
    project: Path, tools: Path, script: str, **env: str
) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(tools), os.environ["PATH"]])
    env = {"CI_PROJECT_DIR": str(project), "PATH": path, **QUIET, **env}
    return run("sh", "-c", script, cwd=project, **env)


def test_the_wheel_of_a_pipeline_works_without_the_repository(
    projects: dict[str, Path], scripts: dict[str, str], tools: Path
) -> None:
    done = in_the_job(projects["kubernetes-gitlab"], tools, scripts["wheel"])

    assert done.returncode == 0
    assert "OPENAI_API_KEY is not set" in done.stderr


@pytest.mark.parametrize("tag", ["v0.1.0", "v0.1.1"])
def test_a_pipeline_compares_the_tag_with_the_version(
    projects: dict[str, Path], scripts: dict[str, str], tools: Path, tag: str
) -> None:
    project = projects["kubernetes-gitlab"]
    done = in_the_job(project, tools, scripts["version"], CI_COMMIT_TAG=tag)

    if tag == "v0.1.0":
        assert (done.returncode, done.stdout) == (0, "")
    else:
        assert done.returncode == 1
        assert done.stdout == f"The tag is {tag}, the version in pyproject.toml 0.1.0.\n"
