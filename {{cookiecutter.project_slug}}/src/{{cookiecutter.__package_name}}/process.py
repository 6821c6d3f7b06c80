"""Configures the process and runs the service, in workers if set."""

import gc
import logging
import os
import socket
import sys
import tempfile
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import NoReturn

import uvicorn
from fastapi import FastAPI
from uvicorn.supervisors import Multiprocess

from .app import create_app
from .server.auth import is_loopback
from .server.logging import configure_logging
from .server.metrics import MULTIPROC_DIR
from .server.redaction import redact_keys
from .server.shutdown import CLOSING_SECONDS
from .settings import IN_MEMORY, SettingsError
from .upstream.connections import load_usable_settings
from .upstream.key_check import KeyStatus, try_key_at_start

if sys.platform != "win32":
    import resource

logger = logging.getLogger(__name__)

# Longer than load balancers keep an idle connection (AWS and nginx 60 s, Google 600 s): one that
# sends a request while this side closes the connection answers 502.
KEEP_ALIVE_SECONDS = 620

EX_CONFIG = 78  # sysexits.h; Windows has no `os.EX_CONFIG`


def main() -> None:
    try:
        settings = load_usable_settings()
        listener = listen(settings.host, settings.port)
        address = listener.getsockname()[0]
        if not (is_loopback(address) or settings.service_api_keys or settings.allow_anonymous):
            raise SettingsError(
                f"HOST={settings.host} lets other machines call OpenAI at your cost: set"
                f" SERVICE_API_KEYS (`python -m {__package__}.keys new ID` makes one), or"
                " ALLOW_ANONYMOUS=true."
            )
        configure_logging(settings)
        # Before any worker starts, so that a rejected key ends the process with status 78.
        verdict = try_key_at_start(settings)
        if verdict.status is KeyStatus.REJECTED:
            raise SettingsError(verdict.sentence)
        directory = metrics_directory(settings.workers)
    except SettingsError as error:
        refuse(str(error))
    allow_many_connections()
    config = uvicorn.Config(
        # By name, for the workers.
        f"{__name__}:{create_app_and_tune_gc.__name__}",
        factory=True,
        # uvloop accepts one connection per iteration: under load, new ones wait for seconds.
        loop="asyncio",
        workers=settings.workers,
        timeout_graceful_shutdown=CLOSING_SECONDS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # the application reads them, as TRUSTED_PROXIES says
    )
    host, port = listener.getsockname()[:2]
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    logger.info("Listening on http://%s (Ctrl-C stops the service)", address)
    if settings.workers > 1:
        is_limited = settings.rate_limit or settings.token_limit
        if is_limited and settings.rate_limit_storage_uri.get_secret_value() == IN_MEMORY:
            logger.warning(
                "Each worker counts RATE_LIMIT and TOKEN_LIMIT for itself: set"
                " RATE_LIMIT_STORAGE_URI=redis://... to have them count together"
            )
        with directory as path:
            os.environ[MULTIPROC_DIR] = str(path)  # the workers inherit it
            Multiprocess(config, sockets=[listener]).run()
    else:
        uvicorn.Server(config).run(sockets=[listener])


def metrics_directory(workers: int) -> AbstractContextManager[str | None]:
    """The directory in which processes count together, if there are several.

    Raises:
        SettingsError: there is no place for it, or what the environment names is none.
    """
    given = os.environ.get(MULTIPROC_DIR)
    if given is not None:
        if not (Path(given).is_dir() and os.access(given, os.W_OK)):
            raise SettingsError(
                f"{MULTIPROC_DIR}={given} is no directory that can be written to: make it, or unset"
                " the variable."
            )
        return nullcontext(given)
    if workers == 1:
        return nullcontext()
    try:
        return tempfile.TemporaryDirectory(prefix="metrics-", ignore_cleanup_errors=True)
    except OSError as error:
        raise SettingsError(
            f"WORKERS need a writable directory for their metrics ({error.strerror}): mount one at"
            " /tmp, name one in TMPDIR, or set WORKERS=1."
        ) from None


def allow_many_connections() -> None:
    """Raise the limit of open files, usually 1,024, as far as the system allows."""
    if sys.platform != "win32":
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        with suppress(ValueError, OSError):  # macOS reports a limit that it does not accept
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def create_app_and_tune_gc() -> FastAPI:
    """Application factory, called by uvicorn in each process.

    Makes the garbage collector run less often and on fewer objects: with hundreds of concurrent
    calls, it took a fifth of the CPU. With a higher threshold, aborted TLS connections, which are
    large and in reference cycles, would stay in memory for too long.
    """
    app = create_app()
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000)
    return app


def listen(host: str, port: int) -> socket.socket:
    """Open the listening socket.

    uvicorn itself would exit with another status and not name the settings.

    Raises:
        SettingsError: HOST or PORT cannot be used.
    """
    is_ipv6 = ":" in host
    try:
        listener = socket.create_server(
            (host, port),
            family=socket.AF_INET6 if is_ipv6 else socket.AF_INET,
            dualstack_ipv6=is_ipv6 and socket.has_dualstack_ipv6(),
        )
    except (OSError, UnicodeError) as error:
        raise SettingsError(
            f"HOST={host!r} and PORT={port} cannot be listened on ({error}): set HOST to an address"
            " of this machine (conda and some shells set another), and PORT to a free port."
        ) from None
    # Accepted connections inherit it. Without it, a response sent in two parts waits 40 ms for the
    # client's delayed ACK. asyncio sets it only on sockets that it created itself.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def refuse(sentence: str) -> NoReturn:
    sys.stderr.write(f"{redact_keys(sentence)}\n")
    sys.exit(EX_CONFIG)
