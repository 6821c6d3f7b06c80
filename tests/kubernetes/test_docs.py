"""What docs/kubernetes.md says, and what a release does."""

import json
import re
from pathlib import Path

from ..projects import run
from .manifests import SLUG, TO_JSON, Render, pod_of, the


def test_a_release_names_its_image(project: Path, render: Render) -> None:
    """As its pipeline does: whatever image the overlay names, by kubectl alone."""
    image = f"ghcr.io/owner/name@sha256:{'0' * 64}"
    patch = [{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": image}]
    release = project / "release"
    release.mkdir()
    (release / "kustomization.yaml").write_text(
        json.dumps(
            {
                "resources": ["../deploy/kubernetes/overlays/production"],
                "patches": [
                    {"target": {"kind": "Deployment", "name": SLUG}, "patch": json.dumps(patch)}
                ],
            }
        )
    )
    (container,) = pod_of(the(render(release), "Deployment"))["containers"]
    assert container["image"] == image


def test_the_docs_quote_kubectl_on_an_unknown_overlay(project: Path, kubectl: Path) -> None:
    done = run(kubectl, "kustomize", "deploy/kubernetes/overlays/prod", cwd=project)
    assert done.returncode == 1
    docs = (project / "docs" / "kubernetes.md").read_text()
    (quoted,) = re.findall(r"`error: (must build at directory[^`]+?) \.\.\.`", docs)
    assert quoted in done.stderr


def test_the_docs_load_the_alerts_as_a_rule_of_prometheus_operator(
    project: Path, tools: Path, tmp_path: Path
) -> None:
    docs = (project / "docs" / "kubernetes.md").read_text()
    (script,) = re.findall(r"^\{\n  cat <<END.+?^\} .+?$", docs, re.MULTILINE | re.DOTALL)
    rule = tmp_path / "rule.yaml"
    file_instead = script.replace("kubectl -n monitoring apply -f -", f"cat >'{rule}'")
    assert file_instead != script
    run("sh", "-c", file_instead, cwd=project).check_returncode()

    alerts = project / "deploy" / "observability" / "alerts.yaml"
    parsed = run(tools / "python", "-c", TO_JSON, rule, alerts, cwd=project)
    (found,), (expected,) = json.loads(parsed.stdout)
    assert (found["kind"], found["spec"]) == ("PrometheusRule", expected)


def test_files_that_the_docs_name_exist(project: Path) -> None:
    docs = (project / "docs" / "kubernetes.md").read_text()
    named = set(
        re.findall(r"\b(?:deploy/kubernetes/)?((?:base|components|overlays)/[\w./-]+)", docs)
    )
    absent = {
        name
        for name in named
        if not (project / "deploy" / "kubernetes" / name.rstrip(".")).exists()
    }
    assert len(named) > 5
    assert absent == {"overlays/prod"}  # the unknown one
