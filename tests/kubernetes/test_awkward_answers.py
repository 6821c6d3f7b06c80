"""Answers that YAML or a shell would read otherwise reach the pods as they were typed."""

from pathlib import Path

import pytest

from ..answers import HOSTILE
from ..projects import bake
from .manifests import Render, settings_of

MODELS = [text for name, text, why in HOSTILE if (name, why) == ("openai_model", None)]


@pytest.mark.parametrize("model", MODELS)
def test_the_model_is_the_one_that_was_typed(
    template: Path, tmp_path: Path, render: Render, model: str
) -> None:
    project = bake(template, tmp_path, deployment="kubernetes", openai_model=model)
    documents = render(project / "deploy" / "kubernetes" / "overlays" / "production")

    assert settings_of(documents)["OPENAI_MODEL"] == model
