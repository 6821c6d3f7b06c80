"""Projects of all combinations of answers pass what their owners, and their tools, would check.

What a file depends on is tested, too: so that what costs more than a moment, such as types and the
project's own tests, need not run in each combination, but with each style (`test_projects.py`), and
what deploys a project with each answer to `deployment` and `ci`.
"""

import json
import re
import socket
import sys
import tomllib
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml  # type: ignore[import-untyped]  # ships no types; cookiecutter depends on it

from .combinations import CHOICES, COMBINATIONS, Answers, pairs, pairwise
from .projects import STYLES, bake, files, files_of, install, run
from .servers import get, offline_openai, running, wait_until

# Paths in a project, and the questions whose answers change what is there.
DEPENDS_ON = {
    ("src/", "dev/", "tests/"): ("handler_style",),
    ("deploy/", "compose.yaml", ".dockerignore"): ("deployment",),
    (".github/", ".gitlab", "renovate.json"): ("deployment", "ci"),
    (".env.example", ".gitattributes", ".gitignore", ".pre-commit-config.yaml"): ("deployment",),
    ("AGENTS.md", "docs/"): ("handler_style", "deployment", "ci"),
    ("pyproject.toml",): ("handler_style", "license"),
    ("Makefile", ".python-version"): ("python_version",),
    ("LICENSE",): ("license",),
    ("Dockerfile",): ("deployment", "license", "python_version"),
}

# Code depends on the style alone.
FIRST_OF_STYLE = [next(name for name in COMBINATIONS if name.startswith(s)) for s in STYLES]

JINJA = re.compile(r"\{\{|\{%|\{#|cookiecutter\.")  # what closes a tag closes a dict, too
# Copied as they are. There, f-strings double braces, and so do templates of others.
IN_COPIED = re.compile("cookiecutter")
COPIED = re.compile(r".+\.py|deploy/(observability|compose)/.+|\.github/workflows/.+|\.gitlab.+")
BINARY = (".png",)
NOISE = {
    "a space at the end of a line": re.compile(r"[ \t]+$", re.MULTILINE),
    "a carriage return": re.compile(r"\r"),
    "no line break at the end": re.compile(r"[^\n]\Z"),
    "blank lines at the end": re.compile(r"\n\n\Z"),
    "a blank line at the beginning": re.compile(r"\A\n"),
}
TWO_BLANK_LINES = re.compile(r"\n\n\n")
CODE = re.compile(r"^```.+?^```", re.MULTILINE | re.DOTALL)  # in Markdown; PEP 8 has blank lines
TAB = re.compile(r"\t")

RUFF = (sys.executable, "-m", "ruff")  # the same as in a project
Parse = Callable[[str], object]
PARSERS: dict[str, Parse] = {
    ".json": json.loads,
    ".toml": tomllib.loads,
    ".yaml": lambda text: list(yaml.safe_load_all(text)),
    ".yml": lambda text: list(yaml.safe_load_all(text)),
}
# What checks files of a project by a schema, or by rules of its own: glob patterns, and commands.
SCHEMA = ("check-jsonschema", "--builtin-schema")
CHECKERS = {
    ("pyproject.toml",): ("validate-pyproject",),
    (".github/workflows/*.yml",): (*SCHEMA, "vendor.github-workflows"),
    (".github/dependabot.yml",): (*SCHEMA, "vendor.dependabot"),
    (".gitlab-ci.yml", ".gitlab/*.yml"): (*SCHEMA, "vendor.gitlab-ci"),
    ("renovate.json",): (*SCHEMA, "vendor.renovate"),
    ("compose.yaml",): (*SCHEMA, "vendor.compose-spec"),
    (".pre-commit-config.yaml",): ("pre-commit", "validate-config"),
    ("Dockerfile", ".github/scanner.Dockerfile"): ("hadolint", "--no-color"),
}
WITHOUT_SCHEMA = re.compile(
    r"deploy/(kubernetes|observability|compose)/.+"  # kubectl, promtool and Grafana read these
    r"|\.github/zizmor\.yml|\.template\.json"
)

