"""Every way to run cookiecutter makes the same project, and harms no other file."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .ci.repositories import committed, git
from .conftest import Bake
from .projects import bake, environment, files, run

COOKIECUTTER = (sys.executable, "-m", "cookiecutter")
OVER = ("--no-input", "--overwrite-if-exists")
SKIP = (*OVER, "--skip-if-file-exists")


@pytest.fixture(scope="module")
def repository(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template in git, as a user's `gh:` would clone it."""
    folder = tmp_path_factory.mktemp("repository") / "cookiecutter-fastapi-openai"
    return committed(shutil.copytree(template, folder))


@pytest.fixture(scope="module")
def wanted(template: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return files(bake(template, tmp_path_factory.mktemp("wanted")))


def made(*command: str | Path, cwd: Path, **env: str) -> dict[str, bytes]:
    """What the command made, without a word on stderr."""
    done = run(*command, cwd=cwd, **env)
    assert (done.returncode, done.stderr) == (0, "")
    return files(cwd / "chat-service")


def test_from_git(repository: Path, wanted: dict[str, bytes], tmp_path: Path) -> None:
    assert made(*COOKIECUTTER, f"git+file://{repository}", "--no-input", cwd=tmp_path) == wanted


def test_from_git_of_a_windows_user(
    repository: Path, wanted: dict[str, bytes], tmp_path: Path
) -> None:
    """Whose git would write carriage returns into each file of the clone."""
    crlf = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "core.autocrlf"}
    crlf["GIT_CONFIG_VALUE_0"] = "true"
    git(tmp_path, "clone", "--quiet", repository.as_posix(), "clone", **crlf).check_returncode()

    assert made(*COOKIECUTTER, "clone", "--no-input", cwd=tmp_path) == wanted


def test_from_a_zip_file(repository: Path, wanted: dict[str, bytes], tmp_path: Path) -> None:
    """As GitHub makes it for a branch or a tag."""
    archive = ("archive", "--prefix=cookiecutter-fastapi-openai-1.0.0/")
    git(repository, *archive, f"--output={tmp_path}/it.zip", "HEAD").check_returncode()

    assert made(*COOKIECUTTER, "it.zip", "--no-input", cwd=tmp_path) == wanted


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", [("uvx", "cookiecutter"), ("pipx", "run", "cookiecutter")], ids=" ".join
)
def test_without_installing_cookiecutter(
    template: Path, wanted: dict[str, bytes], tmp_path: Path, command: tuple[str, ...]
) -> None:
    """The newest, which these bring."""
    tool = environment(tmp_path, "uv" if command[0] == "uvx" else "pipx") / command[0]
    home = {"UV_TOOL_DIR": f"{tmp_path}/uv", "PIPX_HOME": f"{tmp_path}/pipx"}
    done = run(tool, *command[1:], template, "--no-input", cwd=tmp_path, **home)

    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert files(tmp_path / "chat-service") == wanted


def test_replay_makes_the_same_again(template: Path, tmp_path: Path) -> None:
    answers = ("handler_style=async", "project_description={{ 7*7 }}")
    first = made(*COOKIECUTTER, template, "--no-input", *answers, cwd=tmp_path)
    shutil.rmtree(tmp_path / "chat-service")

    assert made(*COOKIECUTTER, template, "--replay", cwd=tmp_path) == first


@pytest.mark.parametrize("folder", ["Meine Projekte", "it's #1 $HOME", "日本語"])
def test_into_a_folder_of_any_name(
    template: Path, wanted: dict[str, bytes], tmp_path: Path, folder: str
) -> None:
    options = ("--no-input", "--output-dir", folder)
    assert run(*COOKIECUTTER, template, *options, cwd=tmp_path).returncode == 0
    assert files(tmp_path / folder / "chat-service") == wanted


def test_without_git_make_uv_and_a_network(
    template: Path, wanted: dict[str, bytes], tmp_path: Path
) -> None:
    """A namespace of its own has no network, where the system lets one have that."""
    unshare = shutil.which("unshare")
    alone = (unshare, "--net") if unshare else ()
    if alone and run(*alone, "true", cwd=tmp_path).returncode:
        alone = ()  # only root may, or not even root
    command = (*alone, *COOKIECUTTER, template, "--no-input")

    assert made(*command, cwd=tmp_path, PATH=str(tmp_path)) == wanted


def test_a_folder_that_cannot_be_written_to(template: Path, tmp_path: Path) -> None:
    """A file stands for it: root, who may run the tests, can write to any folder."""
    target = tmp_path / "target"
    target.touch()

    done = run(
        *COOKIECUTTER, template, "--no-input", "--output-dir", target / "in it", cwd=tmp_path
    )

    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stdout == (
        f"No folder can be made in {target}/in it (Not a directory):"
        " name another with --output-dir.\n"
    )


def test_an_existing_project_is_refused(
    template: Path, wanted: dict[str, bytes], tmp_path: Path
) -> None:
    made(*COOKIECUTTER, template, "--no-input", cwd=tmp_path)
    done = run(*COOKIECUTTER, template, "--no-input", "handler_style=async", cwd=tmp_path)

    assert done.returncode == 1
    assert "already exists" in done.stdout
    assert files(tmp_path / "chat-service") == wanted


