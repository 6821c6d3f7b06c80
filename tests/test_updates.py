"""Projects that their users changed are brought to a later version of the template, by cruft."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from difflib import SequenceMatcher
from pathlib import Path

import pytest

from .ci.repositories import committed, git
from .conftest import Bake
from .projects import ROOT, bake, environment, files, run

RELEASES = sorted(
    (path.name.removesuffix(".tar.xz") for path in (ROOT / "tests" / "releases").iterdir()),
    key=lambda version: [int(number) for number in version.split(".")],
)
# Each style once, with other answers that choose files.
ANSWERS = (
    {"handler_style": "to_thread", "deployment": "docker", "ci": "github"},
    {"handler_style": "sync", "deployment": "kubernetes", "ci": "gitlab"},
    {"handler_style": "async", "deployment": "none", "ci": "none", "license": "Apache-2.0"},
)
CHAT = "src/chat_service/api/chat.py"  # the template has it under other names
# What the user did.
EDITED = (CHAT, "src/chat_service/settings.py", "README.md")
ADDED = "src/chat_service/api/mine.py"
DELETED = "docs/servers.md"
HIS = "# the user's own line\n"

Cruft = Callable[..., subprocess.CompletedProcess[str]]
Make = Callable[..., Path]


@pytest.fixture(scope="module", autouse=True)
def _no_settings_of_git() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
        yield


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environment(tmp_path_factory.mktemp("cruft"), "cruft") / "cruft"


@pytest.fixture(scope="module")
def cruft(program: Path) -> Cruft:
    def cruft(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run(program, *arguments, cwd=project)

    return cruft


@pytest.fixture(scope="module")
def repository(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template under git: stored releases with their tags, and the present one as main.

    The branches `later` and `stricter` have made-up changes of the present one.
    """
    folder = tmp_path_factory.mktemp("repository") / "template"
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch", "main").check_returncode()
    for version in RELEASES:
        remove_all(folder)
        unpack(ROOT / "tests" / "releases" / f"{version}.tar.xz", folder)
        commit(folder, version)
        git(folder, "tag", f"v{version}").check_returncode()
    remove_all(folder)
    shutil.copytree(template, folder, dirs_exist_ok=True)
    commit(folder, "present")
    for branch, change in (("later", change_for_later), ("stricter", reserve_the_slug)):
        git(folder, "checkout", "--quiet", "-b", branch, "main").check_returncode()
        change(folder)
        commit(folder, branch)
    git(folder, "checkout", "--quiet", "main").check_returncode()
    git(folder, "gc", "--quiet").check_returncode()  # cruft clones it with each command
    return folder


def unpack(release: Path, folder: Path) -> None:
    with tarfile.open(release) as archive:
        # Absent from the first releases of Python 3.11; what the others have by default varies.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(folder)  # noqa: S202 - an archive of our own


def remove_all(repository: Path) -> None:
    for path in repository.iterdir():
        if path.is_dir() and path.name != ".git":
            shutil.rmtree(path)
        elif path.is_file():
            path.unlink()


def commit(repository: Path, message: str) -> None:
    git(repository, "add", "--all").check_returncode()
    git(repository, "commit", "--quiet", "--message", message).check_returncode()


def change_for_later(template: Path) -> None:
    """What a later version may do: `later` has it for a project.

    Its extension has a filter that the present one lacks, and the README needs it.
    """
    project = template / "{{cookiecutter.project_slug}}"
    for chat in project.glob("src/*/api/chat_*.py"):
        prepend(chat, "# a later line\n")
    append(project / "README.md", "{{ cookiecutter.project_name | shouted }}\n")
    append(project / DELETED, "A later line.\n")
    (project / "docs" / "later.md").write_text("New.\n")
    (project / "docs" / "security.md").unlink()
    questions = template / "cookiecutter.json"
    content = json.loads(questions.read_text()) | {"_template_version": "99.0.0"}
    questions.write_text(json.dumps(content, indent=2))
    append(
        template / "needs_cookiecutter_2_1.py",
        """

class Answers(Answers):
    def __init__(self, environment):
        super().__init__(environment)
        environment.filters["shouted"] = str.upper
""",
    )


def later(project: dict[str, bytes]) -> dict[str, bytes]:
    """The files of a project of the present version, as those of `later`."""
    changed = dict(project)
    for name in (CHAT, "src/chat_service/api/chat_events.py"):
        changed[name] = b"# a later line\n" + project[name]
    changed["README.md"] += b"CHAT SERVICE\n"
    changed[DELETED] += b"A later line.\n"
    changed["docs/later.md"] = b"New.\n"
    del changed["docs/security.md"]
    version = json.loads(project[".template.json"])["template_version"].encode()
    changed[".template.json"] = project[".template.json"].replace(version, b"99.0.0", 1)
    return changed


def reserve_the_slug(template: Path) -> None:
    extension = template / "needs_cookiecutter_2_1.py"
    append(extension, 'RESERVED["a package that came later"] = ["chat_service"]\n')


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")


