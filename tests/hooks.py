"""The hooks as modules, rendered as cookiecutter renders them."""

import importlib.util
from pathlib import Path
from types import ModuleType

from cookiecutter.utils import create_env_with_context

from .projects import ROOT


def render(name: str, answers: dict[str, str], folder: Path) -> Path:
    context = {"cookiecutter": answers}
    source = (ROOT / "hooks" / f"{name}.py").read_text(encoding="utf-8")
    script = folder / f"{name}.py"
    rendered = create_env_with_context(context).from_string(source).render(**context)
    script.write_text(rendered, encoding="utf-8")
    return script


def load(script: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(script.stem, script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
