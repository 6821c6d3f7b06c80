"""Where things are made: a baked project of each style, and one environment for all of them."""

import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = "chat_service"  # of the default answers
WITHIN = 900.0  # seconds for each step; the index may be far away


@dataclass(frozen=True)
class Workshop:
    python: Path  # of the environment
    projects: dict[str, Path]  # by style
    folder: Path

    @property
    def project(self) -> Path:
        """Any: all have the same offline OpenAI."""
        return next(iter(self.projects.values()))


def set_up(folder: Path, styles: Sequence[str], python: Path | None) -> Workshop:
    """Bake each style anew; install what they need unless `python` has it already.

    Raises:
        subprocess.CalledProcessError: a step failed, having printed why.
    """
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    projects = {style: _bake(folder / style, style) for style in styles}
    return Workshop(python or _environment(folder / "venv", projects), projects, folder)


def _bake(folder: Path, style: str) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    cookiecutter = (sys.executable, "-m", "cookiecutter", ROOT, "--no-input", "--default-config")
    _run(*cookiecutter, "--output-dir", folder, f"handler_style={style}")
    return next(folder.iterdir())


def _environment(venv: Path, projects: dict[str, Path]) -> Path:
    """The interpreter of an environment with the projects' dependencies; made once for them."""
    python, stamp = venv / "bin" / "python", venv / "installed"
    needed = {sys.version} | {
        dependency
        for project in projects.values()
        for dependency in tomllib.loads((project / "pyproject.toml").read_text())["project"][
            "dependencies"
        ]
    }
    if stamp.exists() and needed <= set(stamp.read_text().split("\n\n")):
        return python
    print(f"Installing the projects' dependencies into {venv} ...", flush=True)
    _run(sys.executable, "-m", "venv", "--clear", venv)
    # Which style an editable install points to makes no difference: PYTHONPATH goes first.
    for project in projects.values():
        _run(python, "-m", "pip", "install", "--quiet", "--editable", project)
    # As people install it; and what the offline OpenAI needs, in any style.
    _run(python, "-m", "pip", "install", "--quiet", "uvicorn[standard]", "aiohttp")
    stamp.write_text("\n\n".join(sorted(needed)))
    return python


def _run(*command: str | Path) -> None:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=WITHIN,
        check=False,
    )
    if done.returncode:
        print(done.stdout, file=sys.stderr)
        done.check_returncode()
