"""compose.yaml: valid, and brought up with podman-compose on images that are made here."""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from .containers import PYTHON, Containers, free_port, need
from .projects import run
from .test_launchers import QUESTION, ask, is_ready, wait_until

pytestmark = pytest.mark.slow

OFFLINE, MONITORING = ("--profile", "offline"), ("--profile", "monitoring")
# As in the official image, but for the user; the program is Debian's.
PROMETHEUS = """
FROM docker.io/library/python:{python}-slim-trixie
COPY prometheus /bin/
USER 65534
ENTRYPOINT ["/bin/prometheus"]
CMD ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"]
"""


def read_yaml(containers: Containers, path: Path) -> dict[str, Any]:
    code = f"import json, yaml; print(json.dumps(yaml.safe_load(open({str(path)!r}))))"
    done = run(containers.commands / "python", "-c", code, cwd=path.parent)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@contextmanager
def up(
    containers: Containers, project: Path, *arguments: str, services: tuple[str, ...] = ()
) -> Iterator[dict[str, str]]:
    """Bring the services up on free ports, and yield their ports by the names of variables."""
    ports = {name: free_port() for name in ("PORT", "PROMETHEUS_PORT", "GRAFANA_PORT")}
    try:
        started = containers.compose(
            project, *arguments, "up", "--detach", "--no-build", *services, **ports
        )
        started.check_returncode()
        yield ports
    finally:
        for name in containers.output("ps", "--all", "--format", "{{.Names}}").splitlines():
            containers.podman("logs", name)  # shown with a failure
        everything = (*arguments, *MONITORING)
        containers.compose(project, *everything, "down", "--volumes", "--timeout", "0", **ports)


def container(containers: Containers, service: str) -> str:
    label = f"label=com.docker.compose.service={service}"
    return containers.output("ps", "--all", "--filter", label, "--format", "{{.Names}}")


def has_restarted(containers: Containers, service: str) -> bool:
    """In the midst of a restart, podman may fail."""
    done = containers.podman("inspect", container(containers, service))
    (found,) = json.loads(done.stdout) if done.returncode == 0 else [None]
    return bool(found and found["RestartCount"])


def is_healthy(containers: Containers, service: str) -> bool:
    """By its own health check; there is no systemd that would run it again and again."""
    name = container(containers, service)
    return containers.podman("healthcheck", "run", name).returncode == 0


def test_is_valid(containers: Containers, shipped: Path) -> None:
    check = ("--builtin-schema", "vendor.compose-spec", "compose.yaml")
    run(containers.commands / "check-jsonschema", *check, cwd=shipped).check_returncode()


def test_every_service_is_locked_up(containers: Containers, shipped: Path) -> None:
    """On a read-only disk, without capabilities, and reached by this machine only."""
    compose = read_yaml(containers, shipped / "compose.yaml")

    assert compose["name"] == "chat-service"
    for service in compose["services"].values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["profiles"]
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        for volume in service.get("volumes", []):
            if volume.startswith("./"):
                assert (shipped / volume.split(":")[0]).exists()
                assert volume.endswith(":ro")
    grace = 30 + 6  # SHUTDOWN_GRACE_SECONDS, and what `python -m` may take beyond
    assert int(compose["services"]["chat-service"]["stop_grace_period"].removesuffix("s")) > grace


def test_grafana_finds_prometheus_and_the_dashboard(containers: Containers, shipped: Path) -> None:
    """Its image cannot be had here: what it reads has to fit together."""
    grafana = read_yaml(containers, shipped / "compose.yaml")["services"]["grafana"]
    mounts = dict(volume.split(":")[:2] for volume in grafana["volumes"])
    provisioning = shipped / "deploy" / "compose" / "grafana"
    (source,) = read_yaml(containers, provisioning / "datasources/prometheus.yaml")["datasources"]
    (provider,) = read_yaml(containers, provisioning / "dashboards/files.yaml")["providers"]

    assert mounts["./deploy/compose/grafana"] == "/etc/grafana/provisioning"
    dashboard = mounts["./deploy/observability/dashboard.json"]
    assert dashboard == grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert Path(dashboard).parent == Path(provider["options"]["path"])
    assert (source["type"], source["url"]) == ("prometheus", "http://prometheus:9090")


def test_offline_it_needs_no_key_and_survives_redis(containers: Containers, shipped: Path) -> None:
    with up(containers, shipped, *OFFLINE) as ports:
        url = f"http://127.0.0.1:{ports['PORT']}"
        wait_until(lambda: is_ready(url))
        for service in ("chat-service-offline", "offline-openai", "redis"):
            wait_until(partial(is_healthy, containers, service))
        status, headers, body = ask(f"{url}/v1/chat", QUESTION)
        assert (status, "This is the offline OpenAI" in body) == (200, True)
        assert ";r=599;" in headers["ratelimit"]
        keys = ("exec", container(containers, "redis"), "redis-cli", "keys", "*")
        assert "requests" in containers.output(*keys)
        assert "rate_limit_storage_up 1.0" in ask(f"{url}/metrics")[2]

        containers.output("stop", "--time", "0", container(containers, "redis"))
        assert ask(f"{url}/v1/chat", QUESTION)[0] == 200
        wait_until(lambda: "rate_limit_storage_up 0.0" in ask(f"{url}/metrics")[2])
        assert is_healthy(containers, "chat-service-offline")

        # Where nothing listens, the same check fails.
        (service,) = json.loads(
            containers.output("inspect", container(containers, "chat-service-offline"))
        )
        check = service["Config"]["Healthcheck"]["Test"]
        alone = containers.podman("run", "--rm", "chat-service", *check[check[0] == "CMD" :])
        assert "ConnectionRefusedError" in alone.stderr
        assert alone.returncode == 1


def test_without_a_key_it_says_so(containers: Containers, shipped: Path) -> None:
    """With the example of an .env, which has everything but the keys."""
    project = shipped.parent / "without-key"
    shutil.copytree(shipped, project)
    shutil.copy(project / ".env.example", project / ".env")
    with up(containers, project, "--profile", "openai"):
        wait_until(lambda: has_restarted(containers, "chat-service"))
        log = containers.podman("logs", container(containers, "chat-service")).stderr
        assert {line.split(":")[0] for line in log.splitlines()} == {"OPENAI_API_KEY is not set"}


def test_prometheus_scrapes_the_service(
    containers: Containers, shipped: Path, tmp_path: Path
) -> None:
    need("prometheus", has="prometheus")
    shutil.copy(shutil.which("prometheus") or "", tmp_path / "prometheus")
    (tmp_path / "Dockerfile").write_text(PROMETHEUS.format(python=PYTHON))
    (image,) = re.findall("image: (prom/.+)", (shipped / "compose.yaml").read_text())
    containers.build(tmp_path, f"docker.io/{image}").check_returncode()

    services = ("chat-service-offline", "prometheus")
    with up(containers, shipped, *OFFLINE, *MONITORING, services=services) as ports:
        api = f"http://127.0.0.1:{ports['PROMETHEUS_PORT']}/api/v1"
        wait_until(lambda: is_ready(api, "rules"))
        groups = json.loads(ask(f"{api}/rules")[2])["data"]["groups"]
        assert "TargetDown" in [rule["name"] for group in groups for rule in group["rules"]]

        def scraped() -> list[dict[str, dict[str, str]]]:
            answer = json.loads(ask(f"{api}/query?query=openai_calls_max")[2])
            return [*answer["data"]["result"]]

        wait_until(scraped)
        assert scraped()[0]["metric"]["job"] == "service"
