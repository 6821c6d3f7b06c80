"""The service in a real browser: pages of allowed and other origins, and its documentation."""

import http.server
import json
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from .projects import bake, install, run
from .test_launchers import KEY, QUESTION, is_ready, offline_openai, wait_until

pytestmark = pytest.mark.slow

# The second has the files of Swagger UI; what it depends on is not needed.
PACKAGES = (["playwright"], ["--no-deps", "drf-spectacular-sidecar"])
ASSETS = Path("drf_spectacular_sidecar/static/drf_spectacular_sidecar/swagger-ui-dist")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

# What `python -m chat_service.keys new` has printed for `web` and `limited`.
CLIENT_KEYS = {
    "web": "svc_d93647794ea35266f5b2ec0ac1b4f013a9e90b40f8ef5bf4",
    "limited": "svc_783130b3e8ae6a6e42487aaea1d40735f09f28b11be55265",
}
PAIRS = (
    "web:162cf49e454cd0520064fa95c9656bacdc6dfab80d1f3f5b890c7226a53b78e3,"
    "limited:313e127fca00ecdc61eca6d8d55b86f3cff619b3b4d37829f17faddb14bd7f75"
)
LIMIT = 10

# The application, with an endpoint that has a bug.
OWNERS = """
import chat_service.app


def create_app():
    app = chat_service.app.create_app()

    @app.post("/bug")
    async def bug():
        raise RuntimeError

    return app
"""


@pytest.fixture(scope="session")
def chromium() -> str:
    def found() -> str | None:
        return next(filter(None, map(shutil.which, BROWSERS)), None)

    if not found() and shutil.which("apt-get") and os.geteuid() == 0:
        # Where the package index cannot be reached, the tests are skipped, and soon.
        apt = ("apt-get", "--yes", "--quiet", "--option", "Acquire::http::Timeout=20")
        run(*apt, "update", cwd=Path.cwd())
        run(*apt, "install", "chromium", cwd=Path.cwd(), DEBIAN_FRONTEND="noninteractive")
    executable = found()
    if not executable:
        pytest.skip("There is no Chromium, and it cannot be installed.")
    return executable


