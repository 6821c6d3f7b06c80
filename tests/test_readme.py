"""What the project's README shows works as it stands there."""

import re
from pathlib import Path

import pytest

from .conftest import Bake
from .projects import STYLES, run

ASK = """
from dev.offline_openai import running
from fastapi.testclient import TestClient
from chat_service import embeddings
from chat_service.app import create_app
from chat_service.settings import Settings

with running() as offline:
    app = create_app(Settings(
        openai_api_key="sk-" + "0123456789abcdef" * 3,
        openai_base_url=offline.url,
        openai_model="m",
    ))
    app.include_router(embeddings.router)
    with TestClient(app) as client:
        print(client.post("/v1/embeddings", json={"texts": ["one", "two"]}).text)
"""


@pytest.mark.parametrize("style", STYLES)
def test_the_endpoint_in_the_readme_works(baked: Bake, venv: Path, style: str) -> None:
    project = baked(handler_style=style)
    (code,) = re.findall(r"```python\n(.+?)```", (project / "README.md").read_text(), re.DOTALL)
    (project / "src" / "chat_service" / "embeddings.py").write_text(code)

    for command in (("ruff", "check"), ("ruff", "format", "--check"), ("mypy",)):
        assert run(venv / command[0], *command[1:], cwd=project).returncode == 0
    asked = run(venv / "python", "-c", ASK, cwd=project, PYTHONPATH=str(project / "src"))

    assert asked.returncode == 0
    assert asked.stdout.count("[") == 3, "a list of two vectors"
