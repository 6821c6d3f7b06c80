"""Baking projects, and what belongs into them."""

import os
import subprocess
from pathlib import Path

from cookiecutter.main import cookiecutter

ROOT = Path(__file__).parents[1]
STYLES = ("to_thread", "sync", "async")

# Of the default answers; the folder of the package is named after the slug.
FILES = {
    ".env.example",
    ".gitignore",
    ".python-version",
    "LICENSE",
    "Makefile",
    "README.md",
    "dev/__init__.py",
    "dev/demo.py",
    "dev/load.py",
    "dev/offline_openai.py",
    "dev/reload.py",
    "pyproject.toml",
    "src/chat_service/__init__.py",
    "src/chat_service/__main__.py",
    "src/chat_service/app.py",
    "src/chat_service/body_limit.py",
    "src/chat_service/causes.py",
    "src/chat_service/chat.py",
    "src/chat_service/completions.py",
    "src/chat_service/concurrency.py",
    "src/chat_service/connections.py",
    "src/chat_service/deadline.py",
    "src/chat_service/dependencies.py",
    "src/chat_service/disconnects.py",
    "src/chat_service/document.py",
    "src/chat_service/error_bodies.py",
    "src/chat_service/errors.py",
    "src/chat_service/events.py",
    "src/chat_service/health.py",
    "src/chat_service/key_check.py",
    "src/chat_service/openai_service.py",
    "src/chat_service/py.typed",
    "src/chat_service/retries.py",
    "src/chat_service/schemas.py",
    "src/chat_service/settings.py",
    "src/chat_service/shutdown.py",
    "src/chat_service/sse.py",
    "src/chat_service/streams.py",
    "src/chat_service/telemetry.py",
    "src/chat_service/transport.py",
    "src/chat_service/upstream.py",
    "tests/__init__.py",
    "tests/conftest.py",
    "tests/test_app.py",
    "tests/test_causes.py",
    "tests/test_chat.py",
    "tests/test_completions.py",
    "tests/test_concurrency.py",
    "tests/test_connections.py",
    "tests/test_deadline.py",
    "tests/test_disconnects.py",
    "tests/test_errors.py",
    "tests/test_health.py",
    "tests/test_key_check.py",
    "tests/test_load.py",
    "tests/test_main.py",
    "tests/test_offline_openai.py",
    "tests/test_openai_service.py",
    "tests/test_retries.py",
    "tests/test_root_path.py",
    "tests/test_settings.py",
    "tests/test_shutdown.py",
    "tests/test_sse.py",
    "tests/test_streams.py",
    "tests/test_telemetry.py",
    "tests/test_tls.py",
    "tests/test_upstream.py",
}


def bake(template: Path, output: Path, **answers: str) -> Path:
    project = cookiecutter(
        str(template), no_input=True, extra_context=answers, output_dir=str(output)
    )
    return Path(project)


def stand_in(python: Path, project: Path) -> None:
    """Have `make` find this interpreter in `.venv`."""
    script = project / ".venv" / "bin" / "python"
    script.parent.mkdir(parents=True)
    script.write_text(f'#!/bin/sh\nPYTHONPATH="$PWD/src" exec \'{python}\' "$@"\n')
    script.chmod(0o755)


def files(project: Path) -> dict[str, bytes]:
    """What is in each file, by its path with slashes."""
    paths = (path for path in project.rglob("*") if path.is_file())
    return {path.relative_to(project).as_posix(): path.read_bytes() for path in paths}


def run(*command: str | Path, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run without input, as in a pipeline; `env` comes on top of the environment."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    print(done.stdout, done.stderr, sep="\n")  # noqa: T201 - pytest shows it with a failure
    return done
