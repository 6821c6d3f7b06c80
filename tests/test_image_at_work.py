"""The image, run as in production."""

import http.server
import json
import os
import re
import signal
import ssl
import threading
import time
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .ci.repositories import workflows
from .conftest import Bake
from .containers import HARDENED, PYTHON, Containers, free_port
from .projects import run
from .test_image import IMAGE, inside, python
from .test_launchers import KEY, QUESTION, Offline, ask, is_ready, wait_until

pytestmark = pytest.mark.slow

TMP = ("--tmpfs", "/tmp")  # noqa: S108 - in a container


@dataclass
class Service:
    name: str
    url: str


@pytest.fixture(scope="module")
def network(containers: Containers) -> str:
    return containers.output("network", "create", f"image-{os.getpid()}")


@pytest.fixture(scope="module")
def offline(containers: Containers, shipped: Path, network: str) -> Iterator[Offline]:
    """The image of the offline OpenAI, which other containers reach as `openai`."""
    port = free_port()
    options = ("--network", network, "--network-alias", "openai", "-p", f"127.0.0.1:{port}:9000")
    with containers.running("chat-service-offline-openai", *HARDENED, *options):
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: is_ready(url, "offline/received"))
        yield Offline(f"{url}/v1")


@contextmanager
def service(
    containers: Containers, network: str, *options: str, image: str = IMAGE, **env: str
) -> Iterator[Service]:
    """With a read-only disk, no capabilities and, unless `options` have one, no /tmp."""
    port = free_port()
    settings = {"OPENAI_API_KEY": KEY, "OPENAI_MODEL": "gpt-test"} | env
    settings.setdefault("OPENAI_BASE_URL", "http://openai:9000/v1")
    envs = [word for item in settings.items() for word in ("--env", "=".join(item))]
    ports = ("--network", network, "-p", f"127.0.0.1:{port}:8000", "--memory", "512m")
    with containers.running(image, *HARDENED, *ports, *options, *envs) as name:
        yield Service(name, f"http://127.0.0.1:{port}")


