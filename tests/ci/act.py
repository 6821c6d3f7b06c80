"""GitHub's workflows on this machine, by act, with stand-ins for what cannot be fetched."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from ..projects import run
from .repositories import QUIET, committed

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
