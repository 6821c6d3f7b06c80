"""HAProxy in front of the replicas, and what it is told while it runs."""

import csv
import shutil
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .load import HOST
from .processes import ProcessError, free_port, running, wait_until

UP_WITHIN = 20.0  # seconds

CONFIG = """\
global
    stats socket ipv4@{host}:{control} level admin

defaults
    mode {mode}
    balance leastconn
    timeout connect 1s
    # Longer than DEADLINE_SECONDS and than any pause in a stream.
    timeout client 300s
    timeout server 300s
    # A refused connection is tried with another replica. Nothing else is tried again: the replica
    # may have called OpenAI already.
    retries 3
    retry-on conn-failure
    option redispatch 1
    # A replica that is being stopped fails it, and gets no new requests.
    option httpchk GET /readyz
    default-server check inter 500ms fall 1 rise 1

frontend clients
    bind {host}:{port}
    default_backend replicas

backend replicas
{servers}
"""
# Of which replica an answer is. For HTTP alone: connections have no header fields.
NAMED = "    http-response set-header x-replica %s\n"


@dataclass(frozen=True)
class Balancer:
    port: int
    control: int
    pid: int

    def set_state(self, number: int, state: str) -> None:
        """`drain`: no new requests. `ready`: as its checks say. `maint`: neither."""
        self._tell(f"set server replicas/r{number} state {state}")

    def in_flight(self, number: int) -> int:
        """Requests at that replica now; connections, in mode tcp."""
        return int(self._state(number)["scur"])

    def wait_until_up(self, number: int) -> None:
        """Until its checks have seen that the replica is ready."""
        ends_at = time.monotonic() + UP_WITHIN
        while self._state(number)["status"] != "UP":
            if time.monotonic() > ends_at:
                raise ProcessError(f"HAProxy does not see replica {number}.")
            time.sleep(0.1)

    def _state(self, number: int) -> dict[str, str]:
        rows = csv.DictReader(self._tell("show stat").removeprefix("# ").splitlines())
        return next(row for row in rows if row["svname"] == f"r{number}")

    def _tell(self, command: str) -> str:
        with socket.create_connection((HOST, self.control), timeout=10) as control:
            control.sendall(command.encode() + b"\n")
            with control.makefile() as answer:
                return answer.read()


def haproxy() -> str:
    """Its path.

    Raises:
        ProcessError: it is not installed.
    """
    # Debian has it where only root looks.
    found = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
    if not found:
        raise ProcessError("This needs HAProxy: on Debian and Ubuntu, apt-get install haproxy.")
    return found


@contextmanager
def balancing(ports: Sequence[int], folder: Path, mode: str = "http") -> Iterator[Balancer]:
    """`mode`: `http` for a load balancer of requests, `tcp` for one of connections.

    Kubernetes' Services are of the second kind, its ingress controllers of the first.

    Raises:
        ProcessError: HAProxy is not installed, or does not start.
    """
    port, control = free_port(), free_port()
    servers = [f"    server r{n} {HOST}:{port}" for n, port in enumerate(ports)]
    config, log = folder / "haproxy.cfg", folder / "haproxy.log"
    config.write_text(
        CONFIG.format(
            host=HOST,
            port=port,
            control=control,
            mode=mode,
            servers=(NAMED if mode == "http" else "") + "\n".join(servers),
        )
    )
    with running([haproxy(), "-db", "-f", config], cwd=folder, log=log, env={}) as process:
        wait_until(lambda: _listens(port), process, log)
        yield Balancer(port, control, process.pid)


def _listens(port: int) -> bool:
    try:
        with socket.create_connection((HOST, port), timeout=2):
            return True
    except OSError:
        return False
