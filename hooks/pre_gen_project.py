"""Refuse answers from which no working project can be made.

Cookiecutter renders this file, runs it with its own interpreter in the new, still empty folder,
and removes that folder when it exits with another status than 0.
"""

from __future__ import annotations

import json
import keyword
import re
import sys
import unicodedata
from typing import Iterator

# As JSON in a raw string on lines of its own: the tojson filter escapes whatever could end the
# string, so that an answer stays data and is never run.
ANSWERS = r"""
{{ cookiecutter | tojson }}
"""

SLUG = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
SLUG_LENGTH = 40  # leaves room for a hash in a Kubernetes name, which ends at 63
EMAIL = re.compile(
    r"[A-Za-z0-9_!#$%&'*+/=?^~-]+(\.[A-Za-z0-9_!#$%&'*+/=?^~-]+)*"  # ASCII, as metadata want it
    r"@([\w-]+\.)+[\w-]{2,}"
)
MODEL = re.compile(r"[\w.:/@+-]+", re.ASCII)  # fine-tuned and gateways' names included
UNPRINTABLE = {"Cc", "Cs", "Zl", "Zp"}  # control characters, lone surrogates, line separators

# What a package must not be called, by import and by distribution name, and for what reason.
# fmt: off
# (a name a line would be pages)
HIDDEN = {
    "a keyword of Python": keyword.kwlist,
    "a module of Python's standard library": [
        *getattr(sys, "stdlib_module_names", sys.builtin_module_names),  # has them since 3.10
        "annotationlib", "compression",  # came with 3.14, and this interpreter may be older
    ],
    "a package that the service needs": [
        "aiohappyeyeballs", "aiohttp", "aiosignal", "annotated_doc", "annotated_types", "anyio",
        "ast_serialize", "attr", "attrs", "certifi", "cffi", "click", "colorama", "coverage",
        "cryptography", "dotenv", "fastapi", "frozenlist", "h11", "httpcore2", "httptools",
        "httpx2", "idna", "iniconfig", "jiter", "librt", "multidict", "mypy", "mypy_extensions",
        "mypyc", "openai", "opentelemetry", "opentelemetry_api", "packaging", "pathspec", "pip",
        "pkg_resources", "pluggy", "propcache", "py", "pycparser", "pydantic", "pydantic_core",
        "pydantic_settings", "pygments", "pytest", "python_dotenv", "ruff", "setuptools", "sniffio",
        "starlette", "tenacity", "trustme", "truststore", "typing_extensions", "typing_inspection",
        "uvicorn", "yarl",
    ],
    "a package that the service's dependencies use if they find it": [
        "a2wsgi", "brotli", "brotlicffi", "email_validator", "h2", "httpx", "multipart", "orjson",
        "pydantic_extra_types", "python_multipart", "pyyaml", "socksio", "tornado", "trio", "ujson",
        "uvloop", "watchfiles", "websockets", "yaml",
    ],
    "a folder of the project": ["dev", "src", "tests"],
    "a device of Windows": [
        "aux", "con", "nul", "prn", *(f"{d}{n}" for d in ("com", "lpt") for n in range(10)),
    ],
}
# fmt: on


def slug_problems(slug: str) -> Iterator[str]:
    if not SLUG.fullmatch(slug):
        yield (
            f"project_slug {slug!a} must begin with a letter and be lower-case words and digits"
            " joined by single hyphens, such as chat-service."
        )
    elif len(slug) > SLUG_LENGTH:
        yield f"project_slug has {len(slug)} characters: shorten it to at most {SLUG_LENGTH}."
    for what, names in HIDDEN.items():
        if slug.replace("-", "_") in names:
            yield f"project_slug {slug!a} would hide {what}: choose another, such as my-{slug}."


def find_problems(answers: dict[str, str]) -> Iterator[str]:
    """One sentence for each answer that has to change."""
    for name in ("project_name", "project_description", "author_name"):
        if any(unicodedata.category(character) in UNPRINTABLE for character in answers[name]):
            yield f"{name} holds a line break or another control character: write it on one line."
    for name in ("project_name", "author_name"):
        if not answers[name].strip():
            yield f"{name} is empty: write at least one word."
    yield from slug_problems(answers["project_slug"])
    if not EMAIL.fullmatch(answers["author_email"]):
        yield (
            f"author_email {answers['author_email']!a} is no e-mail address:"
            " write one such as you@example.com."
        )
    if not MODEL.fullmatch(answers["openai_model"]):
        yield (
            f"openai_model {answers['openai_model']!a} may hold only letters, digits and any of"
            " . _ : / @ + - and must not be empty."
        )


def main() -> int:
    problems = list(find_problems(json.loads(ANSWERS)))
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
