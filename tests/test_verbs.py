"""The verbs of a project: by its Makefile, by its README without make, by FastAPI's commands."""

import os
import re
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import Bake
from .projects import FILES, bake, files, install, run, stand_in
from .servers import get, offline_openai, running, wait_until

pytestmark = pytest.mark.slow

MAKE = ("make", "INSTALLED=")  # with nothing to install
OFFLINE = """
OPENAI_API_KEY=sk-offline-needs-no-key
OPENAI_BASE_URL={url}
OPENAI_MODEL=offline
PORT={port}
"""


@pytest.fixture(scope="module")
def project(template: Path, venv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = bake(template, tmp_path_factory.mktemp("project") / "it's $HOME")
    stand_in(venv / "python", project)
    return project


@pytest.fixture(scope="module")
def openai_url(project: Path) -> Iterator[str]:
    with offline_openai(Path(".venv/bin/python"), project) as url:
        yield url


@pytest.fixture
def port(project: Path, openai_url: str) -> int:
    """A free one, on which the project's `.env` has the service listen."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    (project / ".env").write_text(OFFLINE.format(url=openai_url, port=port))
    return port


def test_dev_follows_the_settings_and_each_change(project: Path, port: int) -> None:
    app = project / "src" / "chat_service" / "app.py"
    code = app.read_text()
    with running(*MAKE, "dev", cwd=project):
        wait_until(lambda: get(port, "/readyz"))
        assert "Changed" not in get(port, "/openapi.json")
        app.write_text(code.replace('version=about["Version"]', 'version="Changed"'))
        wait_until(lambda: "Changed" in get(port, "/openapi.json"))
    app.write_text(code)
    assert get(port, "/livez") == ""


def test_dev_says_which_setting_is_wrong(project: Path, port: int) -> None:
    done = run(*MAKE, "dev", cwd=project, OPENAI_MODEL="", PORT="x", OPENAI_API_KEY=" ")

    assert "PORT" in done.stderr
    assert "Traceback" not in done.stderr
    assert f"Error {os.EX_CONFIG}" in done.stderr.splitlines()[-1]


@pytest.fixture(scope="module")
def fastapi_cli(venv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PYTHONPATH with what fastapi[standard] adds for its commands."""
    folder = tmp_path_factory.mktemp("fastapi")
    install(venv / "python", "--target", folder, "fastapi-cli", cwd=folder).check_returncode()
    return folder


@pytest.mark.parametrize("verb", ["dev", "run"])
def test_fastapi_finds_the_service(
    project: Path, venv: Path, fastapi_cli: Path, port: int, verb: str
) -> None:
    path = os.pathsep.join([str(project / "src"), str(fastapi_cli)])
    command = (str(venv / "python"), "-m", "fastapi", verb, "--port", str(port))
    with running(*command, cwd=project, PYTHONPATH=path):
        wait_until(lambda: get(port, "/readyz"))


def commands_without_make(project: Path) -> dict[str, list[str]]:
    """The right column of the README's table, by what stands on the left."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (project / "README.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("| ")
    ]
    return {row[0]: re.findall("`(.+?)`", row[-1]) for row in rows if "Scripts" in row[-1]}


def test_readme_has_every_verb_without_make(project: Path, venv: Path) -> None:
    """As far as a test on Unix can tell, with Unix's paths in place of those of Windows."""
    verbs = commands_without_make(project)
    install, demo, start, dev, test, lint, types, coverage, docs = verbs.values()
    slow = [f"{command} --help" for command in (*test, *types, *coverage)]

    for command in (*demo, *lint, *docs, *slow):
        unix = command.replace(".venv\\Scripts\\python", ".venv/bin/python")
        assert run("sh", "-c", unix, cwd=project).returncode == 0
    makefile = (project / "Makefile").read_text()
    for command in (*install[1:], *demo, *start, *dev, *test, *lint, *types, *coverage, *docs):
        assert command.removeprefix(".venv\\Scripts\\python ") in makefile.replace("--quiet ", "")


def test_clean_leaves_what_is_yours(baked: Bake) -> None:
    project = baked()
    for name in (".env", "uv.lock", "dist/x", "htmlcov/x", ".coverage.1", "src/__pycache__/x"):
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).touch()
    for name in (".mypy_cache/x", ".venv/x", "src/x.egg-info/x"):
        (project / name).parent.mkdir()
        (project / name).touch()

    run("make", "clean", cwd=project).check_returncode()

    assert files(project).keys() == FILES | {".env", "uv.lock"}


@pytest.mark.parametrize(
    ("option", "exists", "synced"),
    [
        ((), True, "<--quiet><--python><python3.13>"),
        ((), False, "<--no-progress>"),
        (("PYTHON=no such",), False, "<--quiet><--python><no such>"),
    ],
    ids=["found", "none", "named"],
)
def test_uv_brings_a_python_where_there_is_none(
    baked: Bake, tmp_path: Path, option: tuple[str, ...], exists: bool, synced: str
) -> None:
    """It is told which one if there is one, or if one is named; else .python-version tells it."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name in ("echo", "make", "sh", "touch", "mkdir"):
        (commands / name).symlink_to(shutil.which(name) or "")
    uv = '#!/bin/sh\nmkdir .venv; printf "<%s>" "$@"\n'
    python = f'#!/bin/sh\nexec {sys.executable} "$@"\n' if exists else "#!/bin/sh\nexit 127\n"
    for name, script in (("uv", uv), ("python3.13", python), ("python3", python)):
        (commands / name).write_text(script)
        (commands / name).chmod(0o755)

    done = run("make", ".venv/installed", *option, cwd=baked(), PATH=str(commands))

    assert done.returncode == 0
    assert done.stdout.endswith(f"<sync>{synced}")
