"""The image: built from the unmodified Dockerfile, looked into, and run as in production."""

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

from .answers import AWKWARD
from .conftest import Bake
from .containers import HARDENED, PYTHON, STRAY, Containers, free_port
from .projects import run
from .test_launchers import KEY, QUESTION, Offline, ask, is_ready, wait_until

IMAGE = "chat-service"
PREFIX = "org.opencontainers.image"
TMP = ("--tmpfs", "/tmp")  # noqa: S108 - in a container
USER = 10001
# What the image's own Python sees, as the user that it runs as: the module is to be imported.
LOOK = """
import asyncio, importlib.metadata, importlib.util, json, os, sys, MODULE
names, writable = set(), []
for folder, folders, files in os.walk("/"):
    if folder == "/":
        folders[:] = set(folders) - {"dev", "proc", "sys"}
    names |= {*folders, *files}
    paths = [folder, *(os.path.join(folder, name) for name in files)]
    writable += [path for path in paths if os.access(path, os.W_OK)]
sources = [module.__file__ for module in (asyncio, json, MODULE)]
print(json.dumps({
    "ids": [os.getuid(), os.getgid()],
    "app": sorted(os.listdir("/app")),
    "unwanted": [name for name in sorted(names) if name in UNWANTED or name.startswith("pip-")],
    "writable": writable,
    "versions": {one.name: one.version for one in importlib.metadata.distributions()},
    "uncompiled": [path for path in sources
                   if not os.path.exists(importlib.util.cache_from_source(path))],
}))
"""
UNWANTED = [
    *("pip", "pip3", f"pip{PYTHON}", "ensurepip", "setuptools", "uv", "uvx", "uv.lock"),
    *(Path(name).name for name in STRAY),
    "offline_openai.py",
]


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


def inside(containers: Containers, image: str, module: str = "chat_service") -> dict[str, Any]:
    look = LOOK.replace("MODULE", module).replace("UNWANTED", repr(UNWANTED))
    found: dict[str, Any] = json.loads(containers.output("run", "--rm", image, *python(look)))
    return found


def python(code: str) -> tuple[str, ...]:
    return ("python", "-c", code)


def locked(project: Path) -> set[tuple[str, str]]:
    """Names and versions; some packages have two, for older and for newer Pythons."""
    lock = tomllib.loads((project / "uv.lock").read_text())
    return {(one["name"], one["version"]) for one in lock["package"]}


def test_hadolint_finds_nothing(containers: Containers, shipped: Path) -> None:
    done = run(containers.commands / "hadolint", "--no-color", "Dockerfile", cwd=shipped)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_description_is_a_label_whatever_it_says(containers: Containers, baked: Bake) -> None:
    text = " ".join(AWKWARD)
    project = baked(project_description=text)
    dockerfile = (project / "Dockerfile").read_text(encoding="utf-8")
    (label,) = re.findall(r"^LABEL (?:.*\\\n)*.*\n", dockerfile, re.MULTILINE)
    (project / "Dockerfile").write_text(f"FROM scratch\n{label}", encoding="utf-8")
    containers.build(project, "labelled").check_returncode()

    (image,) = json.loads(containers.output("image", "inspect", "labelled"))
    assert image["Labels"][f"{PREFIX}.description"] == text


def test_holds_the_service_and_nothing_else(containers: Containers, shipped: Path) -> None:
    assert not (shipped / "uv.lock").exists()
    found = inside(containers, IMAGE)

    assert found["app"] == [".venv"]
    assert found["ids"] == [USER, USER]
    assert found["uncompiled"] == []
    assert found["unwanted"] == []
    assert "chat-service" in found["versions"]
    assert {"hatchling", "pytest", "mypy", "aiohttp"} & found["versions"].keys() == set()
    lock_of_uv = "/app/.venv/.lock"  # empty; uv lets everybody write to it
    assert {*found["writable"]} <= {lock_of_uv, "/run/lock", "/tmp", "/var/tmp"}  # noqa: S108


@pytest.mark.usefixtures("shipped")
def test_configures_what_orchestrators_look_at(containers: Containers) -> None:
    (image,) = json.loads(containers.output("image", "inspect", IMAGE))
    config = image["Config"]

    assert config["User"] == f"{USER}:{USER}"  # a number, for runAsNonRoot
    assert config["Cmd"] == ["python", "-m", "chat_service"]
    assert not config.get("Entrypoint")
    assert [*config["ExposedPorts"]] == ["8000/tcp"]
    assert config.get("StopSignal", "SIGTERM") in ("", "SIGTERM", "15")
    assert {"HOST=0.0.0.0", "PORT=8000"} <= {*config["Env"]}
    assert not [one for one in config["Env"] if re.match("SSL_|UV_|OPENAI_", one)]
    assert image["Labels"][f"{PREFIX}.title"] == "chat-service"
    assert image["Labels"][f"{PREFIX}.licenses"] == "MIT"


@pytest.mark.usefixtures("shipped")
def test_the_offline_image_holds_only_what_it_needs(containers: Containers) -> None:
    found = inside(containers, "chat-service-offline-openai", module="aiohttp")

    assert found["app"] == [".venv", "dev"]
    assert found["ids"] == [USER, USER]
    assert found["unwanted"] == ["offline_openai.py"]
    assert {"aiohttp", "pydantic"} <= found["versions"].keys()
    assert {"chat-service", "openai", "pytest"} & found["versions"].keys() == set()


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
