"""Set aside what is in the project's folder already, until `post_gen_project.py` puts it back.

So cookiecutter and the other hook, which renames and removes files, meet none but their own.
`needs_cookiecutter_2_1.py` has `undo` called when cookiecutter ends before that.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

ASIDE = ".before-cookiecutter"  # has all that was there; all else in the folder is generated
MOVING = ".before-cookiecutter-moving"  # has some of it; nothing else is generated
STAYS = {".git", ".venv", ASIDE, MOVING}
UNFINISHED = "HOOKS_DID_NOT_RUN.md"


def set_aside(project: Path) -> None:
    moving = project / MOVING
    moving.mkdir()
    for path in list(project.iterdir()):
        if path.name not in STAYS:
            path.rename(moving / path.name)
    moving.rename(project / ASIDE)


def undo(project: Path, *, existed: bool) -> None:
    """Remove what is generated, and put back what was set aside, unless all is done.

    Args:
        existed: whether the folder did, before cookiecutter ran.
    """
    aside, moving = project / ASIDE, project / MOVING
    if aside.exists():
        for path in project.iterdir():
            if path.name in STAYS:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        aside.rename(moving)
    if moving.exists():
        for path in list(moving.iterdir()):
            path.rename(project / path.name)
        moving.rmdir()
        if not existed and not any(project.iterdir()):
            project.rmdir()


def main() -> int:
    project = Path.cwd()
    try:
        set_aside(project)
    except OSError as error:
        print(f"What is in {project} cannot be set aside for a moment: {error.strerror}.")
        return 1
    # Stays empty if cookiecutter was told to skip files that exist.
    (project / UNFINISHED).touch()
    return 0


if __name__ == "__main__":
    sys.exit(main())
