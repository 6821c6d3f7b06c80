"""What is measured, and how each of them is started."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from .processes import answers, free_port, running, wait_until
from .workshop import PACKAGE, ROOT, Workshop

STYLES = ("to_thread", "sync", "async")


@dataclass(frozen=True)
class App:
    name: str  # in commands
    label: str  # in reports
    style: str | None = None  # of one of ours
    streams: bool = True
    is_upstream: bool = False  # the offline OpenAI itself, with nothing in front of it
    few_callers_only: bool = False  # more of them would only wait


OURS = {style: App(style, f"{style}, this template", style) for style in STYLES}
PLAIN = App("plain", "plain AsyncOpenAI")
RIVALS = (
    PLAIN,
    App("bare_to_thread", "bare asyncio.to_thread", streams=False),
    App("bare_def", "bare def", streams=False),
    App("blocking", "blocking call in async def", streams=False, few_callers_only=True),
)
UPSTREAM = App("upstream", "the upstream itself", is_upstream=True)


@dataclass(frozen=True)
class Upstream:
    """How the offline OpenAI answers; times are seconds."""

    delay: float = 0.0
    chunk_delay: float = 0.0
    words: int | None = None


# A place for each caller, so that none is refused where it is not about that.
GENEROUS = {"MAX_CONCURRENCY": "10000"}


@dataclass(frozen=True)
class Served:
    port: int
    pid: int


@dataclass
class Stage:
    """Starts one app with the offline OpenAI behind it, afresh for every measurement."""

    workshop: Workshop
    upstream: Upstream
    settings: dict[str, str] = field(default_factory=dict)
    workers: int = 1

    @contextmanager
    def serving(self, app: App) -> Iterator[Served]:
        with self._offline() as (offline, url):
            if app.is_upstream:
                yield offline
                return
            with self._service(app, url) as service:
                yield service

    @contextmanager
    def _offline(self) -> Iterator[tuple[Served, str]]:
        port, log = free_port(), self.workshop.folder / "upstream.log"
        command: list[str | Path] = [
            self.workshop.python,
            "-m",
            "dev.offline_openai",
            "--port",
            str(port),
        ]
        command += ["--delay", str(self.upstream.delay)]
        command += ["--chunk-delay", str(self.upstream.chunk_delay)]
        if self.upstream.words:
            command += ["--words", str(self.upstream.words)]
        with running(command, cwd=self.workshop.project, log=log, env={}) as process:
            wait_until(lambda: answers(port, "/v1/models"), process, log)
            yield Served(port, process.pid), f"http://127.0.0.1:{port}/v1"

    @contextmanager
    def _service(self, app: App, openai_url: str) -> Iterator[Served]:
        port, log = free_port(), self.workshop.folder / f"{app.name}.log"
        env = GENEROUS | {
            "OPENAI_API_KEY": "sk-offline-needs-no-key",
            "OPENAI_BASE_URL": openai_url,
            "OPENAI_MODEL": "offline",
            "PORT": str(port),
            "WORKERS": str(self.workers),
        }
        command: list[str | Path] = [self.workshop.python, "-m"]
        # Each as it comes: all log a line a request, to a file.
        if app.style:
            command += [PACKAGE]
            folder = self.workshop.projects[app.style]
            env["PYTHONPATH"] = str(folder / "src")
            ready = "/readyz"
        else:
            command += ["uvicorn", f"benchmarks.rivals:{app.name}"]
            command += ["--port", str(port), "--workers", str(self.workers)]
            folder, ready = ROOT, "/livez"
        with running(command, cwd=folder, log=log, env=env | self.settings) as process:
            wait_until(lambda: answers(port, ready), process, log)
            wait_until(lambda: self._workers_started(log), process, log)
            yield Served(port, process.pid)

    def _workers_started(self, log: Path) -> bool:
        return log.read_text().count("Application startup complete") >= self.workers
