"""Kubernetes and a security scanner accept the manifests."""

import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from ..conftest import Bake
from ..projects import run
from .manifests import (
    COMPONENTS,
    Document,
    Render,
    of_kind,
    pod_of,
    query_of,
    settings_of,
    the,
)

OLDEST = "1.30"  # which docs/kubernetes.md names
OTHERS_KINDS = {"ScaledObject", "PodMonitor"}  # have no schema in Kubernetes


def forbidden_by_the_restricted_standard(pod: Document) -> Iterator[str]:
    """Names what the Pod Security Standard "restricted" forbids in a pod.

    https://kubernetes.io/docs/concepts/security/pod-security-standards/
    """
    context = pod["securityContext"]
    yield from {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & pod.keys()
    if context["runAsNonRoot"] is not True or context["runAsUser"] == 0:
        yield "runAsNonRoot"
    if context["seccompProfile"]["type"] != "RuntimeDefault":
        yield "seccompProfile"
    yield from context.keys() - {"runAsNonRoot", "runAsUser", "runAsGroup", "seccompProfile"}
    for volume in pod.get("volumes", []):
        yield from volume.keys() - {"name", "emptyDir"}
    for container in pod["containers"]:
        own = container["securityContext"]
        if own["allowPrivilegeEscalation"] is not False:
            yield "allowPrivilegeEscalation"
        if own["capabilities"] != {"drop": ["ALL"]}:
            yield "capabilities"
        if own["readOnlyRootFilesystem"] is not True:  # stricter than the standard
            yield "readOnlyRootFilesystem"
        yield from own.keys() - {
            "allowPrivilegeEscalation",
            "capabilities",
            "readOnlyRootFilesystem",
        }
        if any("hostPort" in port for port in container["ports"]):
            yield "hostPort"


def test_kubernetes_of_several_versions_knows_every_field(
    renderings: dict[str, list[Document]], tools: Path, tmp_path: Path
) -> None:
    distinct = {json.dumps(document): document for document in chain(*renderings.values())}
    file = tmp_path / "all.yaml"
    file.write_text("\n---\n".join(distinct))
    listing = "import kubernetes_validate.utils as u; print(*u.all_versions())"
    versions = run(tools / "python", "-c", listing, cwd=tmp_path).stdout.split()
    minors = list(dict.fromkeys(version.rsplit(".", 1)[0] for version in versions))
    assert len(minors[minors.index(OLDEST) :]) >= 8  # 1.30 to 1.37, in November 2026

    native = [found for found in distinct.values() if found["kind"] not in OTHERS_KINDS]
    for version in minors[minors.index(OLDEST) :]:
        done = run(tools / "kubernetes-validate", "--strict", "-k", version, file, cwd=tmp_path)
        assert done.returncode == 0
        assert done.stdout.count(" passed ") == len(native)


def test_checkov_finds_only_what_annotations_give_a_reason_for(
    overlays: Path, renderings: dict[str, list[Document]], tools: Path, tmp_path: Path
) -> None:
    # With all components and with none: it looks at one document after the other.
    names = [name for name in renderings if name.count("+") in (0, len(COMPONENTS))]
    files = [overlays / f"{name}.yaml" for name in names]
    options = ("--framework", "kubernetes", "--skip-download", "--output", "json", "--file")
    done = run(tools / "checkov", *options, *files, cwd=tmp_path)
    assert done.returncode == 0
    results = json.loads(done.stdout)["results"]
    assert results["failed_checks"] == results["parsing_errors"] == []
    assert len(results["passed_checks"]) > 100 * len(files)
    assert all(skip["check_result"]["suppress_comment"] for skip in results["skipped_checks"])

    bare = tmp_path / "bare.yaml"  # without the annotations
    bare.write_text(files[-1].read_text().replace("checkov.io/", "example.com/"))
    found = json.loads(run(tools / "checkov", *options, bare, cwd=tmp_path).stdout)["results"]
    assert {(check["check_id"], check["resource"]) for check in found["failed_checks"]} == {
        (check["check_id"], check["resource"])
        for check in results["skipped_checks"]
        if check["file_path"].endswith(files[-1].name)
    }


def test_pods_pass_the_restricted_standard(rendering: list[Document]) -> None:
    (namespace,) = of_kind(rendering, "Namespace")
    enforced = namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
    assert enforced == "restricted"
    for deployment in of_kind(rendering, "Deployment"):
        pod = pod_of(deployment)
        assert list(forbidden_by_the_restricted_standard(pod)) == []
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
    pod = pod_of(the(rendering, "Deployment"))
    account = the(rendering, "ServiceAccount")
    assert pod["serviceAccountName"] == account["metadata"]["name"]
    assert account["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsUser"] == 10001  # of the image


def test_all_is_in_the_namespace_of_the_overlay(rendering: list[Document]) -> None:
    (namespace,) = of_kind(rendering, "Namespace")
    others = [document for document in rendering if document is not namespace]
    assert {document["metadata"]["namespace"] for document in others} == {
        namespace["metadata"]["name"]
    }
    for scaled in of_kind(rendering, "ScaledObject"):
        assert f'{{namespace="{namespace["metadata"]["name"]}",' in query_of(scaled)


def test_long_names_and_odd_models(baked: Bake, render: Render) -> None:
    slug, model = "s" * 40, "ft:gpt-4.1@x/y_z+1:org::7p4lURel"
    other = baked(deployment="kubernetes", project_slug=slug, openai_model=model)
    documents = render(other / "deploy" / "kubernetes" / "overlays" / "staging")
    assert settings_of(documents)["OPENAI_MODEL"] == model
    assert all(len(document["metadata"]["name"]) <= 63 for document in documents)
    assert the(documents, "Deployment", name=slug)