# What only frameworks use, by these names.
CALLED = (
    *("model_config", "_without_quotes"),  # pydantic
    *("ConnectionCls", "is_connected", "pool_classes_by_scheme", "response_class"),  # urllib3
    *("image_url", "role", "temperature", "*_tokens", "finish_reason"),  # JSON's
    *("loc", "msg", "template", "shutting_down"),
    *("on_*_error", "on_*_exception", "on_invalid_request"),  # FastAPI
    "collect",  # prometheus_client
    "_stopping",  # only held, so that the task is not collected
)


@pytest.fixture(scope="module")
def projects(template: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("projects")
    return {
        name: bake(template, folder / name, **answers) for name, answers in COMBINATIONS.items()
    }


@pytest.fixture(params=COMBINATIONS)
def project(request: pytest.FixtureRequest, projects: dict[str, Path]) -> Path:
    return projects[request.param]


@pytest.fixture
def answers(project: Path) -> Answers:
    return COMBINATIONS[project.parent.name]


def text_files(project: Path) -> dict[str, str]:
    return {
        name: content.decode()
        for name, content in files(project).items()
        if not name.endswith(BINARY)
    }


def distinct(projects: dict[str, Path], *patterns: str) -> list[Path]:
    """One path for each content that files of these patterns have in any project."""
    found = {
        (path.relative_to(project), path.read_bytes()): path
        for project in projects.values()
        for pattern in patterns
        for path in project.glob(pattern)
    }
    return list(found.values())


def test_any_two_answers_occur_together() -> None:
    """So each answer occurs with each style."""
    together = set().union(*map(pairs, pairwise(CHOICES)))

    for (one, answers), (other, others) in combinations(CHOICES.items(), 2):
        for answer in answers:
            for another in others:
                assert ((one, answer), (other, another)) in together


def test_has_exactly_the_files_that_it_should(project: Path, answers: Answers) -> None:
    absent = {"src/chat_service/upstream/call.py"} if answers["handler_style"] == "async" else set()

    assert files(project).keys() == files_of(answers["deployment"], answers["ci"]) - absent
    assert [path for path in project.rglob("*") if path.is_dir() and not any(path.iterdir())] == []


@pytest.mark.parametrize(("paths", "questions"), DEPENDS_ON.items(), ids=" ".join)
def test_files_depend_on_these_answers_alone(
    projects: dict[str, Path], paths: tuple[str, ...], questions: tuple[str, ...]
) -> None:
    contents: dict[tuple[str, ...], dict[str, bytes]] = {}
    for name, answers in COMBINATIONS.items():
        found = {
            path: content
            for path, content in files(projects[name]).items()
            if path.startswith(paths)
        }
        chosen = tuple(answers[question] for question in questions)
        assert contents.setdefault(chosen, found) == found


def test_leaves_no_jinja_behind(project: Path) -> None:
    left = [
        path
        for path, text in text_files(project).items()
        if (IN_COPIED if COPIED.fullmatch(path) else JINJA).search(text)
    ]
    assert left == []


def test_has_no_noise_in_its_text(project: Path) -> None:
    for path, text in text_files(project).items():
        if path == "LICENSE" or not text:  # others' text, word for word; nothing
            continue
        found = [kind for kind, pattern in NOISE.items() if pattern.search(text)]
        if not path.endswith(".py"):  # which ruff formats
            found += ["two blank lines"] * bool(TWO_BLANK_LINES.search(CODE.sub("```", text)))
        if path != "Makefile":
            found += ["a tab"] * bool(TAB.search(text))
        assert found == [], path


def test_ruff_finds_nothing(project: Path) -> None:
    for command in (("check",), ("format", "--check")):
        assert run(*RUFF, *command, "--no-cache", cwd=project).returncode == 0


def test_every_file_parses(project: Path) -> None:
    parsed = set()
    for path, text in text_files(project).items():
        if parse := PARSERS.get(Path(path).suffix):
            parse(text)
            parsed.add(path)
    assert {"pyproject.toml", ".pre-commit-config.yaml"} < parsed


@pytest.mark.slow
@pytest.mark.parametrize(("patterns", "command"), CHECKERS.items(), ids=" ".join)
def test_files_are_valid(
    projects: dict[str, Path], tools: Path, patterns: tuple[str, ...], command: tuple[str, ...]
) -> None:
    paths = distinct(projects, *patterns)

    assert paths
    assert run(tools / command[0], *command[1:], *paths, cwd=tools).returncode == 0


def test_every_file_with_a_schema_is_checked_against_it(projects: dict[str, Path]) -> None:
    data = {
        path.relative_to(project).as_posix(): path
        for project in projects.values()
        for path in project.rglob("*")
        if path.suffix in PARSERS
    }
    patterns = [pattern for patterns in CHECKERS for pattern in patterns]
    unchecked = [
        name
        for name, path in data.items()
        if not WITHOUT_SCHEMA.fullmatch(name)
        and not any(path.match(pattern) for pattern in patterns)
    ]
    assert unchecked == []


def test_its_documentation_names_what_is_there(project: Path) -> None:
    command = ("-m", "pytest", "-p", "no:cacheprovider", "--noconftest", "tests/test_docs.py")
    done = run(sys.executable, *command, cwd=project, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    assert done.returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("project", FIRST_OF_STYLE, indirect=True)
def test_nothing_in_its_code_or_dependencies_is_unused(
    project: Path, venv: Path, tools: Path
) -> None:
    """What only tests use is unused in `src`."""
    vulture: tuple[str | Path, ...] = (tools / "vulture", "--ignore-names", ",".join(CALLED))
    vulture += ("--ignore-decorators", "@router.*,@app.*,@pytest.*")
    for folders in (("src",), ("src", "dev", "tests")):
        unused = run(*vulture, *folders, cwd=project).stdout.splitlines()
        assert [line for line in unused if not line.startswith("tests/")] == []

    (packages,) = (venv.parent / "lib").glob("python*/site-packages")
    # DEP003: what FastAPI and aiohttp depend on may be imported. httptools is for uvicorn.
    ignored = ("--ignore", "DEP003", "--per-rule-ignores", "DEP002=httptools")
    done = run(tools / "deptry", "src", *ignored, cwd=project, PYTHONPATH=str(packages))
    assert done.returncode == 0


@pytest.fixture(scope="module")
def openai_url(projects: dict[str, Path], venv: Path) -> Iterator[str]:
    with offline_openai(venv / "python", next(iter(projects.values()))) as url:
        yield url


@pytest.fixture
def wheel(project: Path, tools: Path, tmp_path: Path) -> Path:
    build = ("-m", "hatchling", "build", "--target", "wheel", "--directory", tmp_path)
    run(tools / "python", *build, cwd=project).check_returncode()
    (wheel,) = tmp_path.glob("*.whl")
    return wheel


@pytest.mark.slow
def test_its_wheel_has_its_package_and_nothing_else(project: Path, wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}

    assert names == {name.removeprefix("src/") for name in files(project) if name[:4] == "src/"}


@pytest.mark.slow
@pytest.mark.parametrize("project", FIRST_OF_STYLE, indirect=True)
def test_its_wheel_is_installed_elsewhere_and_starts(
    wheel: Path, venv: Path, openai_url: str, tmp_path: Path
) -> None:
    installed = install(
        venv / "python", "--no-deps", "--target", tmp_path / "lib", wheel, cwd=tmp_path
    )
    installed.check_returncode()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    settings = {
        "OPENAI_API_KEY": "sk-offline-needs-no-key",
        "OPENAI_BASE_URL": openai_url,
        "OPENAI_MODEL": "offline",
        "PORT": str(port),
        "PYTHONPATH": str(tmp_path / "lib"),
    }
    command = (str(venv / "python"), "-m", "chat_service")
    with running(*command, cwd=tmp_path / "lib", **settings):
        wait_until(lambda: get(port, "/readyz"))


def test_every_exception_to_ruffs_rules_is_needed(projects: dict[str, Path]) -> None:
    """In one style at least."""
    styles = [projects[name] for name in FIRST_OF_STYLE]
    lint = tomllib.loads((styles[0] / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]
    exceptions = {"": lint["ignore"], **lint["per-file-ignores"]}
    needless = [
        (folder, rule)
        for folder, rules in exceptions.items()
        for rule in rules
        if not any(
            run(
                *(*RUFF, "check", "--isolated", "--no-cache", "--select", rule),
                *(folder.removesuffix("*") or "src", "--target-version", "py311"),
                cwd=project,
            ).returncode
            for project in styles
        )
    ]
    assert needless == []