def state(containers: Containers, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(containers.output("inspect", name))[0]["State"]
    return found


def locked(project: Path) -> set[tuple[str, str]]:
    """Names and versions; some packages have two, for older and for newer Pythons."""
    lock = tomllib.loads((project / "uv.lock").read_text())
    return {(one["name"], one["version"]) for one in lock["package"]}


@pytest.mark.usefixtures("shipped")
@pytest.mark.parametrize(
    ("env", "sentence"),
    [
        ({}, "OPENAI_API_KEY is not set: "),
        ({"OPENAI_API_KEY": KEY}, "HOST=0.0.0.0 lets other machines call OpenAI at your cost: "),
        ({"OPENAI_API_KEY": KEY, "SERVICE_API_KEYS": "svc_1"}, "SERVICE_API_KEYS must be pairs "),
        ({"OPENAI_API_KEY": KEY, "PORT": "80000"}, "PORT "),
        (
            {"OPENAI_API_KEY": KEY, "ALLOW_ANONYMOUS": "true", "WORKERS": "2"},
            "WORKERS need a writable directory ",
        ),
    ],
    ids=["no-key", "no-service-keys", "wrong-service-keys", "wrong-port", "no-tmp"],
)
def test_asks_for_what_is_missing_in_a_sentence(
    containers: Containers, env: dict[str, str], sentence: str
) -> None:
    settings = {"OPENAI_MODEL": "gpt-test", "OPENAI_BASE_URL": "http://127.0.0.1:9/v1"} | env
    envs = [word for item in settings.items() for word in ("--env", "=".join(item))]
    done = containers.podman("run", "--rm", *HARDENED, *envs, IMAGE)

    assert done.returncode == 78
    said = [line for line in done.stderr.splitlines() if not line.startswith('{"time"')]
    assert said[0].startswith(sentence)
    assert len(said) == 1


def test_answers_streams_and_stops_within_its_grace_period(
    containers: Containers, offline: Offline, network: str
) -> None:
    printed = containers.output(
        "run", "--rm", IMAGE, *("python", "-m", "chat_service.keys", "new", "web")
    )
    key, pair = (line.split()[-1] for line in printed.splitlines())
    headers = {"Authorization": f"Bearer {key}"}
    with service(containers, network, SERVICE_API_KEYS=pair) as running:
        chat, stream = f"{running.url}/v1/chat", f"{running.url}/v1/chat/stream"
        wait_until(lambda: is_ready(running.url))
        assert ask(chat, QUESTION)[0] == 401
        status, _, body = ask(chat, QUESTION, headers=headers)
        assert (status, "What is a socket?" in body) == (200, True)
        assert "event: done" in ask(stream, QUESTION, headers=headers)[2]
        command = containers.output(
            "exec", running.name, *python("print(*open('/proc/1/cmdline'))")
        )
        assert command.split("\0")[:3] == ["python", "-m", "chat_service"]

        before = offline.posts()
        offline.script(words=30, chunk_delay=0.1)
        with ThreadPoolExecutor() as clients:
            answer = clients.submit(ask, stream, QUESTION, headers=headers)
            wait_until(lambda: offline.posts() > before)
            began = time.monotonic()
            containers.output("stop", "--time", "45", running.name)
            took = time.monotonic() - began
        assert "event: done" in answer.result()[2]
        assert state(containers, running.name)["ExitCode"] == 0
        assert 1 < took < 36, "as long as the stream, not as long as the grace period"


def catches_sigterm(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    (mask,) = re.findall(r"^SigCgt:\s+(\w+)", status, re.MULTILINE)
    return bool(int(mask, 16) >> signal.SIGTERM - 1 & 1)


@pytest.mark.usefixtures("offline")
def test_a_stop_during_the_start_is_heeded(containers: Containers, network: str) -> None:
    """As process 1, which Linux protects from signals that it does not handle."""
    with service(containers, network, ALLOW_ANONYMOUS="true") as running:
        pid = state(containers, running.name)["Pid"]
        wait_until(lambda: catches_sigterm(pid))
        assert "Listening" not in containers.podman("logs", running.name).stderr
        began = time.monotonic()
        containers.output("stop", "--time", "45", running.name)
        assert time.monotonic() - began < 40
        assert state(containers, running.name)["ExitCode"] == 0


@pytest.mark.usefixtures("offline")
def test_several_workers_need_only_a_writable_tmp(containers: Containers, network: str) -> None:
    env = {"ALLOW_ANONYMOUS": "true", "WORKERS": "2"}
    with service(containers, network, *TMP, **env) as running:
        wait_until(lambda: is_ready(running.url))
        accepted = '\nopenai_key_status{status="accepted"} 2.0\n'
        wait_until(lambda: accepted in ask(f"{running.url}/metrics")[2])
        containers.output("stop", "--time", "45", running.name)
        assert state(containers, running.name)["ExitCode"] == 0


def test_a_lock_file_decides_on_the_versions(
    containers: Containers, baked: Bake, offline: Offline, network: str
) -> None:
    """In an image of another style of handlers, which answers, too."""
    project = baked(python_version=PYTHON, handler_style="async")
    lock = (containers.commands / "uv", "lock", "--upgrade-package", "click==8.1.8")
    run(*lock, cwd=project, UV_CACHE_DIR=str(containers.folder / "uv-cache")).check_returncode()
    containers.build(project, "locked").check_returncode()

    versions = inside(containers, "locked")["versions"]
    assert versions["click"] == "8.1.8"
    names = {name: re.sub("[-_.]+", "-", name).lower() for name in versions}
    assert {(names[name], version) for name, version in versions.items()} <= locked(project)
    before = offline.posts()
    with service(containers, network, image="locked", ALLOW_ANONYMOUS="true") as running:
        wait_until(lambda: is_ready(running.url))
        assert ask(f"{running.url}/v1/chat", QUESTION)[0] == 200
    assert offline.posts() == before + 1

    pyproject = project / "pyproject.toml"
    pyproject.write_text(pyproject.read_text().replace('"tenacity>=', '"click>=8.2",\n"tenacity>='))
    done = containers.build(project, "stale")
    assert done.returncode != 0
    assert "lockfile" in done.stderr
    assert "needs to be updated" in done.stderr


class Model(http.server.BaseHTTPRequestHandler):
    """OpenAI's description of a model, which makes the service ready."""

    def do_GET(self) -> None:
        body = b'{"id": "gpt-test", "object": "model", "created": 1, "owned_by": "test"}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def behind_tls(folder: Path) -> Iterator[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Model) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever).start()
        try:
            yield f"https://127.0.0.1:{server.server_port}/v1"
        finally:
            server.shutdown()


def test_trusts_a_companys_certificate_if_told(
    containers: Containers, shipped: Path, tmp_path: Path
) -> None:
    """By SSL_CERT_FILE, or by the Dockerfile that docs/docker.md shows; else it says why not."""
    trustme = (containers.commands / "python", "-m", "trustme", "-q", "-i", "127.0.0.1")
    run(*trustme, cwd=tmp_path).check_returncode()
    (tmp_path / "client.pem").rename(tmp_path / "company.crt")
    docs = (shipped / "docs" / "docker.md").read_text()
    (dockerfile,) = re.findall("```dockerfile\n(.+?)```", docs, re.DOTALL)
    (tmp_path / "Dockerfile").write_text(dockerfile)
    containers.build(tmp_path, "trusting").check_returncode()
    mount = ("--volume", f"{tmp_path}/company.crt:/company.crt:ro")

    with behind_tls(tmp_path) as url:

        def verdict(image: str, *options: str) -> tuple[str, str]:
            port = free_port()
            env = {"HOST": "127.0.0.1", "PORT": port, "OPENAI_BASE_URL": url}
            with service(containers, "host", *options, image=image, **env) as running:
                wait_until(lambda: is_ready(f"http://127.0.0.1:{port}", "livez"))
                checks = f"http://127.0.0.1:{port}/readyz"
                wait_until(lambda: "unchecked" not in ask(checks)[2])
                log = containers.podman("logs", running.name)
                return json.loads(ask(checks)[2])["checks"]["openai_api_key"], log.stderr

        by_file = (*mount, "--env", "SSL_CERT_FILE=/company.crt")
        assert verdict(IMAGE, *by_file)[0] == "accepted"
        assert verdict("trusting")[0] == "accepted"
        status, log = verdict(IMAGE, *mount)
        assert status == "unreachable"
        assert "certificate" in log


def test_the_steps_of_image_yml_try_the_real_image(
    containers: Containers, shipped: Path, tmp_path: Path
) -> None:
    """From the archive that a builder writes, by another name and port."""
    archive = ("--format", "oci-archive", "--output", tmp_path / "image.tar")
    containers.podman("save", *archive, "chat-service").check_returncode()
    steps = workflows(shipped)["image.yml"]["jobs"]["image"]["steps"]
    scripts = [step["run"] for step in steps if "podman run" in step.get("run", "")]
    try:
        for script in scripts:
            here = script.replace("127.0.0.1:8000", f"127.0.0.1:{free_port()}")
            done = run("bash", "-e", "-c", here.replace("candidate", "tried"), cwd=tmp_path)
            assert done.returncode == 0
    finally:
        containers.podman("rm", "--force", "--time", "0", "tried")
    assert len(scripts) == 2
