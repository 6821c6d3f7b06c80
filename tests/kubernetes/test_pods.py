"""Pods agree with the settings, and the service runs with them."""

import json
import os
import re
from pathlib import Path

import pytest

from ..projects import run
from .manifests import SLUG, Document, of_kind, pod_of, query_of, selects, settings_of, the

CLOSING_SECONDS = 6  # from the end of SHUTDOWN_GRACE_SECONDS to the exit of the process

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
