"""What is measured, and how each of them is started."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from .processes import answers, free_port, running, wait_until
from .upstream import Behaviour
from .workspace import PACKAGE, ROOT, Workspace

STYLES = ("to_thread", "sync", "async")


@dataclass(frozen=True)
class App:
    name: str  # in commands
    label: str  # in reports
    style: str | None = None  # the handler style, of a generated service
    api: str = ""  # the prefix of its endpoints in ENDPOINTS
    ready: str = "/livez"  # 200 once it serves
    live: str = "/livez"  # costs next to nothing: shows how late the event loop is


OURS = {style: App(style, f"{style}, this template", style, ready="/readyz") for style in STYLES}
PLAIN = App("plain", "plain AsyncOpenAI")
LIVELINESS = "/health/liveliness"
LITELLM = App("litellm", "LiteLLM proxy", api="openai ", ready=LIVELINESS, live=LIVELINESS)
BY_HAND = (
    App("bare_to_thread", "bare asyncio.to_thread"),
    App("bare_def", "bare def"),
    App("blocking", "blocking call in async def"),
)
UPSTREAM = App("upstream", "the upstream itself", api="openai ", ready="/v1/models/offline")

# A slot for each client, so that none is refused where the limit is not what is measured.
UNLIMITED = {"MAX_CONCURRENCY": "10000"}


@dataclass(frozen=True)
class Served:
    port: int
    pid: int


@dataclass
class Stage:
    """Starts one app with the upstream behind it, anew for every measurement."""

    workspace: Workspace
    upstream: Behaviour
    settings: dict[str, str] = field(default_factory=dict)
    workers: int = 1

    @contextmanager
    def serving(self, app: App) -> Iterator[Served]:
        env = {"UPSTREAM": json.dumps(asdict(self.upstream))}
        command = self._uvicorn("upstream:app", "--no-access-log", "--lifespan", "off")
        with self._running(UPSTREAM, command, ROOT, env) as upstream:
            if app == UPSTREAM:
                yield upstream
                return
            with self._service(app, f"http://127.0.0.1:{upstream.port}/v1") as service:
                yield service

    @contextmanager
    def _service(self, app: App, openai_url: str) -> Iterator[Served]:
        env = UNLIMITED | {
            "OPENAI_API_KEY": "sk-offline-needs-no-key",
            "OPENAI_BASE_URL": openai_url,
            "OPENAI_MODEL": "offline",
            "WORKERS": str(self.workers),
        }
        workers = str(self.workers)
        cwd = ROOT
        # Each with its own defaults: all write a log line for each request, to a file.
        if app.style:
            cwd = self.workspace.projects[app.style]
            env["PYTHONPATH"] = str(cwd / "src")
            command: list[str | Path] = [self.workspace.python, "-m", PACKAGE]
        elif app == LITELLM:
            config = self.workspace.folder / "litellm.yaml"
            params = {"model": "openai/offline", "api_base": openai_url, "api_key": "none"}
            model = {"model_name": "offline", "litellm_params": params}
            config.write_text(json.dumps({"model_list": [model]}))  # JSON is YAML
            env["LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY"] = "true"
            env["LITELLM_LOCAL_MODEL_COST_MAP"] = "true"  # else it is downloaded at each start
            command = [self.workspace.litellm.with_name("litellm"), "--config", config]
            command += ["--host", "127.0.0.1", "--num_workers", workers, "--telemetry", "False"]
        else:
            command = self._uvicorn(f"rivals:{app.name}", "--workers", workers)
        with self._running(app, command, cwd, env | self.settings, self.workers) as served:
            yield served

    def _uvicorn(self, app: str, *options: str) -> list[str | Path]:
        return [self.workspace.python, "-m", "uvicorn", f"benchmarks.{app}", *options]

    @contextmanager
    def _running(
        self, app: App, command: list[str | Path], cwd: Path, env: dict[str, str], workers: int = 0
    ) -> Iterator[Served]:
        port, log = free_port(), self.workspace.folder / f"{app.name}.log"
        if app.style:
            env |= {"PORT": str(port)}
        else:
            command += ["--port", str(port)]
        with running(command, cwd=cwd, log=log, env=env) as process:
            wait_until(lambda: answers(port, app.ready), process, log)
            started = "Application startup complete"
            wait_until(lambda: log.read_text().count(started) >= workers, process, log)
            yield Served(port, process.pid)
