"""The template's own release, run as after a push of a tag."""

import json
import os
import shutil
from pathlib import Path

import pytest

from ..projects import ROOT
from .act import act, calls
from .repositories import committed, git

VERSION = json.loads((ROOT / "cookiecutter.json").read_text(encoding="utf-8"))["_template_version"]
# In place of the template's own CI, which takes its time.
CI = """
on: {workflow_call: }
jobs: {template: {runs-on: ubuntu-latest, steps: [{run: gh is told that CI runs}]}}
"""


@pytest.fixture
def repository(template: Path, tmp_path: Path) -> Path:
    ignore = shutil.ignore_patterns("{{*", "tests", "benchmarks")
    folder = shutil.copytree(template, tmp_path / "template", ignore=ignore)
    (folder / ".github" / "workflows" / "ci.yml").write_text(CI)
    committed(folder)
    git(folder, "remote", "add", "origin", "https://github.com/some-org/template.git")
    return folder


@pytest.fixture
def fakes(tmp_path: Path) -> Path:
    """A `gh` that notes what it is told, and keeps the file of notes."""
    command = tmp_path / "fakes" / "gh"
    command.parent.mkdir()
    command.write_text(
        f'''#!/bin/sh
        echo "gh $*" >>"{tmp_path}/log"
        for last; do :; done
        cp "$last" "{tmp_path}/notes" 2>/dev/null || true
        '''
    )
    command.chmod(0o755)
    return command.parent


def test_a_tag_of_the_version_is_released_with_its_section_after_ci(
    repository: Path, tools: Path, fakes: Path, tmp_path: Path
) -> None:
    release = ("--workflows", ".github/workflows/release.yml")
    ref = f"refs/tags/v{VERSION}"

    done = act(tools, repository, tmp_path, *release, ref=ref, PATH=str(fakes))

    assert done.returncode == 0
    ci, made = calls(tmp_path)
    assert ci == "gh is told that CI runs"
    assert made.startswith(f"gh release create v{VERSION} --verify-tag --notes-file {os.sep}")
    notes = (tmp_path / "notes").read_text(encoding="utf-8").strip()
    assert notes.startswith("###")
    assert f"\n## [{VERSION}] - " in (repository / "CHANGELOG.md").read_text().split(notes)[0]


def test_another_tag_fails_before_ci(
    repository: Path, tools: Path, fakes: Path, tmp_path: Path
) -> None:
    release = ("--workflows", ".github/workflows/release.yml")
    ref = f"refs/tags/v{VERSION}.1"

    done = act(tools, repository, tmp_path, *release, ref=ref, PATH=str(fakes))

    assert done.returncode != 0
    assert f"but the version in cookiecutter.json is {VERSION}." in done.stdout + done.stderr
    assert calls(tmp_path) == []
