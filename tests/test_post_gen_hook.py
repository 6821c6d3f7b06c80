"""Which files stay, and under which names."""

import json
import sys
from pathlib import Path

import pytest

from .answers import AWKWARD, GOOD
from .hooks import load, render
from .projects import ROOT, run

hook = load(ROOT / "hooks" / "post_gen_project.py")
QUESTIONS = json.loads((ROOT / "cookiecutter.json").read_text())
TEMPLATE = ROOT / "{{cookiecutter.project_slug}}"
VARIANT_FILES = [
    (path, path.replace("PACKAGE", "{{cookiecutter.__package_name}}"))
    for choices in hook.VARIANTS.values()
    for paths in choices.values()
    for path in paths
]


@pytest.mark.parametrize("question", hook.VARIANTS)
def test_the_table_covers_every_choice(question: str) -> None:
    assert hook.VARIANTS[question].keys() == set(QUESTIONS[question])


def test_the_table_names_only_what_the_template_has() -> None:
    missing = [path for path, in_template in VARIANT_FILES if not (TEMPLATE / in_template).exists()]
    assert missing == []


def test_the_table_names_every_variant_in_the_template() -> None:
    endings = tuple(f"_{choice}" for choices in hook.VARIANTS.values() for choice in choices)
    variants = {
        path.relative_to(TEMPLATE).as_posix()
        for path in TEMPLATE.rglob("*")
        if path.name.removesuffix(".py").removesuffix(".yml").endswith(endings)
    }
    assert variants <= {in_template for _, in_template in VARIANT_FILES}


def tree(folder: Path) -> dict[str, str]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text() for path in paths}


def test_keeps_what_is_chosen_and_removes_what_only_others_name(tmp_path: Path) -> None:
    """Files and folders; what two choices name stays with either."""
    for path in ("a.txt", "b.txt", "both.txt", "other.txt", "deploy/x/y.txt"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(path)
    choices = {
        "a": {"a.txt": "final.txt", "both.txt": "both.txt"},
        "b": {"b.txt": "final.txt", "both.txt": "both.txt", "deploy": "deploy"},
        "none": {},
    }

    hook.keep(choices["a"], choices, tmp_path)

    assert tree(tmp_path) == {
        "final.txt": "a.txt",
        "both.txt": "both.txt",
        "other.txt": "other.txt",
    }


@pytest.mark.parametrize("answer", AWKWARD)
def test_takes_any_text_in_one_line_as_data(tmp_path: Path, answer: str) -> None:
    project = tmp_path / "project"
    for path, _ in VARIANT_FILES:
        variant = project / path.replace("PACKAGE", "chat_service")
        variant.parent.mkdir(parents=True, exist_ok=True)
        if not variant.is_dir():  # for another answer, with what this one keeps
            variant.write_text(variant.name)
    (project / hook.UNFINISHED).write_text("Without hooks, this stays.")
    (project / hook.ASIDE).mkdir()
    texts = dict.fromkeys(("project_name", "project_description", "author_name"), answer)
    script = render("post_gen_project", GOOD | texts, tmp_path)

    done = run(sys.executable, script, cwd=project, PYTHONIOENCODING="cp1252:strict")

    assert (done.returncode, done.stderr) == (0, "")
    assert tree(project) == {
        ".gitlab-ci.yml": ".gitlab-ci.yml",
        "LICENSE": "LICENSE_MIT",
        "renovate.json": "renovate.json",
        "src/chat_service/api/chat.py": "chat_sync.py",
        "src/chat_service/api/chat_events.py": "chat_events_sync.py",
        "src/chat_service/upstream/call.py": "call_sync.py",
        "src/chat_service/upstream/client.py": "client_sync.py",
        "src/chat_service/upstream/openai_service.py": "openai_service_sync.py",
        "src/chat_service/upstream/streaming.py": "streaming_sync.py",
        "src/chat_service/upstream/transport.py": "transport_sync.py",
        "tests/upstream/test_openai_service.py": "test_openai_service_sync.py",
    }
    assert {path.name for path in tmp_path.iterdir()} == {script.name, project.name}
