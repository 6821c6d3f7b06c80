"""`python -m` this package: the service, with its settings applied."""

import logging
import signal
import socket
import sys
from typing import NoReturn

import uvicorn
from uvicorn.supervisors import Multiprocess

from .app import STARTUP_FAILURE
from .server.logging import configure_logging
from .server.shutdown import CLOSING_SECONDS, SIGNALS
from .settings import SettingsError
from .upstream.connections import load_usable_settings
from .upstream.key_check import try_key_at_start
from .upstream.key_verdict import KeyStatus

logger = logging.getLogger(__name__)

EX_CONFIG = 78  # sysexits.h; Windows lacks `os.EX_CONFIG`


def main() -> None:
    # Until uvicorn handles them, and once it has stopped.
    for number in SIGNALS:
        signal.signal(number, lambda *_: sys.exit(0))
    try:
        settings = load_usable_settings()
        listener = listen(settings.host, settings.port)
        configure_logging(settings)
        # Before any worker starts: so a rejected key ends the process, with status 78.
        verdict = try_key_at_start(settings)
    except SettingsError as error:
        refuse(str(error))
    if verdict.status is KeyStatus.REJECTED:
        refuse(verdict.sentence)
    config = uvicorn.Config(
        f"{__package__}.app:create_app",
        factory=True,
        # uvloop takes one new connection a turn: under load, some wait for seconds to be let in.
        loop="asyncio",
        workers=settings.workers,
        timeout_graceful_shutdown=CLOSING_SECONDS,
        log_config=None,  # it is configured, and `create_app` does so in each worker
        access_log=False,
        server_header=False,
    )
    host, port = listener.getsockname()[:2]
    logger.info(
        "Listening on http://%s:%d (Ctrl-C stops the service)",
        f"[{host}]" if ":" in host else host,
        port,
    )
    if settings.workers > 1:
        supervisor = Multiprocess(config, sockets=[listener])
        supervisor.run()
        if any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes):
            sys.exit(STARTUP_FAILURE)
    else:
        uvicorn.Server(config).run(sockets=[listener])


def listen(host: str, port: int) -> socket.socket:
    """Bound here, for uvicorn would exit with another status and without naming the setting.

    Raises:
        SettingsError: HOST or PORT cannot be used.
    """
    try:
        found = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError):
        raise SettingsError(
            f"HOST is {host!r} (conda and some shells set it), which is no address: set it to"
            " 127.0.0.1, or to 0.0.0.0 to listen on every network."
        ) from None
    family, _, _, _, address = min(found)  # IPv4 before IPv6, where a name has both
    try:
        listener = socket.create_server(
            address,
            family=family,
            dualstack_ipv6=family == socket.AF_INET6 and socket.has_dualstack_ipv6(),
        )
    except OSError as error:
        raise SettingsError(
            f"HOST and PORT cannot be used: {error.strerror}: set HOST to an address of this"
            " machine, such as 127.0.0.1, and PORT to a free port above 1023."
        ) from None
    # Accepted connections inherit it. asyncio sets it only on sockets that it made itself; without
    # it, a response sent in two parts waits 40 ms for the client's delayed ACK.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def refuse(sentence: str) -> NoReturn:
    sys.stderr.write(f"{sentence}\n")
    sys.exit(EX_CONFIG)


if __name__ == "__main__":
    main()
