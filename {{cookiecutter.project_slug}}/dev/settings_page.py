"""Writes docs/settings.md from the settings: `make docs`."""

import sys
from enum import Enum
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
BOUNDS = {
    "minimum": "at least",
    "exclusiveMinimum": "above",
    "maximum": "at most",
    "exclusiveMaximum": "below",
}


def page(package: str) -> str:
    """The page in Markdown, with a row for each setting of the package."""
    settings = import_module(f"{package}.settings").Settings
    schema = settings.model_json_schema()["properties"]
    rows = [
        (f"`{name.upper()}`", _values(name, schema[name]), _default(field), _about(field))
        for name, field in settings.model_fields.items()
    ]
    lines = [" | ".join(cell.replace("|", r"\|") for cell in row) for row in rows]
    return HEAD + "".join(f"| {line} |\n" for line in lines)


def _values(name: str, schema: dict[str, Any]) -> str:
    """What the schema says of them; nothing of texts, whose description has to say it."""
    kind = schema["anyOf"][0] if "anyOf" in schema else schema  # the others are null
    if "enum" in kind:
        return ", ".join(f"`{value}`" for value in kind["enum"])
    if kind.get("type") == "boolean":
        return "`true`, `false`"
    unit = ["seconds"] if name.endswith("_seconds") else []
    return ", ".join(
        unit + [f"{words} {kind[bound]:,}" for bound, words in BOUNDS.items() if bound in kind]
    )


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, tuple | list | set | frozenset):
        value = ", ".join(map(str, value))
    if value is None or value == "":
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _about(field: FieldInfo) -> str:
    return " ".join((field.description or "").split())


if __name__ == "__main__":
    PAGE.write_text(page(sys.argv[1]), encoding="utf-8", newline="\n")