@pytest.fixture(scope="session")
def browser_packages(venv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the browser needs, beside the environment of the projects."""
    target = tmp_path_factory.mktemp("browser")
    for packages in PACKAGES:
        done = install(venv / "python", "--target", target, *packages, cwd=target)
        if done.returncode:
            pytest.skip(f"Playwright cannot be installed: {done.stderr.splitlines()[-1]}")
    return target


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def origin(folder: Path) -> Iterator[str]:
    """A web server with a page."""
    handler = partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


@contextmanager
def service(project: Path, venv: Path, **env: str) -> Iterator[str]:
    (project / "src" / "owners.py").write_text(OWNERS)
    port = str(free_port())
    settings = {"PYTHONPATH": str(project / "src"), "OPENAI_MODEL": "gpt-test", "NO_PROXY": "*"}
    command = (venv / "python", "-m", "uvicorn", "--factory", "owners:create_app", "--port", port)
    with subprocess.Popen(command, cwd=project, env=os.environ | settings | env) as process:
        url = f"http://127.0.0.1:{port}"
        try:
            wait_until(lambda: process.poll() is not None or is_ready(url))
            yield url
        finally:
            process.terminate()


@pytest.fixture(scope="session")
def seen(
    chromium: str,
    browser_packages: Path,
    template: Path,
    venv: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Any]:
    """What the browser has seen."""
    folder = tmp_path_factory.mktemp("pages")
    project = bake(template, folder)
    (folder / "web").mkdir()
    (folder / "web" / "index.html").write_text("<!doctype html><title>A client</title>")
    with (
        offline_openai(project, venv) as offline,
        origin(folder / "web") as allowed,
        origin(folder / "web") as other,
        service(
            project,
            venv,
            OPENAI_API_KEY=KEY,
            OPENAI_BASE_URL=offline.url,
            SERVICE_API_KEYS=PAIRS,
            CORS_ORIGINS=f"https://app.example.com,{allowed}",
            RATE_LIMIT=f"{LIMIT}/day",
            PUBLIC_DOCS="true",
            MAX_BODY_BYTES="10000",
        ) as url,
    ):

        def request(path: str, key: str | None = "web", **headers: str) -> dict[str, Any]:
            credentials = {"Authorization": f"Bearer {CLIENT_KEYS[key]}"} if key else {}
            sent = {"Content-Type": "application/json"} | credentials | headers
            return {"url": url + path, "headers": sent, "body": QUESTION.decode()}

        asked = {
            "chat": request("/v1/chat", **{"X-Request-ID": "of-the-page"}),
            "other_header": request("/v1/chat", None, **{"X-API-Key": CLIENT_KEYS["web"]}),
            "stream": request("/v1/chat/stream"),
            "upstream_quota": request("/v1/chat"),
            "no_key": request("/v1/chat", None),
            "bug": request("/bug"),
            "nowhere": request("/nowhere"),
            "too_large": request("/v1/chat") | {"body": "x" * 20_000},
        }
        for step in ({}, {}, {"words": 4, "chunk_delay": 0.3}):
            offline.script(**step)
        offline.script(status=429, type="insufficient_quota")
        over_the_limit = [request("/v1/chat", "limited")] * (LIMIT + 1)
        done = run(
            venv / "python",
            Path(__file__).with_name("browser.py"),
            json.dumps(
                {
                    "executable": chromium,
                    "pages": [
                        (allowed, [*asked.values(), *over_the_limit]),
                        (other, [asked["chat"], asked["no_key"]]),
                    ],
                    "docs": f"{url}/docs",
                    "assets": str(browser_packages / ASSETS),
                    "key": CLIENT_KEYS["web"],
                    "screenshot": str(folder / "docs.png"),
                }
            ),
            cwd=folder,
            PYTHONPATH=str(browser_packages),
            HOME=str(folder),
        )
        done.check_returncode()
        found = json.loads(done.stdout)
        of_allowed, of_other = found["pages"]
        answers = dict(zip(asked, of_allowed, strict=False))
        answers["over_the_limit"] = of_allowed[-1]
        return {
            "answers": answers,
            "of_other": of_other,
            "docs": found["docs"],
            "posts": offline.posts(),
        }


def problem(answer: dict[str, Any]) -> str:
    """The type of the problem that the page can read, with an id for the support."""
    assert "error" not in answer, "an opaque network error"
    assert answer["headers"]["content-type"] == "application/problem+json"
    body = json.loads("".join(answer["chunks"]))
    assert body["request_id"] == answer["headers"]["x-request-id"]
    assert body["status"] == answer["status"]
    kind: str = body["type"]
    return kind.removeprefix("urn:problem-type:")


def test_a_page_of_an_allowed_origin_calls_with_a_key(seen: dict[str, Any]) -> None:
    answer = seen["answers"]["chat"]
    assert answer["status"] == 200
    assert answer["headers"]["x-request-id"] == "of-the-page"
    assert f";r={LIMIT - 1};" in answer["headers"]["ratelimit"]
    assert f";q={LIMIT};w=86400" in answer["headers"]["ratelimit-policy"]
    assert "reply" in json.loads("".join(answer["chunks"]))
    assert seen["answers"]["other_header"]["status"] == 200


def test_it_reads_a_stream_as_it_comes(seen: dict[str, Any]) -> None:
    answer = seen["answers"]["stream"]
    assert answer["status"] == 200
    assert answer["headers"]["x-request-id"]
    assert len(answer["chunks"]) >= 4
    assert "event: delta" in answer["chunks"][0]
    assert "event: done" in answer["chunks"][-1]


def test_it_reads_every_problem(seen: dict[str, Any]) -> None:
    """Rather than an error of the network, which is all that it sees without CORS headers."""
    assert {
        name: problem(answer) for name, answer in seen["answers"].items() if answer["status"] >= 400
    } == {
        "upstream_quota": "upstream-quota-exhausted",
        "no_key": "unauthenticated",
        "bug": "internal-error",
        "nowhere": "about:blank",
        "too_large": "body-too-large",
        "over_the_limit": "rate-limited",
    }


def test_it_reads_how_long_to_wait(seen: dict[str, Any]) -> None:
    headers = seen["answers"]["over_the_limit"]["headers"]
    assert int(headers["retry-after"]) > 0
    assert ";r=0;t=" in headers["ratelimit"]
    assert f";q={LIMIT};w=86400" in headers["ratelimit-policy"]


def test_a_page_of_another_origin_is_blocked(seen: dict[str, Any]) -> None:
    """Before OpenAI is called."""
    assert [answer["error"] for answer in seen["of_other"]] == ["TypeError: Failed to fetch"] * 2
    assert seen["posts"] == 4 + LIMIT + 1, "of the first page and the documentation"


def test_the_documentation_has_an_authorize_button(seen: dict[str, Any]) -> None:
    """And calls with the key that was put in there."""
    schemes = " ".join(seen["docs"]["schemes"])
    assert "Bearer" in schemes
    assert "X-API-Key" in schemes
    assert seen["docs"]["status"].startswith("200")
