"""Set aside what is in the project's folder already, until `post_gen_project.py` puts it back.

So cookiecutter and the other hook, which renames and removes files, meet none but their own. If
they do not finish, `needs_cookiecutter_2_1.py` puts it back.
"""

from __future__ import annotations

import sys
from pathlib import Path

ASIDE = ".before-cookiecutter"
STAYS = {".git", ".venv", ASIDE}
UNFINISHED = "HOOKS_DID_NOT_RUN.md"


def set_aside(project: Path) -> None:
    """Move all but git's folder and the environment.

    Raises:
        OSError: something cannot be moved, or was set aside by a run that was killed.
    """
    aside = project / ASIDE
    aside.mkdir()
    for path in list(project.iterdir()):
        if path.name not in STAYS:
            path.rename(aside / path.name)


def main() -> int:
    try:
        set_aside(Path.cwd())
    except OSError as error:
        print(f"The files in {Path.cwd()} cannot be set aside: {error.strerror}.")
        return 1
    # Stays empty if cookiecutter was told to skip files that exist.
    Path(UNFINISHED).touch()
    return 0


if __name__ == "__main__":
    sys.exit(main())
