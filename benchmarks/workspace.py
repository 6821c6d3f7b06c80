"""What a run is made of: a baked project of each style, and an environment for each purpose."""

import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = "chat_service"  # of the default answers
STEP_TIMEOUT = 900.0  # seconds for each step; the package index may be far away
CHART = ["matplotlib>=3.11"]  # only draws results.svg
LITELLM = "litellm[proxy]>=1.106"  # pip takes the newest whose requirements it can install


@dataclass(frozen=True)
class Workspace:
    python: Path  # of the projects' environment, which the upstream and the load generator share
    chart: Path
    litellm: Path  # conflicts with the projects' requirements, so it has its own
    litellm_missing: str  # why it is not measured, or ""
    projects: dict[str, Path]  # by style
    folder: Path


def set_up(folder: Path, styles: Sequence[str], python: Path | None, litellm: str) -> Workspace:
    """Bake each style anew; install what they need unless `python` has it already.

    Raises:
        subprocess.CalledProcessError: a step failed, having printed why.
    """
    folder = folder.absolute()
    projects, python = set_up_projects(folder, styles, python)
    try:
        proxy, missing = _environment(folder / "litellm", [litellm]), ""
    except subprocess.SubprocessError:
        proxy, missing = Path(), f"pip could not install {litellm}"
        print(f"LiteLLM is not measured: {missing}.", file=sys.stderr)
    return Workspace(
        python,
        _environment(folder / "chart", CHART),
        proxy,
        missing,
        projects,
        folder,
    )


def set_up_projects(
    folder: Path, styles: Sequence[str], python: Path | None, *more: str
) -> tuple[dict[str, Path], Path]:
    """The projects by style, and an interpreter that has what they need, and `more`.

    Raises:
        subprocess.CalledProcessError: a step failed, having printed why.
    """
    folder.mkdir(parents=True, exist_ok=True)
    projects = {style: _bake(folder / style, style) for style in styles}
    requirements = {"uvicorn[standard]", *more}  # as people install it
    for project in projects.values():
        metadata = tomllib.loads((project / "pyproject.toml").read_text())["project"]
        requirements.update(metadata["dependencies"])
    if not python:
        # Which style it points to makes no difference: PYTHONPATH goes first.
        editable = "--editable", next(iter(projects.values()))
        python = _environment(folder / "venv", sorted(requirements), *editable)
    return projects, python


def _bake(folder: Path, style: str) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    cookiecutter = (sys.executable, "-m", "cookiecutter", ROOT, "--no-input", "--default-config")
    _run(*cookiecutter, "--output-dir", folder, f"handler_style={style}")
    return next(folder.iterdir())


def _environment(venv: Path, requirements: list[str], *more: str | Path) -> Path:
    """Its interpreter; made once for these requirements, with `more` of what pip takes."""
    python, stamp = venv / "bin" / "python", venv / "installed"
    installed = "\n".join([sys.version, *requirements])
    if not stamp.exists() or stamp.read_text() != installed:
        print(f"Installing {', '.join(requirements)} into {venv} ...", flush=True)
        _run(sys.executable, "-m", "venv", "--clear", venv)
        _run(python, "-m", "pip", "install", "--quiet", *requirements, *more)
        stamp.write_text(installed)
    return python


def _run(*command: str | Path) -> None:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=STEP_TIMEOUT,
        check=False,
    )
    if done.returncode:
        print(done.stdout, file=sys.stderr)
        done.check_returncode()
