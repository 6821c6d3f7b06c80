"""Keep the variants that the answers chose, then say what to do next.

Cookiecutter renders this file and runs it with its own interpreter in the new project. Under cruft
it runs again with every update, so it only moves and removes files: no network, no git.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

# As JSON in a raw string on lines of its own: the tojson filter escapes whatever could end the
# string, so that an answer stays data and is never run.
ANSWERS = r"""
{{ cookiecutter | tojson }}
"""

# question -> answer -> {path in the template: its path in the project}. A path, of a file or of a
# folder, that only other answers name is removed. PACKAGE stands for the package's name.
VARIANTS = {
    "handler_style": {
        style: {
            f"src/PACKAGE/chat_{handlers}.py": "src/PACKAGE/chat.py",
            f"src/PACKAGE/openai_service_{style}.py": "src/PACKAGE/openai_service.py",
            f"src/PACKAGE/streams_{client}.py": "src/PACKAGE/streams.py",
            f"src/PACKAGE/transport_{client}.py": "src/PACKAGE/transport.py",
            f"tests/test_openai_service_{handlers}.py": "tests/test_openai_service.py",
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
}

NEXT_STEPS = """
Your service is in {slug}. Next:

  cd {slug}
  make demo    # ask it something: needs no key
  make run     # the first run makes .env: put your OPENAI_API_KEY there
  make test
"""


def keep(chosen: dict[str, str], choices: dict[str, dict[str, str]], project: Path) -> None:
    """Remove what only other choices name, and give the chosen paths their final names."""
    for path in {path for paths in choices.values() for path in paths} - set(chosen):
        if (project / path).is_dir():
            shutil.rmtree(project / path)
        else:
            (project / path).unlink()
    for path, final in chosen.items():
        (project / path).replace(project / final)


def with_package(paths: dict[str, str], package: str) -> dict[str, str]:
    return {
        path.replace("PACKAGE", package): final.replace("PACKAGE", package)
        for path, final in paths.items()
    }


def main() -> int:
    answers = json.loads(ANSWERS)
    package = answers["__package_name"]
    for question, variants in VARIANTS.items():
        choices = {answer: with_package(paths, package) for answer, paths in variants.items()}
        keep(choices[answers[question]], choices, Path.cwd())
    print(NEXT_STEPS.format(slug=answers["project_slug"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
