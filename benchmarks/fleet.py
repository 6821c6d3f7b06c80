"""Replicas of one project behind a load balancer, with one Redis and one upstream."""

import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from .balancer import Balancer, balancing
from .load import HOST
from .processes import ProcessError, answers, free_port, running, wait_until
from .upstream import Behaviour
from .workspace import PACKAGE, ROOT

ENDS_WITHIN = 45.0  # seconds: as long as Kubernetes is told to wait


class Redis:
    """On a port that stays the same. It keeps nothing when it ends."""

    def __init__(self, binary: str, folder: Path) -> None:
        self.port = free_port()
        self.uri = f"redis://{HOST}:{self.port}/0"
        self._binary = binary
        self._folder = folder
        self._stack = ExitStack()

    def start(self) -> None:
        command = [self._binary, "--port", str(self.port), "--bind", HOST, "--save", ""]
        log = self._folder / "redis.log"
        process = running(command, cwd=self._folder, log=log, env={})
        self.process = self._stack.enter_context(process)
        wait_until(self._answers, self.process, log)

    def stop(self) -> None:
        self._stack.close()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def scripts(self) -> tuple[int, int]:
        """How many it has run, each in a round trip, and the microseconds that they took."""
        for line in self._tell("INFO commandstats").splitlines():
            if line.startswith("cmdstat_evalsha:"):
                values = dict(part.split("=") for part in line.partition(":")[2].split(","))
                return int(values["calls"]), int(values["usec"])
        return 0, 0

    def _answers(self) -> bool:
        try:
            return self._tell("PING").startswith("+PONG")
        except OSError:
            return False

    def _tell(self, command: str) -> str:
        with socket.create_connection((HOST, self.port), timeout=10) as connection:
            connection.sendall(f"{command}\r\nQUIT\r\n".encode())
            with connection.makefile() as answer:
                return answer.read()


@dataclass
class Replica:
    number: int
    port: int
    command: list[str | Path]
    cwd: Path
    env: dict[str, str]
    log: Path
    _stack: ExitStack = field(default_factory=ExitStack)

    def start(self) -> None:
        process = running(self.command, cwd=self.cwd, log=self.log, env=self.env)
        self.process: subprocess.Popen[bytes] = self._stack.enter_context(process)

    def wait_until_ready(self) -> None:
        wait_until(lambda: answers(self.port, "/readyz"), self.process, self.log)

    def terminate(self) -> int:
        """Send SIGTERM and return the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(ENDS_WITHIN)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        self._stack.close()


@dataclass
class Fleet:
    replicas: list[Replica]
    balancer: Balancer
    upstream: int  # its port
    redis: Redis
    others: list[int]  # ids of the processes that are no replicas

    def seen(self) -> dict[str, Any]:
        """What the recorder has seen."""
        with urlopen(f"http://{HOST}:{self.upstream}/seen", timeout=10) as answer:
            found: dict[str, Any] = json.load(answer)
            return found


@dataclass(frozen=True)
class Fleets:
    """How to start one."""

    python: Path  # has what the project needs
    project: Path
    folder: Path  # for logs, of each fleet in a folder of its name

    @contextmanager
    def running(  # noqa: PLR0913  most of it by keyword
        self,
        count: int,
        upstream: Behaviour,
        settings: dict[str, str],
        *,
        app: str = "recorder",
        mode: str = "http",
        name: str = "fleet",
    ) -> Iterator[Fleet]:
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            redis = Redis(self._redis_server(), folder)
            redis.start()
            stack.callback(redis.stop)
            upstream_port, upstream_pid = stack.enter_context(self._upstream(app, upstream, folder))
            env = {
                "OPENAI_API_KEY": "sk-offline-needs-no-key",
                "OPENAI_BASE_URL": f"http://{HOST}:{upstream_port}/v1",
                "OPENAI_MODEL": "offline",
                "PYTHONPATH": str(self.project / "src"),
                "RATE_LIMIT_STORAGE_URI": redis.uri,
            } | settings
            replicas = [self._replica(number, env, folder) for number in range(count)]
            for replica in replicas:
                stack.callback(replica.close)
                replica.start()
            for replica in replicas:
                replica.wait_until_ready()
            ports = [replica.port for replica in replicas]
            balancer = stack.enter_context(balancing(ports, folder, mode))
            others = [balancer.pid, upstream_pid, redis.process.pid]
            yield Fleet(replicas, balancer, upstream_port, redis, others)

    def _replica(self, number: int, env: dict[str, str], folder: Path) -> Replica:
        port = free_port()
        log = folder / f"replica{number}.log"
        command: list[str | Path] = [self.python, "-m", PACKAGE]
        return Replica(number, port, command, self.project, env | {"PORT": str(port)}, log)

    @contextmanager
    def _upstream(self, app: str, behaviour: Behaviour, folder: Path) -> Iterator[tuple[int, int]]:
        """Its port and process id."""
        port, log = free_port(), folder / "upstream.log"
        command: list[str | Path] = [self.python, "-m", "uvicorn", f"benchmarks.{app}:app"]
        command += ["--no-access-log", "--lifespan", "off", "--port", str(port)]
        env = {"UPSTREAM": json.dumps(asdict(behaviour))}
        with running(command, cwd=ROOT, log=log, env=env) as process:
            wait_until(lambda: answers(port, "/v1/models/offline"), process, log)
            yield port, process.pid

    def _redis_server(self) -> str:
        """The generated project's tests know where one may be."""
        code = "from tests.redis_server import find_binary; print(find_binary() or '')"
        command = (self.python, "-c", code)
        env = os.environ | {"PYTHONPATH": str(self.project)}
        found = subprocess.run(
            command, cwd=self.project, env=env, capture_output=True, text=True, check=True
        ).stdout.strip()
        if not found and not (found := shutil.which("redis-server") or ""):
            raise ProcessError("This needs Redis: on Debian and Ubuntu, redis-server.")
        return found
