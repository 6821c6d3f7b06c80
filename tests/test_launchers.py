"""What the service promises holds under every ASGI server, not only under `python -m`."""

import itertools
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, Request, build_opener

import pytest

from .conftest import Bake
from .projects import STYLES, install

pytestmark = pytest.mark.slow

PACKAGES = (
    "fastapi-cli",
    "granian",
    "gunicorn",
    "hypercorn",
    "uvicorn[standard]",
    "uvicorn-worker",
)
GRACE_SECONDS = 2
# As `python -m`; APP is a factory. With access logs, which the service is to silence.
LAUNCHERS = {
    "uvicorn": "uvicorn --factory APP --host HOST --port PORT",
    "uvicorn-with-two-workers": "uvicorn --factory APP --host HOST --port PORT --workers 2",
    "fastapi-run": "fastapi run --entrypoint APP --host HOST --port PORT",
    "gunicorn": (
        "gunicorn -k uvicorn_worker.UvicornWorker --bind HOST:PORT --access-logfile - APP()"
    ),
    "hypercorn": (
        f"hypercorn --bind HOST:PORT --access-logfile - --graceful-timeout {GRACE_SECONDS} APP()"
    ),
    "granian": "granian --interface asgi --factory APP --host HOST --port PORT --access-log",
}

EVERY_NETWORK = "0.0.0.0"  # noqa: S104 - tests that without keys nothing is served to others

KEY = "sk-test-4ZpQ8vK2mN7rT1xW5yB9"
QUESTION = json.dumps({"messages": [{"role": "user", "content": "What is a socket?"}]}).encode()

# The application, with an endpoint that does all it can to log the key.
OWNERS = f"""
import logging
import chat_service.app

library = logging.getLogger("library")
library.addHandler(logging.StreamHandler())
library.propagate = False


def create_app():
    app = chat_service.app.create_app()

    @app.get("/leak")
    async def leak():
        for name in ("library", "uvicorn.error", "gunicorn.error", "hypercorn.error", "_granian"):
            logging.getLogger(name).error("%s says %r", name, ["{KEY}"], extra={{"key": "{KEY}"}})
        try:
            raise RuntimeError("{KEY}")
        except RuntimeError:
            library.exception("failed")
            raise

    return app
"""


Launch = Callable[..., AbstractContextManager["Launched"]]


