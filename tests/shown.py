"""What a project's files show of the answers, as real parsers and renderers read them."""

import ast
import json
import re
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]  # ships no types; cookiecutter depends on it
from markdown_it import MarkdownIt  # cookiecutter depends on rich, which depends on it

from .projects import files

GITHUB = MarkdownIt("commonmark").enable(["strikethrough", "table"])
# Copied as they are, whatever the answers; slow to read.
COPIED = ("deploy/observability/", "deploy/compose/", ".github/workflows/", ".gitlab")


def rendered(markdown: str) -> list[tuple[str, str]]:
    """Each heading and paragraph with its visible text; what is not text is in angle brackets."""
    tokens = GITHUB.parse(markdown)
    return [
        (
            opening.tag,
            "".join(
                part.content if part.type in {"text", "text_special"} else f"<{part.type}>"
                for part in inline.children or []
            ),
        )
        for opening, inline in pairwise(tokens)
        if inline.type == "inline"
    ]


def setting(env_file: str, name: str) -> str:
    (value,) = re.findall(f"^{name}=(.*)$", env_file, re.MULTILINE)
    return str(value)


def label(dockerfile: str, name: str) -> str:
    """As Docker reads it: in double quotes, a backslash takes the next character as it is."""
    (quoted,) = re.findall(rf'{name}="((?:[^"\\$]|\\["\\$])*)"(?: \\)?$', dockerfile, re.MULTILINE)
    return re.sub(r"\\(.)", r"\1", quoted)


def parsed(path: str, text: str) -> Any:  # noqa: ANN401 - whatever the file holds
    """The file's content; every parser fails if it cannot read it."""
    if path.endswith(".py"):
        return ast.parse(text)
    if path.endswith(".toml"):
        return tomllib.loads(text)
    if path.endswith(".json"):
        return json.loads(text)
    if path.endswith((".yaml", ".yml")) and not path.startswith(COPIED):
        return [*yaml.load_all(text, yaml.CSafeLoader)]
    return None


def assert_shows(project: Path, answers: dict[str, str]) -> None:
    """Every file is whole, and every answer of free text is where it belongs, as it was typed."""
    texts = {
        path: content.decode() for path, content in files(project).items() if b"\0" not in content
    }
    contents = {path: parsed(path, text) for path, text in texts.items()}
    assert [path for path, text in texts.items() if re.search(r"[ \t]$", text, re.MULTILINE)] == []
    assert [
        path for path, text in texts.items() if text.startswith("\n") or "\n\n\n\n" in text
    ] == []

    metadata = contents["pyproject.toml"]["project"]
    assert metadata["name"] == answers["project_slug"] == project.name
    assert metadata["description"] == answers["project_description"]
    author = {"name": answers["author_name"], "email": answers["author_email"]}
    assert metadata["authors"] == [author]

    heading, summary, about, *_ = rendered(texts["README.md"])
    assert heading == ("h1", answers["project_name"])
    assert summary == ("p", answers["project_description"])
    assert about[1].startswith("Every call of OpenAI has one retry layer")
    assert answers["openai_model"] in texts["README.md"]

    (holder,) = re.findall(
        r"^Copyright \(c\) \d+ (.*?)(?:\. All|$)", texts["LICENSE"], re.MULTILINE
    )
    assert holder == answers["author_name"]
    assert setting(texts[".env.example"], "OPENAI_MODEL") == answers["openai_model"]
    if "Dockerfile" in texts:
        description = label(texts["Dockerfile"], "org.opencontainers.image.description")
        assert description == answers["project_description"]
        services = contents["compose.yaml"][0]["services"]
        offline = services[f"{answers['project_slug']}-offline"]["environment"]
        assert offline["OPENAI_MODEL"] == answers["openai_model"]
    if "deploy/kubernetes/base/settings.env" in texts:
        env_file = texts["deploy/kubernetes/base/settings.env"]
        assert setting(env_file, "OPENAI_MODEL") == answers["openai_model"]
        (service,) = contents["deploy/kubernetes/base/service.yaml"]
        assert service["metadata"]["name"] == answers["project_slug"]
