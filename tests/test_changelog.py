"""Versions of the template have a section of the changelog, which a release shows."""

import json
import re
import shutil
from datetime import date
from pathlib import Path

import pytest

from .projects import ROOT, run

CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
VERSION = json.loads((ROOT / "cookiecutter.json").read_text(encoding="utf-8"))["_template_version"]


def test_the_newest_section_is_that_of_the_present_version() -> None:
    """Under what is not released yet; each has a date, and each a lower number than the last."""
    titles = [
        title
        for title in re.findall("^## (.+)$", CHANGELOG, re.MULTILINE)
        if title != "[Unreleased]"
    ]
    sections = [re.fullmatch(r"\[(\d+)\.(\d+)\.(\d+)\] - (.+)", title) for title in titles]

    assert None not in sections
    numbers = [tuple(map(int, section.groups()[:3])) for section in sections if section]
    assert numbers == sorted(set(numbers), reverse=True)
    dates = [date.fromisoformat(section[4]) for section in sections if section]
    assert dates == sorted(dates, reverse=True)
    assert titles[0].startswith(f"[{VERSION}] - ")


def test_each_stored_release_has_a_section() -> None:
    stored = [path.name.removesuffix(".tar.xz") for path in (ROOT / "tests/releases").iterdir()]

    assert stored != []
    assert [version for version in stored if f"\n## [{version}] - " not in CHANGELOG] == []


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for name in (".ci/notes", "CHANGELOG.md", "cookiecutter.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def test_a_release_shows_its_section_alone(copy: Path) -> None:
    """Not the older ones', nor what is not released yet."""
    log = (
        f"# Log\n\n## [Unreleased]\n\n- A\n\n## [{VERSION}] - 2026-01-02\n\n### To update\n\n- B\n"
    )
    (copy / "CHANGELOG.md").write_text(f"{log}\n## [0.1.0] - 2026-01-01\n\n- C\n")

    shown = run(".ci/notes", f"v{VERSION}", cwd=copy)

    assert (shown.returncode, shown.stdout.strip()) == (0, "### To update\n\n- B")


def test_a_tag_that_is_not_the_version_is_not_released(copy: Path) -> None:
    refused = run(".ci/notes", f"v{VERSION}.1", cwd=copy)

    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == (
        f"The tag is v{VERSION}.1, but the version in cookiecutter.json is {VERSION}.\n"
    )


def test_a_version_without_a_section_is_not_released(copy: Path) -> None:
    (copy / "CHANGELOG.md").write_text("## [0.1.0] - 2026-01-01\n\n- C\n")

    refused = run(".ci/notes", f"v{VERSION}", cwd=copy)

    assert (refused.returncode, refused.stdout) == (1, "")
    assert f"CHANGELOG.md says nothing of {VERSION}" in refused.stderr