@pytest.fixture(scope="session")
def launchers(venv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ASGI servers, beside the environment of the projects, which do not need them."""
    target = tmp_path_factory.mktemp("launchers")
    done = install(venv / "python", "--target", target, *PACKAGES, cwd=target)
    if done.returncode:
        pytest.skip(f"The servers cannot be installed: {done.stderr.splitlines()[-1]}")
    return target


def ask(
    url: str,
    data: bytes | None = None,
    request_id: str = "any",
    headers: dict[str, str] | None = None,
) -> tuple[int, Any, str]:
    """Status, headers and body."""
    usual = {"content-type": "application/json", "x-request-id": request_id}
    request = Request(url, data, usual | (headers or {}))  # noqa: S310 - of our own server
    try:
        with build_opener(ProxyHandler({})).open(request, timeout=60) as response:
            return response.status, response.headers, response.read().decode()
    except HTTPError as error:
        return error.code, error.headers, error.read().decode()


def wait_until(holds: Callable[[], object], seconds: float = 60) -> None:
    ends_at = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends_at, "waited in vain"
        time.sleep(0.02)


def is_ready(url: str, probe: str = "readyz") -> bool:
    try:
        return ask(f"{url}/{probe}")[0] == 200
    except URLError:
        return False


@dataclass
class Offline:
    """The project's offline OpenAI, which needs the project's environment."""

    url: str

    def script(self, **step: object) -> None:
        assert ask(f"{self._control}/script", json.dumps([step]).encode())[0] == 200

    def posts(self) -> int:
        """How many there were; a second worker may check the key meanwhile, by a GET."""
        received = json.loads(ask(f"{self._control}/received")[2])
        return sum(request["method"] == "POST" for request in received)

    @property
    def _control(self) -> str:
        return f"{self.url.removesuffix('/v1')}/offline"


@contextmanager
def offline_openai(project: Path, venv: Path) -> Iterator[Offline]:
    command = (venv / "python", "-m", "dev.offline_openai", "--port", "0")
    with subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield Offline(process.stdout.readline().rpartition("OPENAI_BASE_URL=")[2].strip())
        finally:
            process.terminate()


@dataclass
class Launched:
    process: "subprocess.Popen[bytes]"
    url: str
    log: Path


@pytest.fixture
def launch(venv: Path, launchers: Path, tmp_path: Path) -> Launch:
    (tmp_path / "owners.py").write_text(OWNERS)

    @contextmanager
    def launch_here(
        launcher: str, app: str, project: Path, host: str = "127.0.0.1", **env: str
    ) -> Iterator[Launched]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        command = LAUNCHERS[launcher].replace("APP", app).replace("HOST", host)
        words = command.replace("PORT", port).split()
        path = os.pathsep.join(map(str, (project / "src", tmp_path, launchers)))
        settings = {
            "PYTHONPATH": path,
            "HOME": str(tmp_path),  # where gunicorn has its control socket
            "NO_PROXY": "*",
            "LOG_FORMAT": "json",
            "OPENAI_MODEL": "gpt-test",
            "SHUTDOWN_DRAIN_SECONDS": "0",
            "SHUTDOWN_GRACE_SECONDS": str(GRACE_SECONDS),
        }
        log = tmp_path / f"{launcher}.log"
        with (
            log.open("wb") as output,
            subprocess.Popen(
                [venv / "python", "-m", *words],
                cwd=tmp_path,
                env=os.environ | settings | env,
                stdout=output,
                stderr=output,
                start_new_session=True,
            ) as process,
        ):
            try:
                yield Launched(process, f"http://127.0.0.1:{port}", log)
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)

    return launch_here


def test_bad_settings_are_refused_in_a_sentence(baked: Bake, launch: Launch) -> None:
    """And no supervisor starts its workers again and again."""
    project = baked()

    def printed(launcher: str) -> str:
        with launch(launcher, "chat_service.app:create_app", project, OPENAI_API_KEY="") as refused:
            refused.process.wait(timeout=60)
            return refused.log.read_text()

    with ThreadPoolExecutor() as pool:
        for text in pool.map(printed, LAUNCHERS):
            assert "OPENAI_API_KEY is not set: " in text
            assert "Traceback" not in text


def address_on_a_network() -> str:
    """Of this machine. Nothing is sent there: connecting a UDP socket only looks up the route."""
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        try:
            client.connect(("192.0.2.1", 9))  # for documentation (RFC 5737)
        except OSError:
            pytest.skip("This machine is on no network.")
        address: str = client.getsockname()[0]
        return address


def test_without_keys_other_machines_are_refused(baked: Bake, launch: Launch) -> None:
    """Whatever they say in their headers, even if the server believes those of all proxies."""
    project, address = baked(), address_on_a_network()

    env = {
        "OPENAI_API_KEY": KEY,
        "OPENAI_BASE_URL": "http://127.0.0.1:9/v1",
        "FORWARDED_ALLOW_IPS": "*",
    }
    forged = {"X-Forwarded-For": "127.0.0.1", "Forwarded": "for=127.0.0.1"}

    def check(launcher: str) -> None:
        app = "chat_service.app:create_app"
        with launch(launcher, app, project, host=EVERY_NETWORK, **env) as service:
            wait_until(lambda: service.process.poll() is not None or is_ready(service.url, "livez"))
            outside = service.url.replace("127.0.0.1", address)
            for headers in (None, {"Host": "localhost"}, {"Host": "127.0.0.1"}, forged):
                assert ask(f"{outside}/openapi.json", headers=headers)[0] == 401, launcher
                assert ask(f"{outside}/v1/chat", QUESTION, headers=headers)[0] == 401, launcher
            assert ask(f"{outside}/livez")[0] == 200, launcher
            if launcher != "granian":  # tells the application only that it listens everywhere
                assert ask(f"{service.url}/openapi.json")[0] == 200, launcher
            assert service.log.read_text().count("SERVICE_API_KEYS") == 1, launcher

    with ThreadPoolExecutor() as pool:
        for _ in pool.map(check, LAUNCHERS.keys() - {"uvicorn-with-two-workers"}):
            pass


@pytest.mark.parametrize(
    ("launcher", "style"), list(zip(LAUNCHERS, itertools.cycle(STYLES), strict=False))
)
def test_no_key_in_the_log_and_a_clean_stop(
    launcher: str, style: str, baked: Bake, launch: Launch, venv: Path
) -> None:
    project = baked(handler_style=style)
    with (
        offline_openai(project, venv) as offline,
        launch(
            launcher,
            "owners:create_app",
            project,
            OPENAI_API_KEY=KEY,
            OPENAI_BASE_URL=offline.url,
        ) as service,
    ):
        wait_until(lambda: service.process.poll() is not None or is_ready(service.url))
        check_requests(service.url)
        check_stop(service, offline)
        assert service.process.wait(timeout=30) == 0
        check_log(service.log.read_text())


@pytest.mark.parametrize("launcher", ["uvicorn-with-two-workers", "gunicorn"])
def test_each_worker_tells_the_metrics_of_all(
    launcher: str, baked: Bake, launch: Launch, venv: Path, tmp_path: Path
) -> None:
    project, directory = baked(), tmp_path / "metrics"
    directory.mkdir()
    with (
        offline_openai(project, venv) as offline,
        launch(
            launcher,
            "chat_service.app:create_app",
            project,
            OPENAI_API_KEY=KEY,
            OPENAI_BASE_URL=offline.url,
            PROMETHEUS_MULTIPROC_DIR=str(directory),
            GUNICORN_CMD_ARGS="--workers 2",
        ) as service,
    ):

        def tells(*line: str) -> bool:
            return "\n".join(("", *line, "")) in ask(f"{service.url}/metrics")[2]

        wait_until(lambda: is_ready(service.url))
        wait_until(lambda: tells('openai_key_status{status="accepted"} 2.0'))
        for _ in range(20):
            assert ask(f"{service.url}/v1/chat", QUESTION)[0] == 200
        labels = 'error_type="",gen_ai_operation_name="chat",gen_ai_request_model="gpt-test"'
        counted = f"gen_ai_client_operation_duration_seconds_count{{{labels}}} 20.0"
        assert all(tells(counted) for _ in range(10))


def check_requests(url: str) -> None:
    assert ask(f"{url}/livez?key={KEY}")[0] == 200
    status, headers, _ = ask(f"{url}/leak", request_id="the-leak")
    assert (status, headers["x-request-id"]) == (500, "the-leak")


def check_stop(service: Launched, offline: Offline) -> None:
    before = offline.posts()
    steps: list[tuple[str, dict[str, object]]] = [
        ("/v1/chat/stream", {"words": 5, "chunk_delay": 0.2}),
        ("/v1/chat/stream", {"reply": "one two", "hang_after": 1}),
        ("/v1/chat", {"delay": 60}),
    ]
    answers = []
    with ThreadPoolExecutor() as clients:
        for endpoint, step in steps:
            offline.script(**step)
            answers.append(clients.submit(ask, f"{service.url}{endpoint}", QUESTION))
            wait_until(lambda: offline.posts() == before + len(answers))
        service.process.send_signal(signal.SIGTERM)
    (_, _, whole), (_, _, cut), (status, headers, problem) = (one.result() for one in answers)
    assert "event: done" in whole
    assert "event: error" in cut
    assert "urn:problem-type:shutting-down" in cut
    assert (status, headers["retry-after"]) == (503, "1")
    assert json.loads(problem)["type"] == "urn:problem-type:shutting-down"


def check_log(printed: str) -> None:
    assert KEY not in printed
    assert printed.count("[redacted]") >= 8
    lines = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    of_the_leak = [line for line in lines if line["request_id"] == "the-leak"]
    for name in ("uvicorn.error", "gunicorn.error", "hypercorn.error", "_granian"):
        assert [line["logger"] for line in of_the_leak].count(name) == 1
    plain = [line for line in printed.splitlines() if " says " in line and not line.startswith("{")]
    assert [line.split()[0] for line in plain] == ["library"], "a server logs in its own format"
    assert "GET /leak 500" in [line["message"] for line in of_the_leak]
    assert "HTTP/1.1" not in printed, "the server has an access log of its own"
