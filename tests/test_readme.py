"""What the project's README and recipes show works as it stands there."""

import re
from pathlib import Path

import pytest

from .conftest import Bake
from .projects import STYLES, run

pytestmark = pytest.mark.slow

ASK = """
from dev.offline_openai import running
from fastapi.testclient import TestClient
from chat_service.app import create_app
from chat_service.settings import Settings

with running() as offline:
    app = create_app(Settings(
        openai_api_key="sk-" + "0123456789abcdef" * 3,
        openai_base_url=offline.url,
        openai_model="m",
    ))
    with TestClient(app) as client:
        print(client.post("/v1/embeddings", json={"texts": ["one", "two"]}).text)
"""


@pytest.mark.parametrize("style", STYLES)
def test_endpoints_work_and_pass_all_checks_where_they_are_to_be_put(
    baked: Bake, venv: Path, mypy: tuple[str | Path, ...], style: str
) -> None:
    """Beside all other code of the style, whose types are checked here, too."""
    project = baked(handler_style=style)
    api = project / "src" / "chat_service" / "api"
    recipes = dict(
        re.findall(
            r"```python\n# api/(\w+)\.py\n(.+?)```",
            (project / "docs" / "recipes.md").read_text(),
            re.DOTALL,
        )
    )
    (shown,) = re.findall(r"```python\n(.+?)```", (project / "README.md").read_text(), re.DOTALL)
    assert shown == recipes["embeddings"]
    for name, code in recipes.items():
        (api / f"{name}.py").write_text(code)
    listing = (api / "__init__.py").read_text()
    listing = listing.replace("import chat\n", f"import {', '.join(sorted([*recipes, 'chat']))}\n")
    listing = listing.replace("(chat,)", f"({', '.join(['chat', *recipes])})")
    (api / "__init__.py").write_text(listing)

    ruff = venv / "ruff"
    for command in ((ruff, "check"), (ruff, "format", "--check"), mypy):
        assert run(*command, cwd=project, PYTHONPATH=str(project / "src")).returncode == 0
    asked = run(venv / "python", "-c", ASK, cwd=project, PYTHONPATH=str(project / "src"))

    assert asked.returncode == 0
    assert asked.stdout.count("[") == 3, "a list of two vectors"
