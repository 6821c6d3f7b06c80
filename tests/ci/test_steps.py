"""The workflows' own steps, run."""

import re
from pathlib import Path

import pytest

from .act import COMMANDS, act, calls
from .repositories import DEPLOYMENTS, THIS_PYTHON, git


@pytest.fixture
def fakes(tmp_path: Path) -> Path:
    """A folder of commands that write their arguments into `log`, one call a line."""
    folder = tmp_path / "fakes"
    folder.mkdir()
    for name, script in COMMANDS.items():
        command = folder / name
        command.write_text(f'#!/bin/sh\necho "{name} $*" >>"{tmp_path}/log"\n{script}\n')
        command.chmod(0o755)
    return folder


def test_the_steps_of_a_push_run(
    projects: dict[str, Path], tools: Path, fakes: Path, tmp_path: Path
) -> None:
    """On the project's own Python, installed by uv; the wheel works without the repository."""
    project = projects["none-github"]

    done = act(tools, project, tmp_path, "--workflows", ".github/workflows/ci.yml", PATH=str(fakes))

    assert done.returncode == 0
    assert done.stdout.count("Job succeeded") == 2
    assert f"make check PYTHON={THIS_PYTHON}" in calls(tmp_path)


@pytest.mark.parametrize("ref", ["refs/tags/v0.1.1", "refs/tags/v0.1"])
def test_a_tag_that_is_not_the_version_is_not_released(
    projects: dict[str, Path], tools: Path, fakes: Path, tmp_path: Path, ref: str
) -> None:
    release = ("--workflows", ".github/workflows/release.yml")
    done = act(tools, projects["none-github"], tmp_path, *release, ref=ref, PATH=str(fakes))

    assert done.returncode != 0
    assert "Failure - Main Compare the tag with the version" in done.stdout
    assert not [call for call in calls(tmp_path) if call.startswith("gh")]


@pytest.mark.parametrize("deployment", DEPLOYMENTS)
def test_a_tag_is_released(
    projects: dict[str, Path], tools: Path, fakes: Path, tmp_path: Path, deployment: str
) -> None:
    project = projects[f"{deployment}-github"]
    git(project, "remote", "add", "origin", "https://github.com/Some-Org/Chat.git")
    release = ("--workflows", ".github/workflows/release.yml")
    tag = "refs/tags/v0.1.0"

    done = act(tools, project, tmp_path, *release, ref=tag, PATH=str(fakes), STARTS="78")

    assert done.returncode == 0
    called = calls(tmp_path)
    files = ["dist/chat_service-0.1.0-py3-none-any.whl", "dist/chat_service-0.1.0.tar.gz"]
    if deployment == "kubernetes":
        files += ["dist/kubernetes-production.yaml", "dist/kubernetes-staging.yaml"]
    image = f"ghcr.io/some-org/chat@sha256:{7:064}"
    notes = "" if deployment == "none" else f"--notes Image: `{image}` "
    assert called[-1] == (
        f"gh release create v0.1.0 --verify-tag --generate-notes {notes}{' '.join(files)}"
    )
    rendered = sorted((tmp_path / "artifacts").glob("*.yaml"))
    assert [f"dist/{path.name}" for path in rendered] == files[2:]
    assert all(path.read_text().count(f"image: {image}\n") == 1 for path in rendered)
    if deployment != "none":
        pushed = "oci-archive:image/image.tar docker://ghcr.io/some-org/chat:0.1.0"
        assert any(call.startswith("skopeo copy") and call.endswith(pushed) for call in called)


@pytest.mark.parametrize("status", [78, 0])
def test_an_image_that_asks_for_no_key_fails(
    projects: dict[str, Path], tools: Path, fakes: Path, tmp_path: Path, status: int
) -> None:
    """It is not even scanned then."""
    image = ("--workflows", ".github/workflows/image.yml")
    project = projects["docker-github"]

    done = act(tools, project, tmp_path, *image, PATH=str(fakes), STARTS=str(status))

    scan = re.compile("docker run .*@sha256:[0-9a-f]{64} .*--fail-on high")
    assert (done.returncode == 0) is (status == 78)
    assert any(map(scan.fullmatch, calls(tmp_path))) is (status == 78)


@pytest.mark.parametrize("ref", ["refs/heads/main", "refs/tags/v0.1.0"])
def test_what_the_scan_finds_stops_a_release_alone(
    projects: dict[str, Path], tools: Path, fakes: Path, tmp_path: Path, ref: str
) -> None:
    is_tag = ref.startswith("refs/tags/")
    name = "release.yml" if is_tag else "image.yml"
    options = ("--workflows", f".github/workflows/{name}")
    env = {"PATH": str(fakes), "STARTS": "78", "SCAN": "2"}

    done = act(tools, projects["docker-github"], tmp_path, *options, ref=ref, **env)

    assert (done.returncode != 0) is is_tag
    assert "Failure - Main Scan it" in done.stdout
    assert not [call for call in calls(tmp_path) if call.startswith(("gh", "skopeo"))]
