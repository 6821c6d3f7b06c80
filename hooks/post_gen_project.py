"""Keep the variants that the answers chose, then say what to do next.

Cookiecutter renders this file and runs it with its own interpreter in the new project. Under cruft
it runs again with every update, so it only moves and removes files: no network, no git.
"""

from __future__ import annotations

import io
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

# As JSON in a raw string on lines of its own: the tojson filter escapes whatever could end the
# string, so that an answer stays data and is never run.
ANSWERS = r"""
{{ cookiecutter | tojson }}
"""

# Files and folders that keep their names.
DOCKER = (
    ".dockerignore",
    ".github/scanner.Dockerfile",
    ".github/workflows/image.yml",
    ".gitlab/image.yml",
    "Dockerfile",
    "compose.yaml",
    "deploy/compose",
    "docs/docker.md",
)
KUBERNETES = (
    ".github/workflows/manifests.yml",
    ".gitlab/manifests.yml",
    "deploy/kubernetes",
    "docs/kubernetes.md",
)


def same(*paths: str) -> dict[str, str]:
    return {path: path for path in paths}


def release(deployment: str) -> dict[str, str]:
    return {f".github/workflows/release_{deployment}.yml": ".github/workflows/release.yml"}


# question -> answer -> {path in the template: its path in the project}. A path, of a file or of a
# folder, that only other answers name is removed. PACKAGE stands for the package's name.
VARIANTS = {
    "handler_style": {
        style: {
            f"src/PACKAGE/api/chat_{style}.py": "src/PACKAGE/api/chat.py",
            f"src/PACKAGE/api/chat_events_{client}.py": "src/PACKAGE/api/chat_events.py",
            f"src/PACKAGE/upstream/client_{client}.py": "src/PACKAGE/upstream/client.py",
            f"src/PACKAGE/upstream/openai_service_{style}.py": (
                "src/PACKAGE/upstream/openai_service.py"
            ),
            f"src/PACKAGE/upstream/streaming_{client}.py": "src/PACKAGE/upstream/streaming.py",
            f"src/PACKAGE/upstream/transport_{client}.py": "src/PACKAGE/upstream/transport.py",
            f"tests/upstream/test_openai_service_{handlers}.py": (
                "tests/upstream/test_openai_service.py"
            ),
            **(
                {"src/PACKAGE/upstream/call_sync.py": "src/PACKAGE/upstream/call.py"}
                if client == "sync"
                else {}
            ),
        }
        # The handlers of two styles are `async def`, the clients of two are sync.
        for style, handlers, client in (
            ("to_thread", "async", "sync"),
            ("sync", "sync", "sync"),
            ("async", "async", "async"),
        )
    },
    "license": {
        terms: {f"LICENSE_{terms}": "LICENSE"} for terms in ("MIT", "Apache-2.0", "Proprietary")
    },
    # Before `ci`, which removes the folder of a CI that was not chosen.
    "deployment": {
        "docker": {**same(*DOCKER), **release("docker")},
        "kubernetes": {**same(*DOCKER, *KUBERNETES), **release("kubernetes")},
        "none": release("none"),
    },
    "ci": {
        "github": same(".github"),
        "gitlab": same(".gitlab", ".gitlab-ci.yml", "renovate.json"),
        "none": {},
    },
}

# What is there in place of the project for those whose cookiecutter runs no hooks.
UNFINISHED = "HOOKS_DID_NOT_RUN.md"
# Where `pre_gen_project.py` has set aside what was in the folder before.
ASIDE = ".before-cookiecutter"
MOVING = ".before-cookiecutter-moving"
STAYS = {".git", ".venv", ASIDE}

NEXT_STEPS = """
Your service is made. Next:

  cd {folder}
{commands}
"""
WITH_MAKE = """\
  make demo    # ask it something: needs no key
  make run     # the first run makes .env: put your OPENAI_API_KEY there
  make test"""
WITHOUT_MAKE = "  and go on with the commands in README.md, which has them without make, too."


def keep(chosen: dict[str, str], choices: dict[str, dict[str, str]], project: Path) -> None:
    """Remove what only other choices name, and give the chosen paths their final names."""
    for path in {path for paths in choices.values() for path in paths} - set(chosen):
        if (project / path).is_dir():
            shutil.rmtree(project / path)
        else:
            (project / path).unlink()
    for path, final in chosen.items():
        (project / path).replace(project / final)


def put_back(project: Path, *, skip_existing: bool) -> None:
    """Put the generated files among those that were there, over the ones with the same names.

    Args:
        skip_existing: but not over them.
    """
    aside = project / ASIDE
    generated = [path for path in project.iterdir() if path.name not in STAYS]
    for top in generated:
        for path in [top, *top.rglob("*")]:
            before = aside / path.relative_to(project)
            if path.is_file() and not (skip_existing and before.exists()):
                before.parent.mkdir(parents=True, exist_ok=True)
                path.replace(before)
    for top in generated:  # skipped files and empty folders are left
        if top.is_dir():
            shutil.rmtree(top)
        elif top.exists():
            top.unlink()
    moving = project / MOVING
    aside.rename(moving)
    for path in list(moving.iterdir()):
        path.rename(project / path.name)
    moving.rmdir()


def with_package(paths: dict[str, str], package: str) -> dict[str, str]:
    return {
        path.replace("PACKAGE", package): final.replace("PACKAGE", package)
        for path, final in paths.items()
    }


def next_steps(project: Path) -> str:
    """What to do next, in commands that work here and from whatever folder they are typed in."""
    quote = subprocess.list2cmdline if os.name == "nt" else shlex.join
    has_make = os.name != "nt" and shutil.which("make")  # the Makefile knows no Windows
    commands = WITH_MAKE if has_make else WITHOUT_MAKE
    return NEXT_STEPS.format(folder=quote([str(project)]), commands=commands)


def main() -> int:
    answers = json.loads(ANSWERS)
    package = answers["__package_name"]
    for question, variants in VARIANTS.items():
        choices = {answer: with_package(paths, package) for answer, paths in variants.items()}
        keep(choices[answers[question]], choices, Path.cwd())
    skip_existing = not Path(UNFINISHED).read_bytes()  # still as pre_gen_project.py has made it
    Path(UNFINISHED).unlink()
    put_back(Path.cwd(), skip_existing=skip_existing)
    if "_commit" not in answers:  # set by cruft, which moves the files from here to the project
        if isinstance(sys.stdout, io.TextIOWrapper):  # which may know fewer letters than a path has
            sys.stdout.reconfigure(errors="backslashreplace")
        print(next_steps(Path.cwd()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