def prepend(path: Path, text: str) -> None:
    path.write_text(text + path.read_text(encoding="utf-8"), encoding="utf-8")


@pytest.fixture
def make(cruft: Cruft, repository: Path, tmp_path: Path) -> Make:
    """Make a project with cruft from a version of the template, and commit it."""
    folder = tmp_path / "made"
    folder.mkdir()

    def make(version: str = "main", **answers: str) -> Path:
        given = ("--no-input", "--extra-context", json.dumps(answers))
        created = cruft(folder, "create", str(repository), "--checkout", version, *given)
        created.check_returncode()
        return committed(folder / "chat-service")

    return make


def change_as_a_user(project: Path, wanted: dict[str, bytes]) -> dict[str, bytes]:
    """Edit, add and delete, and get what an update should make of it.

    `wanted` are the files that the update would make of the project as it was.
    """
    merged = dict(wanted)
    for name in EDITED:
        before = (project / name).read_text(encoding="utf-8")
        edited, merged_text = insert(HIS, before, wanted[name].decode())
        (project / name).write_text(edited, encoding="utf-8")
        merged[name] = merged_text.encode()
    (project / ADDED).write_text(HIS)
    merged[ADDED] = HIS.encode()
    (project / DELETED).unlink()
    del merged[DELETED]
    commit(project, "Mine")
    return merged