@pytest.fixture
def changed(baked: Bake) -> dict[str, bytes]:
    """The files of a project that its user has changed, one of each kind."""
    project = baked(deployment="none", ci="none")
    package = project / "src" / "chat_service"
    for path in (
        package / "api" / "chat.py",  # has another name in the template
        package / "app.py",  # is copied as it is
        package / "api" / "mine.py",
        project / "README.md",
        project / ".github" / "workflows" / "mine.yml",  # in a folder that `ci` chooses
        project / "Dockerfile",  # whose name the template has, too
        project / ".git" / "config",
        project / ".venv" / "installed",
        project / "data" / "mine.bin",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine\n")
    (project / "Makefile").unlink()
    return files(project)


def test_overwriting_leaves_files_of_other_names(
    changed: dict[str, bytes], template: Path, baked: Bake, tmp_path: Path
) -> None:
    """Also those of names that other answers give."""
    answers = ("deployment=none", "ci=none")
    again = made(*COOKIECUTTER, template, *OVER, *answers, cwd=tmp_path)

    shutil.rmtree(tmp_path / "chat-service")
    fresh = files(baked(deployment="none", ci="none"))
    assert again == changed | fresh
    assert b"mine\n" in {again["Dockerfile"], again[".github/workflows/mine.yml"]}


def test_skipping_adds_only_what_is_missing(
    changed: dict[str, bytes], template: Path, tmp_path: Path
) -> None:
    """With other answers, too."""
    answers = ("deployment=docker", "ci=none")
    again = made(*COOKIECUTTER, template, *SKIP, *answers, cwd=tmp_path)

    assert {name: again[name] for name in changed} == changed
    added = again.keys() - changed.keys()
    assert {"Makefile", "compose.yaml"} < added
    assert "Dockerfile" not in added


def interrupt(command: tuple[str | Path, ...], cwd: Path, until: Callable[[], bool]) -> str:
    """Press Ctrl-C when this is the case, and get what is said."""
    with subprocess.Popen(
        command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    ) as process:  # fmt: skip
        while not until():
            assert process.poll() is None
            time.sleep(0.001)
        os.killpg(process.pid, signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    return said


@pytest.fixture
def waits_in_the_hook(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template, with a hook that waits before it chooses files."""
    folder = shutil.copytree(template, tmp_path_factory.mktemp("slow") / "template")
    hook = folder / "hooks" / "post_gen_project.py"
    code = hook.read_text().replace("def main()", "import time; time.sleep(60)\ndef main()")
    hook.write_text(code)
    return folder


def test_an_interrupted_generation_leaves_nothing(waits_in_the_hook: Path, tmp_path: Path) -> None:
    command = (*COOKIECUTTER, waits_in_the_hook, "--no-input")
    interrupt(command, tmp_path, (tmp_path / "chat-service" / "tests" / "__init__.py").exists)

    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_generation_restores_what_was_there(
    changed: dict[str, bytes], waits_in_the_hook: Path, tmp_path: Path
) -> None:
    project = tmp_path / "chat-service"
    command = (*COOKIECUTTER, waits_in_the_hook, *OVER)
    interrupt(command, tmp_path, (project / "HOOKS_DID_NOT_RUN.md").exists)

    assert files(project) == changed


def test_a_killed_generation_loses_nothing(
    changed: dict[str, bytes], waits_in_the_hook: Path, template: Path, tmp_path: Path
) -> None:
    """The next says where it is, and changes nothing."""
    project = tmp_path / "chat-service"
    aside = project / ".before-cookiecutter"
    with subprocess.Popen(
        (*COOKIECUTTER, waits_in_the_hook, *OVER), cwd=tmp_path, start_new_session=True
    ) as process:
        while not aside.exists() or not (project / "tests" / "__init__.py").exists():
            time.sleep(0.001)
        os.killpg(process.pid, signal.SIGKILL)
    killed = files(project)

    done = run(*COOKIECUTTER, template, *OVER, cwd=tmp_path)

    assert done.returncode == 1
    assert done.stderr == ""
    assert done.stdout == (
        "Cookiecutter was killed when it ran before: move what is in"
        " chat-service/.before-cookiecutter back into chat-service, and remove"
        " .before-cookiecutter.\n"
    )
    assert files(project) == killed
    stayed = {name: content for name, content in changed.items() if name in killed}
    assert files(aside) == {
        name: content
        for name, content in changed.items()
        if not name.startswith((".git/", ".venv/"))
    }
    assert {".git/config", ".venv/installed"} <= stayed.keys()


def test_names_are_fit_for_windows(template: Path, wanted: dict[str, bytes]) -> None:
    """No character, ending, device or length of path that it lacks; no two differ by case alone."""
    names = [*files(template), *wanted]
    for name in names:
        assert not re.search(r'[<>:"|?*\\\x00-\x1f]', name)
        for part in name.split("/"):
            assert not part.endswith((".", " "))
            assert not re.fullmatch(r"(?i)(aux|con|nul|prn|com\d|lpt\d)(\..*)?", part)
    for found in (files(template), wanted):
        assert len({name.lower() for name in found}) == len(found)
    # A path may have 260 characters: with the longest slug, which is there twice, 100 are left for
    # the folders above.
    longest = max(len(name.replace("chat_service", "s" * 40)) for name in wanted)
    assert len("s" * 40) + 1 + longest <= 160
    assert max(len(name) for name in files(template)) <= 160
