"""The workflows, of projects and of the template itself, as linters and their rules see them."""

import os
import re
from pathlib import Path

import pytest

from ..projects import ROOT, run
from .repositories import DEPLOYMENTS, workflows


@pytest.fixture(scope="module", params=[*(f"{name}-github" for name in DEPLOYMENTS), "template"])
def repository(request: pytest.FixtureRequest, projects: dict[str, Path]) -> Path:
    """One with workflows: of a project, or of the template itself."""
    return ROOT if request.param == "template" else projects[request.param]


def test_linters_find_nothing_in_the_workflows(tools: Path, repository: Path) -> None:
    files = sorted((repository / ".github" / "workflows").iterdir())
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"
    schema = ("check-jsonschema", "--builtin-schema")
    commands: list[tuple[str | Path, ...]] = [
        ("actionlint", *files),
        ("zizmor", "--offline", "--persona=pedantic", "--no-progress", repository / ".github"),
        (*schema, "vendor.github-workflows", *files),
    ]
    if repository != ROOT:  # which has Renovate
        commands.append((*schema, "vendor.dependabot", repository / ".github" / "dependabot.yml"))
    for command in commands:
        assert run(tools / command[0], *command[1:], cwd=repository, PATH=path).returncode == 0


def test_actions_are_pinned_by_hash_with_their_version(projects: dict[str, Path]) -> None:
    """One version of each, everywhere."""
    texts = [
        path.read_text(encoding="utf-8")
        for folder in (ROOT, *projects.values())
        for path in folder.glob(".github/workflows/*.yml")
    ]
    used = set(re.findall(r"uses: (?!\./)(.+)", "\n".join(texts)))

    names = [re.fullmatch(r"([\w-]+/[\w-]+)@[0-9a-f]{40} # v\d+\.\d+\.\d+", use) for use in used]
    assert None not in names
    assert len({name[1] for name in names if name}) == len(used)


def test_jobs_have_no_more_rights_than_they_name(repository: Path) -> None:
    for name, workflow in workflows(repository).items():
        assert workflow["permissions"] == {}
        for job in workflow["jobs"].values():
            assert job["permissions"].get("contents") == (
                "write" if job.get("name") == "Release" and name == "release.yml" else "read"
            )
            assert "uses" in job or job["timeout-minutes"] <= 60
            for step in job.get("steps", ()):
                if step.get("uses", "").startswith("actions/checkout@"):
                    assert step["with"]["persist-credentials"] is False


def test_a_first_push_needs_no_secret(repository: Path) -> None:
    """Only what no push starts may have one."""
    for name, workflow in workflows(repository).items():
        text = (repository / ".github" / "workflows" / name).read_text(encoding="utf-8")
        if re.search(r"\$\{\{.*secrets\b", text):
            assert set(workflow["on"]) <= {"schedule", "workflow_dispatch"}
            assert repository == ROOT, "a project has no such workflow"