def insert(line: str, *versions: str) -> tuple[str, str]:
    """Put a line into two versions of a text, in the middle of the longest part that is the same.

    There, an edit conflicts with no change from one version to the other.
    """
    first, second = (version.splitlines(keepends=True) for version in versions)
    same = SequenceMatcher(None, first, second, autojunk=False).find_longest_match()
    assert same.size > 2 * 3, "git compares three lines around a change"
    first.insert(same.a + same.size // 2, line)
    second.insert(same.b + same.size // 2, line)
    return "".join(first), "".join(second)


def own_files(project: Path) -> dict[str, bytes]:
    """All but what git and cruft keep for themselves."""
    return {
        name: content
        for name, content in files(project).items()
        if not name.startswith(".git/") and name != ".cruft.json"
    }


@pytest.mark.slow
@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("answers", ANSWERS, ids=lambda answers: answers["handler_style"])
def test_a_project_of_a_stored_release_becomes_one_of_the_present(
    cruft: Cruft, make: Make, baked: Bake, release: str, answers: dict[str, str]
) -> None:
    """With all that its user changed: new files arrive, dropped ones go, deleted ones stay away."""
    project = make(f"v{release}", **answers)
    wanted = change_as_a_user(project, files(baked(**answers)))

    assert cruft(project, "check").returncode == 1
    assert cruft(project, "update", "--skip-apply-ask").returncode == 0
    assert cruft(project, "check").returncode == 0
    assert own_files(project) == wanted


@pytest.mark.slow
def test_a_later_version_may_need_a_filter_that_its_own_extension_has(
    cruft: Cruft, make: Make
) -> None:
    """Cruft makes the old project and the new one in one process."""
    project = make()
    wanted = change_as_a_user(project, later(own_files(project)))

    assert cruft(project, "update", "--skip-apply-ask", "--checkout", "later").returncode == 0
    assert own_files(project) == wanted


@pytest.mark.parametrize("under_git", [True, False])
def test_a_conflict_shows_as_one(cruft: Cruft, make: Make, *, under_git: bool) -> None:
    """Only in the file that has it: all else is as it should be."""
    project = make()
    wanted = later(own_files(project))
    prepend(project / CHAT, HIS)
    edited = (project / CHAT).read_bytes()
    commit(project, "Mine")
    if not under_git:
        shutil.rmtree(project / ".git")

    done = cruft(project, "update", "--skip-apply-ask", "--checkout", "later")

    updated = own_files(project)
    assert CHAT in done.stderr
    chat = updated.pop(CHAT)
    if under_git:
        theirs = rb"<<<<<<< .+\n# the user's own line\n=======\n# a later line\n>>>>>>> .+\n"
        assert re.match(theirs, chat)
        unmerged = git(project, "diff", "--name-only", "--diff-filter=U")
        assert unmerged.stdout.splitlines() == [CHAT]
    else:
        assert chat == edited
        assert b"+# a later line\n" in updated.pop(f"{CHAT}.rej")
    assert updated == {name: content for name, content in wanted.items() if name != CHAT}


@pytest.mark.slow
@pytest.mark.parametrize(
    "changed",
    [
        {"handler_style": "async"},
        {"handler_style": "sync", "deployment": "kubernetes"},
        {"deployment": "none", "ci": "gitlab"},
    ],
    ids=str,
)
def test_another_answer_gives_its_files_with_the_changes_of_the_user(
    cruft: Cruft, make: Make, baked: Bake, changed: dict[str, str]
) -> None:
    project = make()
    wanted = change_as_a_user(project, files(baked(**changed)))

    variables = ("--variables-to-update", json.dumps(changed))
    assert cruft(project, "update", "--skip-apply-ask", *variables).returncode == 0
    assert own_files(project) == wanted


def test_the_difference_is_a_patch_and_nothing_else(cruft: Cruft, make: Make) -> None:
    """It takes back what the user edited, and leaves what he added and deleted."""
    project = make()
    as_made = own_files(project)
    change_as_a_user(project, as_made)

    shown = cruft(project, "diff")

    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.startswith("diff --git ")
    (project.parent / "patch").write_text(shown.stdout)
    assert git(project, "apply", "../patch").returncode == 0
    del as_made[DELETED]
    assert own_files(project) == as_made | {ADDED: HIS.encode()}


def test_an_answer_that_a_later_version_refuses_leaves_the_project_as_it_is(
    cruft: Cruft, make: Make
) -> None:
    project = make()

    done = cruft(project, "update", "--skip-apply-ask", "--checkout", "stricter")

    assert done.returncode == 1
    assert done.stdout + done.stderr == (
        "project_slug 'chat-service' would hide a package that came later: choose another, such as"
        " my-chat-service.\n"
    )
    assert git(project, "status", "--porcelain").stdout == ""


def test_cruft_refuses_an_answer_in_one_sentence(
    cruft: Cruft, repository: Path, tmp_path: Path
) -> None:
    given = ("--no-input", "--extra-context", '{"openai_model": "a model"}')
    done = cruft(tmp_path, "create", str(repository), *given)

    assert done.returncode == 1
    (sentence,) = (done.stdout + done.stderr).splitlines()
    assert sentence.startswith("openai_model 'a model' ")
    assert list(tmp_path.iterdir()) == []


def test_a_project_without_cruft_is_linked_and_updated_by_the_commands_in_its_readme(
    cruft: Cruft, program: Path, repository: Path, baked: Bake
) -> None:
    """With the answers that it was made with."""
    answers = {"project_description": 'it\'s "{{ 7*7 }}" \\ é', **ANSWERS[1]}
    project = committed(baked(**answers))
    as_made = own_files(project)
    shown = (project / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"^pipx run cruft ((?:link|update) .+)$", shown, re.MULTILINE)
    update, link = (f"'{program}' {command}" for command in commands)
    link = link.replace(" URL ", f" '{repository}' ").replace(" VERSION ", " main ")

    assert run("sh", "-c", link, cwd=project).returncode == 0
    assert cruft(project, "diff", "--exit-code").returncode == 0
    commit(project, "Linked")
    assert run("sh", "-c", f"{update} --checkout later", cwd=project).returncode == 0
    assert own_files(project) == later(as_made)


def test_a_project_says_from_which_version_and_answers_it_was_made(
    template: Path, baked: Bake
) -> None:
    """And not where the template was."""
    answers = {"project_name": 'it\'s "{{ 7*7 }}" \\ é', "project_slug": "chat-service"}
    project = baked(**answers)

    said = json.loads((project / ".template.json").read_text(encoding="utf-8"))
    questions = json.loads((ROOT / "cookiecutter.json").read_text(encoding="utf-8"))
    assert said.pop("template_version") == questions["_template_version"]
    assert said.keys() == {name for name in questions if not name.startswith("_")}
    assert answers.items() <= said.items()
    place = str(template).encode()
    assert [name for name, content in files(project).items() if place in content] == []


def test_a_replayed_run_names_the_version_of_its_files(template: Path, tmp_path: Path) -> None:
    """Although cookiecutter restores the private variables of the run that it replays."""
    later = shutil.copytree(template, tmp_path / "template")
    command = (sys.executable, "-m", "cookiecutter", later)
    first = (*command, "--no-input", "--output-dir", "first")
    run(*first, "project_name=Acme", cwd=tmp_path).check_returncode()
    change_for_later(later)

    run(*command, "--replay", "--output-dir", "second", cwd=tmp_path).check_returncode()

    said = json.loads((tmp_path / "second" / "acme" / ".template.json").read_text())
    assert (said["template_version"], said["project_name"]) == ("99.0.0", "Acme")


def test_a_release_is_stored_by_the_command_of_contributing(
    repository: Path, baked: Bake, tmp_path: Path
) -> None:
    """With all that a project is made from, but images."""
    shown = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"^ *(git archive v.+\n.+)$", shown, re.MULTILINE)
    command = command.replace(" v1.1.0 ", " main ").replace("tests/releases/1.1.0", "stored")
    assert run("sh", "-c", command, cwd=repository).returncode == 0
    archive = (repository / "stored.tar.xz").rename(tmp_path / "stored.tar.xz")
    unpack(archive, tmp_path / "stored")

    as_made = files(bake(tmp_path / "stored", tmp_path / "made"))
    images = {"docs/dashboard.png"}
    assert as_made == {n: content for n, content in files(baked()).items() if n not in images}
