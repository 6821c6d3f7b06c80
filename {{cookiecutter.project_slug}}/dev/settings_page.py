"""Writes docs/settings.md from the settings: `make docs`."""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from pydantic.fields import FieldInfo

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"
HEAD = """\
# Settings

Written by `make docs` from `settings.py`; a test compares them.

Settings are environment variables or lines of `.env`. Unset, empty and blank mean the same, and
quotes around a value are removed.

| | values | default | |
|---|---|---|---|
"""


def page(package: str) -> str:
    """The page in Markdown, with a row for each setting of the package."""
    settings = import_module(f"{package}.settings").Settings
    schema = settings.model_json_schema()["properties"]
    rows = (_row(name, field, schema[name]) for name, field in settings.model_fields.items())
    return HEAD + "".join(rows)


def _row(name: str, field: FieldInfo, schema: dict[str, Any]) -> str:
    about = " ".join((field.description or "").split())
    return f"| `{name.upper()}` | {_values(name, schema)} | {_default(field)} | {about} |\n"


def _values(name: str, schema: dict[str, Any]) -> str:
    """What kinds of value the schema allows; nothing for texts, whose description says it."""
    kind = schema["anyOf"][0] if "anyOf" in schema else schema  # the others are null
    if "enum" in kind:
        return ", ".join(f"`{value}`" for value in kind["enum"])
    if kind["type"] == "boolean":
        return "`true`, `false`"
    if kind["type"] == "number":
        return f"seconds, at most {kind['maximum']:,}"
    if kind["type"] == "integer":
        unit = "seconds, " if name.endswith("_seconds") else ""
        least = kind.get("minimum", kind.get("exclusiveMinimum", 0) + 1)
        return f"{unit}{least} to {kind['maximum']:,}" if "maximum" in kind else f"from {least}"
    return ""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = (
        field.default.get_secret_value() if isinstance(field.default, SecretStr) else field.default
    )
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`" if value or value == 0 else ""


if __name__ == "__main__":
    PAGE.write_text(page(sys.argv[1]), encoding="utf-8", newline="\n")
